//! Sends pod statuses to the API: only what changed, and at the very end the delete that lets the pod go.
//!
//! ```text
//! set (worker's status, pod as the API shows it) ─▶ desired ──difference──▶ patch ─▶ API
//!            newer than what was known ─────────▶ written ◀──what it answers──┘
//! ```
//!
//! A worker sets what the status is and goes on; a few tasks bring the API in line, with retries, one write of a pod at a time.
//! What the API has is taken from whatever is newest of its answers and of the pods it shows, so a status that somebody else
//! overwrote is written again. Conditions of types that this agent does not make are neither read nor written here: a copy of
//! them would put an old one over a new one.
//!
//! A pod that is finished here and being deleted there is deleted with grace period 0 once its last status has been written,
//! never before.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::{BackoffPolicy, Tasks};
use client::{Client, Deletion, Next, Patch, Queue, run_workers};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use meta::{ObjectKey, Status};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::pod;
use crate::status::conditions;

const WORKERS: usize = 8;
/// A status that the API did not take is offered again at least as often as upstream's agent does, whatever the outage.
const RETRY: BackoffPolicy = BackoffPolicy::doubling(Duration::from_millis(5), Duration::from_secs(10));

/// The status fields this agent writes; all others are left alone.
const OWNED: [&str; 16] = [
    "phase",
    "conditions",
    "message",
    "reason",
    "hostIP",
    "hostIPs",
    "podIP",
    "podIPs",
    "startTime",
    "initContainerStatuses",
    "containerStatuses",
    "ephemeralContainerStatuses",
    "qosClass",
    "observedGeneration",
    "resize",
    "resources",
];

struct Entry {
    key: ObjectKey,
    desired: Value,
    /// What the API is known to have, as of `revision`.
    written: Value,
    revision: u64,
    /// Nothing of the pod is left here: once this status is written, the pod may go.
    release: bool,
}

impl Entry {
    fn new(pod: &Pod) -> Self {
        let written = tree(pod::status(pod));
        Entry { key: pod::key(pod), desired: written.clone(), written, revision: pod::revision(pod), release: false }
    }

    /// Takes what the API shows, unless something newer is known.
    fn saw(&mut self, pod: &Pod) {
        let revision = pod::revision(pod);
        if revision > self.revision {
            (self.written, self.revision) = (tree(pod::status(pod)), revision);
        }
    }
}

/// The statuses on their way. Cheap to clone.
#[derive(Clone)]
pub struct StatusWriter {
    client: Client,
    /// By pod uid.
    entries: Arc<Mutex<HashMap<String, Entry>>>,
    queue: Queue<String>,
}

impl StatusWriter {
    pub fn start(client: Client, tasks: &Tasks) -> Self {
        let writer = StatusWriter { client, entries: Arc::default(), queue: Queue::new(RETRY) };
        let syncing = writer.clone();
        run_workers("pod-status", WORKERS, tasks, &writer.queue, move |uid: String| {
            let writer = syncing.clone();
            async move { writer.sync(&uid).await }
        });
        writer
    }

    /// Lets a pod that is being deleted go, once the status set last is written.
    pub fn release(&self, pod: &Pod) {
        let uid = pod::uid(pod).to_string();
        let mut entries = self.entries.lock();
        let entry = entries.entry(uid.clone()).or_insert_with(|| Entry::new(pod));
        entry.release = true;
        self.queue.add(uid);
    }

    /// Sets the status of a pod, given as the API last showed it.
    pub fn set(&self, pod: &Pod, status: &PodStatus) {
        let uid = pod::uid(pod).to_string();
        let mut entries = self.entries.lock();
        let entry = entries.entry(uid.clone()).or_insert_with(|| Entry::new(pod));
        entry.saw(pod);
        entry.desired = tree(status);
        if difference(&entry.written, &entry.desired).is_some() {
            self.queue.add(uid);
        }
    }

    /// Forgets a pod that the API no longer has.
    pub fn forget(&self, uid: &str) {
        self.entries.lock().remove(uid);
    }

    async fn sync(&self, uid: &str) -> Result<Next, Status> {
        let Some((key, patch, release)) = self.next(uid) else { return Ok(Next::Wait) };
        if let Some(patch) = patch {
            match self.client.patch_object(&pods(), &key, "status", Patch::Strategic(patch)).await {
                Ok(answer) => self.note_written(uid, &answer.typed()?),
                Err(status) if is_gone(&status) => {
                    self.forget(uid);
                    return Ok(Next::Wait);
                }
                Err(status) => return Err(status),
            }
        }
        if release {
            let deletion =
                Deletion { grace_period_seconds: Some(0), uid: Some(uid.to_string()), ..Deletion::default() };
            match self.client.delete_object(&pods(), &key, deletion).await {
                Err(status) if !is_gone(&status) => return Err(status),
                _ => self.forget(uid),
            }
        }
        Ok(Next::Wait)
    }

