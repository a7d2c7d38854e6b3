//! The variables that tell a container of the services of its namespace, as Docker links once did.

use k8s_openapi::api::core::v1::{Pod, Service};

use crate::pod;

/// The service that every pod hears of, whatever its namespace and whatever `enableServiceLinks` says.
const MASTER: (&str, &str) = ("default", "kubernetes");

/// The variables for a pod, services in name order.
pub fn variables<'a>(pod: &Pod, services: impl Iterator<Item = &'a Service>) -> Vec<(String, String)> {
    let links = pod::spec(pod).enable_service_links.unwrap_or(true);
    let mut chosen: Vec<(&str, &Service)> = Vec::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        if !has_address(service) {
            continue;
        }
        let own = links && namespace == pod::namespace(pod);
        let master = (namespace, name) == MASTER;
        if own {
            chosen.retain(|(known, _)| *known != name);
            chosen.push((name, service));
        } else if master && !chosen.iter().any(|(known, _)| *known == name) {
            chosen.push((name, service));
        }
    }
    chosen.sort_by_key(|(name, _)| *name);
    chosen.into_iter().flat_map(|(name, service)| of_service(name, service)).collect()
}

fn address(service: &Service) -> &str {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default()
}

fn has_address(service: &Service) -> bool {
    !matches!(address(service), "" | "None") && service.spec.as_ref().is_some_and(|spec| spec.ports.is_some())
}

fn of_service(name: &str, service: &Service) -> Vec<(String, String)> {
    let prefix = name.replace('-', "_").to_uppercase();
    let ip = address(service);
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let Some(first) = ports.first() else { return Vec::new() };
    let mut made = vec![
        (format!("{prefix}_SERVICE_HOST"), ip.to_string()),
        (format!("{prefix}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|port_name| !port_name.is_empty()) {
            let port_name = port_name.replace('-', "_").to_uppercase();
            made.push((format!("{prefix}_SERVICE_PORT_{port_name}"), port.port.to_string()));
        }
    }
    let joined = |port: i32| if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{}", protocol.to_lowercase(), joined(port.port));
        if index == 0 {
            made.push((format!("{prefix}_PORT"), url.clone()));
        }
        let port_prefix = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        made.push((port_prefix.clone(), url));
        made.push((format!("{port_prefix}_PROTO"), protocol.to_lowercase()));
        made.push((format!("{port_prefix}_PORT"), port.port.to_string()));
        made.push((format!("{port_prefix}_ADDR"), ip.to_string()));
    }
    made
}
