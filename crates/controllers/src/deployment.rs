//! Deployment: a rollout from one template to the next, by way of replica sets.
//!
//! Replica sets are claimed by selector and owner reference; [`plan`] decides one step; this file carries it out. A set's name
//! ends in a hash of its template; if that name is taken by a stranger, the collision count in the status makes another.

mod facts;
mod plan;
mod revision;
mod scale;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use client::events::{Recorder, reference};
use client::{Change, Client, Deletion, Lister, Next, Outcome, Patch, Queue, Typed};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use meta::{LabelSelector, Object, ObjectKey, Status};
use serde_json::{Map, Value, json};

use crate::claim::Claimant;
use crate::views::{self, BY_OWNER, Meta, PodView, Whole};
use crate::{Context, WORKERS};
use facts::{Facts, HASH_LABEL, Set};
use plan::{Action, Plan};

const NAME: &str = "deployment-controller";

#[derive(Clone)]
struct Deployments {
    cx: Context,
    client: Client,
    recorder: Recorder,
    deployments: Lister<Whole<Deployment>>,
    sets: Lister<Whole<ReplicaSet>>,
    pods: Lister<PodView>,
}

pub fn start(cx: &Context) {
    let (client, recorder) = cx.identity(NAME);
    let queue: Queue<ObjectKey> = Queue::default();
    let deployments = views::whole::<Deployment>(&cx.informers);
    let (sets, pods) = (views::whole::<ReplicaSet>(&cx.informers), views::pods(&cx.informers));
    let controller = Deployments {
        cx: cx.clone(),
        client,
        recorder,
        deployments: deployments.lister(),
        sets: sets.lister(),
        pods: pods.lister(),
    };
    let wake = queue.clone();
    deployments.subscribe(move |change| wake.add(change.key().clone()));
    let (wake, seen) = (queue.clone(), controller.clone());
    sets.subscribe(move |change| seen.set_changed(change, &wake));
    let (wake, seen) = (queue.clone(), controller.clone());
    // Recreate waits for the last old pod to be gone.
    pods.subscribe(move |change| wake.add_all(seen.recreating_owner(change)));
    cx.run_workers(NAME, WORKERS, &queue, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    });
}

impl Deployments {
    fn set_changed(&self, change: &Change<Whole<ReplicaSet>>, queue: &Queue<ObjectKey>) {
        let (old, new) = change.sides();
        for set in [old, new].into_iter().flatten() {
            let meta = Meta::of(&set.view.metadata, 0);
            match meta.controller {
                Some(owner) if owner.kind == "Deployment" => {
                    queue.add(ObjectKey::new(&meta.key.namespace, &owner.name))
                }
                Some(_) => {}
                None => queue.add_all(self.deployments_matching(&meta)),
            }
        }
    }

    /// The deployments that would adopt an orphan.
    fn deployments_matching(&self, orphan: &Meta) -> Vec<ObjectKey> {
        let all = self.deployments.in_namespace(&orphan.key.namespace);
        let matching = all.iter().filter(|deployment| {
            selector(&deployment.view).is_ok_and(|selector| selector.matches_labels(|key| orphan.label(key)))
        });
        matching.map(|deployment| deployment.view.key()).collect()
    }

