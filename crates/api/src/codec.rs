//! Bytes to objects and back, by the schema table.
//!
//! Ways in: [`decode`] takes bytes whose kind they tell themselves, [`view`] takes a few fields out of them; [`read_json`] and
//! [`conform`] read untyped input strictly against a schema. Ways out: [`json`] and [`proto`] write a tree; [`serve_json`] and [`serve_proto`] make the form that
//! clients get straight from stored bytes, without a tree, filling the revision in. The API server puts lists and watch frames
//! together around those forms with [`wire`] and [`envelope`]. CBOR is not spoken yet.

use bytes::Bytes;
use head::{METADATA, RESOURCE_VERSION};
use meta::{GroupVersion, GroupVersionKind, Media, Object, Status};
use serde::de::DeserializeOwned;

use crate::schema::{Schema, SchemaRef};
use sink::{JsonText, Tree};
use wire::{Payload, Reader, WireError};

pub mod conform;
pub mod duration;
pub mod envelope;
pub mod go_json;
pub mod head;
mod json_write;
mod proto_fields;
mod proto_read;
mod proto_write;
pub mod sink;
mod view;
pub mod wire;
pub mod yaml;

pub use conform::Conformed;
pub use envelope::Envelope;

/// Reads any object; the bytes say what kind it is. In JSON everything is kept as it stands, in protobuf fields that the
/// schema does not know are skipped.
pub fn decode(media: Media, bytes: &[u8]) -> Result<Object, Status> {
    match media {
        Media::Json => serde_json::from_slice(bytes).map_err(|error| Status::bad_request(error.to_string())),
        Media::Protobuf => read_proto(bytes),
    }
}

/// Reads a protobuf envelope. The kind has to be one of the built-in ones.
pub fn read_proto(bytes: &[u8]) -> Result<Object, Status> {
    let (envelope, schema) = open(bytes)?;
    read_proto_as(&schema, &envelope).map_err(|error| Status::bad_request(error.to_string()))
}

/// Reads any object as a view: a struct of those of its fields that somebody wants, named as in JSON. The rest is skipped, and no
/// tree is built. Numbers, lists and maps of the view should have defaults: what is zero or empty may be absent.
pub fn view<T: DeserializeOwned>(media: Media, bytes: &[u8]) -> Result<T, Status> {
    let read = match media {
        Media::Json => serde_json::from_slice(bytes),
        Media::Protobuf => {
            let (envelope, schema) = open(bytes)?;
            match view::read(&schema, &envelope) {
                Ok(view) => return Ok(view),
                // What cannot be read in one pass may still be an object; if it is none, the tree says why.
                Err(_) => T::deserialize(read_proto(bytes)?.into_value()),
            }
        }
    };
    read.map_err(|error| Status::bad_request(error.to_string()))
}

fn open(bytes: &[u8]) -> Result<(Envelope<'_>, SchemaRef), Status> {
    let envelope = Envelope::parse(bytes).map_err(|error| Status::bad_request(error.to_string()))?;
    let schema = schema_of(&envelope).ok_or_else(|| {
        let (version, kind) = (envelope.api_version, envelope.kind);
        Status::bad_request(format!("no kind {kind:?} is registered for version {version:?} in scheme"))
    })?;
    Ok((envelope, schema))
}

/// Reads the message of an envelope as a given type, whatever its name says.
pub fn read_proto_as(schema: &Schema, envelope: &Envelope<'_>) -> Result<Object, WireError> {
    let mut tree = Tree::default();
    let fill = proto_read::Fill { api_version: envelope.api_version, kind: envelope.kind, resource_version: None };
    proto_read::object(schema, envelope.raw, fill, &mut tree)?;
    tree.finish().and_then(Object::from_value).ok_or(WireError::NotEnvelope)
}

fn schema_of(envelope: &Envelope<'_>) -> Option<SchemaRef> {
    let gv = GroupVersion::parse(envelope.api_version)?;
    schema_for(&gv.with_kind(envelope.kind))
}

/// The schema of a built-in kind, of a list of one, or of one of the kinds that every group has (`DeleteOptions`).
pub fn schema_for(gvk: &GroupVersionKind) -> Option<SchemaRef> {
    let kinds = crate::table::builtin();
    if let Some(kind) = kinds.by_gvk(gvk) {
        return Some(kind.schema.clone());
    }
    let sibling = kinds.iter().find(|kind| kind.group == gvk.group && kind.version == gvk.version);
    match sibling {
        Some(kind) => {
            let package = kind.schema.model.rsplit_once('.').map_or("", |(package, _)| package);
            crate::schema::builtin(&format!("{package}.{}", gvk.kind))
                .or_else(|| crate::schema::builtin_by_go_name(&gvk.kind))
        }
        None if gvk.group.as_ref() == "meta.k8s.io" => crate::schema::builtin_by_go_name(&gvk.kind),
        None => None,
    }
}

