//! The ConfigMaps and Secrets that pods of this node name, each followed by a watch of its own.
//!
//! A node may read only the objects its pods refer to, one by one, so there is one informer per object, shared by all pods that
//! name it and ended with the last of them. Whoever names an object is woken when it appears, changes or goes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use base::Tasks;
use base64::Engine;
use client::{Client, Encoded, Informer, Projection, Watched};
use meta::{GroupVersionResource, ObjectKey, Status};
use parking_lot::Mutex;

use crate::environment::{Data, Sources};
use crate::waker::Waker;

/// How long the first reading of an object may take.
const SYNC_LIMIT: Duration = Duration::from_secs(5);

/// The two kinds of objects that hold data for pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    ConfigMap,
    Secret,
}

impl Kind {
    fn resource(self) -> GroupVersionResource {
        GroupVersionResource::new("", "v1", if self == Kind::ConfigMap { "configmaps" } else { "secrets" })
    }

    /// As messages about an object that is missing name it.
    pub fn word(self) -> &'static str {
        if self == Kind::ConfigMap { "configmap" } else { "secret" }
    }
}

/// What a cache keeps of a ConfigMap or Secret: its data, and for a Secret its type.
#[derive(Debug)]
pub struct Payload {
    pub data: Data,
    pub secret_type: String,
}

impl Projection for Payload {
    fn project(encoded: &Encoded) -> Result<Self, Status> {
        let object = encoded.object()?;
        let mut data = Data::new();
        let plain = object.kind() != "Secret";
        for (field, encoded) in [("data", !plain), ("binaryData", true)] {
            let Some(map) = object.get(&[field]).and_then(|map| map.as_object()) else { continue };
            for (key, value) in map {
                let text = value.as_str().unwrap_or_default();
                let bytes = if encoded {
                    base64::engine::general_purpose::STANDARD.decode(text).map_err(Status::internal)?
                } else {
                    text.as_bytes().to_vec()
                };
                data.insert(key.clone(), bytes);
            }
        }
        Ok(Payload { data, secret_type: object.str_at(&["type"]).to_string() })
    }
}

type Wakers = Arc<Mutex<HashMap<String, Waker>>>;

struct Entry {
    informer: Informer<Payload>,
    tasks: Tasks,
    /// By pod uid.
    wakers: Wakers,
}

/// The objects followed now.
pub struct References {
    client: Client,
    tasks: Tasks,
    entries: Mutex<HashMap<(Kind, ObjectKey), Entry>>,
}

impl References {
    pub fn new(client: Client, tasks: Tasks) -> Self {
        References { client, tasks, entries: Mutex::default() }
    }

    /// Reads an object for a pod, and from now on wakes the pod when it changes. `Ok(None)` when it does not exist.
    pub async fn get(
        &self,
        kind: Kind,
        key: &ObjectKey,
        pod_uid: &str,
        waker: &Waker,
    ) -> Result<Option<Arc<Payload>>, String> {
        let informer = self.follow(kind, key, pod_uid, waker);
        let synced = tokio::time::timeout(SYNC_LIMIT, informer.synced()).await;
        if synced != Ok(true) {
            return Err(format!("failed to sync {} cache: timed out waiting for the condition", kind.word()));
        }
        Ok(informer.lister().get(key))
    }

    fn follow(&self, kind: Kind, key: &ObjectKey, pod_uid: &str, waker: &Waker) -> Informer<Payload> {
        let mut entries = self.entries.lock();
        let entry = entries.entry((kind, key.clone())).or_insert_with(|| self.start(kind, key));
        entry.wakers.lock().insert(pod_uid.to_string(), waker.clone());
        entry.informer.clone()
    }

    fn start(&self, kind: Kind, key: &ObjectKey) -> Entry {
        let tasks = self.tasks.child();
        let watched = Watched {
            namespace: key.namespace.to_string(),
            field_selector: format!("metadata.name={}", key.name),
            ..Watched::all(kind.resource())
        };
        let informer = Informer::<Payload>::start(&self.client, &tasks, watched, &[]);
        let wakers = Wakers::default();
        let told = wakers.clone();
        informer.subscribe(move |_| told.lock().values().for_each(Waker::references_changed));
        Entry { informer, tasks, wakers }
    }

    /// Forgets a pod; what nobody else names is no longer followed.
    pub fn release(&self, pod_uid: &str) {
        self.entries.lock().retain(|_, entry| {
            let mut wakers = entry.wakers.lock();
            wakers.remove(pod_uid);
            if wakers.is_empty() {
                entry.tasks.cancel();
            }
            !wakers.is_empty()
        });
    }
}

/// What reading one object gave; none when it does not exist.
type Read = Result<Option<Arc<Payload>>, String>;

/// What was read for one container, for making its environment.
#[derive(Default)]
pub struct Loaded {
    found: BTreeMap<(bool, String), Read>,
}

impl Loaded {
    pub fn put(&mut self, kind: Kind, name: &str, read: Read) {
        self.found.insert((kind == Kind::Secret, name.to_string()), read);
    }

    fn data(&self, secret: bool, name: &str) -> Result<Option<Data>, String> {
        match self.found.get(&(secret, name.to_string())) {
            Some(read) => Ok(read.clone()?.map(|payload| payload.data.clone())),
            None => Ok(None),
        }
    }
}

impl Sources for Loaded {
    fn config_map(&self, name: &str) -> Result<Option<Data>, String> {
        self.data(false, name)
    }

    fn secret(&self, name: &str) -> Result<Option<Data>, String> {
        self.data(true, name)
    }
}