    fn recreating_owner(&self, change: &Change<PodView>) -> Option<ObjectKey> {
        let (_, None) = change.sides() else { return None };
        let pod = &change.latest().meta;
        let set = pod.controller.as_ref().filter(|owner| owner.kind == "ReplicaSet")?;
        let set = self.sets.get(&ObjectKey::new(&pod.key.namespace, &set.name))?;
        let owner = Meta::of(&set.view.metadata, 0).controller.filter(|owner| owner.kind == "Deployment")?;
        let deployment = self.deployments.get(&ObjectKey::new(&pod.key.namespace, &owner.name))?;
        let strategy = deployment.view.spec.strategy.as_ref()?.type_.as_deref();
        (strategy == Some("Recreate")).then(|| deployment.view.key())
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Next, Status> {
        let Some(deployment) = self.deployments.get(key) else { return Ok(Next::Wait) };
        let facts = Facts::of(&deployment)?;
        let sets = self.claim(&deployment.view).await?;
        let model = plan::Model::new(&facts, sets.clone());
        let running = model.old().into_iter().map(|old| self.running_pods(&model.sets[old])).sum();
        let plan = plan::plan(&facts, sets, running, self.cx.clock.now());
        let mut current = deployment.object()?;
        let outcome = self.apply(&deployment, &facts, &plan, &mut current).await;
        let status = match &outcome {
            Ok(progress) => with_progress(plan.status, progress.as_ref(), &facts, &self.cx),
            Err(_) => plan.status,
        };
        self.write_status(&facts, &current, status).await?;
        outcome?;
        let again = plan.again_after_seconds.map(Duration::from_secs);
        Ok(again.map_or(Next::Wait, Next::After))
    }

    /// All replica sets that are this deployment's, after adoption and release.
    async fn claim(&self, deployment: &Deployment) -> Result<Vec<Set>, Status> {
        let (key, selector) = (deployment.key(), selector(deployment)?);
        let claimant = Claimant::of(deployment, &key, &selector);
        let mut mine = Vec::new();
        for set in self.sets.in_namespace(&key.namespace) {
            let meta = Meta::of(&set.view.metadata, set.encoded.revision);
            if claimant.settle(&self.client, &ReplicaSet::gvr(), &meta).await? {
                mine.push(Set::of(&set)?);
            }
        }
        Ok(mine)
    }

    fn running_pods(&self, set: &Set) -> usize {
        self.pods.by_index(BY_OWNER, &set.meta.uid).iter().filter(|pod| !pod.is_terminal()).count()
    }

    /// Carries out a plan; answers the `Progressing` condition that a new set brings.
    async fn apply(
        &self,
        deployment: &Arc<Whole<Deployment>>,
        facts: &Facts,
        plan: &Plan,
        current: &mut Object,
    ) -> Result<Option<(&'static str, String)>, Status> {
        let mut progress = None;
        for action in &plan.actions {
            match action {
                Action::Create { replicas, annotations } => {
                    let name = self.create(deployment, facts, *replicas, annotations, current).await?;
                    progress = Some(("NewReplicaSetCreated", format!("Created new replica set {name:?}")));
                }
                Action::Scale { set, from, to, annotations } => {
                    self.scale(deployment, facts, set, (*from, *to), annotations).await?;
                }
                Action::Annotate { set, annotations, min_ready_seconds } => {
                    let patch = json!({"metadata": {"annotations": map(annotations)},
                                       "spec": {"minReadySeconds": min_ready_seconds}});
                    self.patch_set(facts, set, patch).await?;
                }
                Action::SetRevision(revision) => {
                    let change = json!({"metadata": {"annotations": {facts::REVISION: revision.to_string()}}});
                    *current = self.client.amend_object(&Deployment::gvr(), "", current, change).await?;
                }
                Action::Delete { set } => {
                    let key = ObjectKey::new(&facts.meta.key.namespace, set);
                    self.client.delete::<ReplicaSet>(&key, Deletion::default()).await.unless_gone()?;
                }
            }
        }
        Ok(progress)
    }

    async fn patch_set(&self, facts: &Facts, set: &str, patch: Value) -> Result<(), Status> {
        let key = ObjectKey::new(&facts.meta.key.namespace, set);
        self.client.patch_object(&ReplicaSet::gvr(), &key, "", Patch::Merge(patch)).await.map(drop)
    }

    async fn scale(
        &self,
        deployment: &Arc<Whole<Deployment>>,
        facts: &Facts,
        set: &str,
        (from, to): (i32, i32),
        annotations: &[(String, String)],
    ) -> Result<(), Status> {
        let patch = json!({"metadata": {"annotations": map(annotations)}, "spec": {"replicas": to}});
        self.patch_set(facts, set, patch).await?;
        if from != to {
            let direction = if to > from { "up" } else { "down" };
            let message = format!("Scaled {direction} replica set {set} from {from} to {to}");
            self.recorder.normal(&reference(&deployment.view), "ScalingReplicaSet", message);
        }
        Ok(())
    }

    /// Makes the set of the current template and answers its name.
    async fn create(
        &self,
        deployment: &Arc<Whole<Deployment>>,
        facts: &Facts,
        replicas: i32,
        annotations: &[(String, String)],
        current: &Object,
    ) -> Result<String, Status> {
        let collisions = facts.status.i64_at(&["collisionCount"]).unwrap_or(0);
        let selector = selector(&deployment.view)?;
        let set = replica_set(
            facts,
            &Claimant::of(&deployment.view, &facts.meta.key, &selector),
            replicas,
            annotations,
            collisions,
        );
        let key = set.key();
        match self.client.create_object(&ReplicaSet::gvr(), set).await {
            Ok(_) => {
                if replicas > 0 {
                    let message = format!("Scaled up replica set {} from 0 to {replicas}", key.name);
                    self.recorder.normal(&reference(&deployment.view), "ScalingReplicaSet", message);
                }
                Ok(key.name.to_string())
            }
            Err(status) if status.is_already_exists() => {
                let other = self.client.get_object(&ReplicaSet::gvr(), &key).await?;
                let ours = other.controller().is_some_and(|owner| owner.uid == facts.meta.uid);
                let template = other.get(&["spec", "template"]).cloned().unwrap_or_default();
                if ours && facts::same_template(&template, &facts.template) {
                    // Our cache lags behind our own write; its event will bring us back.
                    return Ok(key.name.to_string());
                }
                let change = json!({"status": {"collisionCount": collisions + 1}});
                self.client.amend_object(&Deployment::gvr(), "status", current, change).await?;
                Err(status)
            }
            Err(status) => {
                let message = format!("Failed to create new replica set {:?}: {status}", &*key.name);
                self.recorder.warning(&reference(&deployment.view), "ReplicaSetCreateError", message);
                Err(status)
            }
        }
    }

    async fn write_status(&self, facts: &Facts, current: &Object, status: Value) -> Result<(), Status> {
        let unchanged = status.as_object().into_iter().flatten().all(|(field, value)| {
            let known = facts.status.get(&[field]);
            known == Some(value) || (known.is_none() && field != "observedGeneration" && value == 0)
        });
        if unchanged {
            return Ok(());
        }
        let change = json!({"status": status});
        self.client.amend_object(&Deployment::gvr(), "status", current, change).await.unless_gone().map(drop)
    }
}

/// A set that was just made starts a new spell of progress.
fn with_progress(mut status: Value, progress: Option<&(&'static str, String)>, facts: &Facts, cx: &Context) -> Value {
    let (Some((reason, message)), Some(_)) = (progress, facts.progress_deadline_seconds) else { return status };
    let now = meta::time::rfc3339(cx.clock.now());
    if let Some(conditions) = status["conditions"].as_array_mut() {
        conditions.retain(|condition| condition["type"] != "Progressing");
        conditions.push(json!({"type": "Progressing", "status": "True", "reason": reason, "message": message,
                               "lastUpdateTime": now, "lastTransitionTime": now}));
    }
    status
}

fn replica_set(
    facts: &Facts,
    claimant: &Claimant<'_>,
    replicas: i32,
    annotations: &[(String, String)],
    collisions: i64,
) -> Object {
    let hash = revision::hash(&facts.template, collisions);
    let mut template = Object::from_value(facts.template.clone()).unwrap_or_default();
    template.set(&["metadata", "labels", HASH_LABEL], hash.as_str());
    let mut selector = Object::from_value(facts.selector.clone()).unwrap_or_default();
    selector.set(&["matchLabels", HASH_LABEL], hash.as_str());
    let mut set = Object::new(&ReplicaSet::gvk());
    set.set_meta("name", format!("{}-{hash}", facts.meta.key.name));
    set.set_meta("namespace", &*facts.meta.key.namespace);
    set.set_meta("labels", template.get(&["metadata", "labels"]).cloned().unwrap_or_default());
    set.set_meta("annotations", map(annotations));
    set.set_meta("ownerReferences", json!([claimant.owner_reference()]));
    set.set(&["spec", "replicas"], replicas);
    set.set(&["spec", "minReadySeconds"], facts.min_ready_seconds);
    set.set(&["spec", "selector"], selector.into_value());
    set.set(&["spec", "template"], template.into_value());
    set
}

fn map(pairs: &[(String, String)]) -> Value {
    Value::Object(pairs.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect::<Map<_, _>>())
}

fn selector(deployment: &Deployment) -> Result<LabelSelector, Status> {
    let spec = serde_json::to_value(&deployment.spec.selector).map_err(Status::internal)?;
    LabelSelector::from_spec(Some(&spec)).map_err(Status::internal)
}
