//! Where a pod, a service or a node is to be reached: `[scheme:]name[:port]` resolved to a backend.

use std::net::IpAddr;

use meta::label_selector::LabelSelector;
use meta::{GroupResource, Object, ObjectKey, Status};
use serde_json::Value;

use super::Proxy;
use super::transport::Backend;

/// Where node agents listen unless their Node says otherwise.
const KUBELET_PORT: u16 = 10_250;
/// Node addresses in the order they are tried; addresses first, because names need not resolve here.
const ADDRESS_TYPES: [&str; 5] = ["InternalIP", "ExternalIP", "InternalDNS", "Hostname", "ExternalDNS"];

/// A `[scheme:]name[:port]`; missing parts are empty.
#[derive(Debug, PartialEq, Eq)]
struct Spelled<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

impl<'a> Spelled<'a> {
    fn parse(id: &'a str) -> Option<Self> {
        let parts: Vec<&str> = id.split(':').collect();
        let spelled = match parts.as_slice() {
            [name] => Spelled { scheme: "", name, port: "" },
            [name, port] => Spelled { scheme: "", name, port },
            [scheme, name, port] => Spelled { scheme, name, port },
            _ => return None,
        };
        (!spelled.name.is_empty() && matches!(spelled.scheme, "" | "http" | "https")).then_some(spelled)
    }
}

impl Proxy {
    /// The backend of a `proxy` subresource of `resource`.
    pub async fn target(&self, resource: &str, namespace: &str, id: &str) -> Result<Backend, Status> {
        let what = resource.trim_end_matches('s');
        let spelled =
            Spelled::parse(id).ok_or_else(|| Status::bad_request(format!("invalid {what} request {id:?}")))?;
        match resource {
            "pods" => self.pod_target(namespace, &spelled).await,
            "services" => self.service_target(namespace, &spelled).await,
            _ => self.node_target(&spelled).await,
        }
    }

    async fn pod_target(&self, namespace: &str, spelled: &Spelled<'_>) -> Result<Backend, Status> {
        let pod = self.pod(namespace, spelled.name).await?;
        let first_port = || {
            let containers = pod.list_at(&["spec", "containers"]).iter();
            containers.filter_map(|container| container.pointer("/ports/0/containerPort")?.as_u64()).next()
        };
        let port = match spelled.port {
            "" => {
                first_port().map_or(self.default_port(spelled.scheme), |port| u16::try_from(port).unwrap_or_default())
            }
            text => parse_port(text)?,
        };
        let address = pod_address(&pod);
        self.check_address(address)?;
        Ok(self.plain(spelled.scheme, address, port))
    }

    async fn service_target(&self, namespace: &str, spelled: &Spelled<'_>) -> Result<Backend, Status> {
        let none = || Status::unavailable(format!("no endpoints available for service {:?}", spelled.name));
        let mut port_name = spelled.port.to_string();
        if let Ok(number) = spelled.port.parse::<u64>() {
            let service =
                self.reader.get(&GroupResource::new("", "services"), &ObjectKey::new(namespace, spelled.name)).await?;
            let port = service
                .list_at(&["spec", "ports"])
                .iter()
                .find(|port| port.get("port").and_then(Value::as_u64) == Some(number))
                .ok_or_else(|| {
                    Status::unavailable(format!("no service port {number} found for service {:?}", spelled.name))
                })?;
            port_name = port.get("name").and_then(Value::as_str).unwrap_or_default().to_string();
        }
        let of_service = LabelSelector::from_labels([("kubernetes.io/service-name", spelled.name)]);
        let slices = GroupResource::new("discovery.k8s.io", "endpointslices");
        let slices = self.reader.list(&slices, namespace, &of_service).await?;
        let mut candidates: Vec<(&str, u16)> =
            slices.iter().flat_map(|slice| ready_endpoints(slice, &port_name, namespace)).collect();
        candidates.retain(|(address, _)| self.check_address(address).is_ok());
        let chosen = candidates.get(base::chance::below(candidates.len())).ok_or_else(none)?;
        Ok(self.plain(spelled.scheme, chosen.0, chosen.1))
    }

    async fn node_target(&self, spelled: &Spelled<'_>) -> Result<Backend, Status> {
        let agent = self.node_agent(spelled.name).await?;
        self.check_address(&agent.host)?;
        if spelled.port.is_empty() || spelled.port == agent.port.to_string() {
            return Ok(agent);
        }
        Ok(self.plain(spelled.scheme, &agent.host, parse_port(spelled.port)?))
    }

