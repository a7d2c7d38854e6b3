//! Create: from a decoded body to a stored object.

use meta::{Object, Reason, Status};
use serde_json::Value;

use super::commit::{Write, Written};
use super::metadata::{self, validation};
use super::ownership::{self, Origin};
use super::writing::refuse_invalid;
use super::{Answer, Outcome, Registry, Target};
use crate::admission::{Operation, Review};
use crate::context::Context;

/// How often a generated name or an allocated address that turns out to be taken is replaced by another.
const ATTEMPTS_MAX: usize = 8;

impl Registry {
    pub(super) async fn create_stored(
        &self,
        cx: &Context,
        target: &Target,
        body: Object,
        origin: Origin,
    ) -> Result<Outcome, Status> {
        let row = self.storage_row(target, "create")?;
        let body = prepare_body(cx, target, body)?;
        let mut object = self.complete(target, &row, body)?;
        row.strategy.before_create(&self.request(cx, target), &mut object);
        // What admission adds belongs to nobody.
        ownership::settle(cx, target, &row, origin, &mut object, None, self.clock.now());
        let review = Review::new(cx, target, &row, Operation::Create, None);
        self.admission.admit(self, &review, &mut object).await?;
        let generated = object.name().is_empty() && !object.generate_name().is_empty();
        for attempt in 1.. {
            let mut new = object.clone();
            if generated {
                new.set_meta("name", metadata::generate_name(object.generate_name()));
            }
            match self.create_once(&review, &mut new).await? {
                Written::Done(outcome) => return Ok(outcome),
                Written::Lost if attempt == ATTEMPTS_MAX => return Err(taken(target, &new, generated)),
                Written::Lost if generated => {}
                Written::Lost => self.still_free(target, &new).await?,
            }
        }
        Err(Status::internal("the attempts are counted"))
    }

    async fn create_once(&self, review: &Review<'_>, new: &mut Object) -> Result<Written<Outcome>, Status> {
        let Review { cx, target, row, .. } = *review;
        let request = self.request(cx, target);
        metadata::fill_new(new, self.clock.now());
        row.strategy.before_create(&request, new);
        let generation = if row.strategy.has_generation() { Value::from(1) } else { Value::Null };
        new.set_meta("generation", generation);
        let mut errors = validation::of_new(row, new);
        errors.extend(row.strategy.validate_create(new));
        refuse_invalid(row, new, &errors)?;
        self.admission.validate(self, review, Some(new)).await?;
        Self::warn(cx, row, new, None);
        let key = new.key();
        let allocation = self.allocation();
        row.strategy.allocate(&allocation, Some(&mut *new), None).await?;
        if cx.options.dry_run {
            if self.cache_of(target, "create")?.get(&key).is_some() {
                return Err(taken(target, new, false));
            }
            let shown = self.as_requested(target, std::mem::take(new))?;
            return Ok(Written::Done(Outcome::made(shown).as_created()));
        }
        let write = Write { row, key: &key, expect: 0, along: self.along(&allocation)? };
        Ok(match self.put(write, new).await? {
            Written::Done(stored) => {
                allocation.keep();
                Written::Done(Outcome::Object { answer: Answer::Stored(stored), created: true })
            }
            Written::Lost => Written::Lost,
        })
    }

    /// A create lost: because the object exists, or because of an address that can be replaced.
    async fn still_free(&self, target: &Target, new: &Object) -> Result<(), Status> {
        self.cache.be_current().await?;
        match self.cache_of(target, "create")?.get(&new.key()) {
            Some(_) => Err(taken(target, new, false)),
            None => Ok(()),
        }
    }
}

fn prepare_body(cx: &Context, target: &Target, mut body: Object) -> Result<Object, Status> {
    if !body.resource_version().is_empty() {
        return Err(Status::new(Reason::Unknown, "resourceVersion should not be set on objects to be created"));
    }
    metadata::match_target(target, &mut body)?;
    metadata::dedup_owners(cx, &mut body);
    Ok(body)
}

fn taken(target: &Target, object: &Object, generated: bool) -> Status {
    let mut status = Status::already_exists(&target.group_resource(), object.name());
    if generated {
        let prefix = object.generate_name();
        status.message.push_str(&format!(", the server was not able to generate a unique name from {prefix:?}"));
        status.details.get_or_insert_default().retry_after_seconds = 1;
    }
    status
}
