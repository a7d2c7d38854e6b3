//! Views straight from protobuf: a serde deserializer over a message and its schema, without a tree or text in between.
//!
//! It gives a view what [`super::serve_json`] would write, except that a field that JSON would show as null is left out. A field that
//! the view does not ask for is stepped over unread, so that a view of few fields costs little. The rare types whose JSON is no
//! map of their fields, and packed numbers, go through a small tree of their own.

use serde::de::value::{BorrowedStrDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use smallvec::SmallVec;

use super::Envelope;
use super::proto_fields::{self, DEPTH_MAX, Shown, Span};
use super::proto_read::{self, Fill};
use super::sink::Tree;
use super::wire::{self, Payload, Reader, WireError};
use crate::schema::{Field, Form, Schema, Type};

/// The JSON reader's, so that a view is read from both encodings with one kind of error.
type Error = serde_json::Error;

/// Reads the message of an envelope as a view of the schema's type.
pub fn read<T: DeserializeOwned>(schema: &Schema, envelope: &Envelope<'_>) -> Result<T, Error> {
    let fill = Fill { api_version: envelope.api_version, kind: envelope.kind, resource_version: None };
    T::deserialize(Node::Message { schema, bytes: envelope.raw, fill, depth: 0 })
}

fn malformed(error: WireError) -> Error {
    Error::custom(error)
}

/// Something that a view can be made of.
enum Node<'a> {
    /// From the envelope.
    Text(&'a str),
    Message {
        schema: &'a Schema,
        bytes: &'a [u8],
        fill: Fill<'a>,
        depth: usize,
    },
    List(Repeated<'a>),
    Map(Repeated<'a>),
    /// No payload stands for the zero value.
    Single {
        field: &'a Field,
        ty: &'a Type,
        payload: Option<Payload<'a>>,
        depth: usize,
    },
}

/// A field that may stand in its message many times.
#[derive(Clone, Copy)]
struct Repeated<'a> {
    field: &'a Field,
    inner: &'a Type,
    bytes: &'a [u8],
    span: Span,
    depth: usize,
}

/// The fields of a message that it has something to say about, in the schema's order.
struct Members<'a> {
    found: smallvec::IntoIter<[(&'a str, Node<'a>); 16]>,
    value: Option<Node<'a>>,
}

impl<'a> Members<'a> {
    fn of(schema: &'a Schema, bytes: &'a [u8], fill: Fill<'a>, depth: usize) -> Result<Self, WireError> {
        let mut found = SmallVec::new();
        collect(schema, bytes, fill, depth, &mut found)?;
        Ok(Members { found: found.into_iter(), value: None })
    }
}

fn collect<'a>(
    schema: &'a Schema,
    bytes: &'a [u8],
    fill: Fill<'a>,
    depth: usize,
    found: &mut SmallVec<[(&'a str, Node<'a>); 16]>,
) -> Result<(), WireError> {
    if depth > DEPTH_MAX {
        return Err(WireError::TooDeep(DEPTH_MAX));
    }
    let spans = proto_fields::spans(schema, bytes)?;
    for (field, span) in schema.fields.iter().zip(&spans) {
        let name = &*field.json;
        if field.number == 0 {
            found.extend(proto_fields::type_meta(field, fill, depth).map(|text| (name, Node::Text(text))));
            continue;
        }
        if let Type::List(inner) | Type::Map(inner) = &field.ty {
            if let Some(span) = *span {
                let repeated = Repeated { field, inner, bytes, span, depth };
                let is_list = matches!(field.ty, Type::List(_));
                found.push((name, if is_list { Node::List(repeated) } else { Node::Map(repeated) }));
            }
            continue;
        }
        let payload = match span {
            Some(span) => proto_fields::last(field, bytes, *span)?,
            None => None,
        };
        if let (true, Type::Struct(inner)) = (field.inline, &field.ty) {
            if payload.is_some() || !field.pointer {
                collect(inner, payload.map_or(&[], Payload::bytes), fill, depth + 1, found)?;
            }
            continue;
        }
        if let Shown::Value = proto_fields::shown(field, payload) {
            found.push((name, Node::Single { field, ty: &field.ty, payload, depth }));
        }
    }
    Ok(())
}

impl<'a> MapAccess<'a> for Members<'a> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((name, node)) = self.found.next() else { return Ok(None) };
        self.value = Some(node);
        seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let node = self.value.take().ok_or_else(|| Error::custom("a value was asked for before its key"))?;
        seed.deserialize(node)
    }
}

/// The elements of a list.
struct Elements<'a> {
    list: Repeated<'a>,
    reader: Reader<'a>,
}

impl<'a> SeqAccess<'a> for Elements<'a> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Repeated { field, inner, depth, .. } = self.list;
        while let Some((number, payload)) = self.reader.field().map_err(malformed)? {
            if number == field.number {
                return seed.deserialize(Node::Single { field, ty: inner, payload: Some(payload), depth }).map(Some);
            }
        }
        Ok(None)
    }
}

