//! Pod garbage collection: pods nobody will clean up otherwise.
//!
//! ```text
//! on a node that is gone        -> after a quiet spell, marked failed and deleted at once
//! terminating, never placed     -> deleted at once
//! ended, more than the threshold -> the oldest deleted
//! ```

use std::time::Duration;

use client::{Change, Client, Deletion, Lister, Next, Outcome, Patch, Queue, Typed, Watched};
use k8s_openapi::api::core::v1::{Node, Pod};
use meta::{ObjectKey, Status, time};
use serde_json::json;

use crate::Context;
use crate::views::{self, BY_NODE, Meta, PodView};

const NAME: &str = "pod-garbage-collector";
/// A node that was deleted may be on its way back.
const QUARANTINE: Duration = Duration::from_secs(40);
/// Upstream's `--terminated-pod-gc-threshold`.
const ENDED_MAX: usize = 12_500;

/// Keys are nodes that are gone, a pod that was never placed, or the empty name for the count of ended pods.
type Key = ObjectKey;

#[derive(Clone)]
struct PodGc {
    cx: Context,
    client: Client,
    nodes: Lister<Meta>,
    pods: Lister<PodView>,
}

pub fn start(cx: &Context) {
    let (client, _) = cx.identity(NAME);
    let queue: Queue<Key> = Queue::default();
    let nodes = cx.informers.of::<Meta>(Watched::all_of::<Node>(), &[]);
    let pods = views::pods(&cx.informers);
    let controller = PodGc { cx: cx.clone(), client, nodes: nodes.lister(), pods: pods.lister() };
    let wake = queue.clone();
    nodes.subscribe(move |change| {
        if let Change::Deleted { key, .. } = change {
            wake.add_after(key.clone(), QUARANTINE);
        }
    });
    let (wake, known) = (queue.clone(), controller.nodes.clone());
    pods.subscribe(move |change| {
        let Some(pod) = change.sides().1 else { return };
        let node = ObjectKey::cluster(&pod.node);
        if pod.node.is_empty() && pod.meta.deleting.is_some() {
            wake.add(pod.meta.key.clone());
        } else if !pod.node.is_empty() && known.get(&node).is_none() {
            wake.add_after(node, QUARANTINE);
        }
        if pod.is_terminal() {
            wake.add(ObjectKey::default());
        }
    });
    cx.run_workers(NAME, 1, &queue, move |key: Key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    });
}

impl PodGc {
    async fn sync(&self, key: &Key) -> Result<Next, Status> {
        if !key.namespace.is_empty() {
            if let Some(pod) = self.pods.get(key).filter(|pod| pod.node.is_empty() && pod.meta.deleting.is_some()) {
                self.remove(&pod).await?;
            }
        } else if key.name.is_empty() {
            self.trim_ended().await?;
        } else if self.nodes.get(key).is_none() {
            self.clear_node(key).await?;
        }
        Ok(Next::Wait)
    }

    async fn clear_node(&self, node: &Key) -> Result<(), Status> {
        // The cache may be behind a node that has just come back.
        match self.client.find::<Node>(node).await? {
            Some(_) => return Ok(()),
            None => tracing::info!(node = %node, "node is gone, removing its pods"),
        }
        for pod in self.pods.by_index(BY_NODE, &node.name) {
            if !pod.is_terminal() {
                let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                    "message": "PodGC: node no longer exists", "lastTransitionTime": time::rfc3339(self.cx.clock.now())});
                let patch = json!({"metadata": {"uid": pod.meta.uid}, "status": {"phase": "Failed", "conditions": [condition]}});
                let patched =
                    self.client.patch_object(&Pod::gvr(), &pod.meta.key, "status", Patch::Strategic(patch)).await;
                patched.unless_replaced()?;
            }
            self.remove(&pod).await?;
        }
        Ok(())
    }

    async fn trim_ended(&self) -> Result<(), Status> {
        let mut ended: Vec<_> = self.pods.all().into_iter().filter(|pod| pod.is_terminal()).collect();
        let surplus = ended.len().saturating_sub(ENDED_MAX);
        ended.sort_by_key(|pod| pod.meta.created);
        for pod in ended.into_iter().take(surplus) {
            self.remove(&pod).await?;
        }
        Ok(())
    }

    async fn remove(&self, pod: &PodView) -> Result<(), Status> {
        let deletion =
            Deletion { grace_period_seconds: Some(0), uid: Some(pod.meta.uid.clone()), ..Deletion::default() };
        self.client.delete::<Pod>(&pod.meta.key, deletion).await.unless_replaced().map(drop)
    }
}
