//! Views straight from protobuf: a serde deserializer over a message and its schema, without a tree or text in between.
//!
//! Fields come in the order of the wire, in one pass; what the view does not ask for is stepped over unread, so that a view of few
//! fields costs little. A view is given what [`super::serve_json`] would write, less what that would show as null and less zero
//! values that are not on the wire. The rare types whose JSON is no map of their fields, and packed numbers, go through a
//! small tree of their own. A message in which a field is scattered, as nobody writes it, is an error here: the caller
//! then takes the way through the tree.

use serde::de::value::{BorrowedStrDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use smallvec::{SmallVec, smallvec};

use super::Envelope;
use super::proto_fields::{self, DEPTH_MAX, Shown, Span};
use super::proto_read;
use super::sink::Tree;
use super::wire::{self, Payload, Reader, WireError};
use crate::schema::{Field, Form, Schema, Type};

/// The JSON reader's, so that a view is read from both encodings with one kind of error.
type Error = serde_json::Error;

/// Reads the message of an envelope as a view of the schema's type.
pub fn read<T: DeserializeOwned>(schema: &Schema, envelope: &Envelope<'_>) -> Result<T, Error> {
    T::deserialize(Node::Whole(schema, envelope))
}

fn malformed(error: WireError) -> Error {
    Error::custom(error)
}

/// Something that a view can be made of.
enum Node<'a> {
    Whole(&'a Schema, &'a Envelope<'a>),
    /// From the envelope.
    Text(&'a str),
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

/// A field that stands in its message many times.
#[derive(Clone, Copy)]
struct Repeated<'a> {
    field: &'a Field,
    inner: &'a Type,
    /// All that is between its first and its last place.
    bytes: &'a [u8],
    depth: usize,
}

/// The fields of a message that it has something to say about.
struct Members<'a> {
    /// `kind` and `apiVersion`, of a whole object.
    of_envelope: SmallVec<[(&'a str, &'a str); 2]>,
    /// The message, and on top of it the inlined ones that are being read.
    open: SmallVec<[Message<'a>; 2]>,
    value: Option<Node<'a>>,
}

/// A message that is being read.
struct Message<'a> {
    schema: &'a Schema,
    bytes: &'a [u8],
    reader: Reader<'a>,
    /// Which of the schema's fields have been met, a bit each.
    met: u128,
    depth: usize,
}

/// A field that a message has something to say about.
struct Met<'a> {
    field: &'a Field,
    /// The last one, which is the one that counts.
    payload: Payload<'a>,
    /// All that is between its first place and its last.
    bytes: &'a [u8],
}

impl<'a> Message<'a> {
    fn new(schema: &'a Schema, bytes: &'a [u8], depth: usize) -> Result<Self, WireError> {
        if depth > DEPTH_MAX {
            return Err(WireError::TooDeep(DEPTH_MAX));
        }
        Ok(Message { schema, bytes, reader: Reader::new(bytes, 0), met: 0, depth })
    }

    /// The next field of the schema.
    fn next(&mut self) -> Result<Option<Met<'a>>, WireError> {
        loop {
            let first = self.reader.at();
            let Some((number, mut payload)) = self.reader.field()? else { return Ok(None) };
            let Some(index) = self.schema.index_of_number(number) else { continue };
            let field = &self.schema.fields[index];
            let bit = u32::try_from(index).ok().and_then(|index| 1_u128.checked_shl(index)).unwrap_or(self.met);
            if self.met & bit != 0 || bit == 0 {
                return Err(WireError::Scattered(field.json.to_string()));
            }
            self.met |= bit;
            loop {
                let end = self.reader.at();
                match self.reader.field()? {
                    Some((next, more)) if next == number => payload = more,
                    _ => {
                        self.reader = Reader::new(self.bytes, end);
                        return Ok(Some(Met { field, payload, bytes: &self.bytes[first..end] }));
                    }
                }
            }
        }
    }
}

impl<'a> Members<'a> {
    fn of(schema: &'a Schema, bytes: &'a [u8], depth: usize) -> Result<Self, WireError> {
        let open = smallvec![Message::new(schema, bytes, depth)?];
        Ok(Members { of_envelope: SmallVec::new(), open, value: None })
    }

    fn of_whole(schema: &'a Schema, envelope: &'a Envelope<'a>) -> Result<Self, WireError> {
        let mut members = Self::of(schema, envelope.raw, 0)?;
        for field in schema.fields.iter().filter(|field| field.number == 0) {
            let text = proto_fields::type_meta(field, envelope.api_version, envelope.kind, 0);
            members.of_envelope.extend(text.map(|text| (&*field.json, text)));
        }
        Ok(members)
    }

    fn next(&mut self) -> Result<Option<(&'a str, Node<'a>)>, WireError> {
        if let Some((name, text)) = self.of_envelope.pop() {
            return Ok(Some((name, Node::Text(text))));
        }
        while let Some(message) = self.open.last_mut() {
            let depth = message.depth;
            let Some(Met { field, payload, bytes }) = message.next()? else {
                self.open.pop();
                continue;
            };
            let node = match &field.ty {
                Type::List(inner) => Node::List(Repeated { field, inner, bytes, depth }),
                Type::Map(inner) => Node::Map(Repeated { field, inner, bytes, depth }),
                Type::Struct(inner) if field.inline => {
                    self.open.push(Message::new(inner, payload.bytes(), depth + 1)?);
                    continue;
                }
                ty => match proto_fields::shown(field, Some(payload)) {
                    Shown::Value => Node::Single { field, ty, payload: Some(payload), depth },
                    Shown::Nothing | Shown::Null => continue,
                },
            };
            return Ok(Some((&field.json, node)));
        }
        Ok(None)
    }
}

impl<'a> MapAccess<'a> for Members<'a> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((name, node)) = self.next().map_err(malformed)? else { return Ok(None) };
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
        let Some((_, payload)) = self.reader.field().map_err(malformed)? else { return Ok(None) };
        let Repeated { field, inner, depth, .. } = self.list;
        seed.deserialize(Node::Single { field, ty: inner, payload: Some(payload), depth }).map(Some)
    }
}

/// The entries of a map. Of two of one key the later counts, as it does for those who are given both.
struct Entries<'a> {
    map: Repeated<'a>,
    reader: Reader<'a>,
    value: Option<Payload<'a>>,
}

impl<'a> MapAccess<'a> for Entries<'a> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((_, payload)) = self.reader.field().map_err(malformed)? else { return Ok(None) };
        let (key, value) = proto_fields::entry(self.map.field, payload.bytes()).map_err(malformed)?;
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
            Node::Whole(schema, envelope) => visitor.visit_map(Members::of_whole(schema, envelope).map_err(malformed)?),
            Node::Text(text) => visitor.visit_borrowed_str(text),
            Node::List(list) if proto_fields::is_packable(list.inner) => through_tree(visitor, |tree| {
                let span = Span { first: 0, end: list.bytes.len() };
                proto_read::list(list.field, list.inner, list.bytes, span, list.depth, tree)
            }),
            Node::List(list) => visitor.visit_seq(Elements { list, reader: Reader::new(list.bytes, 0) }),
            Node::Map(map) => visitor.visit_map(Entries { map, reader: Reader::new(map.bytes, 0), value: None }),
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
            visitor.visit_map(Members::of(schema, bytes, depth + 1).map_err(malformed)?)
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
