//! Delete: grace periods, finalizers and propagation, then the removal itself.
//!
//! ```text
//! kind deletes gracefully, or something has to be done first (finalizers)?
//!    no  ─► removed
//!    yes ─► deletionTimestamp is set; whoever does the last thing (an update without finalizers, a delete without grace)
//!           removes it
//! ```

use std::sync::Arc;
use std::time::Duration;

use api::Kind;
use client::door::DeleteOptions;
use meta::status::StatusDetails;
use meta::{GroupResource, Object, Status};
use serde_json::Value;

use super::commit::{Write, Written};
use super::{Answer, Outcome, Registry, Target};
use crate::admission::{Operation, Review};
use crate::context::Context;
use crate::stored::Stored;

const ATTEMPTS_MAX: usize = 32;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Kinds whose deletes are answered with the object instead of a mere success.
const ANSWERED_WITH_OBJECT: [(&str, &str); 18] = [
    ("", "namespaces"),
    ("", "persistentvolumeclaims"),
    ("", "persistentvolumes"),
    ("", "pods"),
    ("", "podtemplates"),
    ("", "resourcequotas"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("resource.k8s.io", "deviceclasses"),
    ("resource.k8s.io", "resourceclaims"),
    ("resource.k8s.io", "resourceclaimtemplates"),
    ("resource.k8s.io", "resourcepoolstatusrequests"),
    ("resource.k8s.io", "resourceslices"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "storageclasses"),
    ("storage.k8s.io", "volumeattachments"),
    ("storage.k8s.io", "volumeattributesclasses"),
];

/// What a delete does to the object as it is.
enum Plan {
    /// It is on its way already, and this request changes nothing.
    Pending,
    /// It stays until its finalizers are done and its grace is over.
    Mark(Object),
    Remove,
}

impl Registry {
    pub(super) async fn delete_stored(
        &self,
        cx: &Context,
        target: &Target,
        options: &DeleteOptions,
    ) -> Result<Outcome, Status> {
        let row = self.storage_row(target, "delete")?;
        for _ in 0..ATTEMPTS_MAX {
            let current = self.read_latest(target).await?;
            check_preconditions(target, options, &current)?;
            let old = current.stored_object()?;
            let review = Review::new(cx, target, &row, Operation::Delete, Some(&old));
            self.admission.validate(self, &review, None).await?;
            let written = match self.plan(&row, &old, options) {
                Plan::Pending => return Ok(Outcome::found(current)),
                Plan::Mark(new) if cx.options.dry_run => return Ok(Outcome::made(self.as_requested(target, new)?)),
                Plan::Remove if cx.options.dry_run => return Ok(gone(target, &row, current)),
                Plan::Mark(mut new) => {
                    let write = Write { row: &row, key: &current.key, expect: current.revision, along: Vec::new() };
                    match self.put(write, &mut new).await? {
                        Written::Done(stored) => Written::Done(Outcome::found(stored)),
                        Written::Lost => Written::Lost,
                    }
                }
                Plan::Remove => self.remove_stored(target, &row, &current, &old).await?,
            };
            if let Written::Done(outcome) = written {
                return Ok(outcome);
            }
        }
        Err(Status::modified(&target.group_resource(), &target.name))
    }

    async fn remove_stored(
        &self,
        target: &Target,
        row: &Arc<Kind>,
        current: &Arc<Stored>,
        old: &Object,
    ) -> Result<Written<Outcome>, Status> {
        let allocation = self.allocation();
        let dropped = row.strategy.allocate(&allocation, None, Some(old)).await?;
        allocation.drop_all(&dropped);
        let write = Write { row, key: &current.key, expect: current.revision, along: self.along(&allocation)? };
        Ok(match self.remove(write).await? {
            Written::Done(revision) => {
                allocation.keep();
                Written::Done(gone(target, row, Arc::new(current.at_revision(revision))))
            }
            Written::Lost => Written::Lost,
        })
    }

    /// Removes an object whose last update finished its deletion. The answer is the object as that update left it.
    pub(super) async fn finish_deletion(
        &self,
        row: &Arc<Kind>,
        current: &Arc<Stored>,
        last: &mut Object,
    ) -> Result<Written<Outcome>, Status> {
        let allocation = self.allocation();
        let dropped = row.strategy.allocate(&allocation, None, Some(&*last)).await?;
        allocation.drop_all(&dropped);
        let write = Write { row, key: &current.key, expect: current.revision, along: self.along(&allocation)? };
        Ok(match self.remove(write).await? {
            Written::Done(revision) => {
                allocation.keep();
                Written::Done(Outcome::found(Arc::new(Stored::made(row, current.key.clone(), revision, last)?)))
            }
            Written::Lost => Written::Lost,
        })
    }

    fn plan(&self, row: &Kind, old: &Object, options: &DeleteOptions) -> Plan {
        let now = self.clock.now();
        let mut new = old.clone();
        let finalizers_moved = set_propagation(&mut new, options);
        let has_work = new.finalizers().next().is_some() || !new.list_at(&["spec", "finalizers"]).is_empty();
        let graceful = row.strategy.grace_period_seconds(old, options.grace_period_seconds);
        let grace = graceful.unwrap_or(0);
        if let Some(since) = old.deletion_timestamp() {
            let left = old.deletion_grace_period_seconds().unwrap_or(0);
            let shorter = graceful.is_some() && options.grace_period_seconds.is_some() && grace < left;
            if shorter {
                let start = since - Duration::from_secs(left.unsigned_abs());
                mark(&mut new, start + Duration::from_secs(grace.unsigned_abs()), grace);
            }
            let over = graceful.is_none() || if shorter { grace == 0 } else { left == 0 };
            return match (over && !has_work, shorter || finalizers_moved) {
                (true, _) => Plan::Remove,
                (false, true) => Plan::Mark(new),
                (false, false) => Plan::Pending,
            };
        }
        if grace == 0 && !has_work {
            return Plan::Remove;
        }
        mark(&mut new, now + Duration::from_secs(grace.unsigned_abs()), grace);
        if old.generation() > 0 {
            new.set_meta("generation", old.generation() + 1);
        }
        if &*row.plural == "namespaces" && row.group.is_empty() {
            new.set(&["status", "phase"], "Terminating");
        }
        Plan::Mark(new)
    }
}

fn mark(object: &mut Object, at: base::Timestamp, grace_seconds: i64) {
    object.set_meta("deletionTimestamp", meta::time::rfc3339(at));
    object.set_meta("deletionGracePeriodSeconds", grace_seconds);
}

/// Writes the finalizer that makes the garbage collector act before the object goes; true when that changed something.
fn set_propagation(object: &mut Object, options: &DeleteOptions) -> bool {
    let before: Vec<String> = object.finalizers().map(String::from).collect();
    let asked = match (options.propagation_policy.as_deref(), options.orphan_dependents) {
        (Some("Orphan"), _) | (None, Some(true)) => Some(ORPHAN),
        (Some("Foreground"), _) => Some(FOREGROUND),
        (Some(_), _) | (None, Some(false)) => None,
        (None, None) => return false,
    };
    let mut after: Vec<String> = before.iter().filter(|own| *own != ORPHAN && *own != FOREGROUND).cloned().collect();
    after.extend(asked.map(String::from));
    if after == before {
        return false;
    }
    let value = if after.is_empty() { Value::Null } else { Value::from(after) };
    object.set_meta("finalizers", value);
    true
}

fn check_preconditions(target: &Target, options: &DeleteOptions, current: &Stored) -> Result<(), Status> {
    // Upstream names the kind here, where conflicts name the resource elsewhere.
    let kind = GroupResource::new(&target.kind.group, &target.kind.kind);
    let refused = |why: String| Err(Status::conflict(&kind, &target.name, why));
    if let Some(uid) = options.precondition_uid.as_deref().filter(|uid| **uid != *current.header.uid) {
        let own = &current.header.uid;
        return refused(format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({own}). The object might have been deleted and then recreated"
        ));
    }
    let own = current.revision.to_string();
    if let Some(version) = options.precondition_resource_version.as_ref().filter(|version| **version != own) {
        return refused(format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({own}). The object might have been modified"
        ));
    }
    Ok(())
}

