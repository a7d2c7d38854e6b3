//! The contract suite: what every engine must do, seen from outside.
//!
//! An engine's test calls [`run`] with a function that opens a fresh, empty store on the given clock. Run it on a paused
//! tokio runtime, so that times to live pass at once.

use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Timestamp};
use bytes::Bytes;
use futures::future::{BoxFuture, join_all};

use crate::{
    Committed, Entry, EventKind, Key, Op, Revision, Span, Store, StoreError, Txn, Watch, WatchEvent, WatchItem,
};

/// A store under test.
pub type Subject = Arc<dyn Store>;

/// Stops a paused runtime's time, which else passes whenever the runtime is idle, as while it waits for a commit: tokio does
/// not move it during a blocking task.
pub struct Standstill {
    release: std::sync::mpsc::Sender<()>,
    task: tokio::task::JoinHandle<std::result::Result<(), std::sync::mpsc::RecvError>>,
}

impl Standstill {
    pub fn begin() -> Self {
        let (release, held) = std::sync::mpsc::channel();
        // Ends when the sender is dropped.
        let task = tokio::task::spawn_blocking(move || held.recv());
        Standstill { release, task }
    }

    pub async fn end(self) {
        drop(self.release);
        let ended = self.task.await.expect("the blocking task");
        assert!(ended.is_err(), "nothing is ever sent");
    }
}

type Case = fn(Subject) -> BoxFuture<'static, ()>;

macro_rules! cases {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), |store| Box::pin($name(store)))),*] };
}

/// All cases by name.
const CASES: &[(&str, Case)] = cases![
    revisions_move_only_with_changes,
    a_key_made_again_starts_over,
    a_transaction_is_all_or_nothing,
    a_range_is_ordered_and_limited,
    pages_of_one_revision_are_consistent,
    the_past_is_readable_until_compacted,
    a_watch_sees_the_past_and_then_the_present,
    a_transaction_is_one_batch,
    a_watch_far_behind_catches_up,
    a_watch_outside_of_history_says_so,
    a_slow_watch_ends_but_an_idle_one_lives,
    progress_covers_what_was_committed,
    concurrent_writers_lose_nothing,
    what_no_engine_takes_is_refused,
    entries_expire_once_their_time_is_over,
];

/// Runs all cases, each on a store of its own.
pub async fn run(open: impl AsyncFn(Clock) -> Subject) {
    for (name, case) in CASES {
        tracing::info!(name, "suite case");
        let start: Timestamp = Timestamp::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        case(open(Clock::simulated(start)).await).await;
    }
}

fn key(text: &str) -> Key {
    Key::from(text)
}

fn value(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn put(store: &Subject, name: &str, text: &str) -> Revision {
    done(store, Txn::default().put(key(name), value(text))).await
}

async fn delete(store: &Subject, name: &str) -> Revision {
    done(store, Txn::default().delete(key(name))).await
}

async fn done(store: &Subject, txn: Txn) -> Revision {
    match store.commit(txn).await {
        Ok(Committed::Done { revision, .. }) => revision,
        other => panic!("not committed: {other:?}"),
    }
}

async fn text(store: &Subject, name: &str, at: Option<Revision>) -> Option<String> {
    let entry = store.get(&key(name), at).await.expect("readable");
    entry.map(|entry| String::from_utf8_lossy(&entry.value).into_owned())
}

/// `key=value@mod_revision` for each entry.
fn told(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|e| format!("{}={}@{}", e.key, String::from_utf8_lossy(&e.value), e.mod_revision)).collect()
}

async fn events(watch: &mut Watch) -> Vec<WatchEvent> {
    match watch.next().await {
        Some(Ok(WatchItem::Events(events))) => events,
        other => panic!("no events: {other:?}"),
    }
}

async fn events_until(watch: &mut Watch, revision: Revision) -> Vec<WatchEvent> {
    let mut seen = Vec::new();
    while seen.last().is_none_or(|event: &WatchEvent| event.revision() < revision) {
        seen.extend(events(watch).await);
    }
    seen
}

async fn revisions_move_only_with_changes(store: Subject) {
    assert_eq!(store.revision(), 1);
    assert_eq!(put(&store, "/a", "x").await, 2);
    assert_eq!(delete(&store, "/absent").await, 2);
    let conflict = store.commit(Txn::create(key("/a"), value("y"))).await;
    assert!(matches!(conflict, Ok(Committed::Conflict { revision: 2, .. })), "{conflict:?}");
    assert_eq!(done(&store, Txn::default().when(key("/a"), 2)).await, 2, "a transaction without operations");
    assert_eq!(put(&store, "/a", "x").await, 3, "a put of the same value is a change");
    assert_eq!(delete(&store, "/a").await, 4);
    assert_eq!(store.progress().await, Ok(4));
}

