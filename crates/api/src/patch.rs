//! Patches: JSON patch, merge patch and strategic merge patch, applied to a tree.
//!
//! Each takes the object as clients see it and the patch as sent, and returns the patched tree, not yet brought into the
//! schema's form: the caller passes it through [`crate::codec::conform`], which finds wrong types and unknown fields.
//! Server-side apply, which needs the owners of fields, is in [`crate::ownership`].

use meta::{Object, Reason, Status};
use serde_json::Value;

use crate::schema::Schema;

mod json;
mod merge;
mod order;
mod strategic;

pub use json::apply as apply_json;

/// Applies an RFC 6902 patch: a list of operations, all or none.
pub fn json_patch(object: Object, patch: &[u8]) -> Result<Object, Status> {
    let operations = json::parse(patch)?;
    let mut value = object.into_value();
    json::apply(&mut value, &operations).map_err(|_| rejected())?;
    Object::from_value(value).ok_or_else(rejected)
}

/// Applies an RFC 7386 patch: null removes, maps merge, all else replaces.
pub fn merge_patch(object: Object, patch: &[u8]) -> Result<Object, Status> {
    let patch = parse(patch)?;
    if !patch.is_object() {
        return Err(Status::bad_request(
            "error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}",
        ));
    }
    let mut value = object.into_value();
    merge::apply(&mut value, patch);
    Object::from_value(value).ok_or_else(rejected)
}

/// Applies a strategic merge patch by the merge keys and patch strategies of the schema.
pub fn strategic_merge_patch(schema: &Schema, object: Object, patch: &[u8]) -> Result<Object, Status> {
    match parse(patch)? {
        Value::Object(patch) => strategic::apply(schema, object.0, patch).map(Object),
        _ => Err(Status::bad_request("error decoding patch: invalid JSON document")),
    }
}

fn parse(patch: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(patch).map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))
}

/// Upstream's answer to a patch that is well formed and does not fit the object.
fn rejected() -> Status {
    let mut status = Status::new(Reason::Invalid, "the server rejected our request due to an error in our request");
    status.details = Some(Box::default());
    status
}

#[cfg(test)]
mod tests;
