//! From a request body to the tree that the registry is given, in whichever format it was sent.
//!
//! The body must be of the kind that the path stands for; a body that does not say what it is, is taken for that. Unknown and
//! repeated fields are refused, warned about or ignored as `fieldValidation` asks.

use std::borrow::Cow;

use api::codec::{self, go_json};
use api::{Schema, SchemaRef};
use bytes::Bytes;
use meta::{GroupVersionKind, Media, Object, Status};

use crate::context::Warnings;
use crate::negotiate::Format;

mod said;

/// How much of a body that cannot be read is quoted, in bytes.
const QUOTED_BYTES_MAX: usize = 30;
/// The name that upstream's registry of Go types goes by in messages.
const SCHEME: &str = "pkg/runtime/scheme.go:111";

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
    let unrecognized = |why: String| {
        let kind = &expected.gvk.kind;
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): {why} ({})",
            summary(bytes)
        ))
    };
    let text = match format {
        Format::Json => go_json::check(bytes).map_err(|why| unrecognized(no_kind(&why)))?,
        Format::Yaml | Format::Protobuf => Cow::Borrowed(&bytes[..]),
    };
    let said = said::kind(&text, format).map_err(unrecognized)?.or(expected.gvk);
    check_kind(&said, expected.gvk)?;
    let unreadable = |why: String| cannot_be(&said, expected.gvk, &why);
    let (mut object, problems) = read(&text, format, expected.schema.as_deref()).map_err(unreadable)?;
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

/// The error about a body whose `apiVersion` and `kind` cannot be read.
fn no_kind(why: &str) -> String {
    format!("couldn't get version/kind; json parse error: {why}")
}

/// The error about a body that says what it is.
fn cannot_be(said: &GroupVersionKind, expected: &GroupVersionKind, why: &str) -> Status {
    let (kind, version) = (&said.kind, &said.version);
    Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {}: {why}", expected.kind))
}

/// Reads the body of a delete. Its version does not matter: all groups share the one kind.
pub fn delete_options(bytes: &Bytes, format: Format) -> Result<Object, Status> {
    let schema = api::codec::schema_for(&GroupVersionKind::new("", "v1", "DeleteOptions"));
    let (object, _) = read(bytes, format, schema.as_deref()).map_err(Status::bad_request)?;
    Ok(object)
}

/// The object, and what in it nobody knows or was said twice.
fn read(bytes: &[u8], format: Format, schema: Option<&Schema>) -> Result<(Object, Vec<String>), String> {
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

/// Refuses an object of another kind or version than the path is for.
fn check_kind(said: &GroupVersionKind, expected: &GroupVersionKind) -> Result<(), Status> {
    if said == expected {
        return Ok(());
    }
    let is_version = said.kind == expected.kind && said.group == expected.group;
    let is_known = is_version && codec::schema_for(said).is_some();
    // Kinds of definitions are no Go types: nothing is known about their other versions.
    if is_known || (said.api_version() != expected.api_version() && codec::schema_for(expected).is_none()) {
        let (own, wanted) = (said.api_version(), expected.api_version());
        return Err(Status::bad_request(format!(
            "the API version in the data ({own}) does not match the expected API version ({wanted})"
        )));
    }
    Err(cannot_be(said, expected, &why_not(said, expected)))
}

/// Why an object of one kind is none of another.
pub fn why_not(said: &GroupVersionKind, expected: &GroupVersionKind) -> String {
    let kind = &said.kind;
    if codec::schema_for(said).is_none() {
        return format!("no kind {kind:?} is registered for version {:?} in scheme {SCHEME:?}", said.api_version());
    }
    let internal = internal_package(&expected.group);
    format!("converting ({}.{kind}) to ({internal}.{}): unknown conversion", said.version, expected.kind)
}

/// What an object says it is, the gaps filled with what it should be; none when that cannot be told.
pub fn said_by(object: &Object, expected: &GroupVersionKind) -> Option<GroupVersionKind> {
    said::of_text(object.api_version(), object.kind()).ok().map(|said| said.or(expected))
}

/// The Go package of a group's types without a version.
fn internal_package(group: &str) -> &str {
    match group {
        "" | "events.k8s.io" => "core",
        "internal.apiserver.k8s.io" => "apiserverinternal",
        _ => group.split('.').next().unwrap_or_default(),
    }
}

/// The beginning of a body, for messages: as text when it looks like JSON, else in hexadecimal.
fn summary(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(QUOTED_BYTES_MAX)];
    let shown = match bytes.first() {
        None => return "<empty>".into(),
        Some(b'{') => String::from_utf8_lossy(head).into_owned(),
        Some(_) => head.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    if bytes.len() > QUOTED_BYTES_MAX { format!("{shown} ...") } else { shown }
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
            r#"Pod in version "v1" cannot be handled as a Pod: no kind "Pod" is registered for version "apps/v1" in scheme "pkg/runtime/scheme.go:111""#
        );
        let other = read(r#"{"apiVersion":"v1","kind":"Service"}"#).unwrap_err();
        assert_eq!(
            other,
            r#"Service in version "v1" cannot be handled as a Pod: converting (v1.Service) to (core.Pod): unknown conversion"#
        );
        assert_eq!(read("null").unwrap().kind(), "Pod");
    }

    #[test]
    fn a_body_of_no_kind_is_shown() {
        let unrecognized = "the object provided is unrecognized (must be of type Pod): ";
        let no_kind = "couldn't get version/kind; json parse error: ";
        for (text, expected) in [
            ("{", format!("{no_kind}unexpected end of JSON input ({{)")),
            ("", format!("{no_kind}unexpected end of JSON input (<empty>)")),
            (r#"{"apiVersion":"a/b/c"}"#, r#"unexpected GroupVersion string: a/b/c ({"apiVersion":"a/b/c"})"#.into()),
            (
                r#"{"kind":7,"apiVersion":"v1","metadata":{}}"#,
                format!(
                    r#"{no_kind}json: cannot unmarshal number into Go struct field .kind of type string ({{"kind":7,"apiVersion":"v1","m ...)"#
                ),
            ),
        ] {
            assert_eq!(read(text).unwrap_err(), format!("{unrecognized}{expected}"));
        }
        let list = read("[1]").unwrap_err();
        assert!(
            list.starts_with(&format!(
                "{unrecognized}{no_kind}json: cannot unmarshal array into Go value of type struct {{ APIVersion"
            )),
            "{list}"
        );
        assert!(list.ends_with("(5b315d)"), "{list}");
    }
}
