//! Service: a stable address for the pods its selector finds, with addresses and ports taken from the cluster's ranges.

mod leftover;

use std::collections::BTreeSet;
use std::net::IpAddr;

use async_trait::async_trait;
use meta::{FieldError, FieldPath, GroupKind, Object, Status, name};
use serde_json::{Value, json};

use super::pod_columns::or_none;
use super::pod_rules;
use super::rules::{self, Errors, stem};
use super::tree::{Read, Write};
use super::workload_columns::string;
use crate::columns::{Column, age_column, name_column};
use crate::strategy::{Allocators, Claim, IpFamily, Request, Strategy, keep_other_half};

pub struct Service;

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const AFFINITY_SECONDS: i64 = 10_800;

fn kind(service: &Object) -> &str {
    service.str_at(&["spec", "type"])
}

fn uses_node_ports(service: &Object) -> bool {
    match kind(service) {
        "NodePort" => true,
        "LoadBalancer" => service.get(&["spec", "allocateLoadBalancerNodePorts"]) != Some(&Value::Bool(false)),
        _ => false,
    }
}

fn addresses(service: &Object) -> Vec<IpAddr> {
    let list = service.list_at(&["spec", "clusterIPs"]).iter().filter_map(Value::as_str);
    let list: Vec<&str> =
        if list.clone().count() == 0 { vec![service.str_at(&["spec", "clusterIP"])] } else { list.collect() };
    list.into_iter().filter_map(|text| text.parse().ok()).collect()
}

fn node_ports(service: &Object) -> Vec<u16> {
    let ports = service.list_at(&["spec", "ports"]).iter().filter_map(|port| port.number("nodePort"));
    let health = service.i64_at(&["spec", "healthCheckNodePort"]);
    ports.chain(health).filter_map(|port| u16::try_from(port).ok()).filter(|port| *port != 0).collect()
}

#[async_trait]
impl Strategy for Service {
    fn set_defaults(&self, new: &mut Object) {
        let Some(spec) = new.0.get_mut("spec").filter(|spec| spec.is_object()) else { return };
        spec.default_plain("sessionAffinity", "None");
        if spec.text("sessionAffinity") == "None" {
            spec.drop_field("sessionAffinityConfig");
        } else if spec.pointer("/sessionAffinityConfig/clientIP/timeoutSeconds").is_none() {
            spec.put("sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": AFFINITY_SECONDS}}));
        }
        spec.default_plain("type", "ClusterIP");
        for port in spec.items_mut("ports") {
            port.default_plain("protocol", "TCP");
            let number = port.number("port").unwrap_or(0);
            port.default_plain("targetPort", number);
        }
        let kind = spec.text("type").to_string();
        let external = matches!(kind.as_str(), "NodePort" | "LoadBalancer")
            || (kind == "ClusterIP" && !spec.items("externalIPs").is_empty());
        if external {
            spec.default_plain("externalTrafficPolicy", "Cluster");
        }
        if kind != "ExternalName" {
            spec.default_pointer("internalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" {
            spec.default_pointer("allocateLoadBalancerNodePorts", true);
        }
    }

    fn before_create(&self, _: &Request, new: &mut Object) {
        new.set(&["status"], json!({"loadBalancer": {}}));
        sync_cluster_ips(new, None);
    }

    fn before_update(&self, request: &Request, new: &mut Object, old: &Object) {
        keep_other_half(request, new, old);
        if request.subresource != "status" {
            leftover::drop_of_old_type(new, old);
            keep_allocations(new, old);
            sync_cluster_ips(new, Some(old));
        }
    }

    async fn allocate(
        &self,
        allocators: &dyn Allocators,
        new: Option<&mut Object>,
        old: Option<&Object>,
    ) -> Result<Vec<Claim>, Status> {
        let Some(new) = new else { return Ok(no_longer_needed(None, old)) };
        allocate_addresses(allocators, new, old).await?;
        allocate_ports(allocators, new, old).await?;
        Ok(no_longer_needed(Some(new), old))
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        name::dns1123_label(&stem(name, prefix))
    }

    fn validate_create(&self, new: &Object) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let (spec, path) = (new.get(&["spec"]).cloned().unwrap_or_default(), FieldPath::new("spec"));
        let headless = spec.text("clusterIP") == "None";
        let kind = spec.text("type");
        if spec.items("ports").is_empty() && !headless && kind != "ExternalName" {
            errors.push(FieldError::required(&path.child("ports"), ""));
        }
        affinity(&mut errors, &spec, &path);
        rules::one_of(&mut errors, &spec, &path, "type", TYPES);
        if matches!(kind, "NodePort" | "LoadBalancer") && headless {
            let detail = format!("may not be set to 'None' for {kind} services");
            errors.push(FieldError::invalid(&path.child("clusterIPs").index(0), "None", detail));
        }
        if kind == "ExternalName" {
            external_name(&mut errors, &spec, &path);
        }
        ports(&mut errors, &spec, &path.child("ports"));
        for (key, value) in spec.entries("selector") {
            let (path, text) = (path.child("selector"), value.as_str().unwrap_or_default());
            rules::each_invalid(&mut errors, &path, key, name::qualified_name(key));
            rules::each_invalid(&mut errors, &path, text, name::label_value(text));
        }
        for (index, address) in spec.items("externalIPs").iter().enumerate() {
            pod_rules::ip(&mut errors, address.as_str().unwrap_or_default(), &path.child("externalIPs").index(index));
        }
        let external = spec.text("externalTrafficPolicy");
        if !["", "Cluster", "Local"].contains(&external) {
            let supported = ["Cluster", "Local"];
            errors.push(FieldError::not_supported(&path.child("externalTrafficPolicy"), external, &supported));
        }
        cluster_ips(&mut errors, &spec, &path);
        errors
    }

    fn validate_update(&self, request: &Request, new: &Object, old: &Object) -> Vec<FieldError> {
        if request.subresource == "status" {
            return Errors::new();
        }
        let mut errors = self.validate_create(new);
        let (before, after) = (addresses(old), addresses(new));
        if kind(old) != "ExternalName"
            && kind(new) != "ExternalName"
            && !before.is_empty()
            && before.first() != after.first()
        {
            let path = FieldPath::new("spec").child("clusterIPs").index(0);
            let shown = new.get(&["spec", "clusterIPs"]).cloned().unwrap_or_default();
            errors.push(FieldError::invalid(&path, shown, "may not change once set"));
        }
        errors
    }

    fn selectable_fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        vec![
            ("spec.clusterIP", object.str_at(&["spec", "clusterIP"]).to_string()),
            ("spec.type", kind(object).to_string()),
        ]
    }

    fn acted_upon(&self) -> bool {
        true
    }
}

