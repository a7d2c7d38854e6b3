//! Update and patch: one loop that makes the new object from the current one until nobody was faster.

use std::sync::Arc;

use api::Kind;
use bytes::Bytes;
use client::door::PatchKind;
use meta::{FieldError, FieldPath, Object, Status};
use serde_json::Value;

use super::commit::{Write, Written};
use super::freshness;
use super::metadata::{self, validation};
use super::ownership::{self, Origin};
use super::writing::refuse_invalid;
use super::{Outcome, Registry, Target, patching};
use crate::admission::{Operation, Review};
use crate::context::Context;
use crate::stored::Stored;

/// How often a write that somebody was faster than is made anew.
pub(super) const ATTEMPTS_MAX: usize = 32;

/// A change in place; it runs once for each attempt.
pub(crate) type Edit = dyn Fn(&mut Object) -> Result<(), Status> + Send + Sync;

/// What the new object is made from.
pub(crate) enum Revision {
    Replace(Object),
    Patch(PatchKind, Bytes),
    /// A change that the server makes itself, such as a binding: sees the object in its storage version.
    Edit(Box<Edit>),
}

impl Revision {
    fn origin(&self) -> Origin {
        match self {
            Revision::Patch(PatchKind::Apply, _) => Origin::Applied,
            Revision::Edit(_) => Origin::Server,
            Revision::Replace(_) | Revision::Patch(..) => Origin::Written,
        }
    }

    /// The new object in the requested version.
    fn apply(&self, registry: &Registry, cx: &Context, target: &Target, old: &Object) -> Result<Object, Status> {
        match self {
            Revision::Replace(object) => Ok(object.clone()),
            Revision::Patch(kind, patch) => patching::apply(registry, cx, target, *kind, patch, Some(old)),
            Revision::Edit(edit) => {
                let mut new = old.clone();
                edit(&mut new)?;
                Ok(new)
            }
        }
    }
}

/// One step of the loop.
enum Step {
    Done(Outcome),
    Again,
}

impl Registry {
    pub(crate) async fn revise(&self, cx: &Context, target: &Target, revision: Revision) -> Result<Outcome, Status> {
        let row = self.storage_row(target, "update")?;
        for _ in 0..ATTEMPTS_MAX {
            let current = match self.read_latest(target).await {
                Ok(current) => current,
                Err(error) if error.is_not_found() => match self.to_create(cx, target, &row, &revision)? {
                    Some(body) => return self.create_stored(cx, target, body, revision.origin()).await,
                    None => return Err(error),
                },
                Err(error) => return Err(error),
            };
            if let Step::Done(outcome) = self.revise_once(cx, target, &row, &current, &revision).await? {
                return Ok(outcome);
            }
        }
        Err(Status::modified(&target.group_resource(), &target.name))
    }

    /// The object that a write to what does not exist creates, where the kind or the patch allows that.
    fn to_create(
        &self,
        cx: &Context,
        target: &Target,
        row: &Kind,
        revision: &Revision,
    ) -> Result<Option<Object>, Status> {
        if !target.subresource.is_empty() {
            return Ok(None);
        }
        match revision {
            Revision::Replace(object) if row.strategy.allow_create_on_update() => {
                if object.resource_version().is_empty() || object.resource_version() == "0" {
                    let mut object = object.clone();
                    object.set_meta("resourceVersion", serde_json::Value::Null);
                    return Ok(Some(object));
                }
                Ok(None)
            }
            Revision::Patch(PatchKind::Apply, patch) => {
                patching::apply(self, cx, target, PatchKind::Apply, patch, None).map(Some)
            }
            _ => Ok(None),
        }
    }