/// What is answered when the object is no more.
fn gone(target: &Target, row: &Kind, last: Arc<Stored>) -> Outcome {
    if ANSWERED_WITH_OBJECT.contains(&(&*row.group, &*row.plural)) {
        return Outcome::Object { answer: Answer::Stored(last), created: false };
    }
    let resource = target.group_resource();
    let details = StatusDetails {
        name: target.name.clone(),
        group: resource.group.to_string(),
        kind: resource.resource.to_string(),
        uid: last.header.uid.to_string(),
        ..StatusDetails::default()
    };
    Outcome::Success { details: Some(Box::new(details)), created: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn propagated(finalizers: Value, policy: Option<&str>) -> (bool, Vec<String>) {
        let mut object = Object::from_value(json!({"metadata": {"finalizers": finalizers}})).unwrap();
        let options = DeleteOptions { propagation_policy: policy.map(String::from), ..DeleteOptions::default() };
        let moved = set_propagation(&mut object, &options);
        (moved, object.finalizers().map(String::from).collect())
    }

    #[test]
    fn the_policy_becomes_a_finalizer() {
        let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        for (finalizers, policy, expected) in [
            (json!([]), Some("Orphan"), (true, texts(&["orphan"]))),
            (json!([]), Some("Foreground"), (true, texts(&["foregroundDeletion"]))),
            (json!([]), Some("Background"), (false, texts(&[]))),
            (json!(["orphan", "a/b"]), Some("Foreground"), (true, texts(&["a/b", "foregroundDeletion"]))),
            (json!(["orphan"]), Some("Background"), (true, texts(&[]))),
            (json!(["orphan"]), None, (false, texts(&["orphan"]))),
        ] {
            assert_eq!(propagated(finalizers.clone(), policy), expected, "{finalizers} {policy:?}");
        }
    }
}
