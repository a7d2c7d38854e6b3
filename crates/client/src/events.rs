//! Events: what a component tells users about an object.
//!
//! `Recorder::event` never waits and never fails its caller: it hands the event to a bounded queue, which one task empties.
//! Equal events are counted up on one object by a patch, as upstream's correlator does; a component that floods is cut
//! off per object by a token bucket (25 at once, then one in five minutes).

use std::collections::HashMap;
use std::time::Duration;

use base::{Clock, Tasks, Timestamp, chance};
use k8s_openapi::api::core::v1::{Event, ObjectReference};
use meta::{GroupVersionKind, Object, ObjectKey, time};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::client::{Client, Patch};
use crate::resource::Typed;

/// Events waiting to be sent; more than this are dropped and the loss is logged.
const QUEUE_MAX: usize = 1024;
/// Distinct events remembered for counting.
const REMEMBERED_MAX: usize = 4096;
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

/// Records events in the name of one component. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Told>,
    clock: Clock,
}

struct Told {
    about: ObjectReference,
    event_type: EventType,
    reason: String,
    message: String,
    at: Timestamp,
}

#[derive(PartialEq, Eq, Hash)]
struct Same {
    uid: String,
    name: String,
    field_path: String,
    reason: String,
    message: String,
}

struct Remembered {
    key: ObjectKey,
    count: i32,
}

/// A reference to a typed object, for events about it.
pub fn reference<K: Typed>(object: &K) -> ObjectReference {
    let metadata = object.metadata();
    reference_to(&K::gvk(), &object.key(), metadata.uid.as_deref(), metadata.resource_version.as_deref())
}

/// A reference from its parts.
pub fn reference_to(
    gvk: &GroupVersionKind,
    key: &ObjectKey,
    uid: Option<&str>,
    resource_version: Option<&str>,
) -> ObjectReference {
    ObjectReference {
        api_version: Some(gvk.api_version()),
        kind: Some(gvk.kind.to_string()),
        name: Some(key.name.to_string()),
        namespace: (!key.namespace.is_empty()).then(|| key.namespace.to_string()),
        uid: uid.map(String::from),
        resource_version: resource_version.map(String::from),
        field_path: None,
    }
}

impl Recorder {
    /// A recorder for `component` (upstream's names: `kubelet`, `default-scheduler`, ...) on `host` (empty for none).
    pub fn new(client: Client, clock: Clock, tasks: &Tasks, component: &str, host: &str) -> Self {
        let (queue, told) = mpsc::channel(QUEUE_MAX);
        let sender = Sender {
            client,
            component: component.to_string(),
            host: host.to_string(),
            remembered: HashMap::new(),
            buckets: HashMap::new(),
        };
        tasks.spawn("events", sender.run(told));
        Recorder { queue, clock }
    }

    /// Tells users something about an object.
    pub fn event(&self, about: &ObjectReference, event_type: EventType, reason: &str, message: impl Into<String>) {
        let told = Told {
            about: about.clone(),
            event_type,
            reason: reason.to_string(),
            message: message.into(),
            at: self.clock.now(),
        };
        if self.queue.try_send(told).is_err() {
            tracing::warn!(reason, "event dropped: too many are waiting to be sent");
        }
    }

    pub fn normal(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.event(about, EventType::Normal, reason, message);
    }

    pub fn warning(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.event(about, EventType::Warning, reason, message);
    }
}

/// The task behind a recorder.
struct Sender {
    client: Client,
    component: String,
    host: String,
    remembered: HashMap<Same, Remembered>,
    /// Per object: tokens left and when they were counted.
    buckets: HashMap<String, (f64, Instant)>,
}

impl Sender {
    async fn run(mut self, mut told: mpsc::Receiver<Told>) {
        while let Some(event) = told.recv().await {
            if self.allow(&event.about) {
                self.send(event).await;
            }
        }
    }

    fn allow(&mut self, about: &ObjectReference) -> bool {
        if self.buckets.len() >= REMEMBERED_MAX {
            self.buckets.clear();
        }
        let now = Instant::now();
        let bucket = self.buckets.entry(about.uid.clone().unwrap_or_default()).or_insert((BURST, now));
        let refilled = now.duration_since(bucket.1).as_secs_f64() / REFILL.as_secs_f64();
        *bucket = ((bucket.0 + refilled).min(BURST), now);
        if bucket.0 < 1.0 {
            return false;
        }
        bucket.0 -= 1.0;
        true
    }

    async fn send(&mut self, event: Told) {
        let same = Same {
            uid: event.about.uid.clone().unwrap_or_default(),
            name: event.about.name.clone().unwrap_or_default(),
            field_path: event.about.field_path.clone().unwrap_or_default(),
            reason: event.reason.clone(),
            message: event.message.clone(),
        };
        if let Some(known) = self.remembered.get_mut(&same) {
            let patch = json!({"count": known.count + 1, "lastTimestamp": time::rfc3339(event.at)});
            match self.client.patch::<Event>(&known.key, "", Patch::Merge(patch)).await {
                Ok(_) => {
                    known.count += 1;
                    return;
                }
                Err(status) if status.is_not_found() => drop(self.remembered.remove(&same)),
                Err(status) => return tracing::debug!(error = %status, "event not counted up"),
            }
        }
        self.create(event, same).await;
    }

    async fn create(&mut self, event: Told, same: Same) {
        let object = self.object(&event);
        let key = object.key();
        match self.client.create_object(&Event::gvr(), object).await {
            Ok(_) => {
                if self.remembered.len() >= REMEMBERED_MAX {
                    self.remembered.clear();
                }
                self.remembered.insert(same, Remembered { key, count: 1 });
            }
            Err(status) => tracing::debug!(reason = event.reason, error = %status, "event not recorded"),
        }
    }

    fn object(&self, event: &Told) -> Object {
        let namespace = event.about.namespace.clone().unwrap_or_else(|| "default".to_string());
        let about_name = event.about.name.clone().unwrap_or_default();
        let at = time::rfc3339(event.at);
        let mut source = json!({"component": self.component});
        if !self.host.is_empty() {
            source["host"] = self.host.as_str().into();
        }
        let mut object = Object::new(&<Event as Typed>::gvk());
        object.set_meta("name", format!("{about_name}.{:x}{}", event.at.as_second(), chance::suffix(8)));
        object.set_meta("namespace", namespace);
        object.set(&["involvedObject"], json!(event.about));
        object.set(&["reason"], event.reason.as_str());
        object.set(&["message"], event.message.as_str());
        object.set(&["type"], event.event_type.as_str());
        object.set(&["source"], source);
        object.set(&["firstTimestamp"], at.as_str());
        object.set(&["lastTimestamp"], at.as_str());
        object.set(&["count"], 1);
        object.set(&["reportingComponent"], self.component.as_str());
        object.set(&["reportingInstance"], self.host.as_str());
        object
    }
}
