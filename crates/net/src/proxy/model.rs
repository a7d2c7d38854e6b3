//! What the proxy knows of Services and EndpointSlices: the fields that decide about packets, and nothing else.
//!
//! These are the projections that the informers keep, made of views of those fields ([`view`]). A service that is not ours to serve (headless, ExternalName, handled by another
//! proxy) becomes one without addresses, so that everything after needs no special case.

mod view;

use std::net::IpAddr;
use std::sync::Arc;

use client::{Index, Projection};
use meta::{Media, ObjectKey, Status};

/// The label by which a slice names its service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Set on services, and copied to their slices, that another proxy takes care of.
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// Set on services, and copied to their slices, that have no service address.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// Upstream's default for `sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_SECONDS_DEFAULT: u32 = 10_800;

/// The layer 4 protocols of services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// Kubernetes' word, where absence means TCP; `None` for a word it does not have.
    pub fn parse(word: Option<&str>) -> Option<Self> {
        match word.unwrap_or("TCP") {
            "TCP" | "" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }

    /// The number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => libc::IPPROTO_TCP as u8,
            Protocol::Udp => libc::IPPROTO_UDP as u8,
            Protocol::Sctp => libc::IPPROTO_SCTP as u8,
        }
    }
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    /// 0 for none.
    pub node_port: u16,
}

/// A service as the proxy sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// Empty for a service without addresses of its own.
    pub cluster_ips: Vec<IpAddr>,
    /// External IPs and the load balancer's addresses.
    pub external_ips: Vec<IpAddr>,
    pub ports: Vec<ServicePort>,
    /// How long a client stays with its backend, in seconds.
    pub affinity_s: Option<u32>,
    /// `internalTrafficPolicy: Local`
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`
    pub external_local: bool,
}

impl Projection for Service {
    const MEDIA: Media = Media::Protobuf;

    fn project(encoded: &client::Encoded) -> Result<Self, Status> {
        Ok(Service::read(encoded.view()?))
    }
}

impl Service {
    fn read(service: view::Service) -> Self {
        let view::Service { metadata, spec, status } = service;
        let ours = !metadata.labels.unwrap_or_default().contains_key(PROXY_NAME_LABEL);
        if !ours || spec.type_.as_deref() == Some("ExternalName") {
            return Service::default();
        }
        let cluster_ips = match &spec.cluster_ips {
            Some(ips) if !ips.is_empty() => parse_addresses(ips),
            _ => parse_addresses(spec.cluster_ip.as_slice()),
        };
        if cluster_ips.is_empty() {
            return Service::default();
        }
        let mut external_ips = parse_addresses(spec.external_ips.as_deref().unwrap_or_default());
        external_ips.extend(load_balancer_addresses(&status));
        Service {
            cluster_ips,
            external_ips,
            affinity_s: read_affinity(&spec),
            ports: spec.ports.into_iter().flatten().filter_map(read_port).collect(),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
        }
    }
}

fn load_balancer_addresses(status: &view::ServiceStatus) -> Vec<IpAddr> {
    let ingress = status.load_balancer.ingress.as_deref().unwrap_or_default();
    // With `ipMode: Proxy` traffic has to pass the balancer itself, so its address is none of ours.
    let ours = ingress.iter().filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
    ours.filter_map(|ingress| ingress.ip.as_deref()?.parse().ok()).collect()
}

fn read_affinity(spec: &view::ServiceSpec) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|client_ip| client_ip.timeout_seconds);
    Some(seconds.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(AFFINITY_SECONDS_DEFAULT))
}

fn read_port(port: view::ServicePort) -> Option<ServicePort> {
    Some(ServicePort {
        name: port.name.unwrap_or_default(),
        protocol: Protocol::parse(port.protocol.as_deref())?,
        port: u16::try_from(port.port).ok()?,
        node_port: port.node_port.and_then(|port| u16::try_from(port).ok()).unwrap_or(0),
    })
}

/// Unparsable entries ("None" among them) are left out.
fn parse_addresses(texts: &[String]) -> Vec<IpAddr> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// One port of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
}

/// One endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub address: IpAddr,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    /// Empty when unknown.
    pub node: Arc<str>,
    /// Zones this endpoint should serve; empty without hints.
    pub zones: Vec<String>,
    /// Nodes this endpoint should serve; empty without hints.
    pub nodes: Vec<String>,
}

/// An EndpointSlice as the proxy sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slice {
    /// The service's name; empty when the slice belongs to none that we serve.
    pub service: String,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<Endpoint>,
}

/// Slices by `namespace/name` of their service.
pub const BY_SERVICE: Index<Slice> = Index {
    name: "service",
    values: |key, slice| slice.owner(key).map(|owner| owner.to_string()).into_iter().collect(),
};

impl Projection for Slice {
    const MEDIA: Media = Media::Protobuf;

    fn project(encoded: &client::Encoded) -> Result<Self, Status> {
        Ok(Slice::read(encoded.view()?))
    }
}

impl Slice {
    fn read(slice: view::Slice) -> Self {
        let mut labels = slice.metadata.labels.unwrap_or_default();
        let Some(service) = labels.remove(SERVICE_NAME_LABEL) else { return Slice::default() };
        let not_ours = [PROXY_NAME_LABEL, HEADLESS_LABEL].iter().any(|label| labels.contains_key(*label));
        if slice.address_type == "FQDN" || not_ours {
            return Slice::default();
        }
        Slice {
            service,
            ports: slice.ports.into_iter().flatten().filter_map(read_slice_port).collect(),
            endpoints: slice.endpoints.into_iter().flatten().filter_map(read_endpoint).collect(),
        }
    }

    /// The key of the service that this slice belongs to.
    pub fn owner(&self, key: &ObjectKey) -> Option<ObjectKey> {
        (!self.service.is_empty()).then(|| ObjectKey::new(&key.namespace, &self.service))
    }
}

fn read_slice_port(port: view::SlicePort) -> Option<SlicePort> {
    Some(SlicePort {
        protocol: Protocol::parse(port.protocol.as_deref())?,
        name: port.name.unwrap_or_default(),
        port: u16::try_from(port.port?).ok()?,
    })
}

/// Only the first address counts, as upstream; absent conditions read as upstream's API says.
fn read_endpoint(endpoint: view::Endpoint) -> Option<Endpoint> {
    let view::Endpoint { addresses, conditions, node_name, hints } = endpoint;
    let ready = conditions.ready.unwrap_or(true);
    let names = |hints: Option<Vec<view::Hint>>| hints.into_iter().flatten().map(|hint| hint.name).collect();
    let hints = hints.unwrap_or_default();
    Some(Endpoint {
        address: addresses?.first()?.parse().ok()?,
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        node: node_name.unwrap_or_default().into(),
        zones: names(hints.for_zones),
        nodes: names(hints.for_nodes),
    })
}

#[cfg(test)]
mod tests;
