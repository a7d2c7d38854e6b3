//! Who set which field: `metadata.managedFields`, kept with every write.

use api::Kind;
use base::Timestamp;
use meta::{Object, Status};
use serde_json::Value;

use super::Target;
use crate::context::Context;

/// A new object: all its fields are the writer's.
pub fn on_create(_cx: &Context, _target: &Target, _row: &Kind, new: &mut Object, _now: Timestamp) -> Result<(), Status> {
    new.set_meta("managedFields", Value::Null);
    Ok(())
}

/// An update: what changed is the writer's from now on.
pub fn on_update(
    _cx: &Context,
    _target: &Target,
    _row: &Kind,
    new: &mut Object,
    old: &Object,
    _now: Timestamp,
) -> Result<(), Status> {
    new.set_meta("managedFields", old.get(&["metadata", "managedFields"]).cloned().unwrap_or(Value::Null));
    Ok(())
}
