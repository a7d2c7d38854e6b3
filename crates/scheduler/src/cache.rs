//! The state of the cluster that placement is decided on: nodes in a steady order, and the pods bound or assumed on each.
//!
//! A node keeps its slot as long as it or a pod of it is known, so that a cycle goes from node to node without looking names up.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use meta::ObjectKey;

use crate::node_info::{NodeFacts, NodeInfo};
use crate::plugin::Candidate;
use crate::pod_info::PodInfo;
use crate::topology::Topology;

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
    nodes: Vec<NodeInfo>,
    slots: HashMap<String, usize>,
    vacant: Vec<usize>,
    /// Slots of known nodes, in the order in which cycles go round them.
    order: Vec<usize>,
    topology: Topology,
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

    /// A namespace is new, changed, or (none) gone.
    pub fn put_namespace(&mut self, name: &str, labels: Option<BTreeMap<String, String>>) {
        self.topology.set_namespace(name, labels);
    }

    /// A node is new or changed.
    pub fn put_node(&mut self, facts: Arc<NodeFacts>) {
        let slot = self.slot(&facts.name);
        let node = &mut self.nodes[slot];
        let old = node.facts.replace(facts.clone());
        self.topology.set_node(slot, Some(&facts), node.pods.values());
        match old {
            None => self.order.push(slot),
            Some(old) => count_images(&mut self.images, &old, false),
        }
        count_images(&mut self.images, &facts, true);
    }

    /// A node is gone. Its pods are remembered until they go too, in case it comes back.
    pub fn remove_node(&mut self, name: &str) {
        let Some(slot) = self.slots.get(name).copied() else { return };
        self.order.retain(|known| *known != slot);
        let node = &mut self.nodes[slot];
        self.topology.set_node(slot, None, node.pods.values());
        if let Some(old) = node.facts.take() {
            count_images(&mut self.images, &old, false);
        }
        self.vacate(name, slot);
    }

    /// A pod is bound and takes room, as the API says.
    pub fn put_pod(&mut self, pod: Arc<PodInfo>) {
        if let Some(assumed) = self.assumed.remove(&pod.uid)
            && assumed.node != pod.node
        {
            self.take_off(&assumed);
        }
        self.put_on(pod);
    }

    /// A pod that was bound is gone or takes no room any more.
    pub fn remove_pod(&mut self, pod: &PodInfo) {
        self.assumed.remove(&pod.uid);
        self.take_off(pod);
    }

    /// Counts a pod on a node before the API knows.
    pub fn assume(&mut self, pod: &PodInfo, node: &str) -> Arc<PodInfo> {
        let assumed = Arc::new(PodInfo { node: node.to_string(), ..pod.clone() });
        self.put_on(assumed.clone());
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

    /// Prepares for a cycle of the pod.
    pub fn follow(&mut self, pod: &PodInfo) {
        self.topology.follow(pod);
    }

    /// A pod that is there already is replaced, and if it takes the same room as before, nothing is counted anew.
    fn put_on(&mut self, pod: Arc<PodInfo>) {
        let slot = self.slot(&pod.node);
        let node = &mut self.nodes[slot];
        if let Some(known) = node.pods.get_mut(&pod.uid).filter(|known| known.counts_as(&pod)) {
            *known = pod;
            return;
        }
        if let Some(known) = node.remove(&pod.uid) {
            self.topology.remove(slot, &known);
        }
        self.topology.add(slot, &pod);
        node.add(pod);
    }

    fn take_off(&mut self, pod: &PodInfo) {
        let Some(slot) = self.slots.get(&pod.node).copied() else { return };
        if let Some(known) = self.nodes[slot].remove(&pod.uid) {
            self.topology.remove(slot, &known);
        }
        self.vacate(&pod.node, slot);
    }

    /// The slot of a node, made when nothing is known of it yet.
    fn slot(&mut self, name: &str) -> usize {
        if let Some(slot) = self.slots.get(name) {
            return *slot;
        }
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.nodes.push(NodeInfo::default());
            self.nodes.len() - 1
        });
        self.slots.insert(name.to_string(), slot);
        slot
    }

    /// Gives a slot to another when nothing is known of its node any more.
    fn vacate(&mut self, name: &str, slot: usize) {
        let node = &self.nodes[slot];
        if node.facts.is_none() && node.pods.is_empty() {
            self.nodes[slot] = NodeInfo::default();
            self.slots.remove(name);
            self.vacant.push(slot);
        }
    }

    #[cfg(test)]
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.get(*self.slots.get(name)?)
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// The known node at a place in the round, with its facts.
    pub fn at(&self, index: usize) -> Option<Candidate<'_>> {
        let slot = *self.order.get(index)?;
        let node = self.nodes.get(slot)?;
        Some(Candidate { slot, node, facts: node.facts.as_ref()? })
    }

    /// On how many nodes an image is.
    pub fn nodes_with_image(&self, image: &str) -> usize {
        self.images.get(image).copied().unwrap_or(0)
    }

    /// Placed pods, counted by domain.
    pub fn topology(&self) -> &Topology {
        &self.topology
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
