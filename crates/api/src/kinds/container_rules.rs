//! The rules of containers: regular, init and ephemeral.

use std::collections::BTreeSet;

use meta::{FieldError, FieldPath, name};
use serde_json::Value;

use super::pod_rules::Seen;
use super::rules::{self, Errors};
use super::tree::Read;

pub fn containers(errors: &mut Errors, spec: &Value, list: &str, path: &FieldPath, seen: &mut Seen) {
    let mut ports = BTreeSet::new();
    for (index, container) in spec.items(list).iter().enumerate() {
        let path = path.index(index);
        let text = container.text("name");
        if text.is_empty() {
            errors.push(FieldError::required(&path.child("name"), ""));
        } else {
            rules::each_invalid(errors, &path.child("name"), text, name::dns1123_label(text));
        }
        if !seen.names.insert(text.to_string()) && !text.is_empty() {
            errors.push(FieldError::duplicate(&path.child("name"), text));
        }
        one(errors, container, &path, seen);
        kind_of_container(errors, container, list, &path);
        for (at, port) in container.items("ports").iter().enumerate() {
            container_port(errors, port, &path.child("ports").index(at), &mut ports);
        }
    }
}

/// What only some lists allow.
fn kind_of_container(errors: &mut Errors, container: &Value, list: &str, path: &FieldPath) {
    let policy = container.text("restartPolicy");
    if list == "initContainers" {
        let sidecar = policy == "Always";
        for field in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
            if container.has(field) && !sidecar {
                let detail = "may not be set for init containers without restartPolicy=Always";
                errors.push(FieldError::forbidden(&path.child(field), detail));
            }
        }
    }
    if list == "ephemeralContainers" {
        for field in ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
            if container.has(field) {
                errors.push(FieldError::forbidden(&path.child(field), "cannot be set for an Ephemeral Container"));
            }
        }
    }
}

fn one(errors: &mut Errors, container: &Value, path: &FieldPath, seen: &Seen) {
    let image = container.text("image");
    if image.is_empty() {
        errors.push(FieldError::required(&path.child("image"), ""));
    } else if image.trim() != image {
        let detail = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(&path.child("image"), image, detail));
    }
    rules::one_of(errors, container, path, "terminationMessagePolicy", &["File", "FallbackToLogsOnError"]);
    environment(errors, container, path);
    mounts(errors, container, path, seen);
    rules::one_of(errors, container, path, "imagePullPolicy", &["Always", "IfNotPresent", "Never"]);
    for field in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(found) = container.get(field).filter(|probe| !probe.is_null()) {
            probe(errors, found, &path.child(field), field);
        }
    }
    if let Some(lifecycle) = container.get("lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(found) = lifecycle.get(hook).filter(|hook| !hook.is_null()) {
                handler(
                    errors,
                    found,
                    &path.child("lifecycle").child(hook),
                    &["exec", "httpGet", "tcpSocket", "sleep"],
                );
            }
        }
    }
    resources(errors, container, &path.child("resources"));
    if let Some(context) = container.get("securityContext").filter(|context| !context.is_null()) {
        security_context(errors, context, &path.child("securityContext"));
    }
}

fn container_port<'a>(errors: &mut Errors, port: &'a Value, path: &FieldPath, names: &mut BTreeSet<&'a str>) {
    let text = port.text("name");
    if !text.is_empty() {
        rules::each_invalid(errors, &path.child("name"), text, name::port_name(text));
        if !names.insert(text) {
            errors.push(FieldError::duplicate(&path.child("name"), text));
        }
    }
    match port.number("containerPort").unwrap_or(0) {
        0 => errors.push(FieldError::required(&path.child("containerPort"), "")),
        number => invalid_numbers(errors, number, &path.child("containerPort")),
    }
    if let Some(number) = port.number("hostPort").filter(|number| *number != 0) {
        invalid_numbers(errors, number, &path.child("hostPort"));
    }
    rules::one_of(errors, port, path, "protocol", &["SCTP", "TCP", "UDP"]);
}

fn invalid_numbers(errors: &mut Errors, number: i64, path: &FieldPath) {
    errors.extend(name::port_number(number).into_iter().map(|detail| FieldError::invalid(path, number, detail)));
}

