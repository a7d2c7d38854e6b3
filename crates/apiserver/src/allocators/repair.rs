//! At start: the node ports that Services have are taken, every Service address has its record, and records whose Service is
//! gone are removed. The records are written with their Service, so this finds work only after data came from elsewhere.

use std::net::IpAddr;

use meta::{Object, ObjectKey, Status};
use serde_json::Value;

use super::allocation::record;
use crate::registry::Registry;

const SERVICES: &str = "services/specs";
const ADDRESSES: &str = "ipaddresses";

/// See the module.
pub async fn repair(registry: &Registry) -> Result<(), Status> {
    let services = registry.cached_objects(SERVICES, "")?;
    for port in services.iter().flat_map(node_ports) {
        if !registry.allocators().note_port(port) {
            tracing::warn!(port, "a node port is outside of the range or used by two services");
        }
    }
    for service in &services {
        for address in addresses(service) {
            let key = ObjectKey::cluster(&address.to_string());
            if registry.cached(ADDRESSES, &key).is_none() {
                registry.write_record(&record(service, address)).await?;
            }
        }
    }
    for recorded in registry.cached_objects(ADDRESSES, "")? {
        let parent = |field: &str| recorded.str_at(&["spec", "parentRef", field]);
        let key = ObjectKey::new(parent("namespace"), parent("name"));
        if parent("resource") == "services" && registry.cached(SERVICES, &key).is_none() {
            registry.remove_record(&recorded.key()).await?;
        }
    }
    Ok(())
}

fn node_ports(service: &Object) -> Vec<u16> {
    let port = |value: Option<&Value>| value.and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
    let ports = service.list_at(&["spec", "ports"]).iter().filter_map(|entry| port(entry.get("nodePort")));
    ports.chain(port(service.get(&["spec", "healthCheckNodePort"]))).filter(|port| *port != 0).collect()
}

fn addresses(service: &Object) -> Vec<IpAddr> {
    let list = service.list_at(&["spec", "clusterIPs"]).iter();
    list.filter_map(|address| address.as_str()?.parse().ok()).collect()
}