    /// The agent of a node, spoken to as ourselves.
    pub async fn node_agent(&self, node: &str) -> Result<Backend, Status> {
        let node = self.reader.get(&GroupResource::new("", "nodes"), &ObjectKey::cluster(node)).await?;
        let addresses = node.list_at(&["status", "addresses"]);
        let field = |address: &Value, name: &str| address.get(name).and_then(Value::as_str).map(str::to_string);
        let host = ADDRESS_TYPES
            .iter()
            .find_map(|kind| {
                let address = addresses.iter().find(|address| field(address, "type").as_deref() == Some(kind))?;
                field(address, "address")
            })
            .ok_or_else(|| {
                Status::internal(format!("no preferred addresses found; known addresses: [] of {}", node.name()))
            })?;
        let port = node.i64_at(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"]).filter(|port| *port > 0);
        let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(KUBELET_PORT);
        Ok(Backend { host, port, tls: Some(self.node_tls.clone()) })
    }

    /// A pod as the cache has it.
    pub async fn pod(&self, namespace: &str, name: &str) -> Result<Object, Status> {
        self.reader.get(&GroupResource::new("", "pods"), &ObjectKey::new(namespace, name)).await
    }

    fn plain(&self, scheme: &str, host: &str, port: u16) -> Backend {
        let tls = (scheme == "https").then(|| self.unverified_tls.clone());
        Backend { host: host.to_string(), port, tls }
    }

    fn default_port(&self, scheme: &str) -> u16 {
        if scheme == "https" { 443 } else { 80 }
    }

    /// Refuses addresses by which a user could reach the server's own machine through us.
    fn check_address(&self, host: &str) -> Result<(), Status> {
        let refused = || Status::bad_request("address not allowed");
        match host.parse::<IpAddr>() {
            Ok(address) if is_global_unicast(address) || (self.allow_loopback && address.is_loopback()) => Ok(()),
            Ok(_) => Err(refused()),
            // A host name of a node; what it resolves to is the node's affair.
            Err(_) if host.is_empty() => Err(refused()),
            Err(_) => Ok(()),
        }
    }
}

/// As Go has it: any address that is not special, private ones included.
fn is_global_unicast(address: IpAddr) -> bool {
    let special = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !special && !address.is_loopback() && !address.is_multicast() && !address.is_unspecified()
}

fn pod_address(pod: &Object) -> &str {
    let first = pod.list_at(&["status", "podIPs"]).first().and_then(|address| address.get("ip")?.as_str());
    first.unwrap_or_else(|| pod.str_at(&["status", "podIP"]))
}

fn parse_port(text: &str) -> Result<u16, Status> {
    text.parse().map_err(|_| Status::bad_request(format!("invalid port {text:?}")))
}

/// The addresses of a slice that serve a port and are pods of the namespace.
fn ready_endpoints<'a>(slice: &'a Object, port_name: &str, namespace: &str) -> Vec<(&'a str, u16)> {
    let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_string();
    let ports = slice.list_at(&["ports"]).iter();
    let ports: Vec<u16> = ports
        .filter(|port| port_name.is_empty() || text(port, "name") == port_name)
        .filter_map(|port| u16::try_from(port.get("port")?.as_u64()?).ok())
        .collect();
    let endpoints = slice.list_at(&["endpoints"]).iter().filter(|endpoint| {
        endpoint.pointer("/conditions/ready").and_then(Value::as_bool) != Some(false)
            && endpoint.pointer("/targetRef/namespace").and_then(Value::as_str) == Some(namespace)
    });
    let addresses = endpoints.filter_map(|endpoint| endpoint.pointer("/addresses/0")?.as_str());
    addresses.flat_map(|address| ports.iter().map(move |port| (address, *port))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_scheme_name_and_port() {
        assert_eq!(Spelled::parse("web"), Some(Spelled { scheme: "", name: "web", port: "" }));
        assert_eq!(Spelled::parse("web:80"), Some(Spelled { scheme: "", name: "web", port: "80" }));
        assert_eq!(Spelled::parse("https:web:"), Some(Spelled { scheme: "https", name: "web", port: "" }));
        for bad in ["", "ftp:web:1", "a:b:c:d", ":80"] {
            assert_eq!(Spelled::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn special_addresses_are_not_proxied_to() {
        for (address, allowed) in [
            ("10.42.0.3", true),
            ("fd00::1", true),
            ("127.0.0.1", false),
            ("::1", false),
            ("169.254.169.254", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
        ] {
            assert_eq!(is_global_unicast(address.parse().unwrap()), allowed, "{address}");
        }
    }
}