async fn a_key_made_again_starts_over(store: Subject) {
    put(&store, "/a", "1").await;
    put(&store, "/a", "2").await;
    let at = |entry: Option<Entry>| entry.map(|e| (e.create_revision, e.mod_revision, e.version));
    assert_eq!(at(store.get(&key("/a"), None).await.expect("get")), Some((2, 3, 2)));
    delete(&store, "/a").await;
    assert_eq!(store.get(&key("/a"), None).await, Ok(None));
    put(&store, "/a", "3").await;
    assert_eq!(at(store.get(&key("/a"), None).await.expect("get")), Some((5, 5, 1)));
}

async fn a_transaction_is_all_or_nothing(store: Subject) {
    put(&store, "/a", "1").await;
    let both = |expected| {
        let txn = Txn::default().when(key("/a"), expected).when(key("/b"), 0);
        txn.put(key("/b"), value("new")).delete(key("/a"))
    };
    match store.commit(both(7)).await {
        Ok(Committed::Conflict { revision: 2, current }) => {
            assert_eq!(current[0].as_ref().map(|entry| entry.mod_revision), Some(2));
            assert_eq!(current[1], None);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(text(&store, "/b", None).await, None);
    match store.commit(both(2)).await {
        Ok(Committed::Done { revision: 3, previous }) => {
            assert_eq!(previous[0], None);
            assert_eq!(previous[1].as_ref().map(|entry| entry.value.clone()), Some(value("1")));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((text(&store, "/a", None).await, text(&store, "/b", None).await), (None, Some("new".to_string())));
}

async fn a_range_is_ordered_and_limited(store: Subject) {
    for name in ["/p/c", "/p/a", "/q/x", "/p/b", "/p"] {
        put(&store, name, "v").await;
    }
    let span = Span::prefix(&key("/p/"));
    let all = store.range(&span, None, 0).await.expect("range");
    assert_eq!(told(&all.entries), ["/p/a=v@3", "/p/b=v@5", "/p/c=v@2"]);
    assert_eq!((all.remaining, all.revision, all.more()), (0, 6, false));
    let first = store.range(&span, None, 2).await.expect("range");
    assert_eq!((first.entries.len(), first.remaining, first.more()), (2, 1, true));
    let rest = store.range(&span.after(&first.entries[1].key), None, 2).await.expect("range");
    assert_eq!((told(&rest.entries), rest.remaining), (vec!["/p/c=v@2".to_string()], 0));
}

async fn pages_of_one_revision_are_consistent(store: Subject) {
    for name in ["/p/a", "/p/b", "/p/c", "/p/d"] {
        put(&store, name, "old").await;
    }
    let span = Span::prefix(&key("/p/"));
    let first = store.range(&span, None, 2).await.expect("first page");
    put(&store, "/p/bb", "new").await;
    put(&store, "/p/c", "new").await;
    put(&store, "/p/c", "newer").await;
    delete(&store, "/p/d").await;
    put(&store, "/p/e", "new").await;
    let rest = span.clone().after(&key("/p/b"));
    let second = store.range(&rest, Some(first.revision), 0).await.expect("second page");
    assert_eq!(told(&second.entries), ["/p/c=old@4", "/p/d=old@5"]);
    assert_eq!(second.revision, first.revision);
    let second = store.range(&rest, Some(first.revision), 1).await.expect("second page");
    assert_eq!((told(&second.entries), second.remaining), (vec!["/p/c=old@4".to_string()], 1));
    let now = store.range(&span, None, 0).await.expect("now");
    assert_eq!(told(&now.entries), ["/p/a=old@2", "/p/b=old@3", "/p/bb=new@6", "/p/c=newer@8", "/p/e=new@10"]);
}

async fn the_past_is_readable_until_compacted(store: Subject) {
    put(&store, "/a", "1").await;
    put(&store, "/a", "2").await;
    delete(&store, "/a").await;
    put(&store, "/a", "3").await;
    let expected = [(1, None), (2, Some("1")), (3, Some("2")), (4, None), (5, Some("3"))];
    for (at, then) in expected {
        assert_eq!(text(&store, "/a", Some(at)).await.as_deref(), then, "at {at}");
    }
    let future = StoreError::FutureRevision { requested: 6, current: 5 };
    assert_eq!(store.get(&key("/a"), Some(6)).await, Err(future.clone()));
    assert_eq!(store.compact(6).await, Err(future));
    store.compact(3).await.expect("compact");
    store.compact(2).await.expect("compacting again is no error");
    let compacted = StoreError::Compacted { requested: 2, compacted: 3 };
    assert_eq!(store.get(&key("/a"), Some(2)).await, Err(compacted.clone()));
    assert_eq!(store.range(&Span::prefix(&key("/")), Some(2), 0).await, Err(compacted));
    for (at, then) in &expected[2..] {
        assert_eq!(text(&store, "/a", Some(*at)).await.as_deref(), *then, "at {at} after compaction");
    }
}

async fn a_watch_sees_the_past_and_then_the_present(store: Subject) {
    put(&store, "/w/a", "1").await;
    put(&store, "/other", "-").await;
    put(&store, "/w/a", "2").await;
    let mut watch = store.watch(&key("/w/"), 2);
    let mut from_now = store.watch(&key("/w/"), store.revision());
    delete(&store, "/w/a").await;
    put(&store, "/w", "not below the prefix").await;
    put(&store, "/w/b", "3").await;
    let seen = events_until(&mut watch, 7).await;
    let shape = |event: &WatchEvent| {
        let previous = event.previous.as_ref().map_or(0, |previous| previous.mod_revision);
        (event.revision(), event.kind, event.is_create(), previous)
    };
    let expected = [(4, EventKind::Put, false, 2), (5, EventKind::Delete, false, 4), (7, EventKind::Put, true, 0)];
    assert_eq!(seen.iter().map(shape).collect::<Vec<_>>(), expected);
    assert_eq!(seen[1].previous.as_ref().map(|previous| previous.value.clone()), Some(value("2")));
    assert_eq!(events_until(&mut from_now, 7).await, seen[1..]);
}

async fn a_transaction_is_one_batch(store: Subject) {
    let mut watch = store.watch(&key("/t/"), store.revision());
    let names: Vec<Key> = (0..100).map(|i| key(&format!("/t/{i:03}"))).collect();
    let txn = names.iter().cloned().fold(Txn::default(), |txn, name| txn.put(name, value("v")));
    let revision = done(&store, txn).await;
    let seen = events(&mut watch).await;
    assert!(seen.iter().all(|event| event.revision() == revision));
    assert_eq!(seen.iter().map(|event| event.entry.key.clone()).collect::<Vec<_>>(), names);
}

async fn a_watch_far_behind_catches_up(store: Subject) {
    const KEYS_PER_TXN: usize = 100;
    let txns = 3 * crate::limits::WATCH_BATCH_MAX / KEYS_PER_TXN;
    for round in 0..txns {
        let names = (0..KEYS_PER_TXN).map(|i| key(&format!("/far/{round}/{i}")));
        done(&store, names.fold(Txn::default(), |txn, name| txn.put(name, value("v")))).await;
    }
    let mut watch = store.watch(&key("/far/"), 1);
    watch.progress_handle().request();
    let mut seen = Vec::new();
    let progress = loop {
        match watch.next().await {
            Some(Ok(WatchItem::Events(events))) => seen.extend(events.iter().map(WatchEvent::revision)),
            Some(Ok(WatchItem::Progress(revision))) => break revision,
            other => panic!("{other:?}"),
        }
    };
    let expected: Vec<_> = (0..txns).flat_map(|round| [round as Revision + 2; KEYS_PER_TXN]).collect();
    assert_eq!((seen, progress), (expected, store.revision()));
}

async fn a_watch_outside_of_history_says_so(store: Subject) {
    for text in ["1", "2", "3"] {
        put(&store, "/a", text).await;
    }
    store.compact(3).await.expect("compact");
    let mut early = store.watch(&key("/"), 2);
    assert_eq!(early.next().await, Some(Err(StoreError::Compacted { requested: 2, compacted: 3 })));
    assert_eq!(early.next().await, None);
    assert_eq!(events(&mut store.watch(&key("/"), 3)).await.len(), 1);
    let mut late = store.watch(&key("/"), 5);
    assert_eq!(late.next().await, Some(Err(StoreError::FutureRevision { requested: 5, current: 4 })));
}

async fn a_slow_watch_ends_but_an_idle_one_lives(store: Subject) {
    let mut slow = store.watch(&key("/busy/"), store.revision());
    let mut idle = store.watch(&key("/idle/"), store.revision());
    for text in ["1", "2", "3"] {
        put(&store, "/busy/a", text).await;
    }
    store.compact(2).await.expect("compact");
    let ended = slow.next().await;
    assert_eq!(ended, Some(Err(StoreError::Compacted { requested: 1, compacted: 2 })), "one event is lost");
    assert_eq!(slow.next().await, None);
    put(&store, "/idle/a", "1").await;
    assert_eq!(events(&mut idle).await.len(), 1);
}

async fn progress_covers_what_was_committed(store: Subject) {
    let mut watch = store.watch(&key("/p/"), store.revision());
    put(&store, "/p/a", "1").await;
    let elsewhere = put(&store, "/q", "1").await;
    watch.progress_handle().request();
    assert_eq!(events(&mut watch).await.len(), 1, "events come before the mark that covers them");
    assert_eq!(watch.next().await, Some(Ok(WatchItem::Progress(elsewhere))));
    let handle = watch.progress_handle();
    let (asked, mark) = tokio::join!(async move { handle.request() }, watch.next());
    assert_eq!((asked, mark), ((), Some(Ok(WatchItem::Progress(elsewhere)))));
}

async fn concurrent_writers_lose_nothing(store: Subject) {
    const WRITERS: usize = 16;
    const ROUNDS: usize = 8;
    put(&store, "/n", "0").await;
    let mut watch = store.watch(&key("/n"), store.revision());
    let writers = (0..WRITERS).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..ROUNDS {
                increment(&store).await;
            }
        })
    });
    join_all(writers).await.into_iter().for_each(|joined| joined.expect("writer"));
    assert_eq!(text(&store, "/n", None).await, Some((WRITERS * ROUNDS).to_string()));
    let seen = events_until(&mut watch, store.revision()).await;
    let counted: Vec<_> = seen.iter().map(|event| String::from_utf8_lossy(&event.entry.value).into_owned()).collect();
    let expected: Vec<_> = (1..=WRITERS * ROUNDS).map(|count| count.to_string()).collect();
    assert_eq!(counted, expected);
}

