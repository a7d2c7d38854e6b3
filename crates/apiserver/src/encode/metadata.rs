//! `PartialObjectMetadata`: an object without everything that is its kind's.

use api::codec::envelope;
use bytes::Bytes;
use meta::{Object, Status};
use serde_json::{Map, Value};

use super::protobuf::{field_slice, open_envelope};

const KIND: &str = "PartialObjectMetadata";

/// The tree of an object's metadata.
pub fn json(object: &Object, meta_version: &str) -> Value {
    let mut partial = Map::new();
    partial.insert("kind".into(), KIND.into());
    partial.insert("apiVersion".into(), meta_version.into());
    partial.insert("metadata".into(), object.0.get("metadata").cloned().unwrap_or_default());
    Value::Object(partial)
}

/// The envelope of an object's metadata, cut out of the object's own: metadata is field 1 of every kind.
pub fn protobuf(object: &Bytes, meta_version: &str) -> Result<Bytes, Status> {
    let message = open_envelope(object).ok_or_else(|| Status::internal("an item is no protobuf"))?;
    let metadata = field_slice(&message, 1).unwrap_or_default();
    Ok(envelope::write(meta_version, KIND, &metadata).into())
}
