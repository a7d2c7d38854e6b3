//! From one service and its endpoints to what each of its addresses should do. Pure.
//!
//! ```text
//! plan(service, slices, node) -> { (address, protocol, port): FrontendPlan }
//! ```
//!
//! Which endpoints count follows upstream: ready ones, or when none is ready those that still serve while terminating; with a
//! `Local` policy only this node's. Without any the packet is rejected; without local ones it is dropped, because another
//! node may have some.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::model::{Endpoint, Protocol, Service, ServicePort, Slice};
use crate::nft::Value;

/// Where clients send packets to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    pub address: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
}

impl Frontend {
    /// The key of this frontend in the proxy's maps.
    pub fn key(&self) -> Value {
        Value::new().address(self.address).protocol(self.protocol.number()).port(self.port)
    }
}

/// Where packets end up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    pub address: IpAddr,
    pub port: u16,
    /// On this node, so that it may come to talk to itself.
    pub local: bool,
}

/// Whose source address is replaced by the node's on the way to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Masquerade {
    /// Clients outside the pod network.
    OffCluster,
    /// Everyone: the answer has to come back through this node.
    Always,
    /// No one: the backend sees the client.
    Never,
}

/// What happens to a new connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pool {
    /// It goes to one of these.
    Backends(Masquerade, BTreeSet<Backend>),
    /// It is refused at once.
    Reject,
    /// It is discarded.
    Drop,
}

/// What one frontend does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontendPlan {
    /// For everyone, or with `outside` for pods and this node itself.
    pub main: Pool,
    /// For clients outside the cluster, when they are treated differently (`externalTrafficPolicy: Local`).
    pub outside: Option<Pool>,
    pub affinity_s: Option<u32>,
}

/// The node that the plan is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    /// Empty when unknown.
    pub zone: String,
    /// Addresses on which node ports are served.
    pub addresses: Vec<IpAddr>,
}

/// What every frontend of the service should do.
pub fn plan<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a Slice> + Clone,
    node: &Node,
) -> BTreeMap<Frontend, FrontendPlan> {
    let mut plans = BTreeMap::new();
    for port in &service.ports {
        for family_v4 in [true, false] {
            let in_family = |address: &&IpAddr| address.is_ipv4() == family_v4;
            let endpoints = Candidates::of(port, slices.clone(), family_v4, node);
            let mut add = |addresses: &[IpAddr], number: u16, plan: &dyn Fn() -> FrontendPlan| {
                for &address in addresses.iter().filter(in_family) {
                    let frontend = Frontend { address, protocol: port.protocol, port: number };
                    plans.entry(frontend).or_insert_with(plan);
                }
            };
            add(&service.cluster_ips, port.port, &|| internal(service, &endpoints));
            add(&service.external_ips, port.port, &|| external(service, &endpoints));
            if port.node_port != 0 {
                add(&node.addresses, port.node_port, &|| external(service, &endpoints));
            }
        }
    }
    plans
}

fn internal(service: &Service, endpoints: &Candidates) -> FrontendPlan {
    let main = if service.internal_local {
        endpoints.local_pool(Masquerade::OffCluster)
    } else {
        endpoints.cluster_pool(Masquerade::OffCluster)
    };
    FrontendPlan { main, outside: None, affinity_s: service.affinity_s }
}

fn external(service: &Service, endpoints: &Candidates) -> FrontendPlan {
    if service.external_local {
        // Pods and the node itself reach all endpoints, as they would by the cluster address.
        FrontendPlan {
            main: endpoints.cluster_pool(Masquerade::OffCluster),
            outside: Some(endpoints.local_pool(Masquerade::Never)),
            affinity_s: service.affinity_s,
        }
    } else {
        let main = endpoints.cluster_pool(Masquerade::Always);
        FrontendPlan { main, outside: None, affinity_s: service.affinity_s }
    }
}

/// The endpoints of one service port that may get traffic.
struct Candidates {
    cluster: BTreeSet<Backend>,
    local: BTreeSet<Backend>,
    /// Some endpoint somewhere could serve, be it only for a policy that is not ours.
    any: bool,
}

impl Candidates {
    fn of<'a>(port: &ServicePort, slices: impl Iterator<Item = &'a Slice>, v4: bool, node: &Node) -> Self {
        let mut found: Vec<(&Endpoint, Backend)> = Vec::new();
        for slice in slices {
            let matching = slice.ports.iter().find(|p| p.name == port.name && p.protocol == port.protocol);
            let Some(target) = matching else { continue };
            for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.address.is_ipv4() == v4) {
                let local = !node.name.is_empty() && *endpoint.node == *node.name;
                found.push((endpoint, Backend { address: endpoint.address, port: target.port, local }));
            }
        }
        let any = found.iter().any(|(endpoint, _)| endpoint.ready || (endpoint.serving && endpoint.terminating));
        let local: Vec<_> = found.iter().copied().filter(|(_, backend)| backend.local).collect();
        Candidates { cluster: usable(&hinted(&found, node)), local: usable(&local), any }
    }

    fn cluster_pool(&self, masquerade: Masquerade) -> Pool {
        if self.cluster.is_empty() { Pool::Reject } else { Pool::Backends(masquerade, self.cluster.clone()) }
    }

    fn local_pool(&self, masquerade: Masquerade) -> Pool {
        match (self.local.is_empty(), self.any) {
            (false, _) => Pool::Backends(masquerade, self.local.clone()),
            (true, true) => Pool::Drop,
            (true, false) => Pool::Reject,
        }
    }
}

/// Ready endpoints, or else those that serve while they terminate.
fn usable(found: &[(&Endpoint, Backend)]) -> BTreeSet<Backend> {
    let pick = |wanted: fn(&Endpoint) -> bool| -> BTreeSet<Backend> {
        found.iter().filter(|(endpoint, _)| wanted(endpoint)).map(|(_, backend)| *backend).collect()
    };
    let ready = pick(|endpoint| endpoint.ready);
    if ready.is_empty() { pick(|endpoint| endpoint.serving && endpoint.terminating) } else { ready }
}

/// Endpoints meant for this node or its zone, when every ready endpoint carries hints and some is meant for us; else all.
fn hinted<'a>(found: &[(&'a Endpoint, Backend)], node: &Node) -> Vec<(&'a Endpoint, Backend)> {
    meant_for(found, &node.name, |endpoint| &endpoint.nodes)
        .or_else(|| meant_for(found, &node.zone, |endpoint| &endpoint.zones))
        .unwrap_or_else(|| found.to_vec())
}

fn meant_for<'a>(
    found: &[(&'a Endpoint, Backend)],
    ours: &str,
    hints: impl Fn(&Endpoint) -> &[String],
) -> Option<Vec<(&'a Endpoint, Backend)>> {
    let mut ready = found.iter().filter(|(endpoint, _)| endpoint.ready);
    if ours.is_empty() || ready.any(|(endpoint, _)| hints(endpoint).is_empty()) {
        return None;
    }
    let meant: Vec<_> =
        found.iter().copied().filter(|(endpoint, _)| hints(endpoint).iter().any(|name| name == ours)).collect();
    meant.iter().any(|(endpoint, _)| endpoint.ready).then_some(meant)
}

#[cfg(test)]
mod tests;
