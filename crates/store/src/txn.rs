//! Transactions: what must hold, and what is then done, at once.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;

use crate::{Entry, Key, Result, Revision, StoreError, limits};

/// All compares are checked, then all operations are done, as one step that has one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    pub compares: Vec<Compare>,
    pub ops: Vec<Op>,
}

/// Holds when the key's latest change was made at `mod_revision`; 0 means that the key must be absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    pub key: Key,
    pub mod_revision: Revision,
}

/// One change. A key occurs in at most one operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets the value. With a time to live the entry is deleted that long after the commit, by an ordinary transaction;
    /// without one, an earlier time to live is lifted.
    Put { key: Key, value: Bytes, ttl: Option<Duration> },
    /// Removes the key; no error when it is absent.
    Delete { key: Key },
}

impl Op {
    pub fn key(&self) -> &Key {
        match self {
            Op::Put { key, .. } | Op::Delete { key } => key,
        }
    }
}

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// All compares held. `revision` is the store's after it (moved only if something changed); `previous` has, for each
    /// operation, what the key was before.
    Done { revision: Revision, previous: Vec<Option<Entry>> },
    /// A compare did not hold and nothing was changed. `current` has, for each compare, what the key is, as of `revision`.
    Conflict { revision: Revision, current: Vec<Option<Entry>> },
}

impl Txn {
    /// Puts a key that must be absent.
    pub fn create(key: Key, value: Bytes) -> Self {
        Txn::default().when(key.clone(), 0).put(key, value)
    }

    /// Replaces a key that must stand at `mod_revision`.
    pub fn update(key: Key, mod_revision: Revision, value: Bytes) -> Self {
        Txn::default().when(key.clone(), mod_revision).put(key, value)
    }

    /// Deletes a key that must stand at `mod_revision`.
    pub fn remove(key: Key, mod_revision: Revision) -> Self {
        Txn::default().when(key.clone(), mod_revision).delete(key)
    }

    /// Adds a compare.
    pub fn when(mut self, key: Key, mod_revision: Revision) -> Self {
        self.compares.push(Compare { key, mod_revision });
        self
    }

    /// Adds a put without a time to live.
    pub fn put(mut self, key: Key, value: Bytes) -> Self {
        self.ops.push(Op::Put { key, value, ttl: None });
        self
    }

    /// Adds a put that expires.
    pub fn put_for(mut self, key: Key, value: Bytes, ttl: Duration) -> Self {
        self.ops.push(Op::Put { key, value, ttl: Some(ttl) });
        self
    }

    /// Adds a delete.
    pub fn delete(mut self, key: Key) -> Self {
        self.ops.push(Op::Delete { key });
        self
    }

    /// Bytes of the keys and values that it changes.
    pub(crate) fn bytes(&self) -> usize {
        let of = |op: &Op| match op {
            Op::Put { key, value, .. } => key.as_bytes().len() + value.len(),
            Op::Delete { key } => key.as_bytes().len(),
        };
        self.ops.iter().map(of).sum()
    }

    /// Refuses what no engine takes: too many or too large operations, an empty or too long key, a key changed twice.
    pub fn check(&self) -> Result<()> {
        within("operations in a transaction", self.ops.len().max(self.compares.len()), limits::TXN_OPS_MAX)?;
        let mut seen = HashSet::with_capacity(self.ops.len());
        for op in &self.ops {
            if !seen.insert(op.key()) {
                return Err(StoreError::Invalid { reason: "key is changed twice", key: op.key().to_string() });
            }
        }
        within("bytes in a transaction", self.bytes(), limits::TXN_BYTES_MAX)?;
        let keys = self.ops.iter().map(Op::key).chain(self.compares.iter().map(|compare| &compare.key));
        for key in keys {
            within("bytes in a key", key.as_bytes().len(), limits::KEY_BYTES_MAX)?;
            if key.as_bytes().is_empty() {
                return Err(StoreError::Invalid { reason: "key is empty", key: String::new() });
            }
        }
        Ok(())
    }
}

fn within(what: &'static str, actual: usize, limit: usize) -> Result<()> {
    if actual > limit { Err(StoreError::TooLarge { what, actual, limit }) } else { Ok(()) }
}