/// Adds one to the number under `/n`, however often others come first.
async fn increment(store: &Subject) {
    let mut entry = store.get(&key("/n"), None).await.expect("get").expect("there");
    loop {
        let count: usize = std::str::from_utf8(&entry.value).expect("text").parse().expect("number");
        match store.commit(Txn::update(key("/n"), entry.mod_revision, value(&(count + 1).to_string()))).await {
            Ok(Committed::Done { .. }) => return,
            Ok(Committed::Conflict { current, .. }) => entry = current[0].clone().expect("there"),
            Err(error) => panic!("{error}"),
        }
    }
}

async fn what_no_engine_takes_is_refused(store: Subject) {
    let twice = Txn::default().put(key("/a"), value("1")).delete(key("/a"));
    let empty = Txn::default().put(key(""), value("1"));
    for txn in [twice, empty] {
        assert!(matches!(store.commit(txn).await, Err(StoreError::Invalid { .. })));
    }
    let large = Txn::default().put(key("/a"), Bytes::from(vec![0; crate::limits::TXN_BYTES_MAX]));
    let long = Txn::default().put(Key::new(vec![b'a'; crate::limits::KEY_BYTES_MAX + 1]), value("1"));
    let op = |i: usize| Op::Delete { key: key(&format!("/{i}")) };
    let many = Txn { compares: Vec::new(), ops: (0..=crate::limits::TXN_OPS_MAX).map(op).collect() };
    for txn in [large, long, many] {
        assert!(matches!(store.commit(txn).await, Err(StoreError::TooLarge { .. })));
    }
    assert_eq!(store.revision(), 1);
}

async fn entries_expire_once_their_time_is_over(store: Subject) {
    const TTL: Duration = Duration::from_secs(10);
    let start = tokio::time::Instant::now();
    let mut watch = store.watch(&key("/e/"), store.revision());
    let standstill = Standstill::begin();
    for name in ["/e/short", "/e/kept", "/e/renewed"] {
        done(&store, Txn::default().put_for(key(name), value("1"), TTL)).await;
    }
    put(&store, "/e/kept", "2").await;
    let last = done(&store, Txn::default().put_for(key("/e/renewed"), value("2"), 3 * TTL)).await;
    standstill.end().await;
    let seen = events_until(&mut watch, last + 2).await;
    let gone: Vec<_> = seen.iter().filter(|event| event.kind == EventKind::Delete).collect();
    let names: Vec<_> = gone.iter().map(|event| event.entry.key.to_string()).collect();
    assert_eq!(names, ["/e/short", "/e/renewed"]);
    assert_eq!(gone[1].previous.as_ref().map(|previous| previous.value.clone()), Some(value("2")));
    assert!(start.elapsed() >= 3 * TTL, "{:?}", start.elapsed());
    assert_eq!(text(&store, "/e/kept", None).await.as_deref(), Some("2"));
}
