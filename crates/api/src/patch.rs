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
mod printed;
mod strategic;

pub use json::apply as apply_json;
pub(crate) use printed::go_value;
pub use printed::mismatch;

/// What a patch made.
#[derive(Clone, Debug)]
pub struct Patched {
    pub object: Object,
    /// What is said twice or unknown in the patch itself.
    pub problems: Vec<String>,
    quoted: Quoted,
}

/// What a message about the outcome shows.
#[derive(Clone, Debug)]
enum Quoted {
    /// The patched object; here are the maps that the patch went into.
    Object {
        touched: Value,
    },
    Patch(Value),
}

impl Patched {
    /// The outcome (of a strategic merge patch: the patch) as upstream's messages quote it.
    pub fn quoted(&self, schema: &Schema) -> String {
        match &self.quoted {
            Quoted::Object { touched } => printed::patched_json(schema, &self.object.0, touched),
            Quoted::Patch(patch) => go_value(patch),
        }
    }

    /// Whether types are told apart by the converter of untyped maps, which has words of its own.
    pub fn is_strategic(&self) -> bool {
        matches!(self.quoted, Quoted::Patch(_))
    }
}

/// Applies an RFC 6902 patch: a list of operations, all or none.
pub fn json_patch(object: Object, patch: &[u8]) -> Result<Patched, Status> {
    let (operations, problems) = json::parse(patch)?;
    let mut value = object.into_value();
    json::apply(&mut value, &operations).map_err(|_| rejected())?;
    let object = Object::from_value(value).ok_or_else(rejected)?;
    Ok(Patched { object, problems, quoted: Quoted::Object { touched: json::touched(&operations) } })
}

/// Applies an RFC 7386 patch: null removes, maps merge, all else replaces.
pub fn merge_patch(object: Object, patch: &[u8]) -> Result<Patched, Status> {
    let (patch, problems) = parse(patch)?;
    if !patch.is_object() {
        let why = not_a(&patch, "map[string]interface {}");
        return Err(Status::bad_request(format!("error decoding patch: {why}")));
    }
    let touched = printed::touched_by_merge(&patch);
    let mut value = object.into_value();
    merge::apply(&mut value, patch);
    let object = Object::from_value(value).ok_or_else(rejected)?;
    Ok(Patched { object, problems, quoted: Quoted::Object { touched } })
}

/// Applies a strategic merge patch by the merge keys and patch strategies of the schema.
pub fn strategic_merge_patch(schema: &Schema, object: Object, patch: &[u8]) -> Result<Patched, Status> {
    let (patch, problems) = parse(patch)?;
    let quoted = Quoted::Patch(patch.clone());
    match patch {
        Value::Object(patch) => {
            let object = strategic::apply(schema, object.0, patch).map(Object)?;
            Ok(Patched { object, problems, quoted })
        }
        other => Err(Status::bad_request(not_a(&other, "map[string]interface {}"))),
    }
}

/// The patch, and what is said twice in it.
fn parse(patch: &[u8]) -> Result<(Value, Vec<String>), Status> {
    crate::codec::read_json_any(patch).map_err(|_| Status::bad_request("invalid JSON patch"))
}

/// What Go's decoder says about a value that is no such thing.
fn not_a(value: &Value, go_type: &str) -> String {
    let given = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    format!("json: cannot unmarshal {given} into Go value of type {go_type}")
}

/// Upstream's answer to a patch that is well formed and does not fit the object.
fn rejected() -> Status {
    let mut status = Status::new(Reason::Invalid, "the server rejected our request due to an error in our request");
    status.details = Some(Box::default());
    status
}

#[cfg(test)]
mod tests;
