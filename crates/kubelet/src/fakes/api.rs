//! A played API: objects in memory, patches merged, watches told. It knows pods' deletion in two steps and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use base::Clock;
use bytes::Bytes;
use client::door::{Body, Door, Encoded, EventStream, List, Request, Response, Verb, WatchEvent};
use futures::StreamExt;
use meta::{GroupResource, Media, ObjectKey, Status, time};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

type Key = (String, ObjectKey);

#[derive(Default)]
struct Stored {
    objects: BTreeMap<Key, (u64, Value)>,
    revision: u64,
}

#[derive(Clone)]
pub struct FakeApi {
    clock: Clock,
    stored: Arc<Mutex<Stored>>,
    events: broadcast::Sender<(String, WatchEvent, Value)>,
    changed: Arc<watch::Sender<u64>>,
    deaf: Arc<AtomicBool>,
}

impl FakeApi {
    pub fn new(clock: Clock) -> Self {
        FakeApi {
            clock,
            stored: Arc::default(),
            events: broadcast::channel(1024).0,
            changed: Arc::new(watch::channel(0).0),
            deaf: Arc::default(),
        }
    }

    /// From now on patches fail, or are taken again.
    pub fn refuse_patches(&self, refuse: bool) {
        self.deaf.store(refuse, Ordering::Release);
    }

    pub fn create_pod(&self, name: &str, mut spec: Value) {
        spec["nodeName"] = "node1".into();
        let metadata = json!({"name": name, "namespace": "n", "uid": format!("uid-{name}"), "generation": 1});
        self.put("pods", json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": {"phase": "Pending"}}));
    }

    /// Creates or replaces an object; returns its revision.
    pub fn put(&self, resource: &str, object: Value) -> u64 {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_string();
        let key = (resource.to_string(), ObjectKey::new(&text("namespace"), &text("name")));
        let mut stored = self.stored.lock();
        stored.revision += 1;
        let revision = stored.revision;
        let known = stored.objects.insert(key.clone(), (revision, object.clone())).is_some();
        let encoded = encode(&key.1, revision, &object);
        let event = if known { WatchEvent::Modified(encoded) } else { WatchEvent::Added(encoded) };
        drop(self.events.send((resource.to_string(), event, object)));
        drop(stored);
        self.changed.send_replace(revision);
        revision
    }

    pub fn remove(&self, resource: &str, key: &ObjectKey) {
        let mut stored = self.stored.lock();
        stored.revision += 1;
        let revision = stored.revision;
        if let Some((_, object)) = stored.objects.remove(&(resource.to_string(), key.clone())) {
            let event = WatchEvent::Deleted(encode(key, revision, &object));
            drop(self.events.send((resource.to_string(), event, object)));
        }
        drop(stored);
        self.changed.send_replace(revision);
    }

    /// Marks a pod as being deleted, as the API does for a delete with a grace period.
    pub fn delete_pod(&self, name: &str, grace_seconds: i64) {
        let mut pod = self.get("pods", &ObjectKey::new("n", name)).unwrap();
        pod["metadata"]["deletionTimestamp"] = time::rfc3339(self.clock.now()).into();
        pod["metadata"]["deletionGracePeriodSeconds"] = grace_seconds.into();
        self.put("pods", pod);
    }

    pub fn get(&self, resource: &str, key: &ObjectKey) -> Option<Value> {
        self.stored.lock().objects.get(&(resource.to_string(), key.clone())).map(|(_, object)| object.clone())
    }

    /// Waits until an object (none when it is not there) satisfies `test`.
    pub async fn when(&self, resource: &str, key: &ObjectKey, test: impl Fn(Option<&Value>) -> bool) -> Option<Value> {
        let mut changed = self.changed.subscribe();
        loop {
            let found = self.get(resource, key);
            if test(found.as_ref()) {
                return found;
            }
            changed.changed().await.unwrap();
        }
    }

    /// Reasons and messages of the events about an object, in the order of their first occurrence.
    pub fn events(&self, about: &str) -> Vec<String> {
        let stored = self.stored.lock();
        let mut events: Vec<(u64, String)> = stored
            .objects
            .iter()
            .filter(|((resource, _), (_, event))| resource == "events" && event["involvedObject"]["name"] == about)
            .map(|(_, (revision, event))| {
                (*revision, format!("{} {}", event["reason"].as_str().unwrap(), event["message"].as_str().unwrap()))
            })
            .collect();
        events.sort();
        events.into_iter().map(|(_, text)| text).collect()
    }

    fn patch(&self, request: &Request, key: &ObjectKey, bytes: &Bytes) -> Result<Response, Status> {
        if self.deaf.load(Ordering::Acquire) {
            return Err(Status::internal("patches are refused"));
        }
        let resource = request.resource.resource.to_string();
        let mut object = self.get(&resource, key).ok_or_else(|| missing(&resource, key))?;
        let patch: Value = serde_json::from_slice(bytes).unwrap();
        let uid = patch.pointer("/metadata/uid");
        if uid.is_some_and(|uid| *uid != object["metadata"]["uid"]) {
            return Err(Status::conflict(&GroupResource::new("", &resource), &key.name, "Precondition failed: UID"));
        }
        merge(&mut object, &patch);
        let revision = self.put(&resource, object.clone());
        Ok(Response::Object(encode(key, revision, &object)))
    }
}

fn missing(resource: &str, key: &ObjectKey) -> Status {
    Status::not_found(&GroupResource::new("", resource), &key.name)
}

fn encode(key: &ObjectKey, revision: u64, object: &Value) -> Encoded {
    let bytes = Bytes::from(serde_json::to_vec(object).unwrap());
    Encoded { key: key.clone(), revision, media: Media::Json, bytes }
}

/// A merge that knows the two lists of a status that are merged by key.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else { return };
    for (field, value) in patch {
        match (field.as_str(), value) {
            (_, Value::Null) => {
                object.as_object_mut().unwrap().remove(field);
            }
            ("conditions", Value::Array(items)) => {
                let mut list = object[field].as_array().cloned().unwrap_or_default();
                for item in items {
                    match list.iter_mut().find(|known| known["type"] == item["type"]) {
                        Some(known) => *known = item.clone(),
                        None => list.push(item.clone()),
                    }
                }
                object[field] = list.into();
            }
            (_, Value::Array(items)) => {
                object[field] = items.iter().filter(|item| item.get("$patch").is_none()).cloned().collect();
            }
            (_, Value::Object(_)) => {
                if !object[field].is_object() {
                    object[field] = json!({});
                }
                merge(&mut object[field], value);
            }
            _ => object[field] = value.clone(),
        }
    }
}

