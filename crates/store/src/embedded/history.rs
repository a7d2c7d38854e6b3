//! The recent past: all events since the last compaction, in revision order.
//!
//! It serves watches that start in the past, and reads at an old revision (see [`super::view`]). It is bounded by age, by
//! count and by bytes; what falls out counts as compacted.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::{Entry, Key, Revision, WatchEvent};

/// How much past is kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    pub span: Duration,
    pub events_max: usize,
    pub bytes_max: usize,
}

/// See the module.
pub struct History {
    retention: Retention,
    events: VecDeque<WatchEvent>,
    /// When the group that ended with a revision was committed.
    groups: VecDeque<(Instant, Revision)>,
    bytes: usize,
    /// Events up to and including this revision are forgotten.
    compacted: Revision,
}

impl History {
    pub fn new(retention: Retention, compacted: Revision) -> Self {
        History { retention, events: VecDeque::new(), groups: VecDeque::new(), bytes: 0, compacted }
    }

    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    /// All events after `after`.
    pub fn after(&self, after: Revision) -> impl Iterator<Item = &WatchEvent> {
        let first = self.events.partition_point(|event| event.revision() <= after);
        self.events.range(first..)
    }

    /// About `limit` events under `prefix` after `after`, whole transactions, and the revision from which to go on (0 when
    /// that was all).
    pub fn read(&self, prefix: &Key, after: Revision, limit: usize) -> (Vec<WatchEvent>, Revision) {
        let mut found: Vec<WatchEvent> = Vec::new();
        for event in self.after(after).filter(|event| event.entry.key.starts_with(prefix)) {
            if found.len() >= limit && found.last().is_some_and(|last| last.revision() != event.revision()) {
                return (found, event.revision());
            }
            found.push(event.clone());
        }
        (found, 0)
    }

    /// Appends a group and forgets what is over the limits.
    pub fn push(&mut self, group: impl IntoIterator<Item = WatchEvent>, now: Instant) {
        for event in group {
            self.bytes += bytes(&event);
            self.events.push_back(event);
        }
        if let Some(last) = self.events.back() {
            self.groups.push_back((now, last.revision()));
        }
        self.trim(now);
    }

    /// Forgets everything up to and including `revision`.
    pub fn compact(&mut self, revision: Revision) {
        self.compacted = self.compacted.max(revision);
        while self.events.front().is_some_and(|event| event.revision() <= self.compacted) {
            if let Some(event) = self.events.pop_front() {
                self.bytes -= bytes(&event);
            }
        }
        while self.groups.front().is_some_and(|(_, last)| *last <= self.compacted) {
            self.groups.pop_front();
        }
    }

    fn trim(&mut self, now: Instant) {
        let old = |(at, _): &&(Instant, Revision)| now.duration_since(*at) > self.retention.span;
        let aged = self.groups.iter().take_while(old).last().map(|(_, revision)| *revision);
        if let Some(revision) = aged {
            self.compact(revision);
        }
        while self.events.len() > self.retention.events_max || self.bytes > self.retention.bytes_max {
            let Some(first) = self.events.front() else { break };
            self.compact(first.revision());
        }
    }
}

/// What an event keeps alive: its value, and the previous one, which no newer entry holds.
fn bytes(event: &WatchEvent) -> usize {
    let size = |entry: &Entry| entry.value.len();
    size(&event.entry) + event.previous.as_ref().map_or(0, size)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::EventKind;

    const RETENTION: Retention = Retention { span: Duration::from_secs(300), events_max: 10, bytes_max: 1000 };

    fn put(key: &str, revision: Revision, bytes: usize) -> WatchEvent {
        let entry = Entry {
            key: Key::from(key),
            value: Bytes::from(vec![0; bytes]),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
        };
        WatchEvent { kind: EventKind::Put, entry, previous: None }
    }

    fn revisions(history: &History, after: Revision) -> Vec<Revision> {
        history.after(after).map(WatchEvent::revision).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn forgets_what_is_over_age_count_or_bytes() {
        let start = Instant::now();
        let mut history = History::new(RETENTION, 1);
        history.push([put("/a", 2, 1), put("/b", 3, 1)], start);
        history.push([put("/c", 4, 1)], start + Duration::from_secs(200));
        assert_eq!(revisions(&history, 2), [3, 4]);
        history.push([put("/d", 5, 1)], start + Duration::from_secs(301));
        assert_eq!((history.compacted(), revisions(&history, 0)), (3, vec![4, 5]));
        history.push((6..16).map(|revision| put("/e", revision, 1)), start + Duration::from_secs(302));
        assert_eq!((history.compacted(), revisions(&history, 0).len()), (5, 10));
        history.push([put("/f", 16, 999)], start + Duration::from_secs(303));
        assert_eq!((history.compacted(), revisions(&history, 0)), (14, vec![15, 16]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_ends_between_transactions() {
        let mut history = History::new(RETENTION, 1);
        let events = [put("/a/1", 2, 1), put("/a/2", 2, 1), put("/b/1", 2, 1), put("/a/3", 3, 1), put("/b/2", 4, 1)];
        history.push(events, Instant::now());
        let (first, next) = history.read(&Key::from("/a/"), 1, 1);
        assert_eq!((first.len(), next), (2, 3), "both events of revision 2, though one was asked for");
        let (second, next) = history.read(&Key::from("/a/"), next - 1, 1);
        assert_eq!((second.len(), next), (1, 0));
    }
}
