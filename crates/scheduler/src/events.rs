//! What happens in the cluster, as far as it may help waiting pods, and how informer changes become it.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{Change, Encoded, Projection};
use k8s_openapi::api::core::v1::Namespace;
use meta::{ObjectKey, Status};

use crate::Scheduler;
use crate::cache::ClaimState;
use crate::node_info::NodeFacts;
use crate::pod_info::PodInfo;

/// Something that may make room or lift an obstacle.
#[derive(Clone, Debug)]
pub enum Event {
    NodeAdded(Arc<NodeFacts>),
    NodeUpdated {
        old: Arc<NodeFacts>,
        new: Arc<NodeFacts>,
    },
    /// A bound pod is gone or has ended: its room is free.
    PodFreed(Arc<PodInfo>),
    /// A pod is bound, or a bound one means something else to others than before.
    PodPlaced(Arc<PodInfo>),
    /// The waiting pod itself was changed.
    PodUpdated,
    /// A claim is new, bound or gone.
    ClaimChanged(ObjectKey),
}

/// What is kept of a claim.
pub struct Claim(ClaimState);

impl Projection for Claim {
    fn project(encoded: &Encoded) -> Result<Self, Status> {
        let object = encoded.object()?;
        let bound =
            !object.str_at(&["spec", "volumeName"]).is_empty() && object.str_at(&["status", "phase"]) == "Bound";
        Ok(Claim(match (object.is_being_deleted(), bound) {
            (true, _) => ClaimState::Going,
            (false, true) => ClaimState::Bound,
            (false, false) => ClaimState::Unbound,
        }))
    }
}

/// What is kept of a namespace.
pub struct NamespaceLabels(BTreeMap<String, String>);

impl Projection for NamespaceLabels {
    fn project(encoded: &Encoded) -> Result<Self, Status> {
        let namespace: Namespace = encoded.typed()?;
        Ok(NamespaceLabels(namespace.metadata.labels.unwrap_or_default()))
    }
}

impl Scheduler {
    pub(crate) fn node_changed(&self, change: &Change<NodeFacts>) {
        let event = match change {
            Change::Added { new, .. } => {
                self.cache.lock().put_node(new.clone());
                Event::NodeAdded(new.clone())
            }
            Change::Updated { old, new, .. } => {
                if old == new {
                    return;
                }
                self.cache.lock().put_node(new.clone());
                Event::NodeUpdated { old: old.clone(), new: new.clone() }
            }
            Change::Deleted { old, .. } => return self.cache.lock().remove_node(&old.name),
        };
        self.wake(&event);
    }

    pub(crate) fn namespace_changed(&self, change: &Change<NamespaceLabels>) {
        let labels = change.sides().1.map(|namespace| namespace.0.clone());
        self.cache.lock().put_namespace(&change.key().name, labels);
    }

    pub(crate) fn claim_changed(&self, change: &Change<Claim>) {
        let state = change.sides().1.map(|claim| claim.0);
        self.cache.lock().put_claim(change.key(), state);
        self.wake(&Event::ClaimChanged(change.key().clone()));
    }

    pub(crate) fn pod_changed(&self, change: &Change<PodInfo>) {
        let (old, new) = change.sides();
        let occupies = |pod: &&Arc<PodInfo>| !pod.node.is_empty() && !pod.terminal;
        match (old.filter(occupies), new.filter(occupies)) {
            // A pod deleted and made anew between two lists looks like one that moved.
            (Some(before), Some(now)) if before.uid != now.uid || before.node != now.node => {
                self.cache.lock().remove_pod(before);
                self.cache.lock().put_pod(now.clone());
                self.wake(&Event::PodFreed(before.clone()));
                self.wake(&Event::PodPlaced(now.clone()));
            }
            (None, Some(now)) => {
                self.cache.lock().put_pod(now.clone());
                self.wake(&Event::PodPlaced(now.clone()));
            }
            (Some(before), Some(now)) => {
                self.cache.lock().put_pod(now.clone());
                if !before.counts_as(now) {
                    self.wake(&Event::PodFreed(before.clone()));
                    self.wake(&Event::PodPlaced(now.clone()));
                }
            }
            (Some(before), None) => {
                self.cache.lock().remove_pod(before);
                self.wake(&Event::PodFreed(before.clone()));
            }
            (None, None) => {}
        }
        self.waiting_changed(old, new);
    }

    /// Keeps the queue in step with the pods that wait.
    fn waiting_changed(&self, old: Option<&Arc<PodInfo>>, new: Option<&Arc<PodInfo>>) {
        let waits = |pod: &&Arc<PodInfo>| pod.wants_placement(crate::NAME);
        match (old.filter(waits), new.filter(waits)) {
            (before, Some(pod)) => {
                if let Some(before) = before.filter(|before| before.uid != pod.uid) {
                    self.queue.lock().remove(&before.uid);
                }
                if !self.cache.lock().is_assumed(&pod.uid) {
                    self.queue.lock().put(pod.clone(), tokio::time::Instant::now(), &self.plugins);
                    self.bell.notify_one();
                }
            }
            (Some(before), None) => self.queue.lock().remove(&before.uid),
            (None, None) => {}
        }
    }

    /// Has the pods that an event may help tried again.
    pub(crate) fn wake(&self, event: &Event) {
        self.queue.lock().wake(event, tokio::time::Instant::now(), &self.plugins);
        self.bell.notify_one();
    }
}
