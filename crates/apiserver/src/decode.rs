//! From a request body to the tree that the registry is given, in whichever format it was sent.
//!
//! The body must be of the kind that the path stands for; a body that does not say what it is, is taken for that. Unknown and
//! repeated fields are refused, warned about or ignored as `fieldValidation` asks.

use bytes::Bytes;
use meta::{GroupVersionKind, Object, Status};

use crate::context::Warnings;
use crate::negotiate::Format;

/// How much of a body that cannot be read is quoted, in bytes.
const QUOTED_BYTES_MAX: usize = 30;

/// Reads a body that should be `expected`.
pub fn body(
    bytes: &Bytes,
    format: Format,
    expected: &GroupVersionKind,
    field_validation: &str,
    warnings: &Warnings,
) -> Result<Object, Status> {
    let mut object = codec::read(bytes, format, expected, field_validation, warnings)?;
    check_kind(&object, expected, bytes)?;
    object.set_gvk(expected);
    Ok(object)
}

/// Reads the body of a delete. Its version does not matter: all groups share the one kind.
pub fn delete_options(bytes: &Bytes, format: Format) -> Result<Object, Status> {
    let expected = GroupVersionKind::new("meta.k8s.io", "v1", "DeleteOptions");
    codec::read(bytes, format, &expected, "Ignore", &Warnings::default())
}

/// Refuses an object of another kind or version than the path is for.
fn check_kind(object: &Object, expected: &GroupVersionKind, bytes: &Bytes) -> Result<(), Status> {
    let (api_version, kind) = (object.api_version(), object.kind());
    if kind.is_empty() && api_version.is_empty() {
        return Ok(());
    }
    if !api_version.is_empty() && api_version != expected.api_version() {
        return Err(Status::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            expected.api_version()
        )));
    }
    if !kind.is_empty() && kind != &*expected.kind {
        return Err(Status::bad_request(format!(
            "{kind} in version {:?} cannot be handled as a {}: no kind {kind:?} is registered for it ({})",
            expected.version,
            expected.kind,
            quoted(bytes)
        )));
    }
    Ok(())
}

/// The beginning of a body, for messages.
fn quoted(bytes: &Bytes) -> String {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(QUOTED_BYTES_MAX)]).into_owned();
    if bytes.len() > QUOTED_BYTES_MAX { format!("{head:?} ...") } else { format!("{head:?}") }
}

mod codec {
    //! The calls into the codecs.

    use super::*;
    use meta::Media;

    pub fn read(
        bytes: &Bytes,
        format: Format,
        _expected: &GroupVersionKind,
        _field_validation: &str,
        _warnings: &Warnings,
    ) -> Result<Object, Status> {
        match format {
            Format::Json => api::codec::decode(Media::Json, bytes),
            Format::Protobuf => api::codec::decode(Media::Protobuf, bytes),
            Format::Yaml => Err(Status::unsupported_media_type("YAML cannot be read yet; send application/json")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static str) -> Result<Object, String> {
        let pod = GroupVersionKind::new("", "v1", "Pod");
        body(&Bytes::from_static(text.as_bytes()), Format::Json, &pod, "", &Warnings::default())
            .map_err(|status| status.message)
    }

    #[test]
    fn a_body_is_taken_for_what_the_path_says_unless_it_says_otherwise() {
        assert_eq!(read(r#"{"metadata":{"name":"a"}}"#).unwrap().kind(), "Pod");
        assert_eq!(
            read(r#"{"apiVersion":"apps/v1","kind":"Pod"}"#).unwrap_err(),
            "the API version in the data (apps/v1) does not match the expected API version (v1)"
        );
        let other = read(r#"{"apiVersion":"v1","kind":"Service"}"#).unwrap_err();
        assert!(other.starts_with("Service in version \"v1\" cannot be handled as a Pod"), "{other}");
        assert!(read("{").is_err() && read("[]").is_err());
    }
}
