//! The embedded engine against a model that keeps a whole copy of the world for every revision.
//!
//! Random transactions, compactions and restarts; then every read and every watch that should work is compared, and every
//! one that should not must say so.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use base::{Clock, Tasks};
use bytes::Bytes;
use proptest::prelude::*;
use store::{
    Committed, Compare, Embedded, EventKind, Key, Op, Options, Revision, Span, Store, StoreError, Txn, WatchItem,
};

/// Few, so that transactions collide.
const KEYS: [&str; 6] = ["/a/1", "/a/2", "/a/3", "/a", "/b/1", "/b/2"];
const PREFIXES: [&str; 4] = ["/", "/a/", "/b/", "/c/"];

#[derive(Clone, Debug)]
enum Step {
    /// Operations as (key, value; none deletes); compares as (key, how far behind the key's revision, 0 for right).
    Commit {
        ops: BTreeMap<usize, Option<u8>>,
        compares: Vec<(usize, u64)>,
    },
    Compact {
        back: u64,
    },
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ops = prop::collection::btree_map(0..KEYS.len(), prop::option::weighted(0.7, any::<u8>()), 0..4);
    let compares = prop::collection::vec((0..KEYS.len(), prop_oneof![4 => Just(0u64), 1 => 1..3u64]), 0..3);
    let step = prop_oneof![
        16 => (ops, compares).prop_map(|(ops, compares)| Step::Commit { ops, compares }),
        2 => (0..6u64).prop_map(|back| Step::Compact { back }),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..30)
}

/// value, create revision, mod revision, version
type Cell = (Vec<u8>, Revision, Revision, u64);
/// revision, key, value before, value since
type Change = (Revision, Key, Option<Vec<u8>>, Option<Vec<u8>>);
type World = BTreeMap<Key, Cell>;

/// `worlds[r]` is the world as of revision r.
struct Model {
    worlds: Vec<World>,
    compacted: Revision,
}

impl Model {
    fn revision(&self) -> Revision {
        self.worlds.len() as Revision - 1
    }

    fn now(&self) -> &World {
        &self.worlds[self.worlds.len() - 1]
    }

    fn mod_revision(&self, key: &Key) -> Revision {
        self.now().get(key).map_or(0, |cell| cell.2)
    }

    /// Whether the transaction goes through.
    fn commit(&mut self, txn: &Txn) -> bool {
        if txn.compares.iter().any(|compare| self.mod_revision(&compare.key) != compare.mod_revision) {
            return false;
        }
        let revision = self.revision() + 1;
        let mut world = self.now().clone();
        for op in &txn.ops {
            match op {
                Op::Put { key, value, .. } => {
                    let (create, version) = world.get(key).map_or((revision, 1), |cell| (cell.1, cell.3 + 1));
                    world.insert(key.clone(), (value.to_vec(), create, revision, version));
                }
                Op::Delete { key } => drop(world.remove(key)),
            }
        }
        if world != *self.now() {
            self.worlds.push(world);
        }
        true
    }

    /// All changes under a prefix after a revision, in the order revision, key.
    fn changes(&self, prefix: &Key, after: Revision) -> Vec<Change> {
        let mut changes = Vec::new();
        for revision in after + 1..=self.revision() {
            let (before, since) = (&self.worlds[revision as usize - 1], &self.worlds[revision as usize]);
            let keys: std::collections::BTreeSet<_> = before.keys().chain(since.keys()).collect();
            for key in keys.into_iter().filter(|key| key.starts_with(prefix) && before.get(*key) != since.get(*key)) {
                let value = |world: &World| world.get(key).map(|cell| cell.0.clone());
                changes.push((revision, key.clone(), value(before), value(since)));
            }
        }
        changes
    }
}

fn open(dir: &std::path::Path) -> Embedded {
    Embedded::open(Options::new(dir, Clock::system(), Tasks::root())).unwrap()
}