/// The entries of a map.
struct Entries<'a> {
    map: Repeated<'a>,
    rest: smallvec::IntoIter<[proto_fields::Entry<'a>; 16]>,
    value: Option<Payload<'a>>,
}

impl<'a> MapAccess<'a> for Entries<'a> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        self.value = value;
        seed.deserialize(BorrowedStrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Repeated { field, inner, depth, .. } = self.map;
        seed.deserialize(Node::Single { field, ty: inner, payload: self.value.take(), depth })
    }
}

impl<'a> Node<'a> {
    /// Whether JSON would say null.
    fn is_null(&self) -> Result<bool, WireError> {
        let Node::Single { ty, payload, .. } = self else { return Ok(false) };
        let bytes = payload.map_or(&[][..], Payload::bytes);
        Ok(match ty {
            Type::Bytes => payload.is_none(),
            Type::Time | Type::MicroTime => proto_fields::timestamp(bytes)?.is_none(),
            Type::RawExtension | Type::FieldsV1 | Type::Json => embedded(bytes)?.is_none(),
            _ => false,
        })
    }
}

/// The JSON text that a message carries.
fn embedded(bytes: &[u8]) -> Result<Option<&[u8]>, WireError> {
    Ok(wire::find(bytes, 1)?.map(Payload::bytes).filter(|raw| !raw.is_empty()))
}

impl<'a> Deserializer<'a> for Node<'a> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Node::Text(text) => visitor.visit_borrowed_str(text),
            Node::Message { schema, bytes, fill, depth } => {
                visitor.visit_map(Members::of(schema, bytes, fill, depth).map_err(malformed)?)
            }
            Node::List(list) if proto_fields::is_packable(list.inner) => through_tree(visitor, |tree| {
                proto_read::list(list.field, list.inner, list.bytes, list.span, list.depth, tree)
            }),
            Node::List(list) => {
                let bytes = list.bytes.get(..list.span.end).unwrap_or(list.bytes);
                visitor.visit_seq(Elements { list, reader: Reader::new(bytes, list.span.first) })
            }
            Node::Map(map) => {
                let entries = proto_fields::entries(map.field, map.bytes, map.span).map_err(malformed)?;
                visitor.visit_map(Entries { map, rest: entries.into_iter(), value: None })
            }
            Node::Single { field, ty, payload, depth } => single(field, ty, payload, depth, visitor),
        }
    }

    fn deserialize_option<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.is_null().map_err(malformed)? { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'a>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    /// An enum of plain words.
    fn deserialize_enum<V: Visitor<'a>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self {
            Node::Single { field, ty: Type::String, payload, .. } => {
                let text = proto_fields::text(field, payload.map_or(&[], Payload::bytes)).map_err(malformed)?;
                StrDeserializer::new(text).deserialize_enum(name, variants, visitor)
            }
            _ => Err(Error::custom(format_args!("{name} is not made of text"))),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        <V: Visitor<'a>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
        tuple tuple_struct map struct identifier
    }
}

fn single<'a, V: Visitor<'a>>(
    field: &'a Field,
    ty: &'a Type,
    payload: Option<Payload<'a>>,
    depth: usize,
    visitor: V,
) -> Result<V::Value, Error> {
    let bytes = payload.map_or(&[][..], Payload::bytes);
    match (ty, payload) {
        (Type::String, None | Some(Payload::Bytes(_))) => {
            visitor.visit_borrowed_str(proto_fields::text(field, bytes).map_err(malformed)?)
        }
        (Type::Struct(schema), None | Some(Payload::Bytes(_))) if schema.form == Form::Map => {
            let members = Members::of(schema, bytes, Fill::default(), depth + 1);
            visitor.visit_map(members.map_err(malformed)?)
        }
        (Type::RawExtension | Type::FieldsV1 | Type::Json, None | Some(Payload::Bytes(_))) => {
            match embedded(bytes).map_err(malformed)? {
                Some(raw) => serde_json::Deserializer::from_slice(raw).deserialize_any(visitor),
                None => visitor.visit_unit(),
            }
        }
        _ => through_tree(visitor, |tree| proto_read::value(field, ty, payload, depth, tree)),
    }
}

/// What is no map of fields is read the way JSON is, which knows all forms. Numbers and times are single values in a tree, so this
/// allocates for text only.
fn through_tree<'a, V: Visitor<'a>>(
    visitor: V,
    walk: impl FnOnce(&mut Tree) -> Result<(), WireError>,
) -> Result<V::Value, Error> {
    let mut tree = Tree::default();
    walk(&mut tree).map_err(malformed)?;
    tree.finish().unwrap_or_default().deserialize_any(visitor)
}
