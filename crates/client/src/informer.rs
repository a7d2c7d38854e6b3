//! Informers: caches that follow a collection, which others read and are told about.
//!
//! ```text
//! source (a list, then a watch) ──▶ projection ──▶ cache first, then the handlers, in order
//! ```
//!
//! A cache keeps [`Projection`]s: the fields its readers need. A whole typed view is a projection too, for kinds of which there
//! are few. Informers are shared: two components of one process that ask [`Informers`] for the same projection of the same
//! collection read one cache, and different projections of it are made from one list and one watch ([`crate::source`]).

use std::any::{Any, TypeId};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use base::{Clock, Tasks};
use meta::{GroupVersionResource, Media, ObjectKey, Status};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::client::{Client, ListQuery};
use crate::door::{Encoded, List};
use crate::lister::{Index, Lister};
use crate::resource::Typed;
use crate::source::{self, Joinable, Keeper};

/// The fields of a kind that a cache keeps.
pub trait Projection: Sized + Send + Sync + 'static {
    /// The encoding it is best read from. Protobuf where all that is kept are fields known here; who keeps whole objects, to write
    /// them back some day, needs JSON, which has the unknown ones too.
    const MEDIA: Media = Media::Json;

    /// Reads the fields; an error drops the object from the cache and is logged.
    fn project(encoded: &Encoded) -> Result<Self, Status>;
}

impl<K: Typed> Projection for K {
    const MEDIA: Media = Media::Protobuf;

    fn project(encoded: &Encoded) -> Result<Self, Status> {
        encoded.typed()
    }
}

/// What an informer follows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Watched {
    pub resource: GroupVersionResource,
    /// Empty for all namespaces.
    pub namespace: String,
    pub label_selector: String,
    pub field_selector: String,
}

impl Watched {
    /// All objects of a resource.
    pub fn all(resource: GroupVersionResource) -> Self {
        Watched { resource, namespace: String::new(), label_selector: String::new(), field_selector: String::new() }
    }

    /// All objects of a typed view's kind.
    pub fn all_of<K: Typed>() -> Self {
        Self::all(K::gvr())
    }

    pub(crate) fn query(&self, revision: u64, media: Media) -> ListQuery {
        ListQuery {
            media,
            namespace: self.namespace.clone(),
            label_selector: self.label_selector.clone(),
            field_selector: self.field_selector.clone(),
            resource_version: if revision == 0 { String::new() } else { revision.to_string() },
            ..ListQuery::default()
        }
    }
}

/// What happened to one object of the cache, told after the cache shows it.
#[derive(Debug)]
pub enum Change<P> {
    Added { key: ObjectKey, new: Arc<P> },
    Updated { key: ObjectKey, old: Arc<P>, new: Arc<P> },
    Deleted { key: ObjectKey, old: Arc<P> },
}

impl<P> Change<P> {
    pub fn key(&self) -> &ObjectKey {
        match self {
            Change::Added { key, .. } | Change::Updated { key, .. } | Change::Deleted { key, .. } => key,
        }
    }

    /// The object as it is now, or as it last was.
    pub fn latest(&self) -> &Arc<P> {
        match self {
            Change::Added { new, .. } | Change::Updated { new, .. } => new,
            Change::Deleted { old, .. } => old,
        }
    }

    /// The object as it was before, and as it is now.
    pub fn sides(&self) -> (Option<&Arc<P>>, Option<&Arc<P>>) {
        match self {
            Change::Added { new, .. } => (None, Some(new)),
            Change::Updated { old, new, .. } => (Some(old), Some(new)),
            Change::Deleted { old, .. } => (Some(old), None),
        }
    }
}

type Handler<P> = Box<dyn Fn(&Change<P>) + Send + Sync>;

/// One followed collection. Cheap to clone.
pub struct Informer<P> {
    lister: Lister<P>,
    /// Held while an event is applied and told, so that a new handler misses nothing and hears nothing twice.
    handlers: Arc<Mutex<Vec<Handler<P>>>>,
    synced: watch::Receiver<bool>,
}

impl<P> Clone for Informer<P> {
    fn clone(&self) -> Self {
        Informer { lister: self.lister.clone(), handlers: self.handlers.clone(), synced: self.synced.clone() }
    }
}

impl<P: Projection> Informer<P> {
    /// Follows `watched` on a task of `tasks`. Most callers share one through [`Informers`].
    pub fn start(client: &Client, tasks: &Tasks, watched: Watched, indices: &[Index<P>]) -> Self {
        let (informer, keeper) = Self::new(&watched, indices);
        source::start(client, tasks, watched, P::MEDIA, keeper);
        informer
    }

    /// An informer, and what has to be told so that it follows.
    fn new(watched: &Watched, indices: &[Index<P>]) -> (Self, Arc<dyn Keeper>) {
        let (set_synced, synced) = watch::channel(false);
        let informer = Informer { lister: Lister::new(indices), handlers: Arc::default(), synced };
        let following = Following { informer: informer.clone(), resource: watched.resource.clone(), set_synced };
        (informer, Arc::new(following))
    }

    pub fn lister(&self) -> Lister<P> {
        self.lister.clone()
    }

