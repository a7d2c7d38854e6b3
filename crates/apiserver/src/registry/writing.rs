//! What creates and updates share: who asks as strategies see it, defaults, validation, warnings, ownership.

use std::sync::Arc;

use api::Kind;
use api::strategy::{Request, Requester};
use meta::{FieldError, Object, Status};

use super::{Registry, Target};
use crate::context::{Context, Identity};
use crate::stored::form;

/// The warning on writes of kinds that nothing acts upon yet.
const NOT_ACTED_UPON: &str = "stored, not acted upon yet";

impl Registry {
    /// The row of the version in which the kind is stored.
    pub(super) fn storage_row(&self, target: &Target, verb: &str) -> Result<Arc<Kind>, Status> {
        Ok(self.cache_of(target, verb)?.kind.clone())
    }

    pub(super) fn request(&self, cx: &Context, target: &Target) -> Request {
        Request {
            subresource: target.subresource.clone(),
            user: requester(&cx.user),
            now: self.clock.now(),
            dry_run: cx.options.dry_run,
        }
    }

    /// Fills what the client left out and takes the object to its storage version.
    pub(super) fn complete(&self, target: &Target, row: &Kind, mut object: Object) -> Result<Object, Status> {
        object.set_gvk(&target.kind.gvk());
        api::schema::defaults::fill(&target.kind.schema, &mut object.0);
        let mut object = form::convert(row, object, &row.group_version().to_string())?;
        row.strategy.set_defaults(&mut object);
        Ok(object)
    }

    /// What a stored or would-be stored object looks like in the requested version.
    pub(super) fn as_requested(&self, target: &Target, object: Object) -> Result<Object, Status> {
        form::convert(&target.kind, object, &target.kind.group_version().to_string())
    }

    pub(super) fn warn(cx: &Context, row: &Kind, new: &Object, old: Option<&Object>) {
        if !row.strategy.acted_upon() {
            cx.warnings.add(NOT_ACTED_UPON);
        }
        for warning in row.strategy.warnings(new, old) {
            cx.warnings.add(warning);
        }
    }
}

/// All that is wrong, as one refusal.
pub(super) fn refuse_invalid(row: &Kind, object: &Object, errors: &[FieldError]) -> Result<(), Status> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(&row.group_kind(), object.name(), errors)) }
}

pub(super) fn requester(user: &Identity) -> Requester {
    Requester {
        name: user.name.to_string(),
        uid: user.uid.to_string(),
        groups: user.groups.iter().map(ToString::to_string).collect(),
        extra: user.extra.clone(),
    }
}