fn selected(selector: &str, object: &Value) -> bool {
    let Some((field, value)) = selector.split_once('=') else { return true };
    object.pointer(&format!("/{}", field.replace('.', "/"))).and_then(Value::as_str) == Some(value)
}

#[async_trait]
impl Door for FakeApi {
    async fn send(&self, request: Request) -> Result<Response, Status> {
        let resource = request.resource.resource.to_string();
        let key = ObjectKey::new(&request.namespace, &request.name);
        match (&request.verb, &request.body) {
            (Verb::Get, _) => {
                let found = self.get(&resource, &key).ok_or_else(|| missing(&resource, &key))?;
                Ok(Response::Object(encode(&key, 1, &found)))
            }
            (Verb::List, _) => {
                let stored = self.stored.lock();
                let items = stored.objects.iter().filter(|((known, key), (_, object))| {
                    *known == resource
                        && (request.namespace.is_empty() || *key.namespace == *request.namespace)
                        && selected(&request.options.field_selector, object)
                });
                let items = items.map(|((_, key), (revision, object))| encode(key, *revision, object)).collect();
                Ok(Response::List(List { items, revision: stored.revision.max(1), ..List::default() }))
            }
            (Verb::Create, Body::Object(object)) => {
                let object = object.clone().into_value();
                let revision = self.put(&resource, object.clone());
                Ok(Response::Object(encode(&key, revision, &object)))
            }
            (Verb::Patch, Body::Patch(_, bytes)) => self.patch(&request, &key, bytes),
            (Verb::Delete, _) => {
                self.get(&resource, &key).ok_or_else(|| missing(&resource, &key))?;
                self.remove(&resource, &key);
                Ok(Response::Done)
            }
            _ => Err(Status::method_not_allowed("not played")),
        }
    }

    async fn watch(&self, request: Request) -> Result<EventStream, Status> {
        let from: u64 = request.options.resource_version.parse().unwrap_or(0);
        let events = self.events.subscribe();
        let resource = request.resource.resource.to_string();
        // What came between the list and the watch.
        let missed: Vec<WatchEvent> = {
            let stored = self.stored.lock();
            let newer = stored.objects.iter().filter(|((known, _), (revision, object))| {
                *known == resource && *revision > from && selected(&request.options.field_selector, object)
            });
            newer.map(|((_, key), (revision, object))| WatchEvent::Added(encode(key, *revision, object))).collect()
        };
        let selector = request.options.field_selector.clone();
        let live = futures::stream::unfold(events, |mut events| async move {
            events.recv().await.ok().map(|event| (event, events))
        });
        let live = live.filter_map(move |(of, event, object)| {
            let wanted = of == resource && selected(&selector, &object);
            async move { wanted.then_some(event) }
        });
        Ok(futures::stream::iter(missed).chain(live).boxed())
    }
}