    fn next(&self, uid: &str) -> Option<(ObjectKey, Option<Value>, bool)> {
        let entries = self.entries.lock();
        let entry = entries.get(uid)?;
        let patch = difference(&entry.written, &entry.desired)
            .map(|status| json!({"metadata": {"uid": uid}, "status": status}));
        Some((entry.key.clone(), patch, entry.release))
    }

    fn note_written(&self, uid: &str, answer: &Pod) {
        if let Some(entry) = self.entries.lock().get_mut(uid) {
            entry.saw(answer);
        }
    }
}

/// Deleted, or replaced by another pod of the same name.
fn is_gone(status: &Status) -> bool {
    status.is_not_found() || (status.is_conflict() && status.message.to_lowercase().contains("uid"))
}

fn pods() -> meta::GroupVersionResource {
    meta::GroupVersionResource::new("", "v1", "pods")
}

/// The owned fields of a status as a tree, with the owned conditions.
fn tree(status: &PodStatus) -> Value {
    let mut value = serde_json::to_value(status).unwrap_or_else(|_| json!({}));
    if let Some(map) = value.as_object_mut() {
        map.retain(|field, _| OWNED.contains(&field.as_str()));
    }
    if let Some(listed) = value.get_mut("conditions").and_then(Value::as_array_mut) {
        listed.retain(|condition| condition["type"].as_str().is_some_and(|type_| conditions::OWNED.contains(&type_)));
    }
    value
}

/// The strategic merge patch from one status to the other; none when they are equal.
fn difference(written: &Value, desired: &Value) -> Option<Value> {
    let empty = Map::new();
    let (written, desired) = (written.as_object().unwrap_or(&empty), desired.as_object().unwrap_or(&empty));
    let mut patch = Map::new();
    for (field, value) in desired {
        if written.get(field) == Some(value) {
            continue;
        }
        let old = written.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let value = match (field.as_str(), value.as_array()) {
            // Merged by address: without the directive an address that went would stay.
            ("podIPs" | "hostIPs", Some(list)) if !old.is_empty() => {
                std::iter::once(json!({"$patch": "replace"})).chain(list.iter().cloned()).collect()
            }
            ("conditions", Some(list)) => list
                .iter()
                .filter(|condition| !old.contains(condition))
                .map(|condition| turned(condition, old))
                .collect(),
            _ => value.clone(),
        };
        patch.insert(field.clone(), value);
    }
    for field in written.keys().filter(|field| !desired.contains_key(*field)) {
        patch.insert(field.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// A condition as it is merged into the one of its type: what that had and this has not is removed.
fn turned(condition: &Value, old: &[Value]) -> Value {
    let mut turned = condition.clone();
    let before = old.iter().find(|known| known["type"] == condition["type"]).and_then(Value::as_object);
    if let (Some(turned), Some(before)) = (turned.as_object_mut(), before) {
        for field in before.keys() {
            turned.entry(field.as_str()).or_insert(Value::Null);
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_sent() {
        let old = json!({"phase": "Pending", "podIPs": [{"ip": "1"}], "reason": "x",
            "conditions": [{"type": "Ready", "status": "False", "reason": "r"}, {"type": "Initialized", "status": "True"}]});
        assert_eq!(difference(&old, &old), None);
        let new = json!({"phase": "Running", "podIPs": [{"ip": "2"}],
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True"}]});
        assert_eq!(
            difference(&old, &new).unwrap(),
            json!({"phase": "Running", "podIPs": [{"$patch": "replace"}, {"ip": "2"}], "reason": null,
                   "conditions": [{"type": "Ready", "status": "True", "reason": null}]})
        );
    }

    fn pod(revision: u64, status: Value) -> Pod {
        let metadata = json!({"name": "p", "namespace": "n", "uid": "u", "resourceVersion": revision.to_string()});
        serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
    }

    #[test]
    fn conditions_of_others_are_never_sent() {
        let (mine, stale) =
            (json!({"type": "Ready", "status": "True"}), json!({"type": "example.com/gate", "status": "False"}));
        let status: PodStatus = serde_json::from_value(json!({"conditions": [mine, stale]})).unwrap();
        let patch = difference(&json!({}), &tree(&status)).unwrap();
        assert_eq!(patch, json!({"conditions": [mine]}));
    }

    #[test]
    fn what_the_api_has_is_the_newest_of_what_it_showed() {
        let mut entry = Entry::new(&pod(5, json!({"phase": "Pending"})));
        entry.saw(&pod(7, json!({"phase": "Running"})));
        entry.saw(&pod(6, json!({"phase": "Pending"})));
        assert_eq!((entry.revision, &entry.written["phase"]), (7, &json!("Running")), "an older view comes late");
        entry.saw(&pod(8, json!({"phase": "Failed"})));
        entry.desired = json!({"phase": "Running"});
        assert_eq!(difference(&entry.written, &entry.desired), Some(json!({"phase": "Running"})), "it was overwritten");
    }
}
