//! Between stored bytes, trees and serving bytes: the one place of the registry that calls the codecs.

use std::sync::Arc;

use api::codec::sink::{JsonText, Sink};
use api::{Kind, codec};
use bytes::Bytes;
use meta::{GroupVersion, GroupVersionKind, Media, Object, Status};
use serde_json::Value;

use super::Stored;

/// Reads stored bytes of a kind (its row in the storage version).
pub fn decode(_kind: &Kind, media: Media, bytes: &[u8]) -> Result<Object, Status> {
    codec::decode(media, bytes)
}

/// Takes an object from one version of its kind to another.
pub fn convert(kind: &Kind, mut object: Object, api_version: &str) -> Result<Object, Status> {
    if object.api_version() == api_version {
        return Ok(object);
    }
    if object.gvk().is_none() {
        object.set_gvk(&kind.gvk());
    }
    let to = in_version(kind, api_version)?;
    let mut object = api::convert::convert(object, &to)?;
    if let Some(row) = row(&to) {
        // What only the other version has, not even as an empty value.
        api::schema::prune::prune(&row.schema, &mut object.0);
    }
    Ok(object)
}

fn in_version(kind: &Kind, api_version: &str) -> Result<GroupVersionKind, Status> {
    let version = GroupVersion::parse(api_version);
    let version = version.ok_or_else(|| Status::internal(format!("{api_version:?} is not an apiVersion")))?;
    Ok(version.with_kind(&kind.kind))
}

fn row(gvk: &GroupVersionKind) -> Option<Arc<Kind>> {
    api::builtin().by_gvk(gvk).cloned()
}

/// Whether the version is that of the row.
pub fn is_own_version(kind: &Kind, api_version: &str) -> bool {
    match api_version.rsplit_once('/') {
        Some((group, version)) => *kind.group == *group && *kind.version == *version,
        None => kind.group.is_empty() && *kind.version == *api_version,
    }
}

/// Adds an object's text to a list, without `repeated` at its beginning.
pub fn append(object: &[u8], repeated: &str, text: &mut JsonText) {
    match object.strip_prefix(repeated.as_bytes()) {
        Some(rest) if !repeated.is_empty() => {
            text.begin_map();
            text.out.extend_from_slice(rest);
        }
        _ => text.verbatim(object),
    }
}

/// The bytes that go over the wire. The common case goes straight from stored to served bytes, without a tree.
pub fn serve(stored: &Stored, api_version: &str, media: Media) -> Result<Bytes, Status> {
    let version = stored.revision.to_string();
    match (is_own_version(&stored.kind, api_version), stored.media, media) {
        (true, Media::Protobuf, Media::Json) => codec::serve_json(&stored.kind.schema, &stored.bytes, &version),
        (true, Media::Protobuf, Media::Protobuf) => codec::serve_proto(&stored.bytes, &version),
        _ => {
            let object = stored.object(api_version)?;
            let row = row(&in_version(&stored.kind, api_version)?).unwrap_or_else(|| stored.kind.clone());
            match media {
                Media::Json => Ok(codec::json(&row.schema, &object).into()),
                Media::Protobuf => codec::proto(&row.schema, &object).map(Bytes::from),
            }
        }
    }
}

/// The stored form of an object in its storage version: what the store keeps, without `resourceVersion`.
pub fn encode(kind: &Kind, object: &mut Object) -> Result<Bytes, Status> {
    let version = object.map_at(&["metadata"]).remove("resourceVersion");
    let encoded = if kind.protobuf {
        codec::proto(&kind.schema, object).map(Bytes::from)
    } else {
        Ok(codec::json(&kind.schema, object).into())
    };
    object.set_meta("resourceVersion", version.unwrap_or(Value::Null));
    encoded
}
