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

pub mod outcome;
pub mod target;

use std::sync::Arc;

use api::Kind;
use async_trait::async_trait;
use bytes::Bytes;
use client::door::{DeleteOptions, PatchKind};
use meta::{Object, Status};

pub use outcome::{Answer, Event, Events, Outcome, Page};
pub use target::Target;

use crate::context::Context;

/// A kind (or a subresource of one) that is answered and not stored: reviews, tokens. Registered by group, resource and
/// subresource.
#[async_trait]
pub trait Virtual: Send + Sync + 'static {
    /// `body` is in the version of `kind`, defaulted; the answer is shown as it is.
    async fn create(&self, cx: &Context, target: &Target, body: Object) -> Result<Object, Status>;
}

/// See the module.
pub struct Registry {
    _private: (),
}

impl Registry {
    /// The kinds served now.
    pub fn kind(&self, group: &str, version: &str, resource: &str) -> Option<Arc<Kind>> {
        let _ = (group, version, resource);
        None
    }

    /// The snapshot of the kinds served now.
    pub fn kinds(&self) -> Arc<api::Kinds> {
        api::builtin()
    }

    pub async fn get(&self, _cx: &Context, _target: &Target) -> Result<Outcome, Status> {
        Err(not_built())
    }

    pub async fn list(&self, _cx: &Context, _target: &Target) -> Result<Page, Status> {
        Err(not_built())
    }

    /// Errors that a watch meets after it was accepted come as its last event.
    pub async fn watch(&self, _cx: &Context, _target: &Target) -> Result<Events, Status> {
        Err(not_built())
    }

    pub async fn create(&self, _cx: &Context, _target: &Target, _body: Object) -> Result<Outcome, Status> {
        Err(not_built())
    }

    pub async fn update(&self, _cx: &Context, _target: &Target, _body: Object) -> Result<Outcome, Status> {
        Err(not_built())
    }

    pub async fn patch(
        &self,
        _cx: &Context,
        _target: &Target,
        _kind: PatchKind,
        _patch: Bytes,
    ) -> Result<Outcome, Status> {
        Err(not_built())
    }

    pub async fn delete(&self, _cx: &Context, _target: &Target, _options: DeleteOptions) -> Result<Outcome, Status> {
        Err(not_built())
    }

    /// The deleted objects, as they last were.
    pub async fn delete_collection(
        &self,
        _cx: &Context,
        _target: &Target,
        _options: DeleteOptions,
    ) -> Result<Page, Status> {
        Err(not_built())
    }
}

fn not_built() -> Status {
    Status::internal("not built yet")
}
