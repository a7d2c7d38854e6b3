//! The embedded engine: the contract suite, reopening, and what happens when the disk fails.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::{Clock, Tasks};
use bytes::Bytes;
use parking_lot::Mutex;

use super::disk::{Loaded, Write};
use super::*;
use crate::{EventKind, Txn, WatchItem, suite};

fn options(dir: &std::path::Path, clock: Clock) -> Options {
    Options::new(dir, clock, Tasks::root())
}

fn open(dir: &std::path::Path) -> Embedded {
    Embedded::open(options(dir, Clock::system())).unwrap()
}

fn put(key: &str, value: &str) -> Txn {
    Txn::default().put(key.into(), Bytes::copy_from_slice(value.as_bytes()))
}

#[tokio::test(start_paused = true)]
async fn keeps_the_contract() {
    let parent = tempfile::tempdir().unwrap();
    let count = AtomicUsize::new(0);
    suite::run(async |clock| {
        let dir = parent.path().join(count.fetch_add(1, Ordering::Relaxed).to_string());
        let store: suite::Subject = Arc::new(Embedded::open(options(&dir, clock)).unwrap());
        store
    })
    .await;
}

#[tokio::test]
async fn all_is_there_after_reopening_but_the_past() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path());
        store.commit(put("/a", "1")).await.unwrap();
        store.commit(put("/a", "2").put("/b".into(), Bytes::from_static(b"3"))).await.unwrap();
        store.commit(Txn::default().delete("/b".into())).await.unwrap();
    }
    let store = open(dir.path());
    assert_eq!(store.revision(), 4, "a delete of the latest key must not take the revision back");
    let entry = store.get(&"/a".into(), None).await.unwrap().unwrap();
    assert_eq!((&*entry.value, entry.create_revision, entry.mod_revision, entry.version), (&b"2"[..], 2, 3, 2));
    assert_eq!(store.get(&"/b".into(), None).await, Ok(None));
    let compacted = StoreError::Compacted { requested: 3, compacted: 4 };
    assert_eq!(store.get(&"/a".into(), Some(3)).await, Err(compacted.clone()));
    assert_eq!(store.watch(&"/".into(), 3).next().await, Some(Err(compacted)));
    let mut watch = store.watch(&"/".into(), 4);
    store.commit(put("/a", "5")).await.unwrap();
    assert!(matches!(watch.next().await, Some(Ok(WatchItem::Events(events))) if events[0].revision() == 5));
}

#[tokio::test(start_paused = true)]
async fn what_expired_while_nothing_ran_goes_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let start: base::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let standstill = suite::Standstill::begin();
    {
        let store = Embedded::open(options(dir.path(), Clock::simulated(start))).unwrap();
        let hour = Duration::from_secs(3600);
        store.commit(Txn::default().put_for("/e".into(), Bytes::new(), hour)).await.unwrap();
    }
    standstill.end().await;
    let later = Clock::simulated(start + 2 * Duration::from_secs(3600));
    let store = Embedded::open(options(dir.path(), later)).unwrap();
    let mut watch = store.watch(&"/".into(), 2);
    match watch.next().await {
        Some(Ok(WatchItem::Events(events))) => assert_eq!(events[0].kind, EventKind::Delete),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path());
    let error = Embedded::open(options(dir.path(), Clock::system())).err().unwrap();
    assert!(error.to_string().contains("in use by another process"), "{error}");
}

#[tokio::test]
async fn a_watch_ends_with_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut watch = store.watch(&"/".into(), 1);
    drop(store);
    assert_eq!(watch.next().await, Some(Err(StoreError::stopped())));
    assert_eq!(watch.next().await, None);
}

/// Holds up the committer while it is shut.
#[derive(Default)]
struct Gate(Mutex<bool>, parking_lot::Condvar);

impl Gate {
    fn set_shut(&self, shut: bool) {
        *self.0.lock() = shut;
        self.1.notify_all();
    }

    fn pass(&self) {
        self.1.wait_while(&mut self.0.lock(), |shut| *shut);
    }
}

