//! Node lifecycle: notices that a node has fallen silent, marks it, and moves its pods elsewhere.
//!
//! ```text
//! lease or status renewed          -> healthy; look again when the grace period would end
//! silent for 50 s                  -> conditions Unknown, pods not ready
//! Ready False or Unknown           -> taints not-ready / unreachable (NoExecute), and NoSchedule for each condition
//! pod does not tolerate NoExecute  -> deleted at once, or when its tolerationSeconds have passed
//! every node is silent             -> it is we who cannot see: nobody is evicted
//! ```
//!
//! When a node was last heard of is measured by our own clock, at the moment its lease or status was seen to change, so that clocks
//! that differ between machines do no harm.

mod taints;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use client::events::{Recorder, reference};
use client::{Client, Deletion, Lister, Next, Outcome, Patch, Queue, Typed, Watched};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use meta::{ObjectKey, Status, time};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::Context;
use crate::views::{self, BY_NODE, PodView, Whole};
pub use taints::Wanted;

const NAME: &str = "node-controller";
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Upstream's `--node-monitor-grace-period`.
const GRACE: Duration = Duration::from_secs(50);

/// When a node was last heard of, and by what.
#[derive(Clone, Debug, Default)]
struct Heard {
    lease: String,
    status: String,
    at: Timestamp,
}

#[derive(Clone)]
struct NodeLifecycle {
    cx: Context,
    client: Client,
    recorder: Recorder,
    nodes: Lister<Whole<Node>>,
    leases: Lister<Lease>,
    pods: Lister<PodView>,
    heard: Arc<Mutex<HashMap<ObjectKey, Heard>>>,
    evictions: Queue<ObjectKey>,
}

pub fn start(cx: &Context) {
    let (client, recorder) = cx.identity(NAME);
    let (queue, evictions): (Queue<ObjectKey>, Queue<ObjectKey>) = (Queue::default(), Queue::default());
    let nodes = views::whole::<Node>(&cx.informers);
    let in_namespace = Watched { namespace: LEASE_NAMESPACE.to_string(), ..Watched::all_of::<Lease>() };
    let leases = cx.informers.of::<Lease>(in_namespace, &[]);
    let pods = views::pods(&cx.informers);
    let controller = NodeLifecycle {
        cx: cx.clone(),
        client,
        recorder,
        nodes: nodes.lister(),
        leases: leases.lister(),
        pods: pods.lister(),
        heard: Arc::default(),
        evictions: evictions.clone(),
    };
    let wake = queue.clone();
    nodes.subscribe(move |change| wake.add(change.key().clone()));
    let wake = queue.clone();
    leases.subscribe(move |change| wake.add(ObjectKey::cluster(&change.key().name)));
    let wake = evictions.clone();
    pods.subscribe(move |change| {
        if change.sides().1.is_some_and(|pod| !pod.node.is_empty() && pod.is_active()) {
            wake.add(change.key().clone());
        }
    });
    let monitor = controller.clone();
    cx.run_workers(NAME, 1, &queue, move |key| {
        let monitor = monitor.clone();
        async move { monitor.sync_node(&key).await }
    });
    cx.run_workers("taint-eviction-controller", crate::WORKERS, &evictions, move |key| {
        let controller = controller.clone();
        async move { controller.sync_pod(&key).await }
    });
}

impl NodeLifecycle {
    async fn sync_node(&self, key: &ObjectKey) -> Result<Next, Status> {
        let Some(node) = self.nodes.get(key) else {
            self.heard.lock().remove(key);
            return Ok(Next::Wait);
        };
        let object = node.object()?;
        let silent_for = self.silence(key, &node.view);
        if silent_for >= GRACE {
            self.mark_unknown(key, &object).await?;
        }
        let conditions = object.list_at(&["status", "conditions"]);
        let everything_is_silent = self.nodes.all().iter().all(|node| taints::ready_status(&node.view) != "True");
        let current = object.list_at(&["spec", "taints"]);
        let unschedulable = object.bool_at(&["spec", "unschedulable"]);
        let wanted = taints::wanted(current, conditions, unschedulable, everything_is_silent, self.cx.clock.now());
        if let Wanted::Changed(taints) = wanted {
            let patch = json!({"metadata": {"uid": object.uid(), "resourceVersion": object.resource_version()},
                               "spec": {"taints": taints}});
            self.client.patch_object(&Node::gvr(), key, "", Patch::Merge(patch)).await?;
        }
        for pod in self.pods.by_index(BY_NODE, &key.name) {
            self.evictions.add(pod.meta.key.clone());
            if taints::ready_status(&node.view) != "True" && pod.ready && pod.is_active() {
                self.mark_pod_unready(&pod).await?;
            }
        }
        Ok(if silent_for >= GRACE { Next::Wait } else { Next::After(GRACE - silent_for) })
    }

