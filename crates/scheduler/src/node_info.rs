//! What the scheduler keeps of a node: the node itself, and the sum of the pods on it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use client::{Encoded, Projection};
use k8s_openapi::api::core::v1::{Node, Taint};
use meta::{Quantity, Status};

use crate::pod_info::{HostPort, PodInfo};
use crate::resources::Resources;

/// The node object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Resources,
    pub pods_max: i64,
    /// Image names it holds, with sizes in bytes.
    pub images: HashMap<String, i64>,
}

/// A node with what is on it.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// None while only pods of a node are known, not the node.
    pub facts: Option<Arc<NodeFacts>>,
    pub pods: HashMap<String, Arc<PodInfo>>,
    pub requested: Resources,
    /// With a floor for containers that ask for nothing.
    pub requested_floored: Resources,
    /// How many pods use a port.
    pub ports: HashMap<HostPort, usize>,
}

impl NodeInfo {
    /// The pod is not on the node yet.
    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.requested_floored.add(&pod.requests_floored);
        for port in &pod.host_ports {
            *self.ports.entry(port.clone()).or_default() += 1;
        }
        self.pods.insert(pod.uid.clone(), pod);
    }

    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let pod = self.pods.remove(uid)?;
        self.requested.subtract(&pod.requests);
        self.requested_floored.subtract(&pod.requests_floored);
        for port in &pod.host_ports {
            if let Some(users) = self.ports.get_mut(port) {
                *users -= 1;
                if *users == 0 {
                    self.ports.remove(port);
                }
            }
        }
        Some(pod)
    }

    /// Whether a port is taken: by the same address or by one that means all.
    pub fn has_port(&self, wanted: &HostPort) -> bool {
        let all = |ip: &str| ip == "0.0.0.0";
        self.ports.keys().any(|used| {
            used.port == wanted.port
                && used.protocol == wanted.protocol
                && (used.ip == wanted.ip || all(&used.ip) || all(&wanted.ip))
        })
    }
}

impl Projection for NodeFacts {
    fn project(encoded: &Encoded) -> Result<Self, Status> {
        let node: Node = encoded.typed()?;
        let spec = node.spec.unwrap_or_default();
        let status = node.status.unwrap_or_default();
        let allocatable = status.allocatable.unwrap_or_default();
        let pods_max = allocatable.get("pods").and_then(|text| text.0.parse::<Quantity>().ok());
        let images = status.images.iter().flatten().flat_map(|image| {
            let size = image.size_bytes.unwrap_or(0);
            image.names.iter().flatten().map(move |name| (name.clone(), size))
        });
        Ok(NodeFacts {
            name: encoded.key.name.to_string(),
            labels: node.metadata.labels.unwrap_or_default(),
            taints: spec.taints.unwrap_or_default(),
            unschedulable: spec.unschedulable.unwrap_or(false),
            pods_max: pods_max.map_or(0, |quantity| quantity.units()),
            images: images.collect(),
            allocatable: Resources::of(&allocatable),
        })
    }
}
