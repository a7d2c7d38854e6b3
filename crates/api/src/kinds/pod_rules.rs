//! The rules of a pod spec, in pods and templates alike.

use std::collections::{BTreeMap, BTreeSet};

use meta::{FieldError, FieldPath, name};
use serde_json::Value;

use super::container_rules;
use super::rules::{self, Errors};
use super::tree::Read;
use super::volume_rules;

/// What the parts of a pod spec need to know of each other.
pub struct Seen {
    pub volumes: BTreeSet<String>,
    pub names: BTreeSet<String>,
}

pub fn pod_spec(errors: &mut Errors, spec: &Value, path: &FieldPath) {
    let volumes = volume_rules::volumes(errors, spec, &path.child("volumes"));
    let mut seen = Seen { volumes, names: BTreeSet::new() };
    if spec.items("containers").is_empty() {
        errors.push(FieldError::required(&path.child("containers"), ""));
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        container_rules::containers(errors, spec, list, &path.child(list), &mut seen);
    }
    host_ports(errors, spec, path);
    rules::one_of(errors, spec, path, "restartPolicy", &["Always", "OnFailure", "Never"]);
    rules::one_of(errors, spec, path, "dnsPolicy", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]);
    dns_config(errors, spec, path);
    for (key, value) in spec.entries("nodeSelector") {
        let path = path.child("nodeSelector");
        rules::each_invalid(errors, &path, key, name::qualified_name(key));
        let text = value.as_str().unwrap_or_default();
        rules::each_invalid(errors, &path, text, name::label_value(text));
    }
    names(errors, spec, path);
    tolerations(errors, spec, &path.child("tolerations"));
    numbers(errors, spec, path);
    security_context(errors, spec, path);
    affinity(errors, spec, &path.child("affinity"));
    spread(errors, spec, &path.child("topologySpreadConstraints"));
    for (index, alias) in spec.items("hostAliases").iter().enumerate() {
        let path = path.child("hostAliases").index(index);
        ip(errors, alias.text("ip"), &path.child("ip"));
        for (at, host) in alias.items("hostnames").iter().enumerate() {
            let host = host.as_str().unwrap_or_default();
            rules::each_invalid(errors, &path.child("hostnames").index(at), host, name::dns1123_subdomain(host));
        }
    }
}

