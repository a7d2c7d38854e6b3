//! ReplicaSet: as many pods of a template as it says.
//!
//! Pods are claimed by selector and owner reference, counted, and made or removed in bursts guarded by expectations. The status
//! follows from the same count. ReplicationControllers work alike and will share this module when their turn comes.

mod plan;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::events::reference;
use client::{Change, Lister, Next, Outcome, Queue, Typed};
use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use meta::{LabelSelector, ObjectKey, Status, time};
use serde_json::{Value, json};

use crate::claim::{Claimant, Verdict};
use crate::expectations::Expectations;
use crate::pods::{PodControl, slow_start};
use crate::views::{self, BY_OWNER, PodView, Whole};
use crate::{Context, WORKERS};

const NAME: &str = "replicaset-controller";

#[derive(Clone)]
struct ReplicaSets {
    cx: Context,
    control: PodControl,
    sets: Lister<Whole<ReplicaSet>>,
    pods: Lister<PodView>,
    expectations: Expectations,
}

pub fn start(cx: &Context) {
    let (client, recorder) = cx.identity(NAME);
    let queue: Queue<ObjectKey> = Queue::default();
    let (sets, pods) = (views::whole::<ReplicaSet>(&cx.informers), views::pods(&cx.informers));
    let controller = ReplicaSets {
        cx: cx.clone(),
        control: PodControl { client, recorder },
        sets: sets.lister(),
        pods: pods.lister(),
        expectations: Expectations::default(),
    };
    let (wake, expectations) = (queue.clone(), controller.expectations.clone());
    sets.subscribe(move |change| {
        if let Change::Deleted { key, .. } = change {
            expectations.forget(key);
        }
        wake.add(change.key().clone());
    });
    let (wake, seen) = (queue.clone(), controller.clone());
    pods.subscribe(move |change| seen.pod_changed(change, &wake));
    cx.run_workers(NAME, WORKERS, &queue, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    });
}

impl ReplicaSets {
    fn pod_changed(&self, change: &Change<PodView>, queue: &Queue<ObjectKey>) {
        let (old, new) = change.sides();
        let owner_key = |pod: &Arc<PodView>| {
            let owner = pod.meta.controller.as_ref().filter(|owner| owner.kind == "ReplicaSet")?;
            Some(ObjectKey::new(&pod.meta.key.namespace, &owner.name))
        };
        if let (None, Some(key)) = (old, new.and_then(owner_key)) {
            self.expectations.created(&key);
        }
        if let Some((pod, key)) = old.or(new).and_then(|pod| Some((pod, owner_key(pod)?))) {
            if new.is_none_or(|new| new.meta.deleting.is_some()) {
                self.expectations.deleted(&key, &pod.meta.uid);
            }
            queue.add(key);
        }
        match new {
            Some(new) if new.meta.controller.is_some() => queue.add_all(owner_key(new)),
            Some(orphan) => queue.add_all(self.sets_matching(orphan)),
            None => {}
        }
    }

