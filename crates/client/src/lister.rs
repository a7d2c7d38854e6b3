//! A read-only, indexed view of an informer's cache.
//!
//! What it answers is as of the last event the informer saw, so it may lag behind a write that was just made; controllers that
//! must not act twice guard themselves with expectations or preconditions.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use meta::ObjectKey;
use parking_lot::RwLock;

/// A way to find objects other than by key: a name, and the values an object is found under.
pub struct Index<P> {
    pub name: &'static str,
    pub values: fn(&ObjectKey, &P) -> Vec<String>,
}

impl<P> Clone for Index<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Index<P> {}

/// The cache of one informer, for reading. Cheap to clone.
pub struct Lister<P> {
    cache: Arc<RwLock<Cache<P>>>,
}

impl<P> Clone for Lister<P> {
    fn clone(&self) -> Self {
        Lister { cache: self.cache.clone() }
    }
}

pub(crate) struct Cached<P> {
    pub revision: u64,
    pub value: Arc<P>,
}

/// Which objects are found under each value of an index.
type Found = HashMap<String, HashSet<ObjectKey>>;

pub(crate) struct Cache<P> {
    pub items: BTreeMap<ObjectKey, Cached<P>>,
    indices: Vec<(Index<P>, Found)>,
    /// The revision that the cache is known to be complete up to.
    pub revision: u64,
}

impl<P> Cache<P> {
    /// Puts an object in and returns the one it replaces.
    pub fn insert(&mut self, key: ObjectKey, revision: u64, value: Arc<P>) -> Option<Arc<P>> {
        let old = self.items.insert(key.clone(), Cached { revision, value: value.clone() });
        for (index, found) in &mut self.indices {
            if let Some(old) = &old {
                forget(found, &(index.values)(&key, &old.value), &key);
            }
            for entry in (index.values)(&key, &value) {
                found.entry(entry).or_default().insert(key.clone());
            }
        }
        old.map(|cached| cached.value)
    }

    pub fn remove(&mut self, key: &ObjectKey) -> Option<Arc<P>> {
        let old = self.items.remove(key)?;
        for (index, found) in &mut self.indices {
            forget(found, &(index.values)(key, &old.value), key);
        }
        Some(old.value)
    }
}

fn forget(found: &mut Found, entries: &[String], key: &ObjectKey) {
    for entry in entries {
        if let Some(keys) = found.get_mut(entry) {
            keys.remove(key);
            if keys.is_empty() {
                found.remove(entry);
            }
        }
    }
}

impl<P> Lister<P> {
    pub(crate) fn new(indices: &[Index<P>]) -> Self {
        let indices = indices.iter().map(|index| (*index, HashMap::new())).collect();
        Lister { cache: Arc::new(RwLock::new(Cache { items: BTreeMap::new(), indices, revision: 0 })) }
    }

    pub(crate) fn cache(&self) -> &RwLock<Cache<P>> {
        &self.cache
    }

    pub fn get(&self, key: &ObjectKey) -> Option<Arc<P>> {
        self.cache.read().items.get(key).map(|cached| cached.value.clone())
    }

    /// Everything, in key order.
    pub fn all(&self) -> Vec<Arc<P>> {
        self.cache.read().items.values().map(|cached| cached.value.clone()).collect()
    }

    /// Everything with its key, in key order.
    pub fn entries(&self) -> Vec<(ObjectKey, Arc<P>)> {
        self.cache.read().items.iter().map(|(key, cached)| (key.clone(), cached.value.clone())).collect()
    }

    /// Everything in a namespace, in name order.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<P>> {
        let cache = self.cache.read();
        let from = ObjectKey::new(namespace, "");
        let range = cache.items.range(from..).take_while(|(key, _)| &*key.namespace == namespace);
        range.map(|(_, cached)| cached.value.clone()).collect()
    }

    /// What is found under `value` in the index called `index`, in no particular order. Empty for an unknown index.
    pub fn by_index(&self, index: &str, value: &str) -> Vec<Arc<P>> {
        let cache = self.cache.read();
        let keys = cache.indices.iter().find(|(known, _)| known.name == index).and_then(|(_, found)| found.get(value));
        keys.into_iter().flatten().filter_map(|key| cache.items.get(key)).map(|cached| cached.value.clone()).collect()
    }

    pub fn len(&self) -> usize {
        self.cache.read().items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The revision that the view is complete up to; 0 before the first list.
    pub fn revision(&self) -> u64 {
        self.cache.read().revision
    }
}
