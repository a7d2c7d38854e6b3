//! The generic registry: every verb written once, for every kind.
//!
//! The chain has decided who asks and that they may; what is left is what Kubernetes does with objects. A kind's row in the
//! kinds table says what is special about it, subresources and virtual kinds hang off two short lists, and everything else is
//! the same for all:
//!
//! ```text
//! write: defaults ─► mutating admission ─► metadata ─► strategy ─► ownership ─► validation ─► validating admission
//!                                          ─► allocation ─► encode once ─► store transaction
//! read:  watch cache (as fresh as the request asks) ─► shared `Stored`
//! ```
//!
//! The registry never sees HTTP or an encoding of the wire; the front never sees the store.

mod collection;
mod commit;
mod continue_token;
mod create;
mod delete;
mod freshness;
mod inside;
mod metadata;
pub mod outcome;
mod ownership;
mod patching;
mod read;
mod scale;
pub mod target;
#[cfg(test)]
mod tests;
mod update;
mod watching;
mod writing;

use std::collections::HashMap;
use std::sync::Arc;

use api::{Kind, Kinds, KindsTable};
use async_trait::async_trait;
use base::{Clock, Tasks, phase};
use bytes::Bytes;
use client::door::{DeleteOptions, PatchKind};
use ipnet::IpNet;
use meta::{GroupResource, GroupVersionResource, Object, Status};
use store::Store;

pub use outcome::{Answer, Event, Events, Outcome, Page};
pub use target::Target;
pub(crate) use update::Revision;

use crate::admission::Admission;
use crate::allocators::{ServiceAllocators, repair};
use crate::authz::Authorizer;
use crate::bootstrap;
use crate::context::Context;
use crate::subresources::{self, token::TokenSigner};
use crate::transformer::{Seal, Transformer};
use crate::watch_cache::WatchCache;

/// A kind (or a subresource of one) that is answered and not stored: reviews, tokens. Registered by group and resource.
#[async_trait]
pub trait Virtual: Send + Sync + 'static {
    /// `body` is in the version of `kind`, defaulted; the answer is shown as it is.
    async fn create(&self, cx: &Context, target: &Target, body: Object) -> Result<Object, Status>;
}

/// What a registry is made of.
pub struct Config {
    pub store: Arc<dyn Store>,
    /// Encrypts Secrets at rest; none keeps them as they are.
    pub seal: Option<Arc<dyn Seal>>,
    /// The service address ranges, the primary one first.
    pub service_cidrs: Vec<IpNet>,
    /// Makes service account tokens; without it, requests for tokens are refused.
    pub signer: Option<Arc<dyn TokenSigner>>,
}

/// See the module.
pub struct Registry {
    kinds: KindsTable,
    store: Arc<dyn Store>,
    cache: Arc<WatchCache>,
    transformer: Arc<Transformer>,
    admission: Admission,
    allocators: ServiceAllocators,
    authorizer: Arc<dyn Authorizer>,
    virtuals: HashMap<GroupResource, Arc<dyn Virtual>>,
    signer: Option<Arc<dyn TokenSigner>>,
    clock: Clock,
    tasks: Tasks,
}

impl Registry {
    /// Reads the store into memory, repairs and completes what a cluster needs, and is then ready for requests.
    pub async fn start(
        config: Config,
        virtuals: Vec<(GroupResource, Arc<dyn Virtual>)>,
        authorizer: Arc<dyn Authorizer>,
        clock: Clock,
        tasks: Tasks,
    ) -> Result<Arc<Self>, Status> {
        let kinds = KindsTable::served_by_default();
        let transformer = Arc::new(Transformer::new(config.seal));
        let rows = storage_rows(&kinds.load());
        let loading = WatchCache::start(config.store.clone(), transformer.clone(), rows, &tasks);
        let cache = phase::of("watch cache", loading).await?;
        let registry = Arc::new(Registry {
            kinds,
            store: config.store,
            cache,
            transformer,
            admission: Admission::default(),
            allocators: ServiceAllocators::new(&config.service_cidrs),
            authorizer,
            virtuals: virtuals.into_iter().collect(),
            signer: config.signer,
            clock,
            tasks,
        });
        repair::repair(&registry).await?;
        phase::of("bootstrap objects", bootstrap::run(&registry)).await?;
        Ok(registry)
    }

    /// The kinds served now.
    pub fn kinds(&self) -> Arc<Kinds> {
        self.kinds.load()
    }

    /// The row that serves a resource in a version.
    pub fn kind(&self, group: &str, version: &str, resource: &str) -> Option<Arc<Kind>> {
        self.kinds.load().by_gvr(&GroupVersionResource::new(group, version, resource)).cloned()
    }

    pub async fn get(&self, cx: &Context, target: &Target) -> Result<Outcome, Status> {
        self.read_subresource(cx, target).await
    }

    pub async fn list(&self, cx: &Context, target: &Target) -> Result<Page, Status> {
        self.read_page(cx, target).await
    }

    /// Errors that a watch meets after it was accepted come as its last event.
    pub async fn watch(&self, cx: &Context, target: &Target) -> Result<Events, Status> {
        self.start_watch(cx, target).await
    }

    pub async fn create(&self, cx: &Context, target: &Target, mut body: Object) -> Result<Outcome, Status> {
        if let Some(created) = subresources::create(self, cx, target, &body).await {
            return created;
        }
        if !target.subresource.is_empty() {
            return Err(target.method_not_allowed("create"));
        }
        if let Some(kind) = self.virtuals.get(&target.group_resource()) {
            if target.kind.namespaced() {
                metadata::match_target(target, &mut body)?;
            }
            api::schema::defaults::fill(&target.kind.schema, &mut body.0);
            return Ok(Outcome::made(kind.create(cx, target, body).await?).as_created());
        }
        self.create_stored(cx, target, body, ownership::Origin::Written).await
    }

    pub async fn update(&self, cx: &Context, target: &Target, body: Object) -> Result<Outcome, Status> {
        match target.subresource.as_str() {
            "scale" => self.revise_scale(cx, target, Revision::Replace(body)).await,
            "finalize" => subresources::finalize::update(self, cx, target, body).await,
            _ => self.revise(cx, target, Revision::Replace(body)).await,
        }
    }

    pub async fn patch(&self, cx: &Context, target: &Target, kind: PatchKind, patch: Bytes) -> Result<Outcome, Status> {
        let revision = Revision::Patch(kind, patch);
        if target.subresource == "scale" {
            return self.revise_scale(cx, target, revision).await;
        }
        self.revise(cx, target, revision).await
    }

    pub async fn delete(&self, cx: &Context, target: &Target, options: DeleteOptions) -> Result<Outcome, Status> {
        self.delete_stored(cx, target, &options).await
    }

    /// The deleted objects, as they last were.
    pub async fn delete_collection(
        &self,
        cx: &Context,
        target: &Target,
        options: DeleteOptions,
    ) -> Result<Page, Status> {
        self.delete_all(cx, target, &options).await
    }
}

/// The rows in their storage versions, each once.
fn storage_rows(served: &Kinds) -> Vec<Arc<Kind>> {
    let builtin = api::builtin();
    let mut by_segment: HashMap<Arc<str>, Arc<Kind>> = HashMap::new();
    for row in served.iter() {
        let Some(storage) = &row.stored else { continue };
        if let Some(stored) = served.by_gvk(&storage.kind).or_else(|| builtin.by_gvk(&storage.kind)) {
            by_segment.insert(storage.key_segment.clone(), stored.clone());
        }
    }
    by_segment.into_values().collect()
}