/// `clusterIP` and the first of `clusterIPs` say the same; whichever was changed wins.
fn sync_cluster_ips(new: &mut Object, old: Option<&Object>) {
    if kind(new) == "ExternalName" {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            new.remove(&["spec", field]);
        }
        return;
    }
    let single = new.str_at(&["spec", "clusterIP"]).to_string();
    let first = new.list_at(&["spec", "clusterIPs"]).first().and_then(Value::as_str).unwrap_or_default().to_string();
    let single_changed = old.is_none_or(|old| old.str_at(&["spec", "clusterIP"]) != single);
    if !single.is_empty() && (first.is_empty() || (single_changed && old.is_some() && first != single)) {
        new.set(&["spec", "clusterIPs"], json!([single]));
    } else if single.is_empty() && !first.is_empty() {
        new.set(&["spec", "clusterIP"], first);
    }
}

/// A client that writes a service back without what the server gave it keeps it.
fn keep_allocations(new: &mut Object, old: &Object) {
    if kind(new) == "ExternalName" || kind(old) == "ExternalName" {
        return;
    }
    if new.str_at(&["spec", "clusterIP"]).is_empty() && new.list_at(&["spec", "clusterIPs"]).is_empty() {
        for field in ["clusterIP", "clusterIPs"] {
            if let Some(value) = old.get(&["spec", field]) {
                new.set(&["spec", field], value.clone());
            }
        }
    }
    if !uses_node_ports(new) || !uses_node_ports(old) {
        return;
    }
    let taken: BTreeSet<u16> = node_ports(new).into_iter().collect();
    let old_ports = old.list_at(&["spec", "ports"]).to_vec();
    for port in new.0.get_mut("spec").into_iter().flat_map(|spec| spec.items_mut("ports")) {
        if port.number("nodePort").unwrap_or(0) != 0 {
            continue;
        }
        let same = |other: &&Value| {
            other.number("port") == port.number("port") && other.text("protocol") == port.text("protocol")
        };
        let kept = old_ports.iter().find(same).and_then(|other| other.number("nodePort"));
        if let Some(kept) = kept.filter(|kept| u16::try_from(*kept).is_ok_and(|kept| !taken.contains(&kept))) {
            port.put("nodePort", kept);
        }
    }
}

fn family_name(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => "IPv4",
        IpFamily::V6 => "IPv6",
    }
}

fn family_of(address: &IpAddr) -> IpFamily {
    if address.is_ipv4() { IpFamily::V4 } else { IpFamily::V6 }
}

