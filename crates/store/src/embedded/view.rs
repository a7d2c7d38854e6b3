//! What readers see: the current entries in key order, and the past by taking back the history.
//!
//! ```text
//! the key as of revision r = what it was before the first event after r, or, without one, what it is now
//! ```
//!
//! Only the committer changes a view, and only after the change is durable.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use tokio::time::Instant;

use super::cursor::Position;
use super::disk::{Loaded, Record};
use super::history::{History, Retention};
use crate::{Entry, EventKind, Key, Page, Result, Revision, Span, StoreError, WatchEvent, limits};

/// The first revision, of an empty store.
const FIRST_REVISION: Revision = 1;

/// See the module.
pub struct View {
    entries: BTreeMap<Key, Entry>,
    revision: Revision,
    history: History,
    expiries: Expiries,
    watches: Vec<Arc<Position>>,
    stopped: bool,
}

/// When entries expire. Few have a time to live, so it is kept beside them.
#[derive(Default)]
struct Expiries {
    by_key: HashMap<Key, u64>,
    by_time: BTreeSet<(u64, Key)>,
}

impl Expiries {
    /// Replaces the key's deadline; 0 for none.
    fn set(&mut self, key: &Key, deadline_ms: u64) {
        if let Some(old) = self.by_key.remove(key) {
            self.by_time.remove(&(old, key.clone()));
        }
        if deadline_ms > 0 {
            self.by_key.insert(key.clone(), deadline_ms);
            self.by_time.insert((deadline_ms, key.clone()));
        }
    }
}

/// A key's final state after a group; none when it is gone.
pub type Change = (Key, Option<Record>);

