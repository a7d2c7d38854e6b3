//! What kind a body says it is, found before it is read as anything.

use std::fmt;

use api::codec;
use meta::{GroupVersion, GroupVersionKind};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::no_kind;
use crate::negotiate::Format;

/// The Go type that upstream reads the two fields into, which its messages show.
const GO_TYPE: &str =
    r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
const PROTOBUF_PREFIX: &[u8] = b"k8s\0";

/// `apiVersion` taken apart, and `kind`; empty where nothing is said.
#[derive(Debug, Default)]
pub struct Said {
    group: String,
    version: String,
    kind: String,
}

impl Said {
    /// With the gaps filled by what the path stands for.
    pub fn or(self, expected: &GroupVersionKind) -> GroupVersionKind {
        let kind = if self.kind.is_empty() { &*expected.kind } else { &self.kind };
        match (self.group.is_empty(), self.version.is_empty()) {
            (true, true) => GroupVersionKind::new(&expected.group, &expected.version, kind),
            _ => GroupVersionKind::new(&self.group, &self.version, kind),
        }
    }
}

/// What a body says. The error is upstream's reason for not recognizing it.
pub fn kind(bytes: &[u8], format: Format) -> Result<Said, String> {
    match format {
        Format::Json => {
            let mut deserializer = serde_json::Deserializer::from_slice(bytes);
            let fields = deserializer.deserialize_any(Top).map_err(|error| no_kind(&error.to_string()))?;
            of_fields(fields)
        }
        Format::Yaml => {
            let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
            let document = codec::yaml::one(text).map_err(|error| error.to_string())?;
            let fields = document.value.deserialize_any(Top).map_err(|error| no_kind(&error.to_string()))?;
            of_fields(fields)
        }
        Format::Protobuf => {
            if bytes.is_empty() {
                return Err("empty data".into());
            }
            if bytes == PROTOBUF_PREFIX {
                return Err("empty body".into());
            }
            let envelope = codec::Envelope::parse(bytes).map_err(|error| error.to_string())?;
            of_text(envelope.api_version, envelope.kind)
        }
    }
}

/// The two fields as they stand, or what stands there instead of an object.
enum Fields {
    Object { api_version: Option<Value>, kind: Option<Value> },
    Other(&'static str),
}

fn of_fields(fields: Fields) -> Result<Said, String> {
    let (api_version, kind) = match fields {
        Fields::Object { api_version, kind } => (api_version, kind),
        Fields::Other(given) => {
            return Err(no_kind(&format!("json: cannot unmarshal {given} into Go value of type {GO_TYPE}")));
        }
    };
    let text = |field: &str, value: Option<Value>| match value {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text),
        Some(other) => {
            let given = match other {
                Value::Bool(_) => "bool",
                Value::Number(_) => "number",
                Value::Array(_) => "array",
                _ => "object",
            };
            Err(no_kind(&format!("json: cannot unmarshal {given} into Go struct field .{field} of type string")))
        }
    };
    of_text(&text("apiVersion", api_version)?, &text("kind", kind)?)
}

/// The same from the two texts.
pub fn of_text(api_version: &str, kind: &str) -> Result<Said, String> {
    if api_version.matches('/').count() > 1 {
        return Err(format!("unexpected GroupVersion string: {api_version}"));
    }
    let version = GroupVersion::parse(api_version);
    let (group, version) = version.map(|gv| (gv.group.to_string(), gv.version.to_string())).unwrap_or_default();
    Ok(Said { group, version, kind: kind.to_string() })
}

/// Reads the two fields and passes over all else.
struct Top;

impl<'de> Visitor<'de> for Top {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Fields, A::Error> {
        let (mut api_version, mut kind) = (None, None);
        while let Some(key) = access.next_key::<String>()? {
            match key.as_str() {
                "apiVersion" => api_version = Some(access.next_value()?),
                "kind" => kind = Some(access.next_value()?),
                _ => {
                    access.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Fields::Object { api_version, kind })
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut access: A) -> Result<Fields, A::Error> {
        while access.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Fields::Other("array"))
    }

    fn visit_unit<E>(self) -> Result<Fields, E> {
        Ok(Fields::Object { api_version: None, kind: None })
    }

    fn visit_bool<E>(self, _: bool) -> Result<Fields, E> {
        Ok(Fields::Other("bool"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Fields, E> {
        Ok(Fields::Other("number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Fields, E> {
        Ok(Fields::Other("number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Fields, E> {
        Ok(Fields::Other("number"))
    }

    fn visit_str<E>(self, _: &str) -> Result<Fields, E> {
        Ok(Fields::Other("string"))
    }
}
