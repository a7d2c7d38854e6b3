//! What the resolver is told: the API's namespaces, services and slices, first as a whole, then what changes.
//!
//! ```text
//! informers ─► keys that changed (a set: many changes of one object are one) ─► their present state ─► the resolver's socket
//! ```
//!
//! Only keys wait, and at most one per object; what is sent is what the listers have at that moment. A resolver that is slow
//! costs no memory here.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use client::{Change, Informer, Informers, Watched};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use meta::{Media, ObjectKey};
use parking_lot::Mutex;
use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};

use crate::view::{Service, Slice};
use crate::wire::{ENTRIES_PER_FRAME_MAX, Entry, Order, Word, hear, say};

/// How long a resolver may take to take a frame, or to put a zone in place.
const STALL_MAX: Duration = Duration::from_secs(10);

/// What is known of a namespace: that it exists.
pub struct Exists;

impl client::Projection for Exists {
    const MEDIA: Media = Media::Protobuf;

    fn project(_: &client::Encoded) -> Result<Self, meta::Status> {
        Ok(Exists)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Changed {
    Namespace(ObjectKey),
    Service(ObjectKey),
    Slice(ObjectKey),
}

#[derive(Default)]
struct Pending {
    keys: Mutex<BTreeSet<Changed>>,
    wake: Notify,
}

impl Pending {
    fn note(&self, changed: Changed) {
        self.keys.lock().insert(changed);
        self.wake.notify_one();
    }
}

/// The objects that names are made of.
pub struct Feed {
    services: Informer<Service>,
    slices: Informer<Slice>,
    namespaces: Informer<Exists>,
    pending: Arc<Pending>,
}

impl Feed {
    /// Starts to follow the API.
    pub fn new(informers: &Informers) -> Self {
        let services = informers.of::<Service>(Watched::all_of::<core::Service>(), &[]);
        let slices = informers.of::<Slice>(Watched::all_of::<discovery::EndpointSlice>(), &[]);
        let namespaces = informers.of::<Exists>(Watched::all_of::<core::Namespace>(), &[]);
        let pending = Arc::new(Pending::default());
        let shared = pending.clone();
        services.subscribe(move |change: &Change<Service>| shared.note(Changed::Service(change.key().clone())));
        let shared = pending.clone();
        slices.subscribe(move |change: &Change<Slice>| shared.note(Changed::Slice(change.key().clone())));
        let shared = pending.clone();
        namespaces.subscribe(move |change: &Change<Exists>| shared.note(Changed::Namespace(change.key().clone())));
        Feed { services, slices, namespaces, pending }
    }

    /// True once everything is known; false when it will never be.
    pub async fn synced(&self) -> bool {
        self.services.synced().await && self.slices.synced().await && self.namespaces.synced().await
    }

    /// Tells a resolver the zone and then its changes; `answering` turns true once it answers from the zone. Returns when the
    /// resolver has gone.
    ///
    /// # Errors
    /// It takes too long, or says what is not of the protocol.
    pub async fn tell(&self, connection: &mut UnixStream, answering: &watch::Sender<bool>) -> io::Result<()> {
        // What changes from here on is told again after the zone, which does no harm.
        self.pending.keys.lock().clear();
        send(connection, self.everything()).await?;
        within(say(connection, &Order::Swap)).await?;
        match within(hear(connection)).await? {
            Some(Word::Serving) => answering.send_replace(true),
            other => return Err(io::Error::other(format!("the resolver says {other:?} instead of serving"))),
        };
        loop {
            tokio::select! {
                () = self.pending.wake.notified() => {
                    let keys = std::mem::take(&mut *self.pending.keys.lock());
                    send(connection, keys.into_iter().map(|key| self.present(key))).await?;
                }
                // It has nothing more to say: this is how its end is seen.
                word = hear::<Word>(connection) => return word.map(drop),
            }
        }
    }

    fn everything(&self) -> impl Iterator<Item = Entry> {
        let keys = |keys: Vec<ObjectKey>, kind: fn(ObjectKey) -> Changed| keys.into_iter().map(kind);
        let namespaces = keys(keys_of(&self.namespaces), Changed::Namespace);
        let services = keys(keys_of(&self.services), Changed::Service);
        let slices = keys(keys_of(&self.slices), Changed::Slice);
        namespaces.chain(services).chain(slices).map(|key| self.present(key))
    }

    /// The object as it is now.
    fn present(&self, changed: Changed) -> Entry {
        match changed {
            Changed::Namespace(key) => {
                let exists = self.namespaces.lister().get(&key).is_some();
                Entry::Namespace { name: key.name, exists }
            }
            Changed::Service(key) => {
                let service = self.services.lister().get(&key);
                Entry::Service { namespace: key.namespace, name: key.name, service }
            }
            Changed::Slice(key) => {
                let slice = self.slices.lister().get(&key);
                Entry::Slice { namespace: key.namespace, name: key.name, slice }
            }
        }
    }
}

fn keys_of<P: client::Projection>(informer: &Informer<P>) -> Vec<ObjectKey> {
    informer.lister().entries().into_iter().map(|(key, _)| key).collect()
}

async fn send(connection: &mut UnixStream, entries: impl Iterator<Item = Entry>) -> io::Result<()> {
    let mut entries = entries.peekable();
    while entries.peek().is_some() {
        let frame = entries.by_ref().take(ENTRIES_PER_FRAME_MAX).collect();
        within(say(connection, &Order::Change(frame))).await?;
    }
    Ok(())
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(STALL_MAX, work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the resolver does not listen")),
    }
}