/// A disk in memory whose fsyncs are counted, can be held up, and fail from a given one on.
#[derive(Default)]
struct FakeDisk {
    gate: Arc<Gate>,
    groups: Arc<AtomicUsize>,
    fails_from: Option<usize>,
}

impl Disk for FakeDisk {
    fn write(&mut self, _: Revision, writes: &mut dyn Iterator<Item = Write<'_>>) -> io::Result<()> {
        self.gate.pass();
        assert!(writes.count() > 0, "a group without changes must not reach the disk");
        let group = self.groups.fetch_add(1, Ordering::SeqCst);
        if self.fails_from.is_some_and(|from| group >= from) { Err(io::Error::other("fsync: EIO")) } else { Ok(()) }
    }
}

#[tokio::test]
async fn a_failed_fsync_stops_everything_and_nobody_is_told_success() {
    let dir = tempfile::tempdir().unwrap();
    let reasons = Arc::new(Mutex::new(Vec::new()));
    let told = reasons.clone();
    let fatal: Fatal = Arc::new(move |reason| told.lock().push(reason.to_string()));
    let options = Options { fatal, ..options(dir.path(), Clock::system()) };
    let disk = FakeDisk { fails_from: Some(1), ..FakeDisk::default() };
    let store = Embedded::open_on(Box::new(disk), Loaded::default(), options).unwrap();
    let mut watch = store.watch(&"/".into(), 1);
    store.commit(put("/a", "1")).await.unwrap();
    assert!(matches!(watch.next().await, Some(Ok(WatchItem::Events(_)))));

    let outcomes = futures::future::join_all((0..10).map(|i| store.commit(put(&format!("/b/{i}"), "2")))).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(StoreError::Unavailable { .. }))), "{outcomes:?}");
    assert_eq!(*reasons.lock(), ["fsync: EIO"]);
    assert_eq!(watch.next().await, Some(Err(StoreError::stopped())), "no event of what may not be durable");
    assert_eq!(store.get(&"/b/0".into(), None).await, Err(StoreError::stopped()));
    assert_eq!(store.commit(put("/c", "3")).await, Err(StoreError::stopped()));
}

#[tokio::test]
async fn writers_share_an_fsync_and_see_nothing_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FakeDisk::default();
    let (gate, groups) = (disk.gate.clone(), disk.groups.clone());
    let store = Embedded::open_on(Box::new(disk), Loaded::default(), options(dir.path(), Clock::system())).unwrap();
    gate.set_shut(true);
    let mut writers = futures::future::join_all((0..100).map(|i| store.commit(put(&format!("/{i}"), "v"))));
    assert!(futures::poll!(&mut writers).is_pending());
    assert_eq!((store.revision(), store.get(&"/0".into(), None).await), (1, Ok(None)));
    gate.set_shut(false);
    let outcomes = writers.await;
    let revision = |outcome: &Result<Committed>| match outcome {
        Ok(Committed::Done { revision, .. }) => *revision,
        other => panic!("{other:?}"),
    };
    assert_eq!(outcomes.iter().map(revision).collect::<Vec<_>>(), (2..102).collect::<Vec<_>>());
    assert!(groups.load(Ordering::SeqCst) <= 2, "the first goes alone at most, all others together");
}

#[tokio::test]
async fn a_group_checks_compares_against_itself() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FakeDisk::default();
    let gate = disk.gate.clone();
    let store = Embedded::open_on(Box::new(disk), Loaded::default(), options(dir.path(), Clock::system())).unwrap();
    gate.set_shut(true);
    let creates = (0..20).map(|i| store.commit(Txn::create("/one".into(), Bytes::from(i.to_string()))));
    let mut creates = futures::future::join_all(creates);
    assert!(futures::poll!(&mut creates).is_pending());
    gate.set_shut(false);
    let outcomes = creates.await;
    let done = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Committed::Done { .. }))).count();
    assert_eq!((done, store.revision()), (1, 2));
    let winner = store.get(&"/one".into(), None).await.unwrap();
    for outcome in &outcomes {
        if let Ok(Committed::Conflict { current, .. }) = outcome {
            assert_eq!(current[0], winner);
        }
    }
}
