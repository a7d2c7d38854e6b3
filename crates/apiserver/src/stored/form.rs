//! Between stored bytes, trees and serving bytes: the one place of this crate that calls the codecs.

use api::Kind;
use bytes::Bytes;
use meta::{GroupVersion, Media, Object, Status};

use super::Stored;

/// Reads stored bytes of a kind (its row in the storage version).
pub fn decode(_kind: &Kind, media: Media, bytes: &[u8]) -> Result<Object, Status> {
    api::codec::decode(media, bytes)
}

/// Takes an object from one version of its kind to another.
pub fn convert(kind: &Kind, object: Object, api_version: &str) -> Result<Object, Status> {
    if object.api_version() == api_version {
        return Ok(object);
    }
    let version = GroupVersion::parse(api_version)
        .ok_or_else(|| Status::internal(format!("{api_version:?} is not an apiVersion")))?;
    let to = version.with_kind(&kind.kind);
    match kind.stored.as_ref().and_then(|storage| storage.convert) {
        Some(convert) => convert(object, &to),
        None => {
            let mut object = object;
            object.set_gvk(&to);
            Ok(object)
        }
    }
}

/// The bytes that go over the wire.
pub fn serve(stored: &Stored, api_version: &str, media: Media) -> Result<Bytes, Status> {
    let object = stored.object(api_version)?;
    match media {
        Media::Json => serde_json::to_vec(&object).map(Bytes::from).map_err(Status::internal),
        Media::Protobuf => Err(Status::not_acceptable("protobuf is not written yet; ask for application/json")),
    }
}

/// The stored form of an object in its storage version: what the store keeps, without `resourceVersion`.
pub fn encode(_kind: &Kind, object: &Object) -> Result<Bytes, Status> {
    let mut object = object.clone();
    object.set_meta("resourceVersion", serde_json::Value::Null);
    serde_json::to_vec(&object).map(Bytes::from).map_err(Status::internal)
}