    async fn revise_once(
        &self,
        cx: &Context,
        target: &Target,
        row: &Arc<Kind>,
        current: &Arc<Stored>,
        revision: &Revision,
    ) -> Result<Step, Status> {
        let old = current.stored_object()?;
        let mut body = match revision {
            Revision::Edit(_) => revision.apply(self, cx, target, &old)?,
            _ => revision.apply(self, cx, target, &self.as_requested(target, old.clone())?)?,
        };
        metadata::require_name(target, &body)?;
        metadata::match_target(target, &mut body)?;
        metadata::dedup_owners(cx, &mut body);
        let conditional = check_preconditions(target, row, &body, current, revision)?;
        let mut new = match revision {
            Revision::Edit(_) => body,
            _ => self.complete(target, row, body)?,
        };
        self.settle(cx, target, row, &mut new, &old, revision)?;
        // What admission adds belongs to nobody.
        ownership::settle(cx, target, row, revision.origin(), &mut new, Some(&old), self.clock.now());
        let review = Review::new(cx, target, row, Operation::Update, Some(&old));
        self.admission.admit(self, &review, &mut new).await?;
        self.settle(cx, target, row, &mut new, &old, revision)?;
        if same(&new, &old) {
            return Ok(Step::Done(Outcome::found(current.clone())));
        }
        let request = self.request(cx, target);
        let mut errors = validation::of_update(&new, &old);
        if revision.origin() != Origin::Server {
            errors.extend(row.strategy.validate_update(&request, &new, &old));
        }
        refuse_invalid(row, &new, &errors)?;
        self.admission.validate(self, &review, Some(&new)).await?;
        Self::warn(cx, row, &new, Some(&old));
        let written = self.store_revised(cx, target, row, current, new, &old).await?;
        match written {
            Written::Done(outcome) => Ok(Step::Done(outcome)),
            Written::Lost if conditional && matches!(revision, Revision::Replace(_)) => {
                Err(Status::modified(&target.group_resource(), &target.name))
            }
            Written::Lost => Ok(Step::Again),
        }
    }

    /// What the caller may not change goes back to what it was; the generation moves when it must.
    fn settle(
        &self,
        cx: &Context,
        target: &Target,
        row: &Kind,
        new: &mut Object,
        old: &Object,
        revision: &Revision,
    ) -> Result<(), Status> {
        metadata::carry_over(new, old);
        if !matches!(revision, Revision::Edit(_)) {
            row.strategy.before_update(&self.request(cx, target), new, old);
        }
        if target.subresource != "status" && row.strategy.generation_moves(new, old) {
            new.set_meta("generation", old.generation() + 1);
        }
        Ok(())
    }

    async fn store_revised(
        &self,
        cx: &Context,
        target: &Target,
        row: &Arc<Kind>,
        current: &Arc<Stored>,
        mut new: Object,
        old: &Object,
    ) -> Result<Written<Outcome>, Status> {
        let allocation = self.allocation();
        let dropped = row.strategy.allocate(&allocation, Some(&mut new), Some(old)).await?;
        allocation.drop_all(&dropped);
        if cx.options.dry_run {
            return Ok(Written::Done(Outcome::made(self.as_requested(target, new)?)));
        }
        if metadata::is_finished(&new) {
            return self.finish_deletion(row, current, &mut new).await;
        }
        let write = Write { row, key: &current.key, expect: current.revision, along: self.along(&allocation)? };
        Ok(match self.put(write, &mut new).await? {
            Written::Done(stored) => {
                allocation.keep();
                Written::Done(Outcome::found(stored))
            }
            Written::Lost => Written::Lost,
        })
    }
}

/// Whether there is nothing to write. Looks without copying: the objects can be large, and every write comes by here.
fn same(new: &Object, old: &Object) -> bool {
    fn fields(object: &Object) -> impl Iterator<Item = (&String, &Value)> {
        object.0.iter().filter(|(field, _)| *field != "metadata")
    }
    fn metadata(object: &Object) -> impl Iterator<Item = (&String, &Value)> {
        let metadata = object.get(&["metadata"]).and_then(Value::as_object);
        metadata.into_iter().flatten().filter(|(field, _)| *field != "resourceVersion")
    }
    fields(new).eq(fields(old)) && metadata(new).eq(metadata(old))
}

/// Checks uid and resource version of a body against what is stored; true when the body names a version.
fn check_preconditions(
    target: &Target,
    row: &Kind,
    body: &Object,
    current: &Stored,
    revision: &Revision,
) -> Result<bool, Status> {
    let resource = target.group_resource();
    // In a patch, another uid is no precondition but a change that is not allowed.
    let is_patch = matches!(revision, Revision::Patch(..));
    if !is_patch && !body.uid().is_empty() && body.uid() != &*current.header.uid {
        let why = format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
            body.uid(),
            current.header.uid
        );
        return Err(Status::conflict(&resource, &target.name, why));
    }
    match body.resource_version() {
        "" | "0" if row.strategy.allow_unconditional_update() => Ok(false),
        "" | "0" => {
            let path = FieldPath::new("metadata.resourceVersion");
            let error = FieldError::invalid(&path, 0, "must be specified for an update");
            Err(Status::invalid(&row.group_kind(), &target.name, &[error]))
        }
        version if version == current.revision.to_string() => Ok(true),
        version if version.parse::<u64>().is_err() => Err(freshness::not_a_number(version)),
        _ => Err(Status::modified(&resource, &target.name)),
    }
}
