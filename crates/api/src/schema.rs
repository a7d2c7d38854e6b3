//! The schema table: every field of every type of the API, as facts that all codecs and patches walk.
//!
//! `data/schema.txt` is written by `cargo xtask gen` from upstream's public types: JSON name, protobuf number, type,
//! presence, list kind, merge keys, default. A type is parsed when it is first asked for, so a start pays only for an index
//! of the blocks. Custom kinds bring schemas of the same shape at run time. Nothing here reads or writes objects.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde_json::Value;

pub mod defaults;
mod parse;
pub mod prune;

pub use parse::{builtin, builtin_by_go_name, models};

/// The fields of one type.
#[derive(Debug, Default)]
pub struct Schema {
    /// The name OpenAPI documents use: `io.k8s.api.core.v1.PodSpec`.
    pub model: Arc<str>,
    /// The bare type name that decoding errors use: `PodSpec`.
    pub name: Arc<str>,
    /// In the order JSON is written.
    pub fields: Vec<Field>,
    /// Whether apply treats a value of this type as one (`x-kubernetes-map-type: atomic`).
    pub atomic: bool,
    /// Fields not listed are kept as they are (custom kinds only).
    pub preserve_unknown: bool,
    /// What the JSON form is when it is not simply a map of the fields.
    pub form: Form,
    by_json: Vec<(Arc<str>, u16)>,
    inlined: Vec<u16>,
    by_number: Vec<(u32, u16)>,
    shown_absent: Vec<u16>,
}

/// How the type stands in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    #[default]
    Map,
    /// JSON is a list of text; protobuf a message with the list in field 1 (`ExtraValue`, `Verbs`).
    Items,
    /// JSON is the first field's value or a list of the second's (`JSONSchemaPropsOrArray`, `...OrStringArray`).
    OneOrMany,
    /// JSON is a flag or a schema (`JSONSchemaPropsOrBool`): field 1 the flag, field 2 the schema.
    BoolOrOne,
}

/// One field of a type.
#[derive(Debug)]
pub struct Field {
    /// Empty for an inlined struct.
    pub json: Arc<str>,
    /// The protobuf number; 0 when the field is not in protobuf (`kind`, `apiVersion`).
    pub number: u32,
    pub ty: Type,
    /// A pointer in Go: present with a zero value is not the same as absent.
    pub pointer: bool,
    /// The fields of the struct stand in the outer map in JSON; in protobuf it is a message of its own.
    pub inline: bool,
    /// Go's `omitempty`: left out when zero or empty (a struct never is).
    pub omit_empty: bool,
    /// Go's `omitzero`: left out when zero, structs included.
    pub omit_zero: bool,
    pub required: bool,
    pub list: ListKind,
    /// The map or struct in this field is treated as one by apply.
    pub atomic: bool,
    /// The keys of an associative list, for apply.
    pub list_keys: Vec<Arc<str>>,
    pub patch: PatchStrategy,
    pub default: Option<Value>,
    pub enum_values: Vec<Arc<str>>,
    /// The Go type of a named scalar (`v1.Protocol`), which decoding errors name; empty for plain ones.
    pub go_type: Arc<str>,
}

/// How a list is merged by apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListKind {
    #[default]
    Atomic,
    Set,
    Map,
}

/// How a strategic merge patch treats the field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// Lists are merged by the key (or as a set when there is none) instead of replaced.
    pub merge: bool,
    /// Maps keep only the keys the patch names.
    pub retain_keys: bool,
    pub replace: bool,
    /// The one key strategic merge goes by; empty for lists of scalars.
    pub merge_key: Arc<str>,
}

/// The type of a value.
#[derive(Clone, Debug)]
pub enum Type {
    String,
    Bool,
    Int32,
    Int64,
    /// An unsigned number of at most 32 bits.
    Uint32,
    Double,
    /// Base64 in JSON.
    Bytes,
    Time,
    MicroTime,
    Duration,
    Quantity,
    IntOrString,
    /// Any JSON map; in protobuf a message with the bytes in field 1.
    RawExtension,
    FieldsV1,
    /// Any JSON value; in protobuf a message with the bytes in field 1.
    Json,
    Struct(SchemaRef),
    List(Box<Type>),
    Map(Box<Type>),
    /// Anything, kept as it is (custom kinds, and `Table` cells).
    Any,
}