fn environment(errors: &mut Errors, container: &Value, path: &FieldPath) {
    for (index, variable) in container.items("env").iter().enumerate() {
        let path = path.child("env").index(index);
        let text = variable.text("name");
        if text.is_empty() {
            errors.push(FieldError::required(&path.child("name"), ""));
        } else {
            rules::each_invalid(errors, &path.child("name"), text, name::environment_variable(text));
        }
        let Some(from) = variable.get("valueFrom").filter(|from| !from.is_null()) else { continue };
        let path = path.child("valueFrom");
        let sources = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
        if let Some(field) = from.get("fieldRef").filter(|it| !it.is_null()) {
            field_ref(errors, field, &path.child("fieldRef"), ENV_FIELDS);
        }
        for source in ["configMapKeyRef", "secretKeyRef"] {
            if let Some(reference) = from.get(source).filter(|it| !it.is_null()) {
                let (path, key) = (path.child(source), reference.text("key"));
                if key.is_empty() {
                    errors.push(FieldError::required(&path.child("key"), ""));
                } else {
                    rules::each_invalid(errors, &path.child("key"), key, name::config_key(key));
                }
            }
        }
        let given = sources.into_iter().filter(|source| from.has(source)).count();
        if given == 0 {
            let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
            errors.push(FieldError::invalid(&path, "", detail));
        } else if !variable.text("value").is_empty() {
            errors.push(FieldError::invalid(&path, "", "may not be specified when `value` is not empty"));
        } else if given > 1 {
            errors.push(FieldError::invalid(&path, "", "may not have more than one field specified at a time"));
        }
    }
    for (index, source) in container.items("envFrom").iter().enumerate() {
        let path = path.child("envFrom").index(index);
        let given = ["configMapRef", "secretRef"].into_iter().filter(|field| source.has(field)).count();
        match given {
            0 => errors.push(FieldError::invalid(&path, "", "must specify one of: `configMapRef` or `secretRef`")),
            1 => {}
            _ => errors.push(FieldError::invalid(&path, "", "may not have more than one field specified at a time")),
        }
    }
}

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// What the downward API can say at all; which place takes what is a rule of its own.
const DOWNWARD_FIELDS: [&str; 15] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
    "spec.host",
];

/// A reference to a field of the pod itself.
pub fn field_ref(errors: &mut Errors, field: &Value, path: &FieldPath, supported: &[&str]) {
    let text = field.text("fieldPath");
    if text.is_empty() {
        errors.push(FieldError::required(&path.child("fieldPath"), ""));
        return;
    }
    let subscript = text
        .split_once("['")
        .filter(|(base, rest)| matches!(*base, "metadata.labels" | "metadata.annotations") && rest.ends_with("']"));
    if subscript.is_none() && !DOWNWARD_FIELDS.contains(&text) {
        let detail = format!("error converting fieldPath: field label not supported: {text}");
        errors.push(FieldError::invalid(&path.child("fieldPath"), text, detail));
    } else if subscript.is_none() && !supported.contains(&text) {
        errors.push(FieldError::not_supported(&path.child("fieldPath"), text, supported));
    }
}

fn mounts(errors: &mut Errors, container: &Value, path: &FieldPath, seen: &Seen) {
    let mut points = BTreeSet::new();
    for (index, mount) in container.items("volumeMounts").iter().enumerate() {
        // Upstream does not say which mount a path below a volume is of.
        let all = path.child("volumeMounts");
        let path = all.index(index);
        let (text, point) = (mount.text("name"), mount.text("mountPath"));
        if text.is_empty() {
            errors.push(FieldError::required(&path.child("name"), ""));
        } else if !seen.volumes.contains(text) {
            errors.push(FieldError::not_found(&path.child("name"), text));
        }
        if point.is_empty() {
            errors.push(FieldError::required(&path.child("mountPath"), ""));
        } else if !points.insert(point) {
            errors.push(FieldError::invalid(&path.child("mountPath"), point, "must be unique"));
        }
        for field in ["subPath", "subPathExpr"] {
            local_path(errors, mount.text(field), &all.child(field));
        }
        if !mount.text("subPath").is_empty() && !mount.text("subPathExpr").is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.push(FieldError::invalid(&path.child("subPathExpr"), mount.text("subPathExpr"), detail));
        }
    }
}