/// The families a service is to have addresses of, by what it asks for and what the cluster has.
fn families(allocators: &dyn Allocators, service: &Object) -> Vec<IpFamily> {
    let cluster = allocators.families();
    let named = service.list_at(&["spec", "ipFamilies"]).iter().filter_map(|family| match family.as_str() {
        Some("IPv4") => Some(IpFamily::V4),
        Some("IPv6") => Some(IpFamily::V6),
        _ => None,
    });
    let mut families: Vec<IpFamily> = named.collect();
    if families.is_empty() {
        families.extend(addresses(service).iter().map(family_of));
    }
    if families.is_empty() {
        families.extend(cluster.first());
    }
    if matches!(service.str_at(&["spec", "ipFamilyPolicy"]), "PreferDualStack" | "RequireDualStack") {
        let missing: Vec<IpFamily> = cluster.into_iter().filter(|family| !families.contains(family)).collect();
        families.extend(missing);
    }
    families
}

fn refuse(service: &Object, error: FieldError) -> Status {
    Status::invalid(&GroupKind::new("", "Service"), service.name(), &[error])
}

async fn allocate_addresses(allocators: &dyn Allocators, new: &mut Object, old: Option<&Object>) -> Result<(), Status> {
    if kind(new) == "ExternalName" {
        return Ok(());
    }
    let families = families(allocators, new);
    let names: Vec<&str> = families.iter().copied().map(family_name).collect();
    new.set(&["spec", "ipFamilies"], json!(names));
    new.set_default(&["spec", "ipFamilyPolicy"], "SingleStack");
    if new.str_at(&["spec", "clusterIP"]) == "None" {
        new.set(&["spec", "clusterIPs"], json!(["None"]));
        return Ok(());
    }
    let (wanted, kept) = (addresses(new), old.map(addresses).unwrap_or_default());
    let mut given = Vec::new();
    for family in families {
        let wanted = wanted.iter().copied().find(|address| family_of(address) == family);
        if let Some(address) = wanted.filter(|address| kept.contains(address)) {
            given.push(address.to_string());
            continue;
        }
        let address = allocators.service_address(new, family, wanted).await.map_err(|why| {
            let shown = wanted.map(|address| address.to_string());
            let value = shown.map_or_else(|| json!([]), |address| json!([address]));
            refuse(new, FieldError::invalid(&FieldPath::new("spec").child("clusterIPs"), value, why))
        })?;
        given.push(address.to_string());
    }
    new.set(&["spec", "clusterIP"], given.first().cloned().unwrap_or_default());
    new.set(&["spec", "clusterIPs"], json!(given));
    Ok(())
}

async fn allocate_ports(allocators: &dyn Allocators, new: &mut Object, old: Option<&Object>) -> Result<(), Status> {
    if !uses_node_ports(new) {
        return Ok(());
    }
    let kept = old.map(node_ports).unwrap_or_default();
    let mut ports = new.list_at(&["spec", "ports"]).to_vec();
    // The same number may serve two protocols of one service.
    let mut own: Vec<u16> = Vec::new();
    for (index, port) in ports.iter_mut().enumerate() {
        let wanted = port.number("nodePort").and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
        if let Some(number) = wanted.filter(|number| kept.contains(number) || own.contains(number)) {
            own.push(number);
            continue;
        }
        let number = allocators.node_port(wanted).await.map_err(|why| {
            let path = FieldPath::new("spec").child("ports").index(index).child("nodePort");
            refuse(new, FieldError::invalid(&path, wanted.unwrap_or(0), why))
        })?;
        own.push(number);
        port.put("nodePort", number);
    }
    new.set(&["spec", "ports"], ports);
    Ok(())
}

fn no_longer_needed(new: Option<&Object>, old: Option<&Object>) -> Vec<Claim> {
    let Some(old) = old else { return Vec::new() };
    let (kept_addresses, kept_ports) = new.map(|new| (addresses(new), node_ports(new))).unwrap_or_default();
    let addresses = addresses(old).into_iter().filter(|it| !kept_addresses.contains(it)).map(Claim::ServiceAddress);
    let ports = node_ports(old).into_iter().filter(|it| !kept_ports.contains(it)).map(Claim::NodePort);
    addresses.chain(ports).collect()
}

fn external_name(errors: &mut Errors, spec: &Value, path: &FieldPath) {
    let text = spec.text("externalName").trim_end_matches('.');
    let path = path.child("externalName");
    if text.is_empty() {
        errors.push(FieldError::required(&path, ""));
    } else {
        rules::each_invalid(errors, &path, text, name::dns1123_subdomain(text));
    }
}

