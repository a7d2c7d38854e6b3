//! The committer: one thread through which every change goes, a group at a time.
//!
//! A group is staged against the view and what the group itself changed before, written with one fsync, published, and only
//! then answered. Conflicts and changes that change nothing are answered with the group too: what they report must be
//! durable like everything else.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;

use super::disk::{Disk, Record, Records, Write};
use super::queue::Request;
use super::view::{View, deletion};
use super::{Fatal, Shared};
use crate::{Committed, Entry, EventKind, Key, Op, Revision, StoreError, Txn, WatchEvent};

/// Starts the thread. It ends when the queue is closed and empty, or after a failed write.
pub fn spawn(shared: Arc<Shared>, disk: Box<dyn Disk>, fatal: Fatal) -> std::io::Result<thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Handle::current();
    thread::Builder::new().name("store-commit".to_string()).spawn(move || {
        // So that the clock reads the runtime's time, paused or not, here too.
        let _entered = runtime.enter();
        // A panic leaves doubt about what was written, like a failed write.
        let _guard = AbortOnPanic(fatal.clone());
        run(&shared, disk, &fatal);
        stop(&shared);
    })
}

struct AbortOnPanic(Fatal);

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            (self.0)("the store's committer panicked");
        }
    }
}

fn run(shared: &Arc<Shared>, mut disk: Box<dyn Disk>, fatal: &Fatal) {
    let records: Arc<dyn Records> = shared.clone();
    let mut group = Vec::new();
    while shared.queue.take(&mut group) {
        if let Err(error) = commit_group(shared, &mut *disk, &mut group) {
            tracing::error!(%error, "a write to the store failed; what is on disk is in doubt, so the process stops");
            // While nobody has been told anything: the answers are dropped with the group.
            fatal(&error.to_string());
            return;
        }
        disk.settle(&records);
    }
}

fn stop(shared: &Shared) {
    shared.queue.close();
    let mut left = Vec::new();
    shared.queue.take(&mut left);
    drop(left);
    let watches = shared.view.write().stop();
    watches.iter().for_each(|watch| watch.wake());
}

fn commit_group(shared: &Shared, disk: &mut dyn Disk, group: &mut Vec<Request>) -> std::io::Result<()> {
    let now_ms = u64::try_from(shared.clock.now().as_millisecond()).unwrap_or(0);
    let (staged, outcomes) = {
        let view = shared.view.read();
        let mut staging = Staging::new(&view, now_ms);
        let outcomes: Vec<Committed> = group.iter().map(|request| staging.apply(&request.txn)).collect();
        (staging.finish(), outcomes)
    };
    if !staged.events.is_empty() {
        let mut writes = staged.changed.iter().map(|(key, record)| match record {
            Some(record) => Write::Put(record),
            None => Write::Remove(key),
        });
        disk.write(staged.revision, &mut writes)?;
        let now = shared.clock.instant();
        let (touched, expiry_moved) = shared.view.write().publish(staged.revision, staged.changed, staged.events, now);
        touched.iter().for_each(|watch| watch.wake());
        if expiry_moved {
            shared.earliest_expiry.notify_one();
        }
    }
    for (request, outcome) in group.drain(..).zip(outcomes) {
        // A writer that went away does not want to know.
        drop(request.answer.send(Ok::<_, StoreError>(outcome)));
    }
    Ok(())
}

/// A group in the making.
struct Staging<'a> {
    view: &'a View,
    now_ms: u64,
    staged: Staged,
}

/// What a group changes.
struct Staged {
    revision: Revision,
    /// The final state of each key that the group touched.
    changed: HashMap<Key, Option<Record>>,
    events: Vec<WatchEvent>,
}

impl<'a> Staging<'a> {
    fn new(view: &'a View, now_ms: u64) -> Self {
        let staged = Staged { revision: view.revision(), changed: HashMap::new(), events: Vec::new() };
        Staging { view, now_ms, staged }
    }

    fn finish(self) -> Staged {
        self.staged
    }

    fn current(&self, key: &Key) -> Option<&Entry> {
        match self.staged.changed.get(key) {
            Some(record) => record.as_ref().map(|record| &record.entry),
            None => self.view.current(key),
        }
    }

    fn apply(&mut self, txn: &Txn) -> Committed {
        let stands_at = |key: &Key| self.current(key).map_or(0, |entry| entry.mod_revision);
        if txn.compares.iter().any(|compare| stands_at(&compare.key) != compare.mod_revision) {
            let current = txn.compares.iter().map(|compare| self.current(&compare.key).cloned()).collect();
            return Committed::Conflict { revision: self.staged.revision, current };
        }
        let revision = self.staged.revision + 1;
        let events_before = self.staged.events.len();
        let previous = txn.ops.iter().map(|op| self.change(op, revision)).collect();
        if self.staged.events.len() > events_before {
            self.staged.revision = revision;
        }
        Committed::Done { revision: self.staged.revision, previous }
    }

    /// Does one operation; returns what the key was before.
    fn change(&mut self, op: &Op, revision: Revision) -> Option<Entry> {
        let previous = self.current(op.key()).cloned();
        match (op, &previous) {
            (Op::Put { key, value, ttl }, _) => {
                let entry = Entry {
                    key: previous.as_ref().map_or_else(|| key.clone(), |previous| previous.key.clone()),
                    value: value.clone(),
                    create_revision: previous.as_ref().map_or(revision, |previous| previous.create_revision),
                    mod_revision: revision,
                    version: previous.as_ref().map_or(1, |previous| previous.version + 1),
                };
                let ttl_ms = ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
                let deadline_ms = ttl_ms.map_or(0, |ttl_ms| self.now_ms.saturating_add(ttl_ms).max(1));
                let event = WatchEvent { kind: EventKind::Put, entry: entry.clone(), previous: previous.clone() };
                self.staged.events.push(event);
                self.staged.changed.insert(entry.key.clone(), Some(Record { entry, deadline_ms }));
            }
            (Op::Delete { key }, Some(gone)) => {
                self.staged.events.push(deletion(key, gone.clone(), revision));
                self.staged.changed.insert(key.clone(), None);
            }
            (Op::Delete { .. }, None) => {}
        }
        previous
    }
}