/// A path that stays below where it starts.
pub fn local_path(errors: &mut Errors, text: &str, path: &FieldPath) {
    if text.starts_with('/') {
        errors.push(FieldError::invalid(path, text, "must be a relative path"));
    }
    if text.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path, text, "must not contain '..'"));
    }
}

fn probe(errors: &mut Errors, probe: &Value, path: &FieldPath, field: &str) {
    handler(errors, probe, path, &["exec", "httpGet", "tcpSocket", "grpc"]);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        rules::non_negative(errors, probe, path, field);
    }
    let threshold = probe.number("successThreshold").unwrap_or(1);
    if field != "readinessProbe" && threshold != 1 {
        errors.push(FieldError::invalid(&path.child("successThreshold"), threshold, "must be 1"));
    }
    match probe.number("terminationGracePeriodSeconds") {
        Some(_) if field == "readinessProbe" => {
            let detail = "must not be set for readinessProbes";
            errors.push(FieldError::invalid(&path.child("terminationGracePeriodSeconds"), Value::Null, detail));
        }
        Some(seconds) if seconds <= 0 => {
            let detail = "must be greater than 0";
            errors.push(FieldError::invalid(&path.child("terminationGracePeriodSeconds"), seconds, detail));
        }
        _ => {}
    }
}

fn handler(errors: &mut Errors, handler: &Value, path: &FieldPath, kinds: &[&str]) {
    let given: Vec<&str> = kinds.iter().copied().filter(|kind| handler.has(kind)).collect();
    if given.is_empty() {
        errors.push(FieldError::required(path, "must specify a handler type"));
    }
    for extra in given.iter().skip(1) {
        errors.push(FieldError::forbidden(&path.child(extra), "may not specify more than 1 handler type"));
    }
    let Some(kind) = given.first() else { return };
    let (body, path) = (&handler[*kind], path.child(kind));
    match *kind {
        "exec" if body.items("command").is_empty() => errors.push(FieldError::required(&path.child("command"), "")),
        "httpGet" => {
            if body.text("path").is_empty() {
                errors.push(FieldError::required(&path.child("path"), ""));
            }
            rules::port_number_or_name(errors, body.get("port"), &path.child("port"));
            rules::one_of(errors, body, &path, "scheme", &["HTTP", "HTTPS"]);
        }
        "tcpSocket" | "grpc" => rules::port_number_or_name(errors, body.get("port"), &path.child("port")),
        _ => {}
    }
}

fn resources(errors: &mut Errors, container: &Value, path: &FieldPath) {
    let Some(resources) = container.get("resources") else { return };
    let mut limits = std::collections::BTreeMap::new();
    for (key, value) in resources.entries("limits") {
        resource_name(errors, key, &path.child("limits"));
        if let Some(limit) = rules::quantity(errors, value, &path.child("limits").key(key)) {
            limits.insert(key.clone(), limit);
        }
    }
    for (key, value) in resources.entries("requests") {
        resource_name(errors, key, &path.child("requests"));
        let path = path.child("requests").key(key);
        let Some(request) = rules::quantity(errors, value, &path) else { continue };
        match limits.get(key) {
            Some(limit) if request > *limit => {
                let detail = format!("must be less than or equal to {key} limit of {limit}");
                errors.push(FieldError::invalid(&FieldPath::new(&parent(&path)), request.to_string(), detail));
            }
            Some(limit) if !may_overcommit(key) && request != *limit => {
                let detail = format!("must be equal to {key} limit of {limit}");
                errors.push(FieldError::invalid(&FieldPath::new(&parent(&path)), request.to_string(), detail));
            }
            None if !may_overcommit(key) => {
                let detail = "Limit must be set for non overcommitable resources";
                errors.push(FieldError::required(&FieldPath::new(&parent(&path)).key(key), detail));
            }
            _ => {}
        }
    }
}

/// `...requests[cpu]` without the key: upstream names the map.
fn parent(path: &FieldPath) -> String {
    let text = path.to_string();
    text.rsplit_once('[').map_or(text.clone(), |(parent, _)| parent.to_string())
}

fn may_overcommit(resource: &str) -> bool {
    !resource.contains('/') && !resource.starts_with("hugepages-")
}