    /// The sets that would adopt an orphan.
    fn sets_matching(&self, orphan: &PodView) -> Vec<ObjectKey> {
        let sets = self.sets.in_namespace(&orphan.meta.key.namespace);
        let matching = sets.iter().filter(|set| selector(&set.view).matches_labels(|key| orphan.meta.label(key)));
        matching.map(|set| set.view.key()).collect()
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Next, Status> {
        let Some(set) = self.sets.get(key) else {
            self.expectations.forget(key);
            return Ok(Next::Wait);
        };
        let object = set.object()?;
        let template = object.get(&["spec", "template"]).cloned().unwrap_or_default();
        let trusted = self.expectations.are_met(key);
        let mine = self.claim(&set.view).await?;
        let terminating = mine.iter().filter(|pod| pod.meta.deleting.is_some() && !pod.is_terminal()).count();
        let active: Vec<_> = mine.into_iter().filter(|pod| pod.is_active()).collect();
        let outcome = if trusted && set.view.metadata.deletion_timestamp.is_none() {
            self.correct(&set.view, &template, &active).await
        } else {
            Ok(())
        };
        self.write_status(&set, &template, &active, terminating, outcome.as_ref().err()).await?;
        outcome.map_err(|failure| failure.status)?;
        Ok(self.next_available(&set.view, &active))
    }

    /// All pods that are this set's, after adoption and release.
    async fn claim(&self, set: &ReplicaSet) -> Result<Vec<Arc<PodView>>, Status> {
        let (key, selector) = (set.key(), selector(set));
        let claimant = Claimant::of(set, &key, &selector);
        let mut mine = Vec::new();
        for pod in self.pods.in_namespace(&key.namespace) {
            let is_mine = match claimant.judge(&pod.meta) {
                Verdict::Mine => true,
                Verdict::NotMine => false,
                Verdict::Adopt | Verdict::Release if !pod.is_active() => false,
                _ => claimant.settle(&self.control.client, &Pod::gvr(), &pod.meta).await?,
            };
            if is_mine {
                mine.push(pod);
            }
        }
        Ok(mine)
    }

    async fn correct(&self, set: &ReplicaSet, template: &Value, active: &[Arc<PodView>]) -> Result<(), Failure> {
        let (key, selector, about) = (set.key(), selector(set), reference(set));
        let replicas = set.spec.replicas.unwrap_or(1);
        match plan::plan(replicas, active, self.cx.clock.now(), |node| self.peers_on_node(set, node)) {
            plan::Action::Nothing => Ok(()),
            plan::Action::Create(count) => {
                self.expectations.expect_creations(&key, count);
                let claimant = Claimant::of(set, &key, &selector);
                let (done, error) = slow_start(count, || self.control.create(template, &claimant, &about)).await;
                // What was not made will not be seen.
                (done..count).for_each(|_| self.expectations.created(&key));
                error.map_or(Ok(()), |status| Err(Failure { reason: "FailedCreate", status }))
            }
            plan::Action::Delete(victims) => {
                let victims: Vec<_> = victims.into_iter().map(|index| &active[index].meta).collect();
                self.expectations.expect_deletions(&key, victims.iter().map(|pod| pod.uid.clone()));
                let deletions = victims.iter().map(|pod| async {
                    let outcome = self.control.delete(&pod.key, &pod.uid, &about).await;
                    if outcome.is_err() {
                        self.expectations.deleted(&key, &pod.uid);
                    }
                    outcome
                });
                let outcome = try_join_all(deletions).await;
                outcome.map(drop).map_err(|status| Failure { reason: "FailedDelete", status })
            }
        }
    }

    /// How many active pods of the set's siblings (same controller) share a node with its pods.
    fn peers_on_node(&self, set: &ReplicaSet, node: &str) -> usize {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let owners = set.metadata.owner_references.iter().flatten();
        let controller = owners.filter(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str()).next();
        let siblings: Vec<String> = self
            .sets
            .in_namespace(set.metadata.namespace.as_deref().unwrap_or_default())
            .iter()
            .filter(|other| {
                controller.is_some_and(|uid| views::Meta::of(&other.view.metadata, 0).is_controlled_by(uid))
            })
            .filter_map(|other| other.view.metadata.uid.clone())
            .chain([uid.to_string()])
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect();
        let mut per_node: HashMap<String, usize> = HashMap::new();
        for pod in siblings.iter().flat_map(|uid| self.pods.by_index(BY_OWNER, uid)) {
            if pod.is_active() {
                *per_node.entry(pod.node.clone()).or_default() += 1;
            }
        }
        per_node.get(node).copied().unwrap_or(0)
    }

    async fn write_status(
        &self,
        set: &Whole<ReplicaSet>,
        template: &Value,
        active: &[Arc<PodView>],
        terminating: usize,
        failure: Option<&Failure>,
    ) -> Result<(), Status> {
        let now = self.cx.clock.now();
        let min_ready = set.view.spec.min_ready_seconds.unwrap_or(0);
        let counts = plan::count(active, terminating, template, min_ready, now);
        let object = set.object()?;
        let message = failure.map(|failure| failure.status.to_string());
        let failed = failure.zip(message.as_deref()).map(|(failure, message)| (failure.reason, message));
        let conditions = plan::replica_failure(object.list_at(&["status", "conditions"]), failed, &time::rfc3339(now));
        let status = json!({
            "replicas": counts.replicas, "fullyLabeledReplicas": counts.fully_labeled, "readyReplicas": counts.ready,
            "availableReplicas": counts.available, "terminatingReplicas": counts.terminating,
            "observedGeneration": object.generation(), "conditions": conditions,
        });
        let unchanged = status.as_object().into_iter().flatten().all(|(field, value)| {
            let current = object.get(&["status", field]);
            current == Some(value) || (current.is_none() && (value == 0 || value.as_array().is_some_and(Vec::is_empty)))
        });
        if unchanged && object.get(&["status", "observedGeneration"]).is_some() {
            return Ok(());
        }
        let (client, change) = (&self.control.client, json!({"status": status}));
        client.amend_object(&ReplicaSet::gvr(), "status", &object, change).await.unless_gone().map(drop)
    }

    /// With `minReadySeconds`, a ready pod becomes available without any event.
    fn next_available(&self, set: &ReplicaSet, active: &[Arc<PodView>]) -> Next {
        let min_ready = set.spec.min_ready_seconds.unwrap_or(0);
        let now = self.cx.clock.now();
        let due =
            active.iter().filter_map(|pod| pod.available_at(min_ready)).filter(|at| min_ready > 0 && *at > now).min();
        due.map_or(Next::Wait, |at| Next::After(self.cx.clock.until(at) + Duration::from_millis(1)))
    }
}

/// Why pods could not be made or removed.
struct Failure {
    reason: &'static str,
    status: Status,
}

/// An unreadable selector (validation refuses it) selects nothing.
fn selector(set: &ReplicaSet) -> LabelSelector {
    let spec = serde_json::to_value(&set.spec.selector).ok();
    LabelSelector::from_spec(spec.as_ref()).unwrap_or_else(|_| LabelSelector::nothing())
}
