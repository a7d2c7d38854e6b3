//! The embedded engine: the whole key space in memory, group commit to disk below it.
//!
//! ```text
//! commit() ──► queue ──► committer thread ──► disk (one batch, one fsync per group) ──► view ──► readers, watches, answers
//!                          │ checks compares against the view and what the group changed before
//! ```
//!
//! - [`queue`]: bounded; everything that waits when the committer comes back is the next group, so groups grow with the load
//!   and a lone writer never waits for company.
//! - [`committer`]: the only writer of the view. It publishes after the fsync, so all that can be read is durable.
//! - [`view`]: the ordered index of current entries and the [`history`] of recent events. A read in the past starts from the
//!   present and takes back what happened since, so old versions cost nothing but their event.
//! - [`cursor`]: a watch is a position in the shared history, not a queue of its own: a slow one costs no memory, and ends
//!   when history moves past it.
//! - [`expiry`]: deletes entries whose time to live is over, by ordinary transactions.
//! - [`disk`]: what is durable, a log and the base that it is folded into. Only opening reads from it.
//!
//! A write or fsync that fails leaves in doubt what is on disk: the committer calls [`Fatal`], which aborts the process.

mod committer;
mod cursor;
mod disk;
mod expiry;
mod history;
mod queue;
mod view;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::{Clock, Tasks};
use parking_lot::RwLock;
use tokio::sync::Notify;

use crate::{Committed, Entry, Key, Page, Result, Revision, Span, Store, StoreError, Txn, Watch};
use cursor::Cursor;
use disk::{Disk, Loaded, LogDisk, Record, Records};
use history::Retention;
use queue::Queue;
use view::View;

/// What is called, on the committer's thread, when a write failed. Must not return in production.
pub type Fatal = Arc<dyn Fn(&str) + Send + Sync>;

/// How to open an engine.
#[derive(Clone)]
pub struct Options {
    /// The folder of the data; made when missing.
    pub dir: PathBuf,
    pub clock: Clock,
    /// The branch that the expiry task runs under.
    pub tasks: Tasks,
    /// How long history is kept, if the two limits below allow it.
    pub history: Duration,
    /// Most events in history.
    pub history_events_max: usize,
    /// Most bytes of values in history.
    pub history_bytes_max: usize,
    /// Called when a write failed; aborts the process unless a test says otherwise.
    pub fatal: Fatal,
}

impl Options {
    /// The defaults: five minutes of history, at most 100,000 events and 64 MiB.
    pub fn new(dir: impl Into<PathBuf>, clock: Clock, tasks: Tasks) -> Self {
        Options {
            dir: dir.into(),
            clock,
            tasks,
            history: Duration::from_secs(300),
            history_events_max: 100_000,
            history_bytes_max: 64 << 20,
            fatal: Arc::new(|_| std::process::abort()),
        }
    }
}

/// The embedded engine. Dropping it waits for the group that is being written and closes the folder.
pub struct Embedded {
    shared: Arc<Shared>,
    tasks: Tasks,
    committer: Option<std::thread::JoinHandle<()>>,
}

/// What the committer, readers, watches and the expiry task share.
struct Shared {
    view: RwLock<View>,
    queue: Queue,
    clock: Clock,
    /// Woken when the earliest time to live has changed.
    earliest_expiry: Notify,
}

impl Embedded {
    /// Opens the folder and loads everything in it. Blocks for as long as that takes (tens of milliseconds for 10,000
    /// objects). Call it within a tokio runtime.
    ///
    /// # Errors
    /// The folder cannot be read or written, holds something else, or is in use by another process.
    pub fn open(options: Options) -> std::io::Result<Self> {
        let (disk, loaded) = LogDisk::open(&options.dir)?;
        Self::open_on(Box::new(disk), loaded, options)
    }

    fn open_on(disk: Box<dyn Disk>, loaded: Loaded, options: Options) -> std::io::Result<Self> {
        let retention = Retention {
            span: options.history,
            events_max: options.history_events_max,
            bytes_max: options.history_bytes_max,
        };
        let view = View::load(loaded, retention);
        let shared = Arc::new(Shared {
            view: RwLock::new(view),
            queue: Queue::new(),
            clock: options.clock,
            earliest_expiry: Notify::new(),
        });
        let committer = committer::spawn(shared.clone(), disk, options.fatal)?;
        let tasks = options.tasks.child();
        tasks.spawn("store-expiry", expiry::run(shared.clone()));
        Ok(Embedded { shared, tasks, committer: Some(committer) })
    }
}

impl Records for Shared {
    fn following(&self, key: Option<&Key>, bytes: usize) -> Vec<Record> {
        self.view.read().following(key, bytes)
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.tasks.cancel();
        self.shared.queue.close();
        if let Some(committer) = self.committer.take() {
            // A panic in the committer went through `Fatal` already.
            drop(committer.join());
        }
    }
}

#[async_trait]
impl Store for Embedded {
    async fn get(&self, key: &Key, at: Option<Revision>) -> Result<Option<Entry>> {
        self.shared.view.read().get(key, at)
    }

    async fn range(&self, span: &Span, at: Option<Revision>, limit: usize) -> Result<Page> {
        self.shared.view.read().range(span, at, limit)
    }

    async fn commit(&self, txn: Txn) -> Result<Committed> {
        self.shared.queue.submit(txn).await
    }

    fn watch(&self, prefix: &Key, after: Revision) -> Watch {
        Cursor::open(&self.shared, prefix, after).map_or_else(Watch::failed, |cursor| Watch::new(Box::new(cursor)))
    }

    async fn progress(&self) -> Result<Revision> {
        let view = self.shared.view.read();
        if view.is_stopped() { Err(StoreError::stopped()) } else { Ok(view.revision()) }
    }

    fn revision(&self) -> Revision {
        self.shared.view.read().revision()
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.shared.view.write().compact(revision)
    }
}

#[cfg(test)]
mod tests;
