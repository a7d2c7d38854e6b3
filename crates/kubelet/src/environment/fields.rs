//! The downward API: fields of the pod and amounts of its containers as text, for variables and files alike.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use meta::Quantity;

use crate::pod;

/// What a pod may learn about its node.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    pub name: &'a str,
    pub ips: &'a [IpAddr],
    /// The addresses of the pod's sandbox; empty before there is one.
    pub pod_ips: &'a [String],
    /// Stands in for limits that are not set: what the node can allocate.
    pub allocatable: &'a BTreeMap<String, Quantity>,
}

/// A field by its path.
pub fn pod_field(pod: &Pod, path: &str, node: &Node<'_>) -> Result<String, String> {
    if let Some((base, key)) = path.strip_suffix(']').and_then(|open| open.split_once("['")) {
        let key = key.strip_suffix('\'').ok_or_else(|| unsupported(path))?;
        let map = match base {
            "metadata.annotations" => &pod.metadata.annotations,
            "metadata.labels" => &pod.metadata.labels,
            _ => return Err(unsupported(path)),
        };
        return Ok(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    let addresses = || node.ips.iter().map(IpAddr::to_string).collect::<Vec<_>>();
    let pod_ips = || {
        if pod::spec(pod).host_network.unwrap_or(false) { addresses() } else { node.pod_ips.to_vec() }
    };
    Ok(match path {
        "metadata.name" => pod::name(pod).to_string(),
        "metadata.namespace" => pod::namespace(pod).to_string(),
        "metadata.uid" => pod::uid(pod).to_string(),
        "metadata.labels" => map_text(pod.metadata.labels.as_ref()),
        "metadata.annotations" => map_text(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => node.name.to_string(),
        "spec.serviceAccountName" => pod::spec(pod).service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => addresses().into_iter().next().unwrap_or_default(),
        "status.hostIPs" => addresses().join(","),
        "status.podIP" => pod_ips().into_iter().next().unwrap_or_default(),
        "status.podIPs" => pod_ips().join(","),
        _ => return Err(unsupported(path)),
    })
}

fn unsupported(path: &str) -> String {
    format!("unsupported fieldPath: {path}")
}

/// One `key="value"` line per entry, as files of labels and annotations are written.
fn map_text(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value)));
    lines.collect::<Vec<_>>().join("\n")
}

/// As Go's `%q`.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if (control as u32) < 0x20 || control as u32 == 0x7f => {
                out.push_str(&format!("\\x{:02x}", control as u32));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// A request or limit, divided and rounded up. Limits that are not set are what the node can allocate.
pub fn resource_field(
    pod: &Pod,
    selector: &ResourceFieldSelector,
    own: Option<&Container>,
    node: &Node<'_>,
) -> Result<String, String> {
    let named = match selector.container_name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => pod::find_container(pod, name).map(|(_, container)| container),
        None => own.cloned(),
    };
    let wanted = selector.container_name.as_deref().unwrap_or_default();
    let container = named.ok_or_else(|| format!("container {wanted} not found"))?;
    let (list, resource) = selector.resource.split_once('.').ok_or_else(|| unsupported_resource(&selector.resource))?;
    let known = matches!(resource, "cpu" | "memory" | "ephemeral-storage") || resource.starts_with("hugepages-");
    let resources = container.resources.clone().unwrap_or_default();
    let of =
        |list: &Option<BTreeMap<String, _>>| list.as_ref().and_then(|list| list.get(resource)).and_then(pod::quantity);
    let value = match list {
        "limits" if known => of(&resources.limits).or_else(|| node.allocatable.get(resource).copied()),
        "requests" if known => of(&resources.requests).or_else(|| of(&resources.limits)),
        _ => return Err(unsupported_resource(&selector.resource)),
    };
    let value = value.unwrap_or(Quantity::ZERO);
    let divisor = selector.divisor.as_ref().and_then(pod::quantity).filter(|divisor| !divisor.is_zero());
    let divisor = divisor.unwrap_or(Quantity::from_units(1));
    // CPU is counted in thousandths so that a divisor of 1m works; the rest in whole units.
    let (value, divisor) =
        if resource == "cpu" { (value.milli(), divisor.milli()) } else { (value.units(), divisor.units()) };
    Ok(value.checked_div(divisor).map_or(0, |whole| whole + i64::from(value % divisor != 0)).to_string())
}

fn unsupported_resource(resource: &str) -> String {
    format!("unsupported container resource : {resource}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn amounts_are_divided_and_rounded_up() {
        let pod = crate::pod::tests::pod_of(json!({"containers": [{"name": "a", "resources":
            {"limits": {"cpu": "1500m", "memory": "100Mi"}, "requests": {"cpu": "250m"}}}]}));
        let allocatable = BTreeMap::from([("ephemeral-storage".to_string(), "7Gi".parse().unwrap())]);
        let node = Node { name: "node", ips: &[], pod_ips: &[], allocatable: &allocatable };
        for (resource, divisor, expected) in [
            ("limits.cpu", None, "2"),
            ("limits.cpu", Some("1m"), "1500"),
            ("requests.cpu", Some("1m"), "250"),
            ("limits.memory", Some("1Mi"), "100"),
            ("limits.memory", None, "104857600"),
            ("requests.memory", None, "104857600"),
            ("limits.ephemeral-storage", Some("1Gi"), "7"),
        ] {
            let selector: ResourceFieldSelector =
                serde_json::from_value(json!({"resource": resource, "containerName": "a", "divisor": divisor}))
                    .unwrap();
            assert_eq!(resource_field(&pod, &selector, None, &node).unwrap(), expected, "{resource} {divisor:?}");
        }
    }
}
