//! The store: a revisioned, watchable, durable key-value contract, and the engines behind it.
//!
//! It knows keys, bytes and revisions; never kinds, never JSON. Only the API server (and the binary that hands it an engine)
//! names this crate. The words are etcd's, because a cluster may later move to a real etcd and back.
//!
//! # The model, by example
//!
//! One counter, the **revision**, covers all keys. It starts at 1 and every transaction that changes something moves it by
//! one; all changes of a transaction carry the same revision.
//!
//! ```text
//! revision 1   (empty)
//! commit  { put /a "x" }                       -> revision 2   /a: create 2, mod 2, version 1
//! commit  { put /a "y", put /b "z" }           -> revision 3   /a: create 2, mod 3, version 2;  /b: create 3, mod 3, version 1
//! commit  { if /a.mod == 2, delete /a }        -> conflict, current /a = "y"@3, nothing changes
//! commit  { if /a.mod == 3, delete /a }        -> revision 4   /a is gone
//! commit  { delete /a }                        -> revision 4   deleting what is absent changes nothing
//! commit  { if /a.mod == 0, put /a "n" }       -> revision 5   0 means "must be absent"; /a: create 5, mod 5, version 1
//!
//! get /a at 3            -> "y"
//! range / at 4           -> [/b "z"]            every page of a list asks for the same revision, so the whole is consistent
//! watch /a after 2       -> put /a "y"@3 (previous "x"@2), delete /a @4 (previous "y"@3), put /a "n"@5, ... live events
//! compact 4; watch after 3  -> Compacted { requested: 3, compacted: 4 }
//! ```
//!
//! # Promises of every engine ([`suite`] checks them)
//!
//! - **Durable first.** Nobody, neither the writer, a reader nor a watcher, sees a change that a power cut could take back.
//! - **Linearizable.** A read that starts after a commit was answered sees it.
//! - **Watches have no gaps.** Events come in revision order, a transaction is never split over two batches, and a watch that
//!   cannot go on ends with an error that says so, never silently.
//! - **Bounded.** History, writer queue, transaction size and the number of watches have named limits ([`limits`]).
//! - **Revisions never go back**, over crashes included.
//!
//! # What this crate deliberately does not do
//!
//! No encryption (the API server's transformer does that above), no leases (a put has a time to live instead), no
//! compare on values, no ranges of compares, no history over a restart: after one, a watch from an older revision gets
//! `Compacted` and its client lists again, as after a compaction. Snapshots and restores are not built yet.

mod embedded;
mod error;
mod key;
#[cfg(any(test, feature = "suite"))]
#[allow(clippy::expect_used, reason = "a suite fails by panicking")]
pub mod suite;
mod txn;
mod watch;

use async_trait::async_trait;
use bytes::Bytes;

pub use embedded::{Embedded, Fatal, Options};
pub use error::StoreError;
pub use key::{Key, Span};
pub use txn::{Committed, Compare, Op, Txn};
pub use watch::{EventKind, ProgressHandle, Watch, WatchEvent, WatchItem, WatchSource};

/// The counter over all keys. 0 is before everything.
pub type Revision = u64;

/// The result of every call.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The limits that hold for every engine.
pub mod limits {
    /// Most bytes of keys and values in one transaction. Above upstream's body limit of 3 MiB, so that every body that was
    /// let in fits.
    pub const TXN_BYTES_MAX: usize = 4 << 20;
    /// Most operations in one transaction, as etcd.
    pub const TXN_OPS_MAX: usize = 128;
    /// Longest key in bytes.
    pub const KEY_BYTES_MAX: usize = 4096;
    /// Most watches at one time.
    pub const WATCHES_MAX: usize = 16_384;
    /// Most bytes of transactions that wait for a commit (each counts at least [`TXN_BYTES_MIN`]); a writer beyond that
    /// waits before it is queued.
    pub const QUEUE_BYTES_MAX: usize = 64 << 20;
    /// What a transaction counts in the queue besides its keys and values.
    pub const TXN_BYTES_MIN: usize = 4096;
    /// Most events in one batch of a watch (more only to keep a transaction whole).
    pub const WATCH_BATCH_MAX: usize = 1024;
}

/// One key's value and where it stands in history. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: Key,
    pub value: Bytes,
    /// The revision that brought the key into being (the last time it was absent before).
    pub create_revision: Revision,
    /// The revision of its latest change.
    pub mod_revision: Revision,
    /// How many times it was put since it was created, from 1.
    pub version: u64,
}

/// Part of a range, all of it as it was at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In key order.
    pub entries: Vec<Entry>,
    /// How many keys of the span come after the last entry.
    pub remaining: u64,
    /// The revision of this view: ask for it again in the next page.
    pub revision: Revision,
}

impl Page {
    /// Whether the span goes on after this page.
    pub fn more(&self) -> bool {
        self.remaining > 0
    }
}

/// The contract.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// One key, now or as it was at a revision.
    ///
    /// # Errors
    /// `Compacted` and `FutureRevision` as [`Store::range`].
    async fn get(&self, key: &Key, at: Option<Revision>) -> Result<Option<Entry>>;

    /// The entries of a span in key order, at most `limit` (0 for all), now or as they were at a revision.
    ///
    /// # Errors
    /// `Compacted` when history no longer reaches `at`; `FutureRevision` when `at` has not been reached.
    async fn range(&self, span: &Span, at: Option<Revision>, limit: usize) -> Result<Page>;

    /// Checks all compares and, when all hold, applies all operations; returns when that is durable.
    ///
    /// A caller that goes away while waiting does not undo the commit.
    ///
    /// # Errors
    /// `Invalid` and `TooLarge` for a transaction that no engine takes, `Unavailable` when the engine has stopped: the
    /// outcome is then unknown. A compare that fails is no error but [`Committed::Conflict`].
    async fn commit(&self, txn: Txn) -> Result<Committed>;

    /// All changes of keys that start with `prefix`, from the first one after the revision `after`.
    ///
    /// Errors come through the watch: `Compacted`, `FutureRevision`, `TooManyWatches`, `Unavailable`.
    fn watch(&self, prefix: &Key, after: Revision) -> Watch;

    /// How far a cache must have come for a consistent read from it.
    async fn progress(&self) -> Result<Revision>;

    /// The latest revision this process knows of, without asking anybody.
    fn revision(&self) -> Revision;

    /// Forgets what came before `revision`: afterwards reads at and watches after an older one end in `Compacted`.
    /// Compacting to where history starts already is no error.
    ///
    /// # Errors
    /// `FutureRevision` for one that has not been reached.
    async fn compact(&self, revision: Revision) -> Result<()>;
}