/// Reads JSON text as an object of the schema. The error message is upstream's for the body of a request.
pub fn read_json(schema: &Schema, bytes: &[u8]) -> Result<Conformed, String> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let conformed = conform::read(schema, &mut deserializer)?;
    deserializer.end().map_err(|error| error.to_string())?;
    Ok(conformed)
}

/// Reads JSON text of no known type: the value, and the keys that stand twice in one map.
pub fn read_json_any(bytes: &[u8]) -> Result<(serde_json::Value, Vec<String>), String> {
    let text = go_json::check(bytes)?;
    conform::read_any(&mut serde_json::Deserializer::from_slice(&text))
}

/// Brings a tree (from YAML, or what a patch made) into the schema's form.
pub fn conform(schema: &Schema, object: Object) -> Result<Conformed, String> {
    conform::read(schema, object.into_value())
}

/// The object as JSON text, in upstream's field order. No line break at the end.
pub fn json(schema: &Schema, object: &Object) -> Vec<u8> {
    let mut text = JsonText::with_capacity(1024);
    json_write::object(schema, &object.0, &mut text);
    text.out
}

/// The JSON text of a map of the schema.
pub(crate) fn object_json(schema: &Schema, map: &serde_json::Map<String, serde_json::Value>, text: &mut JsonText) {
    json_write::object(schema, map, text);
}

/// JSON text of a tree of no known type, keys sorted, with Go's escapes.
pub fn json_any(value: &serde_json::Value) -> Vec<u8> {
    let mut text = JsonText::with_capacity(256);
    json_write::any(value, &mut text);
    text.out
}

/// The object as a protobuf envelope.
pub fn proto(schema: &Schema, object: &Object) -> Result<Vec<u8>, Status> {
    let raw = proto_message(schema, object)?;
    Ok(envelope::write(object.api_version(), object.kind(), &raw))
}

/// The object's message alone, without `kind` and `apiVersion`.
pub fn proto_message(schema: &Schema, object: &Object) -> Result<Vec<u8>, Status> {
    let mut raw = Vec::with_capacity(512);
    proto_write::message(schema, &object.0, &mut raw).map_err(|error| Status::bad_request(error.to_string()))?;
    Ok(raw)
}

/// JSON text straight from a stored envelope of the schema, with `metadata.resourceVersion` filled in.
pub fn serve_json(schema: &Schema, stored: &[u8], resource_version: &str) -> Result<Bytes, Status> {
    let mut text = JsonText::with_capacity(stored.len() * 2);
    let envelope = Envelope::parse(stored).map_err(Status::internal)?;
    let fill = proto_read::Fill {
        api_version: envelope.api_version,
        kind: envelope.kind,
        resource_version: Some(resource_version).filter(|version| !version.is_empty()),
    };
    proto_read::object(schema, envelope.raw, fill, &mut text).map_err(Status::internal)?;
    Ok(text.out.into())
}

/// Adds the object to a list in JSON text: as [`serve_json`], without the kind and version that a list does not repeat.
pub fn serve_json_item(
    schema: &Schema,
    stored: &[u8],
    resource_version: &str,
    text: &mut JsonText,
) -> Result<(), Status> {
    let envelope = Envelope::parse(stored).map_err(Status::internal)?;
    let fill = proto_read::Fill { resource_version: Some(resource_version), ..proto_read::Fill::default() };
    proto_read::object(schema, envelope.raw, fill, text).map_err(Status::internal)
}

/// The stored envelope with `metadata.resourceVersion` filled in.
pub fn serve_proto(stored: &[u8], resource_version: &str) -> Result<Bytes, Status> {
    let envelope = Envelope::parse(stored).map_err(Status::internal)?;
    let raw = with_resource_version(envelope.raw, resource_version).map_err(Status::internal)?;
    Ok(envelope::write(envelope.api_version, envelope.kind, &raw).into())
}

fn with_resource_version(message: &[u8], resource_version: &str) -> Result<Vec<u8>, WireError> {
    let mut reader = Reader::new(message, 0);
    let Some((METADATA, Payload::Bytes(metadata))) = reader.field()? else {
        return Ok(message.to_vec());
    };
    let rest = reader.at();
    let mut out = Vec::with_capacity(message.len() + resource_version.len() + 4);
    wire::put_message(&mut out, METADATA, |out| {
        let mut reader = Reader::new(metadata, 0);
        let (mut from, mut written) = (0, false);
        while let Some((number, _)) = reader.field()? {
            if number >= RESOURCE_VERSION && !written {
                wire::put_bytes(out, RESOURCE_VERSION, resource_version.as_bytes());
                written = true;
            }
            if number != RESOURCE_VERSION {
                out.extend_from_slice(&metadata[from..reader.at()]);
            }
            from = reader.at();
        }
        if !written {
            wire::put_bytes(out, RESOURCE_VERSION, resource_version.as_bytes());
        }
        Ok::<(), WireError>(())
    })?;
    out.extend_from_slice(&message[rest..]);
    Ok(out)
}

#[cfg(test)]
mod tests;