impl View {
    pub fn load(loaded: Loaded, retention: Retention) -> Self {
        // A new store has its whole past, an old one's past went with the process.
        let compacted = loaded.revision.unwrap_or(0);
        let mut expiries = Expiries::default();
        for record in loaded.records.iter().filter(|record| record.deadline_ms > 0) {
            expiries.set(&record.entry.key, record.deadline_ms);
        }
        View {
            entries: loaded.records.into_iter().map(|record| (record.entry.key.clone(), record.entry)).collect(),
            revision: loaded.revision.unwrap_or(FIRST_REVISION),
            history: History::new(retention, compacted),
            expiries,
            watches: Vec::new(),
            stopped: false,
        }
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn history(&self) -> &History {
        &self.history
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// The entry as it is now.
    pub fn current(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub fn get(&self, key: &Key, at: Option<Revision>) -> Result<Option<Entry>> {
        let at = self.readable(at)?;
        let changed = self.history.after(at).find(|event| event.entry.key == *key);
        Ok(changed.map_or_else(|| self.entries.get(key), |event| event.previous.as_ref()).cloned())
    }

    pub fn range(&self, span: &Span, at: Option<Revision>, limit: usize) -> Result<Page> {
        let at = self.readable(at)?;
        let mut page = Page { entries: Vec::new(), remaining: 0, revision: at };
        if span.is_empty() {
            return Ok(page);
        }
        self.each_at(span, at, |entry| {
            if limit == 0 || page.entries.len() < limit {
                page.entries.push(entry.clone());
            } else {
                page.remaining += 1;
            }
        });
        Ok(page)
    }

    /// Visits the span's entries as they were at `at`, in key order.
    fn each_at<'a>(&'a self, span: &Span, at: Revision, mut visit: impl FnMut(&'a Entry)) {
        let mut past: BTreeMap<&Key, Option<&Entry>> = BTreeMap::new();
        for event in self.history.after(at).filter(|event| span.contains(&event.entry.key)) {
            past.entry(&event.entry.key).or_insert(event.previous.as_ref());
        }
        let mut past = past.into_iter().peekable();
        for (key, entry) in self.entries.range::<Key, _>(span.bounds()) {
            while let Some((_, gone)) = past.next_if(|(changed, _)| *changed < key) {
                gone.into_iter().for_each(&mut visit);
            }
            match past.next_if(|(changed, _)| *changed == key) {
                Some((_, previous)) => previous.into_iter().for_each(&mut visit),
                None => visit(entry),
            }
        }
        past.filter_map(|(_, gone)| gone).for_each(visit);
    }

    /// The revision to read at, if it can be.
    fn readable(&self, at: Option<Revision>) -> Result<Revision> {
        let at = at.unwrap_or(self.revision);
        self.check_retained(at)?;
        if self.stopped { Err(StoreError::stopped()) } else { Ok(at) }
    }

    fn check_retained(&self, requested: Revision) -> Result<()> {
        let (current, compacted) = (self.revision, self.history.compacted());
        if requested > current {
            return Err(StoreError::FutureRevision { requested, current });
        }
        if requested < compacted { Err(StoreError::Compacted { requested, compacted }) } else { Ok(()) }
    }

    pub fn compact(&mut self, revision: Revision) -> Result<()> {
        if revision > self.revision {
            return Err(StoreError::FutureRevision { requested: revision, current: self.revision });
        }
        self.history.compact(revision);
        Ok(())
    }

    /// Takes in a durable group; returns the watches to wake and whether the earliest deadline has changed.
    pub fn publish(
        &mut self,
        revision: Revision,
        changes: impl IntoIterator<Item = Change>,
        events: Vec<WatchEvent>,
        now: Instant,
    ) -> (Vec<Arc<Position>>, bool) {
        let earliest = self.earliest_deadline_ms();
        for (key, record) in changes {
            self.expiries.set(&key, record.as_ref().map_or(0, |record| record.deadline_ms));
            match record {
                Some(record) => self.entries.insert(key, record.entry),
                None => self.entries.remove(&key),
            };
        }
        self.revision = revision;
        let touched: Vec<_> = self.watches.iter().filter(|watch| watch.note(&events)).cloned().collect();
        self.history.push(events, now);
        (touched, self.earliest_deadline_ms() != earliest)
    }

    /// Lets nobody in any more; returns all watches, to be woken.
    pub fn stop(&mut self) -> Vec<Arc<Position>> {
        self.stopped = true;
        std::mem::take(&mut self.watches)
    }

    /// Adds a watch that goes on after `after`.
    pub fn add_watch(&mut self, prefix: &Key, after: Revision) -> Result<Arc<Position>> {
        self.check_retained(after)?;
        if self.stopped {
            return Err(StoreError::stopped());
        }
        if self.watches.len() >= limits::WATCHES_MAX {
            return Err(StoreError::TooManyWatches { limit: limits::WATCHES_MAX });
        }
        let first = if after < self.revision { after + 1 } else { 0 };
        let position = Arc::new(Position::new(prefix.clone(), first));
        self.watches.push(position.clone());
        Ok(position)
    }

    pub fn remove_watch(&mut self, position: &Arc<Position>) {
        self.watches.retain(|watch| !Arc::ptr_eq(watch, position));
    }

    /// The records that follow `key` (none for the beginning), until they have about `bytes`.
    pub fn following(&self, key: Option<&Key>, bytes: usize) -> Vec<Record> {
        let start = key.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut records, mut taken) = (Vec::new(), 0);
        for (key, entry) in self.entries.range::<Key, _>((start, Bound::Unbounded)) {
            if taken >= bytes {
                break;
            }
            taken += key.as_bytes().len() + entry.value.len();
            let deadline_ms = self.expiries.by_key.get(key).copied().unwrap_or(0);
            records.push(Record { entry: entry.clone(), deadline_ms });
        }
        records
    }

    /// When the next entry expires, in milliseconds since 1970.
    pub fn earliest_deadline_ms(&self) -> Option<u64> {
        self.expiries.by_time.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    /// Up to `limit` entries that have expired at `now_ms`.
    pub fn expired(&self, now_ms: u64, limit: usize) -> Vec<(Key, Revision)> {
        let due = self.expiries.by_time.iter().take_while(|(deadline_ms, _)| *deadline_ms <= now_ms);
        let due = due.filter_map(|(_, key)| self.entries.get(key)).take(limit);
        due.map(|entry| (entry.key.clone(), entry.mod_revision)).collect()
    }
}

/// The event of a delete.
pub fn deletion(key: &Key, previous: Entry, revision: Revision) -> WatchEvent {
    let entry =
        Entry { key: key.clone(), value: bytes::Bytes::new(), create_revision: 0, mod_revision: revision, version: 0 };
    WatchEvent { kind: EventKind::Delete, entry, previous: Some(previous) }
}
