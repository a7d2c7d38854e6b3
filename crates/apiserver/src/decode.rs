//! From a request body to the tree that the registry is given, in whichever format it was sent.
//!
//! The body must be of the kind that the path stands for; a body that does not say what it is, is taken for that. Unknown and
//! repeated fields are refused, warned about or ignored as `fieldValidation` asks.

use api::codec;
use api::{Schema, SchemaRef};
use bytes::Bytes;
use meta::{GroupVersionKind, Media, Object, Status};
use serde::Deserialize;

use crate::context::Warnings;
use crate::negotiate::Format;

/// How much of a body that cannot be read is quoted, in bytes.
const QUOTED_BYTES_MAX: usize = 30;

/// What a body should be.
pub struct Expected<'a> {
    pub gvk: &'a GroupVersionKind,
    /// None for a kind without one: then nothing is known to be wrong.
    pub schema: Option<SchemaRef>,
    /// `Ignore`, `Warn` (also when empty) or `Strict`.
    pub field_validation: &'a str,
}

/// Reads the body of a create or an update.
pub fn body(bytes: &Bytes, format: Format, expected: &Expected<'_>, warnings: &Warnings) -> Result<Object, Status> {
    if let Some(said) = said_kind(bytes, format) {
        check_kind(&said, expected.gvk, bytes)?;
    }
    let unreadable = |why: String| {
        let (kind, version) = (&expected.gvk.kind, &expected.gvk.version);
        Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"))
    };
    let (mut object, problems) = read(bytes, format, expected.schema.as_deref()).map_err(unreadable)?;
    if !problems.is_empty() {
        match expected.field_validation {
            "Strict" => return Err(unreadable(format!("strict decoding error: {}", problems.join(", ")))),
            "Ignore" => {}
            _ => problems.into_iter().for_each(|problem| warnings.add(problem)),
        }
    }
    object.set_gvk(expected.gvk);
    Ok(object)
}

/// Reads the body of a delete. Its version does not matter: all groups share the one kind.
pub fn delete_options(bytes: &Bytes, format: Format) -> Result<Object, Status> {
    let schema = api::codec::schema_for(&GroupVersionKind::new("", "v1", "DeleteOptions"));
    let (object, _) = read(bytes, format, schema.as_deref()).map_err(Status::bad_request)?;
    Ok(object)
}

/// The object, and what in it nobody knows or was said twice.
fn read(bytes: &Bytes, format: Format, schema: Option<&Schema>) -> Result<(Object, Vec<String>), String> {
    match (format, schema) {
        (Format::Protobuf, None) => codec::read_proto(bytes).map_err(|status| status.message).map(plain),
        (Format::Protobuf, Some(schema)) => {
            let envelope = codec::Envelope::parse(bytes).map_err(|error| error.to_string())?;
            codec::read_proto_as(schema, &envelope).map_err(|error| error.to_string()).map(plain)
        }
        (Format::Json, None) => codec::decode(Media::Json, bytes).map_err(|status| status.message).map(plain),
        (Format::Json, Some(schema)) => {
            let read = codec::read_json(schema, bytes)?;
            Ok((Object(read.map), read.problems))
        }
        (Format::Yaml, schema) => {
            let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
            let document = codec::yaml::one(text).map_err(|error| error.to_string())?;
            let object = Object::from_value(document.value).ok_or("the document is not a map")?;
            let Some(schema) = schema else { return Ok((object, document.duplicates)) };
            let read = codec::conform(schema, object)?;
            Ok((Object(read.map), document.duplicates.into_iter().chain(read.problems).collect()))
        }
    }
}

fn plain(object: Object) -> (Object, Vec<String>) {
    (object, Vec::new())
}

/// What kind a body says it is, before it is read as anything; none when that cannot be told.
fn said_kind(bytes: &Bytes, format: Format) -> Option<Said> {
    match format {
        Format::Json => serde_json::from_slice(bytes).ok(),
        Format::Protobuf => {
            let envelope = codec::Envelope::parse(bytes).ok()?;
            Some(Said { api_version: envelope.api_version.to_string(), kind: envelope.kind.to_string() })
        }
        Format::Yaml => {
            let document = codec::yaml::one(std::str::from_utf8(bytes).ok()?).ok()?;
            Said::deserialize(&document.value).ok()
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Said {
    api_version: String,
    kind: String,
}

/// Refuses an object of another kind or version than the path is for.
fn check_kind(said: &Said, expected: &GroupVersionKind, bytes: &Bytes) -> Result<(), Status> {
    let (api_version, kind) = (said.api_version.as_str(), said.kind.as_str());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as(text: &'static str, format: Format, field_validation: &str) -> Result<(Object, Vec<String>), String> {
        let pod = GroupVersionKind::new("", "v1", "Pod");
        let expected = Expected { gvk: &pod, schema: codec::schema_for(&pod), field_validation };
        let warnings = Warnings::default();
        let read = body(&Bytes::from_static(text.as_bytes()), format, &expected, &warnings);
        read.map(|object| (object, warnings.take())).map_err(|status| status.message)
    }

    fn read(text: &'static str) -> Result<Object, String> {
        read_as(text, Format::Json, "").map(|(object, _)| object)
    }

    #[test]
    fn unknown_fields_are_refused_warned_about_or_ignored() {
        let text = r#"{"spec":{"foo":1}}"#;
        assert_eq!(
            read_as(text, Format::Json, "Strict").unwrap_err(),
            r#"Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.foo""#
        );
        assert_eq!(read_as(text, Format::Json, "").unwrap().1, [r#"unknown field "spec.foo""#]);
        assert!(read_as(text, Format::Json, "Ignore").unwrap().1.is_empty());
        let yaml = "apiVersion: v1\nkind: Pod\nspec:\n  foo: 1\n  nodeName: here\n";
        let (object, warnings) = read_as(yaml, Format::Yaml, "Warn").unwrap();
        assert_eq!((object.str_at(&["spec", "nodeName"]), warnings.len()), ("here", 1));
        let wrong = read(r#"{"spec":{"containers":"x"}}"#).unwrap_err();
        assert!(
            wrong.starts_with(r#"Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal string"#),
            "{wrong}"
        );
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
