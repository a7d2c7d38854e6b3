//! Node IPAM: each node gets a range of pod addresses of its own out of the cluster's.
//!
//! The ranges in use are read from the nodes themselves, so there is nothing to remember. One worker gives them out, which is
//! what keeps two nodes from getting the same one.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use client::{Next, Patch, Queue, Typed};
use k8s_openapi::api::core::v1::Node;
use meta::{ObjectKey, Status};
use serde_json::json;

use crate::Context;

/// Upstream runs it with the identity of the node controller.
const NAME: &str = "node-controller";
/// How long the prefix of a node's range is, as upstream's defaults: 254 pods, or plenty.
const NODE_MASK_V4: u8 = 24;
const NODE_MASK_V6: u8 = 64;

/// A cluster range that nodes get parts of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    base: u128,
    prefix: u8,
    node_prefix: u8,
    v6: bool,
}

impl Range {
    /// Reads `10.42.0.0/16`. Errors say what is wrong with it.
    pub fn parse(cidr: &str) -> Result<Self, String> {
        let bad = || format!("{cidr:?} is not an address range such as 10.42.0.0/16");
        let (address, prefix) = cidr.split_once('/').ok_or_else(bad)?;
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        let (base, v6, node_prefix) = match address {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)), false, NODE_MASK_V4),
            IpAddr::V6(v6) => (u128::from(v6), true, NODE_MASK_V6),
        };
        if prefix > node_prefix {
            return Err(format!("{cidr} is too small: nodes get a /{node_prefix} each"));
        }
        Ok(Range { base, prefix, node_prefix, v6 })
    }

    fn bits(&self) -> u8 {
        if self.v6 { 128 } else { 32 }
    }

    /// The part with a number.
    fn part(&self, index: u128) -> String {
        let address = self.base + (index << (self.bits() - self.node_prefix));
        let address: IpAddr = if self.v6 {
            Ipv6Addr::from(address).into()
        } else {
            Ipv4Addr::from(u32::try_from(address).unwrap_or(u32::MAX)).into()
        };
        format!("{address}/{}", self.node_prefix)
    }

    /// The first part that is not in use.
    pub fn first_free(&self, used: &BTreeSet<String>) -> Option<String> {
        let parts = 1u128 << (self.node_prefix - self.prefix);
        (0..parts).map(|index| self.part(index)).find(|part| !used.contains(part))
    }
}

/// `ranges`: the cluster's, the primary family first.
pub fn start(cx: &Context, ranges: Vec<Range>) {
    let (client, recorder) = cx.identity(NAME);
    let queue: Queue<ObjectKey> = Queue::default();
    let nodes = cx.informers.typed::<Node>();
    let wake = queue.clone();
    nodes.subscribe(move |change| {
        if change.sides().1.is_some_and(|node| pod_cidrs(node).is_empty()) {
            wake.add(change.key().clone());
        }
    });
    let nodes = nodes.lister();
    let given = std::sync::Arc::new(parking_lot::Mutex::new(BTreeSet::<String>::new()));
    cx.run_workers(NAME, 1, &queue, move |key| {
        let (client, recorder, nodes) = (client.clone(), recorder.clone(), nodes.clone());
        let (ranges, given) = (ranges.clone(), given.clone());
        async move {
            let Some(node) = nodes.get(&key).filter(|node| pod_cidrs(node).is_empty()) else { return Ok(Next::Wait) };
            // What was just given may not be in the cache yet.
            let mut used: BTreeSet<String> = nodes.all().iter().flat_map(|node| pod_cidrs(node)).collect();
            used.extend(given.lock().iter().cloned());
            let parts: Option<Vec<String>> = ranges.iter().map(|range| range.first_free(&used)).collect();
            let Some(parts) = parts else {
                let about = client::events::reference(&*node);
                recorder.normal(
                    &about,
                    "CIDRNotAvailable",
                    format!("Node {} status is now: CIDRNotAvailable", key.name),
                );
                return Err(Status::unavailable("no pod address range is left; enlarge --pod-cidr"));
            };
            // Only for the node as it was seen: a view that lags behind must not give a second range.
            let seen = json!({"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version});
            let patch = json!({"metadata": seen, "spec": {"podCIDR": parts[0], "podCIDRs": parts}});
            client.patch_object(&Node::gvr(), &key, "", Patch::Merge(patch)).await?;
            let mut given = given.lock();
            let live: BTreeSet<String> = nodes.all().iter().flat_map(|node| pod_cidrs(node)).collect();
            given.retain(|part| !live.contains(part));
            given.extend(parts);
            Ok(Next::Wait)
        }
    });
}

fn pod_cidrs(node: &Node) -> Vec<String> {
    node.spec.as_ref().and_then(|spec| spec.pod_cidrs.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_given_out_lowest_first_until_there_are_none() {
        let range = Range::parse("10.42.0.0/23").unwrap();
        let mut used = BTreeSet::new();
        assert_eq!(range.first_free(&used).as_deref(), Some("10.42.0.0/24"));
        used.insert("10.42.0.0/24".to_string());
        assert_eq!(range.first_free(&used).as_deref(), Some("10.42.1.0/24"));
        used.insert("10.42.1.0/24".to_string());
        assert_eq!(range.first_free(&used), None);
        assert_eq!(Range::parse("fd00::/48").unwrap().first_free(&used).as_deref(), Some("fd00::/64"));
        assert!(Range::parse("10.0.0.0/25").is_err() && Range::parse("x").is_err());
    }
}