pub fn ip(errors: &mut Errors, text: &str, path: &FieldPath) {
    if text.parse::<std::net::IpAddr>().is_err() {
        errors.push(FieldError::invalid(path, text, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"));
    }
}

/// Two containers of a pod cannot have the same port of the node, and on the node's own network a port is what it is.
fn host_ports(errors: &mut Errors, spec: &Value, path: &FieldPath) {
    let mut taken = BTreeSet::new();
    for list in ["initContainers", "containers"] {
        for (index, container) in spec.items(list).iter().enumerate() {
            for (at, port) in container.items("ports").iter().enumerate() {
                let Some(number) = port.number("hostPort").filter(|number| *number != 0) else { continue };
                let path = path.child(list).index(index).child("ports").index(at);
                if spec.flag("hostNetwork") && port.number("containerPort") != Some(number) {
                    let detail = "must match `hostPort` when `hostNetwork` is true";
                    errors.push(FieldError::invalid(
                        &path.child("containerPort"),
                        port["containerPort"].clone(),
                        detail,
                    ));
                }
                let key = format!("{}/{}/{number}", port.text("protocol"), port.text("hostIP"));
                if list == "containers" && !taken.insert(key.clone()) {
                    errors.push(FieldError::duplicate(&path.child("hostPort"), key));
                }
            }
        }
    }
}

fn names(errors: &mut Errors, spec: &Value, path: &FieldPath) {
    type Check = fn(&str) -> Vec<String>;
    let checks: [(&str, Check); 7] = [
        ("serviceAccountName", name::dns1123_subdomain),
        ("nodeName", name::dns1123_subdomain),
        ("hostname", name::dns1123_label),
        ("subdomain", name::dns1123_label),
        ("priorityClassName", name::dns1123_subdomain),
        ("runtimeClassName", name::dns1123_subdomain),
        ("schedulerName", name::qualified_name),
    ];
    for (field, check) in checks {
        let text = spec.text(field);
        if !text.is_empty() {
            rules::each_invalid(errors, &path.child(field), text, check(text));
        }
    }
    for (index, secret) in spec.items("imagePullSecrets").iter().enumerate() {
        if secret.text("name").is_empty() {
            errors.push(FieldError::required(&path.child("imagePullSecrets").index(index).child("name"), ""));
        }
    }
    let mut gates = BTreeSet::new();
    for (index, gate) in spec.items("schedulingGates").iter().enumerate() {
        let (path, text) = (path.child("schedulingGates").index(index), gate.text("name"));
        rules::each_invalid(errors, &path, text, name::qualified_name(text));
        if !gates.insert(text) {
            errors.push(FieldError::duplicate(&path, text));
        }
    }
}

fn numbers(errors: &mut Errors, spec: &Value, path: &FieldPath) {
    rules::non_negative(errors, spec, path, "terminationGracePeriodSeconds");
    if let Some(seconds) = spec.number("activeDeadlineSeconds")
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.push(FieldError::invalid(&path.child("activeDeadlineSeconds"), seconds, detail));
    }
}

fn dns_config(errors: &mut Errors, spec: &Value, path: &FieldPath) {
    let path = path.child("dnsConfig");
    let config = spec.get("dnsConfig").filter(|config| !config.is_null());
    let servers = config.map_or(&[][..], |config| config.items("nameservers"));
    if spec.text("dnsPolicy") == "None" && servers.is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(FieldError::required(&path.child("nameservers"), detail));
    }
    if servers.len() > 3 {
        errors.push(FieldError::invalid(
            &path.child("nameservers"),
            Value::from(servers.to_vec()),
            "must not have more than 3 nameservers",
        ));
    }
    for (index, server) in servers.iter().enumerate() {
        ip(errors, server.as_str().unwrap_or_default(), &path.child("nameservers").index(index));
    }
    let searches = config.map_or(&[][..], |config| config.items("searches"));
    if searches.len() > 32 {
        let shown = Value::from(searches.to_vec());
        errors.push(FieldError::invalid(&path.child("searches"), shown, "must not have more than 32 search paths"));
    }
    for (index, search) in searches.iter().enumerate() {
        // A dot at the end, or alone, is how DNS names its root.
        let search = search.as_str().unwrap_or_default();
        let text = if search == "." { search } else { search.strip_suffix('.').unwrap_or(search) };
        if text != "." {
            let wrong = name::dns1123_subdomain_with_underscore(text);
            rules::each_invalid(errors, &path.child("searches").index(index), text, wrong);
        }
    }
    for (index, option) in config.map_or(&[][..], |config| config.items("options")).iter().enumerate() {
        if option.text("name").is_empty() {
            errors.push(FieldError::required(&path.child("options").index(index), "must not be empty"));
        }
    }
}

pub fn tolerations(errors: &mut Errors, spec: &Value, path: &FieldPath) {
    for (index, toleration) in spec.items("tolerations").iter().enumerate() {
        let path = path.index(index);
        let (key, operator, effect) = (toleration.text("key"), toleration.text("operator"), toleration.text("effect"));
        if !key.is_empty() {
            rules::each_invalid(errors, &path.child("key"), key, name::qualified_name(key));
        } else if operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(&path.child("operator"), operator, detail));
        }
        if toleration.has("tolerationSeconds") && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(&path.child("effect"), effect, detail));
        }
        match operator {
            "" | "Equal" => {
                let value = toleration.text("value");
                rules::each_invalid(errors, &path.child("operator"), value, name::label_value(value));
            }
            "Exists" if !toleration.text("value").is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                errors.push(FieldError::invalid(&path.child("operator"), toleration["value"].clone(), detail));
            }
            "Exists" => {}
            other => {
                errors.push(FieldError::not_supported(&path.child("operator"), other, &["Equal", "Exists"]));
            }
        }
        if !effect.is_empty() && !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
            let supported = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
            errors.push(FieldError::not_supported(&path.child("effect"), effect, &supported));
        }
    }
}