    /// For how long nothing was heard of the node.
    fn silence(&self, key: &ObjectKey, node: &Node) -> Duration {
        let lease = self.leases.get(&ObjectKey::new(LEASE_NAMESPACE, &key.name));
        let lease = lease.and_then(|lease| Some(lease.spec.as_ref()?.renew_time.as_ref()?.0.to_string()));
        let beats = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let beat = beats.filter(|it| it.type_ == "Ready").find_map(|it| it.last_heartbeat_time.as_ref());
        let (lease, status) = (lease.unwrap_or_default(), beat.map(|beat| beat.0.to_string()).unwrap_or_default());
        let now = self.cx.clock.now();
        let mut heard = self.heard.lock();
        let known = heard.entry(key.clone()).or_insert_with(|| Heard { at: now, ..Heard::default() });
        if known.lease != lease || known.status != status {
            *known = Heard { lease, status, at: now };
        }
        Duration::try_from(now.duration_since(known.at)).unwrap_or_default()
    }

    async fn mark_unknown(&self, key: &ObjectKey, node: &meta::Object) -> Result<(), Status> {
        let now = time::rfc3339(self.cx.clock.now());
        let mut conditions = node.list_at(&["status", "conditions"]).to_vec();
        let mut changed = false;
        for name in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
            let known = conditions.iter_mut().find(|condition| condition["type"] == name);
            match known {
                Some(condition) if condition["status"] != "Unknown" => {
                    condition["status"] = "Unknown".into();
                    condition["reason"] = "NodeStatusUnknown".into();
                    condition["message"] = "Kubelet stopped posting node status.".into();
                    condition["lastTransitionTime"] = now.as_str().into();
                    changed = true;
                }
                Some(_) => {}
                None => {
                    conditions.push(json!({"type": name, "status": "Unknown", "reason": "NodeStatusNeverUpdated",
                        "message": "Kubelet never posted node status.", "lastTransitionTime": now}));
                    changed = true;
                }
            }
        }
        if !changed {
            return Ok(());
        }
        let patch = json!({"metadata": {"uid": node.uid()}, "status": {"conditions": conditions}});
        self.client.patch_object(&Node::gvr(), key, "status", Patch::Merge(patch)).await?;
        if let Some(node) = self.nodes.get(key) {
            let message = format!("Node {} status is now: NodeNotReady", key.name);
            self.recorder.normal(&reference(&node.view), "NodeNotReady", message);
        }
        Ok(())
    }

    /// A pod on a silent node gets no traffic.
    async fn mark_pod_unready(&self, pod: &PodView) -> Result<(), Status> {
        let condition =
            json!({"type": "Ready", "status": "False", "lastTransitionTime": time::rfc3339(self.cx.clock.now())});
        let patch = json!({"metadata": {"uid": pod.meta.uid}, "status": {"conditions": [condition]}});
        let patched = self.client.patch_object(&Pod::gvr(), &pod.meta.key, "status", Patch::Strategic(patch)).await;
        patched.unless_replaced().map(drop)
    }

    /// Evicts a pod that its node's taints drive away, when the time has come.
    async fn sync_pod(&self, key: &ObjectKey) -> Result<Next, Status> {
        let Some(pod) = self.pods.get(key).filter(|pod| pod.is_active()) else { return Ok(Next::Wait) };
        let Some(node) = self.nodes.get(&ObjectKey::cluster(&pod.node)) else { return Ok(Next::Wait) };
        let node_taints = node.view.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        let Some(due) = taints::eviction_time(node_taints, &pod.tolerations) else { return Ok(Next::Wait) };
        let wait = self.cx.clock.until(due);
        if !wait.is_zero() {
            return Ok(Next::After(wait));
        }
        let about = client::events::reference_to(&Pod::gvk(), key, Some(&pod.meta.uid), None);
        self.recorder.normal(&about, "TaintManagerEviction", format!("Marking for deletion Pod {key}"));
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": time::rfc3339(self.cx.clock.now())});
        let patch: Value = json!({"metadata": {"uid": pod.meta.uid}, "status": {"conditions": [condition]}});
        self.client.patch_object(&Pod::gvr(), key, "status", Patch::Strategic(patch)).await.unless_replaced()?;
        let deletion = Deletion { uid: Some(pod.meta.uid.clone()), ..Deletion::default() };
        self.client.delete::<Pod>(key, deletion).await.unless_replaced()?;
        Ok(Next::Wait)
    }
}
