//! What the resolver keeps of Services and EndpointSlices: names, addresses and ports. Also what goes over its socket.
//!
//! They are made of views of just those fields ([`read`]).

mod read;

use std::net::IpAddr;

use client::Projection;
use meta::{Media, ObjectKey, Status};
use serde::{Deserialize, Serialize};

const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// A named port, in the spelling of SRV names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Port {
    /// Lower case; empty for the only port of a service.
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    pub port: u16,
}

/// What a service's name stands for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Meaning {
    /// Nothing: an address is still to be given.
    #[default]
    Nothing,
    /// The service's own addresses.
    Addresses(Vec<IpAddr>),
    /// Its endpoints.
    Headless,
    /// Another name.
    External(String),
}

/// A service as the resolver sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub meaning: Meaning,
    pub ports: Vec<Port>,
}

impl Projection for Service {
    const MEDIA: Media = Media::Protobuf;

    fn project(encoded: &client::Encoded) -> Result<Self, Status> {
        Ok(Service::read(&encoded.view()?))
    }
}

impl Service {
    fn read(service: &read::Service) -> Self {
        let spec = &service.spec;
        if spec.type_.as_deref() == Some("ExternalName") {
            let meaning = Meaning::External(spec.external_name.clone().unwrap_or_default());
            return Service { meaning, ports: Vec::new() };
        }
        let all = spec.cluster_ips.as_deref().unwrap_or_default();
        let ips = if all.is_empty() { spec.cluster_ip.as_slice() } else { all };
        let meaning = if ips.iter().any(|ip| ip == "None") {
            Meaning::Headless
        } else {
            let addresses: Vec<IpAddr> = ips.iter().filter_map(|ip| ip.parse().ok()).collect();
            if addresses.is_empty() { Meaning::Nothing } else { Meaning::Addresses(addresses) }
        };
        let read = |port: &read::Port| Port::read(port.name.as_deref(), port.protocol.as_deref(), port.port?);
        Service { meaning, ports: spec.ports.iter().flatten().filter_map(read).collect() }
    }
}

impl Port {
    fn read(name: Option<&str>, protocol: Option<&str>, port: i32) -> Option<Self> {
        Some(Port {
            name: name.unwrap_or_default().to_ascii_lowercase(),
            protocol: protocol.unwrap_or("TCP").to_ascii_lowercase(),
            port: u16::try_from(port).ok()?,
        })
    }
}

/// One address behind a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its label below the service's name: the pod's hostname, or the address with dashes.
    pub label: String,
    pub address: IpAddr,
}

/// An EndpointSlice as the resolver sees it: what is ready.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// The service's name; empty when it belongs to none.
    pub service: String,
    pub ports: Vec<Port>,
    pub endpoints: Vec<Endpoint>,
}

impl Projection for Slice {
    const MEDIA: Media = Media::Protobuf;

    fn project(encoded: &client::Encoded) -> Result<Self, Status> {
        Ok(Slice::read(&encoded.view()?))
    }
}

impl Slice {
    fn read(slice: &read::Slice) -> Self {
        let service = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME_LABEL));
        let read = |port: &read::Port| Port::read(port.name.as_deref(), port.protocol.as_deref(), port.port?);
        let ready = |endpoint: &&read::Endpoint| endpoint.conditions.ready.unwrap_or(true);
        Slice {
            service: service.cloned().unwrap_or_default(),
            ports: slice.ports.iter().flatten().filter_map(read).collect(),
            endpoints: slice.endpoints.iter().flatten().filter(ready).flat_map(read_endpoint).collect(),
        }
    }

    /// The key of the service it belongs to.
    pub fn owner(&self, key: &ObjectKey) -> Option<ObjectKey> {
        (!self.service.is_empty()).then(|| ObjectKey::new(&key.namespace, &self.service))
    }
}

fn read_endpoint(endpoint: &read::Endpoint) -> impl Iterator<Item = Endpoint> {
    let hostname = endpoint.hostname.as_deref().filter(|name| !name.is_empty()).map(str::to_ascii_lowercase);
    let addresses = endpoint.addresses.iter().flatten().filter_map(|address| address.parse().ok());
    addresses.map(move |address| Endpoint { label: hostname.clone().unwrap_or_else(|| dashed(address)), address })
}

/// An address as a label: `10-42-1-7`, `fd00--1`.
pub fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}
