//! The objects of one stored resource: an ordered index, the window of recent changes, and who watches.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use api::Kind;
use meta::ObjectKey;
use parking_lot::RwLock;
use store::Revision;
use tokio::sync::mpsc;

use super::Change;
use crate::stored::Stored;
use crate::stored::header::Selection;

/// How many changes are remembered for watches that start in the past.
pub const WINDOW_CHANGES_MAX: usize = 4096;

/// How many changes may wait for one watcher before it is closed.
pub const WATCHER_QUEUE_MAX: usize = 8192;

/// See the module.
pub struct KindCache {
    /// The row in the storage version.
    pub kind: Arc<Kind>,
    /// Such as `/registry/pods/`.
    pub prefix: String,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    /// By what follows the prefix in the key, in the store's order.
    objects: BTreeMap<Box<str>, Arc<Stored>>,
    /// All changes after `window_start`, oldest first.
    window: VecDeque<Arc<Change>>,
    window_start: Revision,
    /// Of the latest change that was applied.
    revision: Revision,
    watchers: Vec<Watcher>,
}

struct Watcher {
    scope: Scope,
    selection: Arc<Selection>,
    queue: mpsc::Sender<Arc<Change>>,
}

/// Which part of the collection a list or watch is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Empty for all.
    pub namespace: String,
    /// Empty for all.
    pub name: String,
}

impl Scope {
    fn holds(&self, key: &ObjectKey) -> bool {
        (self.namespace.is_empty() || *self.namespace == *key.namespace)
            && (self.name.is_empty() || *self.name == *key.name)
    }
}

/// A started watch: what there was, what happened since the asked revision, and what happens from now on.
pub struct Subscription {
    /// The objects there are, when the watch begins with the present.
    pub initial: Vec<Arc<Stored>>,
    /// How far `initial` and `backlog` reach.
    pub revision: Revision,
    pub backlog: Vec<Arc<Change>>,
    pub live: mpsc::Receiver<Arc<Change>>,
}

/// The window no longer reaches back to the asked revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooOld {
    pub oldest: Revision,
}

impl KindCache {
    pub fn new(kind: Arc<Kind>, segment: &str) -> Self {
        KindCache { kind, prefix: format!("{}{segment}/", super::ROOT), state: RwLock::default() }
    }

    /// What follows the prefix in the key of an object.
    pub fn path(key: &ObjectKey) -> String {
        key.to_string()
    }

    /// The object's namespace and name from what follows the prefix; none when the shape is not that of the kind.
    pub fn object_key(&self, path: &str) -> Option<ObjectKey> {
        match (self.kind.namespaced(), path.split_once('/')) {
            (true, Some((namespace, name))) if !name.contains('/') => Some(ObjectKey::new(namespace, name)),
            (false, None) => Some(ObjectKey::cluster(path)),
            _ => None,
        }
    }

    pub fn get(&self, key: &ObjectKey) -> Option<Arc<Stored>> {
        self.state.read().objects.get(Self::path(key).as_str()).cloned()
    }

    /// The objects in the scope after `start` (a path; empty for the beginning) that `wanted` takes, at most `limit`; and the
    /// revision they are of, given how far the whole cache has come. The flag says whether more follow.
    pub fn list(
        &self,
        scope: &Scope,
        start: &str,
        limit: usize,
        applied: impl Fn() -> Revision,
        wanted: impl Fn(&Stored) -> bool,
    ) -> Listed {
        let state = self.state.read();
        let mut listed = Listed { revision: state.revision.max(applied()), ..Listed::default() };
        for (path, stored) in state.range(scope, start) {
            if !scope.holds(&stored.key) || !wanted(stored) {
                continue;
            }
            if listed.items.len() == limit {
                listed.remaining += 1;
                continue;
            }
            listed.items.push(stored.clone());
            listed.last = path.to_string();
        }
        listed
    }