fn ports(errors: &mut Errors, spec: &Value, path: &FieldPath) {
    let ports = spec.items("ports");
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let text = port.text("name");
        if text.is_empty() && ports.len() > 1 {
            errors.push(FieldError::required(&path.child("name"), ""));
        } else if !text.is_empty() {
            rules::each_invalid(errors, &path.child("name"), text, name::dns1123_label(text));
            if !names.insert(text) {
                errors.push(FieldError::duplicate(&path.child("name"), text));
            }
        }
        let number = port.number("port").unwrap_or(0);
        errors.extend(
            name::port_number(number).into_iter().map(|it| FieldError::invalid(&path.child("port"), number, it)),
        );
        rules::one_of(errors, port, &path, "protocol", &["SCTP", "TCP", "UDP"]);
        rules::port_number_or_name(errors, port.get("targetPort"), &path.child("targetPort"));
        if !numbers.insert((port.text("protocol"), number)) {
            let shown = json!({"port": number, "protocol": port.text("protocol")});
            errors.push(FieldError::duplicate(&path, shown));
        }
        if port.number("nodePort").unwrap_or(0) != 0 && matches!(spec.text("type"), "ClusterIP" | "ExternalName") {
            let detail = "may not be used when `type` is 'ClusterIP'";
            errors.push(FieldError::forbidden(&path.child("nodePort"), detail));
        }
    }
}

fn affinity(errors: &mut Errors, spec: &Value, path: &FieldPath) {
    rules::one_of(errors, spec, path, "sessionAffinity", &["ClientIP", "None"]);
    let seconds = spec.pointer("/sessionAffinityConfig/clientIP/timeoutSeconds").and_then(Value::as_i64);
    if let Some(seconds) = seconds.filter(|seconds| !(1..=86_400).contains(seconds)) {
        let path = path.child("sessionAffinityConfig").child("clientIP").child("timeoutSeconds");
        errors.push(FieldError::invalid(&path, seconds, "must be greater than 0 && less than 86400"));
    }
}

fn cluster_ips(errors: &mut Errors, spec: &Value, path: &FieldPath) {
    for (index, address) in spec.items("clusterIPs").iter().enumerate() {
        let text = address.as_str().unwrap_or_default();
        if text != "None" && text.parse::<IpAddr>().is_err() {
            pod_rules::ip(errors, text, &path.child("clusterIPs").index(index));
        }
    }
    if let Some(first) = spec.items("clusterIPs").first().and_then(Value::as_str)
        && first != spec.text("clusterIP")
    {
        let detail = "first value must match `clusterIP`";
        errors.push(FieldError::invalid(&path.child("clusterIPs"), spec["clusterIPs"].clone(), detail));
    }
}

pub fn columns() -> Vec<Column> {
    vec![
        name_column(),
        string("Type", 0, |it, _| kind(it).into()),
        string("Cluster-IP", 0, |it, _| or_none(it.str_at(&["spec", "clusterIP"]))),
        string("External-IP", 0, |it, _| external_ip(it).into()),
        string("Port(s)", 0, |it, _| port_list(it).into()),
        age_column(),
        string("Selector", 1, |it, _| {
            let selector = it.get(&["spec", "selector"]).and_then(Value::as_object);
            let pairs = selector
                .into_iter()
                .flatten()
                .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
            or_none(&pairs.collect::<Vec<_>>().join(","))
        }),
    ]
}

fn external_ip(service: &Object) -> String {
    let ingress = service.list_at(&["status", "loadBalancer", "ingress"]);
    let balanced = ingress.iter().map(|it| if it.text("ip").is_empty() { it.text("hostname") } else { it.text("ip") });
    let own = service.list_at(&["spec", "externalIPs"]).iter().filter_map(Value::as_str);
    let all: Vec<&str> = match kind(service) {
        "ExternalName" => return service.str_at(&["spec", "externalName"]).to_string(),
        "LoadBalancer" => balanced.chain(own).collect(),
        _ => own.collect(),
    };
    match (all.is_empty(), kind(service)) {
        (true, "LoadBalancer") => "<pending>".to_string(),
        (true, _) => "<none>".to_string(),
        (false, _) => all.join(","),
    }
}

fn port_list(service: &Object) -> String {
    let ports = service.list_at(&["spec", "ports"]).iter().map(|port| {
        let (number, protocol) = (port.number("port").unwrap_or(0), port.text("protocol"));
        match port.number("nodePort").filter(|port| *port > 0) {
            Some(node) => format!("{number}:{node}/{protocol}"),
            None => format!("{number}/{protocol}"),
        }
    });
    let list = ports.collect::<Vec<_>>().join(",");
    if list.is_empty() { "<none>".to_string() } else { list }
}
