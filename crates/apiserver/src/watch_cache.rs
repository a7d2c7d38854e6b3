//! Every object in memory, as fresh as a request asks, and the fan-out of changes to watchers.
//!
//! One watch on the store feeds one index per stored resource, so there is one order of events and one number that says how
//! far the cache has come (`applied`). A consistent read asks the store how far it would have to be (`Store::progress`),
//! waits until `applied` is there, and is then answered from memory:
//!
//! ```text
//! store ─► feed ─► KindCache "pods"     { index, window of recent changes, watchers }
//!              ├─► KindCache "secrets"  ...
//!              └─► applied = 1234 ─► readers that wait for it
//! ```
//!
//! A watch is a bounded queue of shared changes. It starts with what the window has since the asked revision (410 when that
//! is too old); a watcher whose queue is full is closed and comes back with the last revision it saw.
//!
//! Deliberately not here: which freshness a request asks for, pages, selectors' texts (that is `registry::read`).

pub mod change;
pub mod expected;
pub mod feed;
pub mod kind_cache;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::Kind;
use base::Tasks;
use meta::{Reason, Status, StatusCause};
use parking_lot::{Mutex, RwLock};
use store::{Key, ProgressHandle, Revision, Store};
use tokio::sync::watch;

pub use change::Change;
use expected::Expected;
pub use kind_cache::{KindCache, Scope, Subscription};

use crate::transformer::Transformer;

/// Where all objects live in the store.
pub const ROOT: &str = "/registry/";

/// How long a request waits for the cache to reach a revision, before it is told to come back.
pub const FRESHNESS_WAIT_MAX: Duration = Duration::from_secs(3);

/// See the module.
pub struct WatchCache {
    store: Arc<dyn Store>,
    transformer: Arc<Transformer>,
    kinds: RwLock<HashMap<Arc<str>, Arc<KindCache>>>,
    applied: watch::Sender<Revision>,
    progress: Mutex<Option<ProgressHandle>>,
    /// What writes under way are about to bring, so that it need not be read again.
    pub(crate) expected: Expected,
}

impl WatchCache {
    /// Loads everything there is and keeps up with it until `tasks` ends. `kinds` are the rows in their storage versions.
    pub async fn start(
        store: Arc<dyn Store>,
        transformer: Arc<Transformer>,
        kinds: impl IntoIterator<Item = Arc<Kind>>,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, Status> {
        let by_segment = kinds.into_iter().filter_map(|kind| {
            let segment = kind.stored.as_ref()?.key_segment.clone();
            Some((segment.clone(), Arc::new(KindCache::new(kind, &segment))))
        });
        let cache = Arc::new(WatchCache {
            store,
            transformer,
            kinds: RwLock::new(by_segment.collect()),
            applied: watch::Sender::new(0),
            progress: Mutex::new(None),
            expected: Expected::default(),
        });
        let revision = cache.load().await?;
        let watch = cache.store.watch(&Key::from(ROOT), revision);
        tasks.spawn("watch cache feed", feed::run(cache.clone(), watch));
        Ok(cache)
    }

    /// The index of a stored resource.
    pub fn of(&self, segment: &str) -> Option<Arc<KindCache>> {
        self.kinds.read().get(segment).cloned()
    }

    /// How far the cache has come.
    pub fn revision(&self) -> Revision {
        *self.applied.borrow()
    }

    /// Waits until the cache has seen everything that was committed before this call.
    pub async fn be_current(&self) -> Result<(), Status> {
        let revision = self.store.progress().await.map_err(feed::status)?;
        self.reach(revision).await
    }

    /// Waits until the cache has seen `revision`; an error that names both when that takes too long.
    pub async fn reach(&self, revision: Revision) -> Result<(), Status> {
        if self.revision() >= revision {
            return Ok(());
        }
        let mut applied = self.applied.subscribe();
        if let Some(progress) = &*self.progress.lock() {
            progress.request();
        }
        let reached = applied.wait_for(|applied| *applied >= revision);
        match tokio::time::timeout(FRESHNESS_WAIT_MAX, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Status::unavailable("the server is shutting down")),
            Err(_) => Err(too_large(revision, self.revision())),
        }
    }
}

/// What a client that asks for a revision from the future is told.
fn too_large(requested: Revision, current: Revision) -> Status {
    let message = format!("Timeout: Too large resource version: {requested}, current: {current}");
    let mut status = Status::new(Reason::Timeout, message).with_cause(StatusCause {
        reason: "ResourceVersionTooLarge".into(),
        message: "Too large resource version".into(),
        field: String::new(),
    });
    status.details.get_or_insert_default().retry_after_seconds = 1;
    status
}