fn resource_name(errors: &mut Errors, resource: &str, path: &FieldPath) {
    let path = path.key(resource);
    rules::each_invalid(errors, &path, resource, name::qualified_name(resource));
    if !resource.contains('/') && !is_standard(resource) {
        errors.push(FieldError::invalid(&path, resource, "must be a standard resource type or fully qualified"));
    }
    let known = ["cpu", "memory", "ephemeral-storage"].contains(&resource) || resource.starts_with("hugepages-");
    if !resource.contains('/') && !known {
        errors.push(FieldError::invalid(&path, resource, "must be a standard resource for containers"));
    }
}

/// Whether upstream knows the resource, in containers or in quotas.
fn is_standard(resource: &str) -> bool {
    let counted = ["cpu", "memory", "ephemeral-storage", "storage"];
    let others = [
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
    ];
    let bare = resource.strip_prefix("requests.").or_else(|| resource.strip_prefix("limits.")).unwrap_or(resource);
    let is_pages = bare.starts_with("hugepages-") && !resource.starts_with("limits.");
    is_pages || (counted.contains(&bare) && resource != "limits.storage") || others.contains(&resource)
}

/// The context as upstream's errors show it: Go's own fields, the absent ones as nulls.
fn internal_context(context: &Value) -> String {
    let fields = [
        ("Capabilities", "capabilities"),
        ("Privileged", "privileged"),
        ("SELinuxOptions", "seLinuxOptions"),
        ("WindowsOptions", "windowsOptions"),
        ("RunAsUser", "runAsUser"),
        ("RunAsGroup", "runAsGroup"),
        ("RunAsNonRoot", "runAsNonRoot"),
        ("ReadOnlyRootFilesystem", "readOnlyRootFilesystem"),
        ("AllowPrivilegeEscalation", "allowPrivilegeEscalation"),
        ("ProcMount", "procMount"),
        ("SeccompProfile", "seccompProfile"),
        ("AppArmorProfile", "appArmorProfile"),
    ];
    let pairs = fields.map(|(name, field)| format!("{name:?}:{}", context.get(field).unwrap_or(&Value::Null)));
    format!("{{{}}}", pairs.join(","))
}

fn security_context(errors: &mut Errors, context: &Value, path: &FieldPath) {
    ids(errors, context, path);
    seccomp(errors, context, path);
    if !context.has("allowPrivilegeEscalation") || context.flag("allowPrivilegeEscalation") {
        return;
    }
    if context.flag("privileged") {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.push(FieldError::invalid(path, context.clone(), detail).shown_as(internal_context(context)));
    }
    let added = context.get("capabilities").map_or(&[][..], |capabilities| capabilities.items("add"));
    if added.iter().any(|capability| capability == "CAP_SYS_ADMIN") {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        errors.push(FieldError::invalid(path, context.clone(), detail).shown_as(internal_context(context)));
    }
}

pub fn seccomp(errors: &mut Errors, context: &Value, path: &FieldPath) {
    let Some(profile) = context.get("seccompProfile").filter(|profile| !profile.is_null()) else { return };
    let path = path.child("seccompProfile");
    let (kind, local) = (profile.text("type"), profile.text("localhostProfile"));
    match kind {
        "Localhost" if local.is_empty() => {
            let detail = "must be set when seccomp type is Localhost ";
            errors.push(FieldError::required(&path.child("localhostProfile"), detail));
        }
        "Localhost" => local_path(errors, local, &path.child("localhostProfile")),
        "RuntimeDefault" | "Unconfined" if profile.has("localhostProfile") => {
            let detail = "can only be set when seccomp type is Localhost";
            errors.push(FieldError::invalid(&path.child("localhostProfile"), local, detail));
        }
        "RuntimeDefault" | "Unconfined" => {}
        "" => errors.push(FieldError::required(&path.child("type"), "type is required when seccompProfile is set")),
        other => {
            let supported = ["Localhost", "RuntimeDefault", "Unconfined"];
            errors.push(FieldError::not_supported(&path.child("type"), other, &supported));
        }
    }
}

/// User and group numbers.
pub fn ids(errors: &mut Errors, context: &Value, path: &FieldPath) {
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        if context.has(field) {
            id(errors, context.number(field), &path.child(field));
        }
    }
}

pub fn id(errors: &mut Errors, id: Option<i64>, path: &FieldPath) {
    let id = id.unwrap_or(-1);
    if !(0..=i64::from(i32::MAX)).contains(&id) {
        errors.push(FieldError::invalid(path, id, "must be between 0 and 2147483647, inclusive"));
    }
}
