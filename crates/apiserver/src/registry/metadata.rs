//! The rules of metadata that hold for every kind: what the server fills in, what a client may not change, and what is
//! refused.

pub mod validation;

use base::Timestamp;
use meta::{Object, Status};
use serde_json::Value;

use super::Target;
use crate::context::Context;

/// Longest name a generated one is cut to before its suffix, so that it stays a label.
const GENERATED_BASE_BYTES_MAX: usize = 58;
const GENERATED_SUFFIX_LETTERS: usize = 5;

/// Makes a body and the path it was sent to agree on namespace and name.
pub fn match_target(target: &Target, body: &mut Object) -> Result<(), Status> {
    let namespace = body.namespace().to_string();
    if target.kind.namespaced() {
        if namespace.is_empty() {
            body.set_meta("namespace", target.namespace.as_str());
        } else if namespace != target.namespace {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    } else if !namespace.is_empty() {
        body.set_meta("namespace", Value::Null);
    }
    if target.name.is_empty() || target.name == body.name() {
        return Ok(());
    }
    if body.name().is_empty() {
        body.set_meta("name", target.name.as_str());
        return Ok(());
    }
    let (own, url) = (body.name(), &target.name);
    Err(Status::bad_request(format!("the name of the object ({own}) does not match the name on the URL ({url})")))
}

/// An update has to name its object in the body too.
pub fn require_name(target: &Target, body: &Object) -> Result<(), Status> {
    if !body.name().is_empty() {
        return Ok(());
    }
    let name = &target.name;
    let why = "name must be provided";
    Err(Status::bad_request(format!("the name of the object ({name} based on URL) was undeterminable: {why}")))
}

/// Drops owner references that occur twice, and warns.
pub fn dedup_owners(cx: &Context, object: &mut Object) {
    let Some(Value::Array(owners)) = object.get_mut(&["metadata", "ownerReferences"]) else { return };
    let mut kept: Vec<Value> = Vec::with_capacity(owners.len());
    let mut twice = Vec::new();
    for owner in owners.drain(..) {
        if kept.contains(&owner) {
            twice.push(owner.get("uid").and_then(Value::as_str).unwrap_or_default().to_string());
        } else {
            kept.push(owner);
        }
    }
    *owners = kept;
    if !twice.is_empty() {
        cx.warnings.add(format!(
            ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            twice.join(", ")
        ));
    }
}

/// What only the server sets on a new object.
pub fn fill_new(object: &mut Object, now: Timestamp) {
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"] {
        object.set_meta(field, Value::Null);
    }
    object.set_meta("uid", base::chance::uuid());
    object.set_meta("creationTimestamp", meta::time::rfc3339(now));
}

/// Makes the name of an object that has only a prefix for one.
pub fn generate_name(prefix: &str) -> String {
    let mut end = prefix.len().min(GENERATED_BASE_BYTES_MAX);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &prefix[..end], base::chance::suffix(GENERATED_SUFFIX_LETTERS))
}

/// Carries over what an update cannot change and may leave out.
pub fn carry_over(new: &mut Object, old: &Object) {
    let kept = |field: &str| old.get(&["metadata", field]).cloned().unwrap_or(Value::Null);
    for field in ["uid", "creationTimestamp"] {
        if new.get(&["metadata", field]).is_none() {
            new.set_meta(field, kept(field));
        }
    }
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"] {
        new.set_meta(field, kept(field));
    }
}

/// Whether an update of an object that is being deleted was the last thing its deletion waited for.
pub fn is_finished(new: &Object) -> bool {
    new.is_being_deleted()
        && new.finalizers().next().is_none()
        && new.deletion_grace_period_seconds().unwrap_or(0) == 0
        && new.list_at(&["spec", "finalizers"]).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn generated_names_stay_labels() {
        let name = generate_name(&"a".repeat(300));
        assert_eq!(name.len(), 63);
        assert!(generate_name("web-").starts_with("web-"));
    }

    #[test]
    fn an_update_cannot_take_deletion_back() {
        let old = Object::from_value(json!({"metadata": {"uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z",
            "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 3}}))
        .unwrap();
        let mut new = Object::from_value(json!({"metadata": {"generation": 9}})).unwrap();
        carry_over(&mut new, &old);
        assert_eq!(new, old);
    }

    #[test]
    fn deletion_is_finished_when_nothing_is_waited_for() {
        let mut object =
            Object::from_value(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})).unwrap();
        assert!(is_finished(&object));
        object.set(&["spec", "finalizers"], json!(["kubernetes"]));
        assert!(!is_finished(&object));
        object.remove(&["spec"]);
        object.set_meta("deletionGracePeriodSeconds", 30);
        assert!(!is_finished(&object));
    }
}
