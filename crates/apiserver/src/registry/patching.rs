//! From a patch and the current object to the new one, by the kind of patch.

use bytes::Bytes;
use client::door::PatchKind;
use meta::{Object, Status};

use super::{Registry, Target};
use crate::context::Context;

/// The new object in the requested version.
pub fn apply(
    _registry: &Registry,
    _cx: &Context,
    _target: &Target,
    kind: PatchKind,
    _patch: &Bytes,
    _old: &Object,
) -> Result<Object, Status> {
    Err(Status::unsupported_media_type(format!("{} cannot be applied yet", kind.media_type())))
}
