//! The last step of every write: encode once, commit with the expected revision, and make the shared object of what is now
//! stored.

use std::sync::Arc;
use std::time::Duration;

use api::Kind;
use meta::{Media, Object, ObjectKey, Status};
use store::{Committed, Key, Op, Revision, Txn};

use super::Registry;
use crate::stored::{Header, Stored, form};
use crate::watch_cache::{KindCache, ROOT, feed};

/// One object's write. All operations happen together or not at all.
pub(super) struct Write<'a> {
    /// The row in the storage version.
    pub row: &'a Arc<Kind>,
    pub key: &'a ObjectKey,
    /// The revision that the object must still have; 0 when it must be absent.
    pub expect: Revision,
    /// Writes to other objects that belong to this one, such as the record of a service's address.
    pub along: Vec<Op>,
}

/// How a commit ended.
pub(super) enum Written<T> {
    Done(T),
    /// Somebody else was first, or something written along was taken. Nothing was changed.
    Lost,
}

impl Registry {
    /// Stores an object in its storage version.
    pub(super) async fn put(&self, write: Write<'_>, object: &mut Object) -> Result<Written<Arc<Stored>>, Status> {
        let plain = form::encode(write.row, object)?;
        let key = store_key(write.row, write.key)?;
        let value = self.transformer.seal(write.row, &key, plain.clone())?;
        let header = Arc::new(Header::of(write.row, object));
        let _expectation = self.cache.expected.add(&value, plain.clone(), header.clone());
        let mut txn = Txn::default().when(key.clone(), write.expect);
        txn = match write.row.strategy.time_to_live_seconds(object) {
            Some(seconds) => txn.put_for(key, value, Duration::from_secs(seconds)),
            None => txn.put(key, value),
        };
        let Written::Done(revision) = self.commit(txn, write.along).await? else { return Ok(Written::Lost) };
        if let Some(stored) = self.of_revision(write.row, write.key, revision) {
            return Ok(Written::Done(stored));
        }
        let media = Media::sniff(&plain);
        let stored = Stored::new(write.row.clone(), write.key.clone(), revision, media, plain, header);
        Ok(Written::Done(Arc::new(stored)))
    }

    /// The shared object that the feed has made of a write, unless somebody has written again since.
    fn of_revision(&self, row: &Kind, key: &ObjectKey, revision: Revision) -> Option<Arc<Stored>> {
        let index = self.cache.of(&row.stored.as_ref()?.key_segment)?;
        index.get(key).filter(|stored| stored.revision == revision)
    }

    /// Deletes an object that still has the expected revision. Returns the revision of the delete.
    pub(super) async fn remove(&self, write: Write<'_>) -> Result<Written<Revision>, Status> {
        let key = store_key(write.row, write.key)?;
        self.commit(Txn::remove(key, write.expect), write.along).await
    }

    async fn commit(&self, mut txn: Txn, along: Vec<Op>) -> Result<Written<Revision>, Status> {
        for op in along {
            if let Op::Put { key, .. } = &op {
                txn = txn.when(key.clone(), 0);
            }
            txn.ops.push(op);
        }
        match self.store.commit(txn).await.map_err(feed::status)? {
            Committed::Done { revision, .. } => {
                // Whoever was answered finds the write in memory: admission and allocation look nowhere else. The feed is
                // as fast as the store's watch; should it lag all the same, the write is durable and the answer not held up.
                if let Err(error) = self.cache.reach(revision).await {
                    tracing::warn!(revision, %error, "the watch cache lags behind a write");
                }
                Ok(Written::Done(revision))
            }
            Committed::Conflict { .. } => Ok(Written::Lost),
        }
    }

    /// The operation that records an object which belongs to another; the record must be absent.
    pub(super) fn record(&self, row: &Arc<Kind>, object: &mut Object) -> Result<Op, Status> {
        let key = store_key(row, &object.key())?;
        let value = self.transformer.seal(row, &key, form::encode(row, object)?)?;
        Ok(Op::Put { key, value, ttl: None })
    }

    pub(super) fn unrecord(row: &Arc<Kind>, key: &ObjectKey) -> Result<Op, Status> {
        Ok(Op::Delete { key: store_key(row, key)? })
    }
}

/// Where an object is kept.
pub(super) fn store_key(row: &Kind, key: &ObjectKey) -> Result<Key, Status> {
    let storage = row.stored.as_ref().ok_or_else(|| Status::internal(format!("{row:?} is not stored")))?;
    Ok(Key::from(format!("{ROOT}{}/{}", storage.key_segment, KindCache::path(key))))
}
