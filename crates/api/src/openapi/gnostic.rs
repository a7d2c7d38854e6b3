//! Version 2 in protobuf: the form that kubectl before 1.29 asks for and takes nothing else instead.
//!
//! The messages are gnostic's `openapi.v2`. [`DOCUMENT`] and what it leads to is a table of them: where a member of the
//! JSON document goes. Values whose form is open (defaults, enumerations, `x-` extensions) travel as YAML, of which JSON is a
//! part. Headers, examples and security are not in the table, because our documents have none.

use serde_json::{Map, Value};

use crate::codec::wire::{put_bytes, put_int, put_tag, put_varint};

/// The 64-bit wire type.
const FIXED64: u8 = 1;

/// A message: its members, and the number under which extensions go.
struct Message {
    members: &'static [(&'static str, u32, Shape)],
    extensions: u32,
}

/// How a value is written.
enum Shape {
    Text,
    Bool,
    Int,
    Double,
    /// A message whose one field, a list, holds the text or texts.
    Words,
    Any,
    One(&'static Message),
    /// Each of a list.
    Each(&'static Shape),
    /// A message whose field of this number holds the value: how gnostic writes alternatives.
    Within(u32, &'static Shape),
    /// A message of names and values under this number.
    Entries(u32, &'static Shape),
    /// A flag or a schema.
    SchemaOrFlag,
    /// A body, or a parameter by where it is.
    Parameter,
}
use Shape::{Any, Bool, Double, Each, Entries, Int, One, Parameter, SchemaOrFlag, Text, Within, Words};

static DOCUMENT: Message = Message {
    members: &[
        ("swagger", 1, Text),
        ("info", 2, One(&INFO)),
        ("host", 3, Text),
        ("basePath", 4, Text),
        ("schemes", 5, Each(&Text)),
        ("consumes", 6, Each(&Text)),
        ("produces", 7, Each(&Text)),
        ("paths", 8, Entries(2, &One(&PATH_ITEM))),
        ("definitions", 9, Entries(1, &One(&SCHEMA))),
    ],
    extensions: 16,
};

static INFO: Message =
    Message { members: &[("title", 1, Text), ("version", 2, Text), ("description", 3, Text)], extensions: 7 };

static PATH_ITEM: Message = Message {
    members: &[
        ("get", 2, One(&OPERATION)),
        ("put", 3, One(&OPERATION)),
        ("post", 4, One(&OPERATION)),
        ("delete", 5, One(&OPERATION)),
        ("options", 6, One(&OPERATION)),
        ("head", 7, One(&OPERATION)),
        ("patch", 8, One(&OPERATION)),
        ("parameters", 9, Each(&Within(1, &Parameter))),
    ],
    extensions: 10,
};

static OPERATION: Message = Message {
    members: &[
        ("tags", 1, Each(&Text)),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("operationId", 5, Text),
        ("produces", 6, Each(&Text)),
        ("consumes", 7, Each(&Text)),
        ("parameters", 8, Each(&Within(1, &Parameter))),
        ("responses", 9, Entries(1, &Within(1, &One(&RESPONSE)))),
        ("schemes", 10, Each(&Text)),
        ("deprecated", 11, Bool),
    ],
    extensions: 13,
};

static RESPONSE: Message =
    Message { members: &[("description", 1, Text), ("schema", 2, Within(1, &One(&SCHEMA)))], extensions: 5 };

static BODY_PARAMETER: Message = Message {
    members: &[
        ("description", 1, Text),
        ("name", 2, Text),
        ("in", 3, Text),
        ("required", 4, Bool),
        ("schema", 5, One(&SCHEMA)),
    ],
    extensions: 6,
};

static QUERY_PARAMETER: Message = Message {
    members: &[
        ("required", 1, Bool),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 6, Text),
        ("format", 7, Text),
        ("default", 10, Any),
        ("uniqueItems", 20, Bool),
    ],
    extensions: 23,
};

static PATH_PARAMETER: Message = Message {
    members: &[
        ("required", 1, Bool),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 5, Text),
        ("format", 6, Text),
        ("default", 9, Any),
        ("uniqueItems", 19, Bool),
    ],
    extensions: 22,
};

static IN_PATH: Shape = Within(4, &One(&PATH_PARAMETER));
static IN_QUERY: Shape = Within(3, &One(&QUERY_PARAMETER));

static SCHEMA: Message = Message {
    members: &[
        ("$ref", 1, Text),
        ("format", 2, Text),
        ("title", 3, Text),
        ("description", 4, Text),
        ("default", 5, Any),
        ("multipleOf", 6, Double),
        ("maximum", 7, Double),
        ("exclusiveMaximum", 8, Bool),
        ("minimum", 9, Double),
        ("exclusiveMinimum", 10, Bool),
        ("maxLength", 11, Int),
        ("minLength", 12, Int),
        ("pattern", 13, Text),
        ("maxItems", 14, Int),
        ("minItems", 15, Int),
        ("uniqueItems", 16, Bool),
        ("maxProperties", 17, Int),
        ("minProperties", 18, Int),
        ("required", 19, Each(&Text)),
        ("enum", 20, Each(&Any)),
        ("additionalProperties", 21, SchemaOrFlag),
        ("type", 22, Words),
        ("items", 23, Within(1, &One(&SCHEMA))),
        ("allOf", 24, Each(&One(&SCHEMA))),
        ("properties", 25, Entries(1, &One(&SCHEMA))),
    ],
    extensions: 31,
};

/// A version 2 document in protobuf. Members that the table does not know are left out; their names are returned.
pub fn write(document: &Value) -> (Vec<u8>, Vec<String>) {
    let mut writer = Writer::default();
    let mut out = Vec::new();
    writer.members(&mut out, &DOCUMENT, document);
    (out, writer.unknown)
}

#[derive(Default)]
struct Writer {
    unknown: Vec<String>,
}

impl Writer {
    fn members(&mut self, out: &mut Vec<u8>, message: &Message, value: &Value) {
        for (name, value) in value.as_object().into_iter().flatten() {
            if let Some((_, number, shape)) = message.members.iter().find(|(known, ..)| known == name) {
                self.field(out, *number, shape, value);
            } else if name.starts_with("x-") {
                self.entry(out, message.extensions, name, &Any, value);
            } else {
                self.unknown.push(name.clone());
            }
        }
    }

    fn field(&mut self, out: &mut Vec<u8>, number: u32, shape: &Shape, value: &Value) {
        match shape {
            Text => put_bytes(out, number, value.as_str().unwrap_or_default().as_bytes()),
            Bool => put_int(out, number, value.as_bool().unwrap_or_default().into()),
            Int => put_int(out, number, value.as_i64().unwrap_or_default()),
            Double => {
                put_tag(out, number, FIXED64);
                out.extend_from_slice(&value.as_f64().unwrap_or_default().to_le_bytes());
            }
            Each(shape) => value.as_array().into_iter().flatten().for_each(|one| self.field(out, number, shape, one)),
            _ => nested(out, number, |out| self.content(out, shape, value)),
        }
    }

    /// What is inside a message.
    fn content(&mut self, out: &mut Vec<u8>, shape: &Shape, value: &Value) {
        match shape {
            One(message) => self.members(out, message, value),
            Within(number, shape) => self.field(out, *number, shape, value),
            Entries(number, shape) => self.entries(out, *number, shape, value.as_object()),
            Any => put_bytes(out, 2, format!("{value}\n").as_bytes()),
            Words => match value {
                Value::Array(words) => words.iter().for_each(|word| self.field(out, 1, &Text, word)),
                word => self.field(out, 1, &Text, word),
            },
            SchemaOrFlag if value.is_boolean() => self.field(out, 2, &Bool, value),
            SchemaOrFlag => self.field(out, 1, &One(&SCHEMA), value),
            Parameter => match value["in"].as_str() {
                Some("body") => self.field(out, 1, &One(&BODY_PARAMETER), value),
                Some("path") => self.field(out, 2, &IN_PATH, value),
                _ => self.field(out, 2, &IN_QUERY, value),
            },
            Text | Bool | Int | Double | Each(_) => self.field(out, 1, shape, value),
        }
    }

    fn entries(&mut self, out: &mut Vec<u8>, number: u32, shape: &Shape, entries: Option<&Map<String, Value>>) {
        for (name, value) in entries.into_iter().flatten() {
            self.entry(out, number, name, shape, value);
        }
    }

    /// A name and its value.
    fn entry(&mut self, out: &mut Vec<u8>, number: u32, name: &str, shape: &Shape, value: &Value) {
        nested(out, number, |out| {
            put_bytes(out, 1, name.as_bytes());
            self.field(out, 2, shape, value);
        });
    }
}

fn nested(out: &mut Vec<u8>, number: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    fill(&mut inner);
    put_tag(out, number, 2);
    put_varint(out, inner.len() as u64);
    out.append(&mut inner);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn everything_in_our_document_has_its_place() {
        let kinds = crate::KindsTable::served_by_default().load();
        let (bytes, unknown) = write(&super::super::v2(&kinds, "v1"));
        assert_eq!(unknown, Vec::<String>::new());
        assert!(bytes.len() > 100_000, "{}", bytes.len());
    }

    #[test]
    fn schemas_are_written_as_gnostic_does() {
        let schema = json!({"type": "object", "additionalProperties": true, "x-y": "merge"});
        // definitions { entry { name, value { ... } } }
        let entry = "4a2b0a290a01611224";
        let (flag, kind) = ("aa01021001", "b201080a066f626a656374");
        let extension = "fa01110a03782d79120a1208226d65726765220a";
        let (bytes, _) = write(&json!({"definitions": {"a": schema}}));
        assert_eq!(hex(&bytes), [entry, flag, kind, extension].concat());
    }

    #[test]
    fn what_has_no_place_is_named() {
        assert_eq!(write(&json!({"swagger": "2.0", "tags": []})).1, ["tags"]);
    }
}
