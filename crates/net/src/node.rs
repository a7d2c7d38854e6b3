//! What Node objects say, and the loop that makes routes, the pod range and the masquerade's exceptions follow it.
//!
//! ```text
//! Node informer ─► every node's address and pod ranges ─► route::Routes      (ways to the others)
//!                                                      ─► pod::Network       (our own ranges; who is a node)
//! ```
//!
//! The cache it keeps is the one the service proxy reads, too.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{Backoff, BackoffPolicy};
use client::{Informer, Informers, Projection, Watched};
use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use meta::{Media, ObjectKey, Status};
use tokio::sync::Notify;

use crate::pod::Network;
use crate::route::{self, Peer, Routes};

/// Waits between attempts after the kernel refused.
const RETRY: BackoffPolicy = BackoffPolicy::doubling(Duration::from_millis(200), Duration::from_secs(30));

/// What the network keeps of a Node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Empty when unknown.
    pub zone: String,
    pub internal_ips: Vec<IpAddr>,
    pub pod_cidrs: Vec<IpNet>,
}

impl Projection for NodeView {
    const MEDIA: Media = Media::Protobuf;

    fn project(encoded: &client::Encoded) -> Result<Self, Status> {
        Ok(NodeView::read(&encoded.typed::<core::Node>()?))
    }
}

impl NodeView {
    /// Takes what the network needs out of a typed view.
    pub fn read(node: &core::Node) -> Self {
        let zone = node.metadata.labels.as_ref().and_then(|labels| labels.get("topology.kubernetes.io/zone"));
        let spec = node.spec.as_ref();
        let ranges = match spec.and_then(|spec| spec.pod_cidrs.as_deref()) {
            Some(ranges) if !ranges.is_empty() => ranges,
            _ => spec.map(|spec| spec.pod_cidr.as_slice()).unwrap_or_default(),
        };
        let addresses = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
        let internal = addresses.iter().filter(|address| address.type_ == "InternalIP");
        NodeView {
            zone: zone.cloned().unwrap_or_default(),
            internal_ips: internal.filter_map(|address| address.address.parse().ok()).collect(),
            pod_cidrs: ranges.iter().filter_map(|range| range.parse().ok()).collect(),
        }
    }
}

/// The informer over all nodes that the network's loops share.
pub fn informer(informers: &Informers) -> Informer<NodeView> {
    informers.of::<NodeView>(Watched::all_of::<core::Node>(), &[])
}

/// Has `wake` told whenever what we keep of a node changed; heartbeats do not count.
pub fn on_change(nodes: &Informer<NodeView>, wake: impl Fn(&ObjectKey) + Send + Sync + 'static) {
    nodes.subscribe(move |change| {
        let (old, new) = change.sides();
        if old != new {
            wake(change.key());
        }
    });
}

/// Follows the Node objects until the informers' tasks are told to stop; routes stay as they are then.
///
/// # Errors
/// When netlink cannot be opened. Later failures are logged and retried.
pub async fn run(informers: Informers, node: String, network: Network, config: route::Config) -> io::Result<()> {
    let nodes = informer(&informers);
    let woken = Arc::new(Notify::new());
    let wake = woken.clone();
    on_change(&nodes, move |_| wake.notify_one());
    if !nodes.synced().await {
        return Ok(());
    }
    let mut routes = Routes::open(config)?;
    let mut backoff = Backoff::new(RETRY);
    loop {
        let Picture { own, peers, addresses } = picture(&nodes, &node);
        let (back, result) = apply(routes, own.clone(), peers).await?;
        routes = back;
        let result = match result {
            Ok(()) => network.set_nodes(addresses).await.map_err(io::Error::other),
            failed => failed,
        };
        let result = match result {
            Ok(()) if !own.is_empty() => network.assign(own).await.map_err(io::Error::other),
            other => other,
        };
        match result {
            Ok(()) => {
                backoff.reset();
                woken.notified().await;
            }
            Err(error) => {
                tracing::error!(%error, "the pod network is not in step with the nodes, will retry");
                informers.clock().sleep(backoff.next(informers.clock().instant())).await;
            }
        }
    }
}

/// All nodes, seen from one of them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Picture {
    own: Vec<IpNet>,
    peers: Vec<Peer>,
    addresses: BTreeSet<IpAddr>,
}

fn picture(nodes: &Informer<NodeView>, node: &str) -> Picture {
    let mut picture = Picture::default();
    for (key, view) in nodes.lister().entries() {
        picture.addresses.extend(&view.internal_ips);
        if &*key.name == node {
            picture.own.clone_from(&view.pod_cidrs);
        } else if let Some(internal_ip) = view.internal_ips.first() {
            let peer =
                Peer { name: key.name.to_string(), internal_ip: *internal_ip, pod_cidrs: view.pod_cidrs.clone() };
            picture.peers.push(peer);
        }
    }
    picture
}

async fn apply(mut routes: Routes, own: Vec<IpNet>, peers: Vec<Peer>) -> io::Result<(Routes, io::Result<()>)> {
    let work = tokio::task::spawn_blocking(move || {
        let result = routes.apply(&own, &peers);
        (routes, result)
    });
    work.await.map_err(io::Error::other)
}