fn txn(model: &Model, ops: &BTreeMap<usize, Option<u8>>, compares: &[(usize, u64)]) -> Txn {
    let op = |(index, value): (&usize, &Option<u8>)| {
        let key = Key::from(KEYS[*index]);
        match value {
            Some(value) => Op::Put { key, value: Bytes::from(vec![*value; *value as usize]), ttl: None },
            None => Op::Delete { key },
        }
    };
    let compare = |(index, behind): &(usize, u64)| {
        let key = Key::from(KEYS[*index]);
        Compare { mod_revision: model.mod_revision(&key).saturating_sub(*behind), key }
    };
    Txn { compares: compares.iter().map(compare).collect(), ops: ops.iter().map(op).collect() }
}

async fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let mut model = Model { worlds: vec![World::new(), World::new()], compacted: 0 };
    for step in steps {
        match step {
            Step::Commit { ops, compares } => {
                let txn = txn(&model, &ops, &compares);
                let done = model.commit(&txn);
                match store.commit(txn).await.unwrap() {
                    Committed::Done { revision, .. } => assert_eq!((done, revision), (true, model.revision())),
                    Committed::Conflict { revision, .. } => assert_eq!((done, revision), (false, model.revision())),
                }
            }
            Step::Compact { back } => {
                let before = model.revision().saturating_sub(back);
                store.compact(before).await.unwrap();
                model.compacted = model.compacted.max(before);
            }
            Step::Reopen => {
                drop(store);
                store = open(dir.path());
                // A store that was never written is still new.
                model.compacted = if model.revision() == 1 { 0 } else { model.revision() };
            }
        }
    }
    compare_reads(&store, &model).await;
    compare_watches(&store, &model).await;
}

async fn compare_reads(store: &Embedded, model: &Model) {
    assert_eq!(store.revision(), model.revision());
    for at in 0..=model.revision() + 1 {
        for prefix in PREFIXES.map(Key::from) {
            let page = store.range(&Span::prefix(&prefix), Some(at), 0).await;
            match page {
                Err(StoreError::Compacted { .. }) => assert!(at < model.compacted, "{at} is retained"),
                Err(StoreError::FutureRevision { .. }) => assert_eq!(at, model.revision() + 1),
                Err(error) => panic!("{error}"),
                Ok(page) => {
                    assert!(at >= model.compacted);
                    let cell =
                        |e: store::Entry| (e.key, (e.value.to_vec(), e.create_revision, e.mod_revision, e.version));
                    let found: World = page.entries.into_iter().map(cell).collect();
                    let mut expected = model.worlds[at as usize].clone();
                    expected.retain(|key, _| key.starts_with(&prefix));
                    assert_eq!(found, expected, "{prefix} at {at}");
                }
            }
        }
        for key in KEYS.map(Key::from) {
            if let Ok(entry) = store.get(&key, Some(at)).await {
                let expected = model.worlds[at as usize].get(&key).map(|cell| cell.0.clone());
                assert_eq!(entry.map(|entry| entry.value.to_vec()), expected, "{key} at {at}");
            }
        }
    }
}

async fn compare_watches(store: &Embedded, model: &Model) {
    for after in 0..=model.revision() {
        for prefix in PREFIXES.map(Key::from) {
            let mut watch = store.watch(&prefix, after);
            watch.progress_handle().request();
            let mut seen = Vec::new();
            loop {
                match watch.next().await {
                    Some(Ok(WatchItem::Events(events))) => seen.extend(events),
                    Some(Ok(WatchItem::Progress(revision))) => {
                        assert_eq!(revision, model.revision());
                        break;
                    }
                    Some(Err(StoreError::Compacted { .. })) => {
                        assert!(after < model.compacted, "{after} is retained");
                        break;
                    }
                    other => panic!("{other:?}"),
                }
            }
            if after >= model.compacted {
                let mut seen: Vec<_> = seen.into_iter().map(change).collect();
                assert!(seen.is_sorted_by_key(|change| change.0));
                seen.sort();
                assert_eq!(seen, model.changes(&prefix, after), "{prefix} after {after}");
            }
        }
    }
}

fn change(event: store::WatchEvent) -> Change {
    let since = (event.kind == EventKind::Put).then(|| event.entry.value.to_vec());
    (event.revision(), event.entry.key.clone(), event.previous.map(|previous| previous.value.to_vec()), since)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn does_what_the_model_does(steps in steps()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(steps));
    }
}
