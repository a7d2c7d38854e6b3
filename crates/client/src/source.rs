//! A list, then a watch that never misses anything, for all who keep something of a collection.
//!
//! ```text
//! list at revision R ──▶ keepers: be this        (what differs is told as changes)
//!        ▲                    │
//!        │ 410                ▼
//!        └────────── watch after R ──▶ each event: keeper after keeper
//! ```
//!
//! Those who ask for a collection before its list has come share it, and everything after it: a node's proxy and its name server
//! cost the API server one list and one watch, not two. Who comes later starts a source of his own.

use std::sync::{Arc, Weak};
use std::time::Duration;

use base::{Backoff, BackoffPolicy, Tasks};
use futures::StreamExt;
use meta::{Media, ObjectKey, Status};
use parking_lot::Mutex;

use crate::client::Client;
use crate::door::{Encoded, List, WatchEvent};
use crate::informer::Watched;

/// As upstream's reflector waits between failures.
const RETRY: BackoffPolicy = BackoffPolicy {
    initial: Duration::from_millis(200),
    max: Duration::from_secs(30),
    factor: 2.0,
    jitter: 0.5,
    reset_after: Duration::from_secs(120),
};

/// Who keeps something of a collection. Told on the source's task, so it must be quick.
pub trait Keeper: Send + Sync {
    /// This is all there is, as of the list's revision.
    fn replace(&self, list: &List);
    fn put(&self, item: &Encoded);
    fn take(&self, key: &ObjectKey);
    /// Everything up to `revision` has been told.
    fn reach(&self, revision: u64);
}

/// Those who are told; none once the first list has come and nobody can be added.
type Open = Mutex<Option<Vec<Arc<dyn Keeper>>>>;

/// A source whose first list may not have come yet.
pub struct Joinable(Weak<Open>);

impl Joinable {
    /// Has one more told of everything; false when it is too late for that.
    pub fn join(&self, keeper: &Arc<dyn Keeper>) -> bool {
        let Some(open) = self.0.upgrade() else { return false };
        let mut open = open.lock();
        let Some(keepers) = open.as_mut() else { return false };
        keepers.push(keeper.clone());
        true
    }
}

/// Follows `watched` on a task of `tasks`.
pub fn start(client: &Client, tasks: &Tasks, watched: Watched, media: Media, keeper: Arc<dyn Keeper>) -> Joinable {
    let open = Arc::new(Mutex::new(Some(vec![keeper])));
    let joinable = Joinable(Arc::downgrade(&open));
    tasks.spawn("informer", Source { client: client.clone(), watched, media }.run(open));
    joinable
}

struct Source {
    client: Client,
    watched: Watched,
    media: Media,
}

impl Source {
    async fn run(self, open: Arc<Open>) {
        let mut backoff = Backoff::new(RETRY);
        let mut keepers = Vec::new();
        // The revision that everything is told up to; none before the first list, and when it is too long ago.
        let mut reached = None;
        loop {
            let outcome = match reached {
                Some(revision) => self.follow(&keepers, revision, &mut reached).await,
                None => self.list().await.map(|list| {
                    keepers.extend(open.lock().take().into_iter().flatten());
                    keepers.iter().for_each(|keeper| keeper.replace(&list));
                    reached = Some(list.revision);
                }),
            };
            let Err(status) = outcome else { continue };
            if status.is_expired() {
                tracing::debug!(resource = %self.watched.resource, "watch expired, listing again");
                reached = None;
            } else {
                tracing::warn!(resource = %self.watched.resource, error = %status, "informer failed, will retry");
            }
            tokio::time::sleep(backoff.next(tokio::time::Instant::now())).await;
        }
    }

    async fn list(&self) -> Result<List, Status> {
        self.client.list_encoded(&self.watched.resource, &self.watched.query(0, self.media)).await
    }

    /// One watch, from where the keepers are to its end.
    async fn follow(&self, keepers: &[Arc<dyn Keeper>], from: u64, reached: &mut Option<u64>) -> Result<(), Status> {
        let query = self.watched.query(from, self.media);
        let mut events = self.client.watch(&self.watched.resource, &query).await?;
        let (mut revision, mut delivered) = (from, false);
        while let Some(event) = events.next().await {
            delivered = true;
            let seen = match event {
                WatchEvent::Added(item) | WatchEvent::Modified(item) => {
                    keepers.iter().for_each(|keeper| keeper.put(&item));
                    item.revision
                }
                WatchEvent::Deleted(item) => {
                    keepers.iter().for_each(|keeper| keeper.take(&item.key));
                    item.revision
                }
                WatchEvent::Bookmark { revision, .. } => revision,
                WatchEvent::Error(status) => return Err(status),
            };
            revision = revision.max(seen);
            *reached = Some(revision);
            keepers.iter().for_each(|keeper| keeper.reach(revision));
        }
        // A server that closes watches at once must not be hammered.
        if delivered { Ok(()) } else { Err(Status::unavailable("the watch ended before its first event")) }
    }
}