fn security_context(errors: &mut Errors, spec: &Value, path: &FieldPath) {
    let path = path.child("securityContext");
    let Some(context) = spec.get("securityContext") else { return };
    container_rules::ids(errors, context, &path);
    for (index, group) in context.items("supplementalGroups").iter().enumerate() {
        container_rules::id(errors, group.as_i64(), &path.child("supplementalGroups").index(index));
    }
    if spec.flag("hostPID") && spec.flag("shareProcessNamespace") {
        let path = FieldPath::new("spec").child("securityContext").child("shareProcessNamespace");
        errors.push(FieldError::invalid(&path, true, "ShareProcessNamespace and HostPID cannot both be enabled"));
    }
    let mut sysctls: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, sysctl) in context.items("sysctls").iter().enumerate() {
        let (path, text) = (path.child("sysctls").index(index).child("name"), sysctl.text("name"));
        if text.is_empty() {
            errors.push(FieldError::required(&path, ""));
        } else if let Some(detail) = name::sysctl(text).pop() {
            errors.push(FieldError::invalid(&path, text, detail));
        } else if sysctls.insert(text, index).is_some() {
            errors.push(FieldError::duplicate(&path, text));
        }
    }
    container_rules::seccomp(errors, context, &path);
}

fn node_term(errors: &mut Errors, term: &Value, path: &FieldPath) {
    for (index, expression) in term.items("matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(index);
        let (operator, values) = (expression.text("operator"), expression.items("values"));
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(&path.child("values"), detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(&path.child("values"), detail));
            }
            "Gt" | "Lt" if values.len() != 1 => {
                let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                errors.push(FieldError::required(&path.child("values"), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => errors.push(FieldError::invalid(&path.child("operator"), other, "not a valid selector operator")),
        }
        let key = expression.text("key");
        rules::each_invalid(errors, &path.child("key"), key, name::qualified_name(key));
    }
}

fn affinity(errors: &mut Errors, spec: &Value, path: &FieldPath) {
    let Some(affinity) = spec.get("affinity") else { return };
    let (required, preferred) =
        ("requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution");
    if let Some(node) = affinity.get("nodeAffinity") {
        let path = path.child("nodeAffinity");
        if let Some(selector) = node.get(required).filter(|selector| !selector.is_null()) {
            let path = path.child(required).child("nodeSelectorTerms");
            if selector.items("nodeSelectorTerms").is_empty() {
                errors.push(FieldError::required(&path, "must have at least one node selector term"));
            }
            for (index, term) in selector.items("nodeSelectorTerms").iter().enumerate() {
                node_term(errors, term, &path.index(index));
            }
        }
        for (index, term) in node.items(preferred).iter().enumerate() {
            let path = path.child(preferred).index(index);
            weight(errors, term, &path);
            node_term(errors, &term["preference"], &path.child("preference"));
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(terms) = affinity.get(kind) else { continue };
        for (index, term) in terms.items(required).iter().enumerate() {
            pod_term(errors, term, &path.child(kind).child(required).index(index));
        }
        for (index, term) in terms.items(preferred).iter().enumerate() {
            let path = path.child(kind).child(preferred).index(index);
            weight(errors, term, &path);
            pod_term(errors, &term["podAffinityTerm"], &path.child("podAffinityTerm"));
        }
    }
}

fn weight(errors: &mut Errors, term: &Value, path: &FieldPath) {
    let weight = term.number("weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(&path.child("weight"), weight, "must be in the range 1-100"));
    }
}

fn pod_term(errors: &mut Errors, term: &Value, path: &FieldPath) {
    if let Some(selector) = term.get("labelSelector") {
        rules::label_selector(errors, selector, &path.child("labelSelector"));
    }
    let key = term.text("topologyKey");
    if key.is_empty() {
        errors.push(FieldError::required(&path.child("topologyKey"), "can not be empty"));
    }
    rules::each_invalid(errors, &path.child("topologyKey"), key, name::qualified_name(key));
}

fn spread(errors: &mut Errors, spec: &Value, path: &FieldPath) {
    for (index, constraint) in spec.items("topologySpreadConstraints").iter().enumerate() {
        let path = path.index(index);
        let skew = constraint.number("maxSkew").unwrap_or(0);
        if skew <= 0 {
            errors.push(FieldError::invalid(&path.child("maxSkew"), skew, "must be greater than zero"));
        }
        if constraint.text("topologyKey").is_empty() {
            errors.push(FieldError::required(&path.child("topologyKey"), "can not be empty"));
        }
        let when = constraint.text("whenUnsatisfiable");
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&when) {
            let supported = ["DoNotSchedule", "ScheduleAnyway"];
            errors.push(FieldError::not_supported(&path.child("whenUnsatisfiable"), when, &supported));
        }
        if let Some(selector) = constraint.get("labelSelector") {
            rules::label_selector(errors, selector, &path.child("labelSelector"));
        }
    }
}