impl Type {
    /// Whether Go's `omitempty` ever leaves out a single value of this type: to Go, no struct and no time is empty.
    pub fn can_be_empty(&self) -> bool {
        matches!(
            self,
            Type::String | Type::Bool | Type::Int32 | Type::Int64 | Type::Uint32 | Type::Double | Type::Bytes
        )
    }
}

/// A schema of the built-in table (parsed on first use) or of a custom kind.
#[derive(Clone)]
pub enum SchemaRef {
    Builtin(u16),
    Custom(Arc<Schema>),
}

impl Deref for SchemaRef {
    type Target = Schema;

    fn deref(&self) -> &Schema {
        match self {
            SchemaRef::Builtin(index) => parse::builtin_at(*index),
            SchemaRef::Custom(schema) => schema,
        }
    }
}

/// The name only: schemas refer to each other in circles.
impl fmt::Debug for SchemaRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.model)
    }
}

impl Schema {
    /// A schema from its fields, with its look-ups built.
    pub fn new(model: Arc<str>, name: Arc<str>, fields: Vec<Field>) -> Self {
        let mut schema = Schema { model, name, fields, ..Schema::default() };
        for (index, field) in (0_u16..).zip(&schema.fields) {
            if field.inline {
                schema.inlined.push(index);
            } else {
                schema.by_json.push((field.json.clone(), index));
            }
            if field.number != 0 {
                schema.by_number.push((field.number, index));
            }
            // Of the last two, one is in a message's envelope, and the other is kept beside it.
            if field.is_shown_absent() || field.number == 0 || field.is_resource_version() {
                schema.shown_absent.push(index);
            }
        }
        schema.by_json.sort();
        schema.by_number.sort_unstable();
        schema
    }

    /// The field of this JSON name, inlined structs included.
    pub fn field(&self, json: &str) -> Option<&Field> {
        if let Ok(at) = self.by_json.binary_search_by(|(name, _)| name.as_ref().cmp(json)) {
            return self.fields.get(usize::from(self.by_json[at].1));
        }
        self.inlined.iter().find_map(|index| match &self.fields[usize::from(*index)].ty {
            Type::Struct(inner) => match inner {
                SchemaRef::Builtin(index) => parse::builtin_at(*index).field(json),
                SchemaRef::Custom(schema) => schema.field(json),
            },
            _ => None,
        })
    }

    /// The place in `fields` of this protobuf number.
    pub fn index_of_number(&self, number: u32) -> Option<usize> {
        // Most types count their fields from 1 on without a gap.
        if let Some((found, index)) = self.by_number.get(number.wrapping_sub(1) as usize)
            && *found == number
        {
            return Some(usize::from(*index));
        }
        let at = self.by_number.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(usize::from(self.by_number[at].1))
    }

    /// The places in `fields` of those that JSON may show although the message does not have them, in order.
    pub fn shown_absent(&self) -> impl Iterator<Item = usize> {
        self.shown_absent.iter().map(|index| usize::from(*index))
    }

    /// The places in `fields` in ascending order of protobuf number, as upstream writes them.
    pub fn in_number_order(&self) -> impl DoubleEndedIterator<Item = &Field> {
        self.by_number.iter().map(|(_, index)| &self.fields[usize::from(*index)])
    }
}

impl Field {
    /// Whether JSON shows the field, or fields of the struct that it inlines, though the message does not have it.
    pub fn is_shown_absent(&self) -> bool {
        match self.ty {
            Type::List(_) | Type::Map(_) => !self.omit_zero && !self.omit_empty,
            Type::Struct(_) if self.inline => !self.pointer,
            _ if self.pointer => !self.omit_empty,
            _ => !self.omit_zero && (!self.omit_empty || !self.ty.can_be_empty()),
        }
    }

    pub fn is_resource_version(&self) -> bool {
        self.number == 6 && &*self.json == "resourceVersion"
    }

    /// The struct this field holds, directly or as the element of a list or map.
    pub fn element_schema(&self) -> Option<&SchemaRef> {
        self.ty.element_schema()
    }
}

impl Type {
    /// The struct this type is or holds.
    pub fn element_schema(&self) -> Option<&SchemaRef> {
        match self {
            Type::Struct(schema) => Some(schema),
            Type::List(inner) | Type::Map(inner) => inner.element_schema(),
            _ => None,
        }
    }

    /// The element type of a list or map.
    pub fn element(&self) -> Option<&Type> {
        match self {
            Type::List(inner) | Type::Map(inner) => Some(inner),
            _ => None,
        }
    }
}