    /// Of the latest change.
    pub fn revision(&self) -> Revision {
        self.state.read().revision
    }

    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Starts a watch with the present.
    pub fn subscribe_now(
        &self,
        scope: &Scope,
        selection: &Arc<Selection>,
        applied: impl Fn() -> Revision,
    ) -> Subscription {
        let mut state = self.state.write();
        let matching =
            |stored: &&Arc<Stored>| scope.holds(&stored.key) && selection.matches(&stored.key, &stored.header);
        let initial = state.range(scope, "").map(|(_, stored)| stored).filter(matching).cloned().collect();
        let revision = state.revision.max(applied());
        Subscription { initial, revision, backlog: Vec::new(), live: state.join(scope, selection) }
    }

    /// Starts a watch with the first change after `after`.
    pub fn subscribe_after(
        &self,
        after: Revision,
        scope: &Scope,
        selection: &Arc<Selection>,
    ) -> Result<Subscription, TooOld> {
        let mut state = self.state.write();
        if after < state.window_start {
            return Err(TooOld { oldest: state.window_start });
        }
        let first = state.window.partition_point(|change| change.revision <= after);
        let backlog =
            state.window.range(first..).filter(|change| concerns(change, scope, selection)).cloned().collect();
        let revision = state.revision.max(after);
        Ok(Subscription { initial: Vec::new(), revision, backlog, live: state.join(scope, selection) })
    }

    /// Replaces everything with what the store has at `revision`. Watchers are closed: what they missed is unknown.
    pub(super) fn reset(&self, objects: BTreeMap<Box<str>, Arc<Stored>>, revision: Revision) {
        *self.state.write() = State { objects, window_start: revision, revision, ..State::default() };
    }

    /// Applies changes in order: what each path is since its revision.
    pub(super) fn apply(&self, changes: Vec<(Revision, Box<str>, Option<Arc<Stored>>)>) {
        let mut state = self.state.write();
        for (revision, path, current) in changes {
            let previous = match &current {
                Some(stored) => state.objects.insert(path, stored.clone()),
                None => state.objects.remove(&path),
            };
            state.revision = revision;
            state.publish(Arc::new(Change::new(revision, current, previous)));
        }
    }
}

/// What [`KindCache::list`] found.
#[derive(Debug, Default)]
pub struct Listed {
    pub items: Vec<Arc<Stored>>,
    pub revision: Revision,
    /// The path of the last item.
    pub last: String,
    /// How many more there would have been.
    pub remaining: u64,
}

impl State {
    /// The objects of the scope's namespace (or all), after a path.
    fn range<'a>(
        &'a self,
        scope: &Scope,
        start: &str,
    ) -> impl Iterator<Item = (&'a Box<str>, &'a Arc<Stored>)> + use<'a> {
        let namespace = format!("{}/", scope.namespace);
        let first = match (scope.namespace.is_empty(), start.is_empty()) {
            (_, false) => Bound::Excluded(Box::from(start)),
            (true, true) => Bound::Unbounded,
            (false, true) => Bound::Included(Box::from(namespace.as_str())),
        };
        let own = move |path: &str| namespace.len() == 1 || path.starts_with(&namespace);
        self.objects.range::<Box<str>, _>((first, Bound::Unbounded)).take_while(move |(path, _)| own(path))
    }

    fn join(&mut self, scope: &Scope, selection: &Arc<Selection>) -> mpsc::Receiver<Arc<Change>> {
        self.watchers.retain(|watcher| !watcher.queue.is_closed());
        let (queue, live) = mpsc::channel(WATCHER_QUEUE_MAX);
        self.watchers.push(Watcher { scope: scope.clone(), selection: selection.clone(), queue });
        live
    }

    fn publish(&mut self, change: Arc<Change>) {
        // A watcher that is gone or too slow is dropped, which ends its stream.
        self.watchers.retain(|watcher| {
            !concerns(&change, &watcher.scope, &watcher.selection) || watcher.queue.try_send(change.clone()).is_ok()
        });
        if self.window.len() == WINDOW_CHANGES_MAX
            && let Some(oldest) = self.window.pop_front()
        {
            self.window_start = oldest.revision;
        }
        self.window.push_back(change);
    }
}

fn concerns(change: &Change, scope: &Scope, selection: &Selection) -> bool {
    let matches = |stored: &Option<Arc<Stored>>| {
        stored.as_ref().is_some_and(|stored| selection.matches(&stored.key, &stored.header))
    };
    change.object().is_some_and(|stored| scope.holds(&stored.key))
        && (matches(&change.current) || matches(&change.previous))
}
