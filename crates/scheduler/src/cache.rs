//! The state of the cluster that placement is decided on: nodes in a steady order, and the pods bound or assumed on each.

use std::collections::HashMap;
use std::sync::Arc;

use meta::ObjectKey;

use crate::node_info::{NodeFacts, NodeInfo};
use crate::pod_info::PodInfo;

/// What a claim is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimState {
    Unbound,
    Bound,
    /// Being deleted.
    Going,
}

#[derive(Default)]
pub struct Cache {
    claims: HashMap<ObjectKey, ClaimState>,
    nodes: HashMap<String, NodeInfo>,
    /// Names of known nodes, in the order in which cycles go round them.
    order: Vec<String>,
    /// Pods whose binding is under way, by uid.
    assumed: HashMap<String, Arc<PodInfo>>,
    /// On how many nodes an image is.
    images: HashMap<String, usize>,
    /// Where the next cycle starts in `order`.
    pub start: usize,
}

impl Cache {
    /// A claim is new, changed, or (none) gone.
    pub fn put_claim(&mut self, key: &ObjectKey, state: Option<ClaimState>) {
        match state {
            Some(state) => drop(self.claims.insert(key.clone(), state)),
            None => drop(self.claims.remove(key)),
        }
    }

    pub fn claim(&self, key: &ObjectKey) -> Option<ClaimState> {
        self.claims.get(key).copied()
    }

    /// A node is new or changed.
    pub fn put_node(&mut self, facts: Arc<NodeFacts>) {
        let node = self.nodes.entry(facts.name.clone()).or_default();
        let old = node.facts.replace(facts.clone());
        match old {
            None => self.order.push(facts.name.clone()),
            Some(old) => count_images(&mut self.images, &old, false),
        }
        count_images(&mut self.images, &facts, true);
    }

    /// A node is gone. Its pods are remembered until they go too, in case it comes back.
    pub fn remove_node(&mut self, name: &str) {
        self.order.retain(|known| known != name);
        if let Some(node) = self.nodes.get_mut(name) {
            if let Some(old) = node.facts.take() {
                count_images(&mut self.images, &old, false);
            }
            if node.pods.is_empty() {
                self.nodes.remove(name);
            }
        }
    }

    /// A pod is bound and takes room, as the API says.
    pub fn put_pod(&mut self, pod: Arc<PodInfo>) {
        if let Some(assumed) = self.assumed.remove(&pod.uid) {
            self.take_off(&assumed);
        }
        self.nodes.entry(pod.node.clone()).or_default().add(pod);
    }

    /// A pod that was bound is gone or takes no room any more.
    pub fn remove_pod(&mut self, pod: &PodInfo) {
        self.assumed.remove(&pod.uid);
        self.take_off(pod);
    }

    /// Counts a pod on a node before the API knows.
    pub fn assume(&mut self, pod: &PodInfo, node: &str) -> Arc<PodInfo> {
        let assumed = Arc::new(PodInfo { node: node.to_string(), ..pod.clone() });
        self.nodes.entry(node.to_string()).or_default().add(assumed.clone());
        self.assumed.insert(assumed.uid.clone(), assumed.clone());
        assumed
    }

    /// The binding of an assumed pod failed. False when the API has shown the pod bound or gone meanwhile.
    pub fn forget(&mut self, uid: &str) -> bool {
        match self.assumed.remove(uid) {
            Some(assumed) => {
                self.take_off(&assumed);
                true
            }
            None => false,
        }
    }

    pub fn is_assumed(&self, uid: &str) -> bool {
        self.assumed.contains_key(uid)
    }

    fn take_off(&mut self, pod: &PodInfo) {
        if let Some(node) = self.nodes.get_mut(&pod.node) {
            node.remove(&pod.uid);
            if node.facts.is_none() && node.pods.is_empty() {
                self.nodes.remove(&pod.node);
            }
        }
    }

    #[cfg(test)]
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.get(name)
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// The known node at a place in the round, with its facts.
    pub fn at(&self, index: usize) -> Option<(&NodeInfo, &Arc<NodeFacts>)> {
        let node = self.nodes.get(self.order.get(index)?)?;
        Some((node, node.facts.as_ref()?))
    }

    /// On how many nodes an image is.
    pub fn nodes_with_image(&self, image: &str) -> usize {
        self.images.get(image).copied().unwrap_or(0)
    }
}

fn count_images(images: &mut HashMap<String, usize>, facts: &NodeFacts, present: bool) {
    for name in facts.images.keys() {
        let count = images.entry(name.clone()).or_default();
        *count = if present { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            images.remove(name);
        }
    }
}
