//! What admission, subresources and the server's own upkeep ask of the registry: objects by resource, without a request of
//! their own. Reads are from memory; a resource is named by its segment in the store's keys (`pods`, `services/specs`).

use std::sync::Arc;
use std::time::Duration;

use meta::{GroupResource, Object, ObjectKey, Status};

use super::Registry;
use super::commit::store_key;
use crate::allocators::{Allocation, ServiceAllocators};
use crate::authz::{Attributes, Decision, RuleList};
use crate::context::Identity;
use crate::stored::Stored;
use crate::stored::header::Selection;
use crate::watch_cache::{KindCache, Scope, feed};

impl Registry {
    pub fn clock(&self) -> &base::Clock {
        &self.clock
    }

    pub(crate) fn tasks(&self) -> &base::Tasks {
        &self.tasks
    }

    pub(crate) fn signer(&self) -> Option<&Arc<dyn crate::subresources::token::TokenSigner>> {
        self.signer.as_ref()
    }

    pub(crate) fn allocators(&self) -> &ServiceAllocators {
        &self.allocators
    }

    fn index(&self, segment: &str) -> Result<Arc<KindCache>, Status> {
        self.cache.of(segment).ok_or_else(|| Status::internal(format!("no resource is stored as {segment:?}")))
    }

    /// The object as memory has it.
    pub fn cached(&self, segment: &str, key: &ObjectKey) -> Option<Arc<Stored>> {
        self.cache.of(segment)?.get(key)
    }

    /// The object of a target as memory has it.
    pub fn found(&self, target: &super::Target) -> Option<Arc<Stored>> {
        self.cached(&target.kind.stored.as_ref()?.key_segment, &target.key())
    }

    /// Whether memory has the object.
    pub fn exists(&self, target: &super::Target) -> bool {
        self.found(target).is_some()
    }

    /// The object as everything committed before this call left it.
    pub async fn current(&self, segment: &str, key: &ObjectKey) -> Result<Option<Arc<Stored>>, Status> {
        let index = self.index(segment)?;
        self.cache.be_current().await?;
        Ok(index.get(key))
    }

    /// All objects of a namespace (or, when empty, of all) as memory has them.
    pub fn cached_all(&self, segment: &str, namespace: &str) -> Result<Vec<Arc<Stored>>, Status> {
        let scope = Scope { namespace: namespace.to_string(), ..Scope::default() };
        let listed = self.index(segment)?.list(&scope, "", usize::MAX, || self.cache.revision(), |_| true);
        Ok(listed.items)
    }

    /// As [`Registry::cached_all`], as trees in the storage version.
    pub fn cached_objects(&self, segment: &str, namespace: &str) -> Result<Vec<Object>, Status> {
        self.cached_all(segment, namespace)?.iter().map(|stored| stored.stored_object()).collect()
    }

    /// Resolves when the object is deleted, or when that may have happened unseen.
    pub async fn goes(&self, segment: &str, key: &ObjectKey) {
        let Some(index) = self.cache.of(segment) else { return };
        let scope = Scope { namespace: key.namespace.to_string(), name: key.name.to_string() };
        let mut watch = index.subscribe_now(&scope, &Arc::new(Selection::default()), || self.cache.revision());
        if watch.initial.is_empty() {
            return;
        }
        while let Some(change) = watch.live.recv().await {
            if change.current.is_none() {
                return;
            }
        }
    }

    /// Waits for an object to come into being; none when it does not within `wait_max`.
    pub async fn appears(&self, segment: &str, key: &ObjectKey, wait_max: Duration) -> Option<Arc<Stored>> {
        let index = self.cache.of(segment)?;
        let scope = Scope { namespace: key.namespace.to_string(), name: key.name.to_string() };
        let mut watch = index.subscribe_now(&scope, &Arc::new(Selection::default()), || self.cache.revision());
        if let Some(found) = watch.initial.pop() {
            return Some(found);
        }
        let made = async {
            loop {
                if let Some(current) = watch.live.recv().await?.current.clone() {
                    return Some(current);
                }
            }
        };
        tokio::time::timeout(wait_max, made).await.ok().flatten()
    }

    /// Waits until the caches have seen everything that was committed before this call.
    pub async fn be_current(&self) -> Result<(), Status> {
        self.cache.be_current().await
    }

    /// The revision of the latest change of any object of a resource; 0 for one that is not stored.
    pub fn latest_change(&self, resource: &GroupResource) -> store::Revision {
        let kinds = self.kinds();
        let row = kinds.by_group_resource(resource).next();
        let segment = row.and_then(|kind| kind.stored.as_ref()).map(|stored| stored.key_segment.clone());
        segment.and_then(|segment| self.cache.of(&segment)).map_or(0, |cache| cache.revision())
    }

    /// A question to the authorizers that is part of another request.
    pub fn authorize(&self, asked: &Attributes<'_>) -> (Decision, String) {
        self.authorizer.authorize(asked)
    }

    pub fn rules_for(&self, user: &Identity, namespace: &str) -> RuleList {
        self.authorizer.rules_for(user, namespace)
    }

    pub(super) fn allocation(&self) -> Allocation<'_> {
        Allocation::new(&self.allocators, self.cache.of("ipaddresses"))
    }

    /// The operations that record what a write took and dropped.
    pub(super) fn along(&self, allocation: &Allocation<'_>) -> Result<Vec<store::Op>, Status> {
        let Some(row) = allocation.row() else { return Ok(Vec::new()) };
        let mut along = Vec::new();
        for record in allocation.taken() {
            along.push(self.record(row, &mut self.completed_record(row, record))?);
        }
        for name in allocation.dropped() {
            along.push(Self::unrecord(row, &ObjectKey::cluster(&name))?);
        }
        Ok(along)
    }

    fn completed_record(&self, row: &api::Kind, mut record: Object) -> Object {
        super::metadata::fill_new(&mut record, self.clock.now());
        if row.strategy.has_generation() {
            record.set_meta("generation", 1);
        }
        record
    }

    pub(crate) async fn write_record(&self, record: &Object) -> Result<(), Status> {
        let index = self.index("ipaddresses")?;
        let op = self.record(&index.kind, &mut self.completed_record(&index.kind, record.clone()))?;
        let txn = store::Txn { compares: Vec::new(), ops: vec![op] };
        self.store.commit(txn).await.map(drop).map_err(feed::status)
    }

    pub(crate) async fn remove_record(&self, key: &ObjectKey) -> Result<(), Status> {
        let index = self.index("ipaddresses")?;
        let op = store::Op::Delete { key: store_key(&index.kind, key)? };
        self.store.commit(store::Txn { compares: Vec::new(), ops: vec![op] }).await.map(drop).map_err(feed::status)
    }
}