    /// Has `handler` told of every change, starting with an `Added` for everything there is. It runs on the informer's task:
    /// it must be quick and only note what to do, usually by adding a key to a queue.
    pub fn subscribe(&self, handler: impl Fn(&Change<P>) + Send + Sync + 'static) {
        let mut handlers = self.handlers.lock();
        for (key, new) in self.lister.entries() {
            handler(&Change::Added { key, new });
        }
        handlers.push(Box::new(handler));
    }

    /// Resolves when the first list is in the cache and told. False when the informer ended before.
    pub async fn synced(&self) -> bool {
        self.synced.clone().wait_for(|synced| *synced).await.is_ok()
    }

    pub fn has_synced(&self) -> bool {
        *self.synced.borrow()
    }

    fn put(&self, key: ObjectKey, revision: u64, new: P) {
        let new = Arc::new(new);
        let handlers = self.handlers.lock();
        let old = self.lister.cache().write().insert(key.clone(), revision, new.clone());
        let change = match old {
            None => Change::Added { key, new },
            Some(old) => Change::Updated { key, old, new },
        };
        handlers.iter().for_each(|handler| handler(&change));
    }

    fn take(&self, key: &ObjectKey) {
        let handlers = self.handlers.lock();
        let old = self.lister.cache().write().remove(key);
        if let Some(old) = old {
            let change = Change::Deleted { key: key.clone(), old };
            handlers.iter().for_each(|handler| handler(&change));
        }
    }
}

/// What a source tells an informer.
struct Following<P> {
    informer: Informer<P>,
    /// For the log.
    resource: GroupVersionResource,
    set_synced: watch::Sender<bool>,
}

impl<P: Projection> Keeper for Following<P> {
    /// Makes the cache equal to a fresh list.
    fn replace(&self, list: &List) {
        let lister = &self.informer.lister;
        if !lister.is_empty() {
            let present: HashSet<&ObjectKey> = list.items.iter().map(|item| &item.key).collect();
            for (key, _) in lister.entries() {
                if !present.contains(&key) {
                    self.informer.take(&key);
                }
            }
        }
        for item in &list.items {
            let known = lister.cache().read().items.get(&item.key).map(|cached| cached.revision);
            if known != Some(item.revision) {
                self.put(item);
            }
        }
        lister.cache().write().revision = list.revision;
        self.set_synced.send_replace(true);
    }

    fn put(&self, item: &Encoded) {
        match P::project(item) {
            Ok(new) => self.informer.put(item.key.clone(), item.revision, new),
            Err(status) => {
                tracing::error!(resource = %self.resource, key = %item.key, error = %status, "cannot read object");
                self.informer.take(&item.key);
            }
        }
    }

    fn take(&self, key: &ObjectKey) {
        self.informer.take(key);
    }

    fn reach(&self, revision: u64) {
        let mut cache = self.informer.lister.cache().write();
        cache.revision = cache.revision.max(revision);
    }
}

/// The informers of one process, made on first use and shared.
#[derive(Clone)]
pub struct Informers {
    client: Client,
    clock: Clock,
    tasks: Tasks,
    running: Arc<Mutex<HashMap<(TypeId, Watched), Running>>>,
    /// The latest source of each collection.
    sources: Arc<Mutex<HashMap<(Watched, Media), Joinable>>>,
}

struct Running {
    informer: Box<dyn Any + Send>,
    synced: watch::Receiver<bool>,
}

impl Informers {
    pub fn new(client: Client, clock: Clock, tasks: Tasks) -> Self {
        Informers { client, clock, tasks, running: Arc::default(), sources: Arc::default() }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// The informer for `P` over `watched`. The first caller's `indices` count; a projection therefore has one set of indices
    /// that all who use it name.
    pub fn of<P: Projection>(&self, watched: Watched, indices: &[Index<P>]) -> Informer<P> {
        let mut running = self.running.lock();
        let entry = running.entry((TypeId::of::<P>(), watched.clone())).or_insert_with(|| {
            let (informer, keeper) = Informer::<P>::new(&watched, indices);
            self.follow(watched, P::MEDIA, &keeper);
            let synced = informer.synced.clone();
            Running { informer: Box::new(informer), synced }
        });
        match entry.informer.downcast_ref::<Informer<P>>() {
            Some(informer) => informer.clone(),
            None => unreachable!("the map's key holds the projection's type"),
        }
    }

    /// Has a keeper told of a collection, with others if the source has not begun to tell them.
    fn follow(&self, watched: Watched, media: Media, keeper: &Arc<dyn Keeper>) {
        let mut sources = self.sources.lock();
        let shared = sources.get(&(watched.clone(), media)).is_some_and(|source| source.join(keeper));
        if !shared {
            let source = source::start(&self.client, &self.tasks, watched.clone(), media, keeper.clone());
            sources.insert((watched, media), source);
        }
    }

    /// The informer of whole typed views of a kind, for kinds of which there are few.
    pub fn typed<K: Typed>(&self) -> Informer<K> {
        self.of::<K>(Watched::all_of::<K>(), &[])
    }

    /// Resolves when all informers asked for so far have their first list.
    pub async fn synced(&self) -> bool {
        let waiting: Vec<_> = self.running.lock().values().map(|running| running.synced.clone()).collect();
        for mut synced in waiting {
            if synced.wait_for(|synced| *synced).await.is_err() {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests;
