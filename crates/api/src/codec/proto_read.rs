//! Reads protobuf messages by the schema table and hands what it finds to a [`Sink`], in JSON's field order.
//!
//! One pass notes where each field stands, a second one walks those fields in the schema's order, and between them the few that
//! Go shows though they are absent: so JSON comes out in Go's order whatever the order on the wire. Stored objects become
//! JSON text this way without a tree.

use super::proto_fields::{
    DEPTH_MAX, Place, Shown, Span, add_places, entries, is_packable, shown, text, timestamp, type_meta,
};
use super::sink::Sink;
use super::wire::{Payload, Reader, WireError};
use crate::schema::{Field, Form, Schema, Type};

/// What is filled in while reading, because stored bytes do not carry it.
#[derive(Clone, Copy, Default)]
pub struct Fill<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    /// Stands in for `metadata.resourceVersion` when given.
    pub resource_version: Option<&'a str>,
}

/// Writes the whole message as one map.
pub fn object(schema: &Schema, bytes: &[u8], fill: Fill<'_>, sink: &mut impl Sink) -> Result<(), WireError> {
    sink.begin_map();
    Walk::new(sink, fill).members(schema, bytes, 0)?;
    sink.end_map();
    Ok(())
}

/// Writes one value; no payload stands for the zero value.
pub(super) fn value(
    field: &Field,
    ty: &Type,
    payload: Option<Payload<'_>>,
    depth: usize,
    sink: &mut impl Sink,
) -> Result<(), WireError> {
    Walk::new(sink, Fill::default()).value(field, ty, payload, depth)
}

/// Writes the elements of a list field.
pub(super) fn list(
    field: &Field,
    inner: &Type,
    bytes: &[u8],
    span: Span,
    depth: usize,
    sink: &mut impl Sink,
) -> Result<(), WireError> {
    Walk::new(sink, Fill::default()).elements(field, inner, bytes, span, depth)
}

struct Walk<'s, 'b, S> {
    sink: &'s mut S,
    fill: Fill<'b>,
    /// Of the messages that are being read, the inner ones after the outer ones.
    places: Vec<Place<'b>>,
}

impl<'s, 'b, S: Sink> Walk<'s, 'b, S> {
    fn new(sink: &'s mut S, fill: Fill<'b>) -> Self {
        Walk { sink, fill, places: Vec::new() }
    }

    fn members(&mut self, schema: &Schema, bytes: &'b [u8], depth: usize) -> Result<(), WireError> {
        if depth > DEPTH_MAX {
            return Err(WireError::TooDeep(DEPTH_MAX));
        }
        let mut absent = schema.shown_absent().peekable();
        let begin = add_places(schema, bytes, &mut self.places)?;
        for at in begin..self.places.len() {
            let place = self.places[at];
            while let Some(index) = absent.next_if(|index| *index < place.index) {
                self.field(&schema.fields[index], bytes, None, depth)?;
            }
            absent.next_if_eq(&place.index);
            self.field(&schema.fields[place.index], bytes, Some(place), depth)?;
        }
        self.places.truncate(begin);
        absent.try_for_each(|index| self.field(&schema.fields[index], bytes, None, depth))
    }

    fn field(
        &mut self,
        field: &Field,
        bytes: &'b [u8],
        place: Option<Place<'b>>,
        depth: usize,
    ) -> Result<(), WireError> {
        let (span, payload) = (place.map(|place| place.span), place.map(|place| place.payload));
        match &field.ty {
            _ if field.number == 0 => {
                if let Some(text) = type_meta(field, self.fill.api_version, self.fill.kind, depth) {
                    self.sink.name(&field.json);
                    self.sink.string(text);
                }
                return Ok(());
            }
            Type::List(inner) => return self.list(field, inner, bytes, span, depth),
            Type::Map(inner) => return self.map(field, inner, bytes, span, depth),
            _ => {}
        }
        if let (true, Type::Struct(inner)) = (field.inline, &field.ty) {
            if payload.is_some() || !field.pointer {
                self.members(inner, payload.map_or(&[], Payload::bytes), depth + 1)?;
            }
            return Ok(());
        }
        if let Some(version) = self.fill.resource_version.filter(|_| depth == 1 && field.is_resource_version()) {
            self.sink.name(&field.json);
            self.sink.string(version);
            return Ok(());
        }
        match shown(field, payload) {
            Shown::Nothing => return Ok(()),
            Shown::Null => {
                self.sink.name(&field.json);
                self.sink.null();
                return Ok(());
            }
            Shown::Value => self.sink.name(&field.json),
        }
        self.value(field, &field.ty, payload, depth)
    }

    fn list(
        &mut self,
        field: &Field,
        inner: &Type,
        bytes: &'b [u8],
        span: Option<Span>,
        depth: usize,
    ) -> Result<(), WireError> {
        let Some(span) = span else {
            self.nothing(field);
            return Ok(());
        };
        self.sink.name(&field.json);
        self.elements(field, inner, bytes, span, depth)
    }

    fn elements(
        &mut self,
        field: &Field,
        inner: &Type,
        bytes: &'b [u8],
        span: Span,
        depth: usize,
    ) -> Result<(), WireError> {
        self.sink.begin_list();
        let mut reader = Reader::new(&bytes[..span.end], span.first);
        while let Some((number, payload)) = reader.field()? {
            match payload {
                _ if number != field.number => {}
                Payload::Bytes(packed) if is_packable(inner) => self.packed(field, inner, packed, depth)?,
                payload => self.value(field, inner, Some(payload), depth)?,
            }
        }
        self.sink.end_list();
        Ok(())
    }

    fn packed(&mut self, field: &Field, inner: &Type, packed: &'b [u8], depth: usize) -> Result<(), WireError> {
        let mut reader = Reader::new(packed, 0);
        while let Some(payload) = reader.packed()? {
            self.value(field, inner, Some(payload), depth)?;
        }
        Ok(())
    }

    fn map(
        &mut self,
        field: &Field,
        inner: &Type,
        bytes: &'b [u8],
        span: Option<Span>,
        depth: usize,
    ) -> Result<(), WireError> {
        let Some(span) = span else {
            self.nothing(field);
            return Ok(());
        };
        let entries = entries(field, bytes, span)?;
        self.sink.name(&field.json);
        self.sink.begin_map();
        for (key, payload) in entries {
            self.sink.key(key);
            self.value(field, inner, payload, depth)?;
        }
        self.sink.end_map();
        Ok(())
    }

    fn nothing(&mut self, field: &Field) {
        if field.is_shown_absent() {
            self.sink.name(&field.json);
            self.sink.null();
        }
    }

    /// One value; no payload stands for the zero value.
    fn value(&mut self, field: &Field, ty: &Type, payload: Option<Payload<'b>>, depth: usize) -> Result<(), WireError> {
        let wrong = || WireError::FieldType(field.json.to_string());
        match (ty, payload) {
            (Type::String, None) => self.sink.string(""),
            (Type::String, Some(Payload::Bytes(bytes))) => self.sink.string(text(field, bytes)?),
            (Type::Bool, None) => self.sink.bool(false),
            (Type::Bool, Some(Payload::Varint(number))) => self.sink.bool(number != 0),
            (Type::Int32 | Type::Int64 | Type::Uint32, None) => self.sink.int(0),
            (Type::Int32, Some(Payload::Varint(number))) => self.sink.int(i64::from(number as i32)),
            (Type::Uint32, Some(Payload::Varint(number))) => self.sink.int(i64::from(number as u32)),
            (Type::Int64, Some(Payload::Varint(number))) => self.sink.int(number as i64),
            (Type::Double, None) => self.sink.double(0.0),
            (Type::Double, Some(Payload::Fixed64(bits))) => self.sink.double(f64::from_bits(bits)),
            (_, Some(Payload::Bytes(bytes))) => self.message(field, ty, bytes, depth)?,
            (Type::Bytes, None) => self.sink.null(),
            (_, None) => self.message(field, ty, &[], depth)?,
            _ => return Err(wrong()),
        }
        Ok(())
    }

    fn message(&mut self, field: &Field, ty: &Type, bytes: &'b [u8], depth: usize) -> Result<(), WireError> {
        match ty {
            Type::Bytes => self.sink.string(&base64(bytes)),
            Type::Struct(schema) => return self.structure(field, schema, bytes, depth),
            Type::Time | Type::MicroTime => self.time(ty, bytes)?,
            Type::Duration => {
                let nanos = super::wire::find(bytes, 1)?.map_or(0, Payload::number);
                self.sink.string(&super::duration::format(nanos as i64));
            }
            Type::Quantity => match super::wire::find(bytes, 1)? {
                Some(Payload::Bytes(quantity)) if !quantity.is_empty() => self.sink.string(text(field, quantity)?),
                _ => self.sink.string("0"),
            },
            Type::IntOrString => self.int_or_string(field, bytes)?,
            Type::RawExtension | Type::FieldsV1 | Type::Json => match super::wire::find(bytes, 1)? {
                Some(Payload::Bytes(raw)) if !raw.is_empty() => {
                    self.sink.raw(raw).map_err(|_| WireError::NotJson(field.json.to_string()))?;
                }
                _ => self.sink.null(),
            },
            _ => return Err(WireError::FieldType(field.json.to_string())),
        }
        Ok(())
    }

    fn structure(&mut self, field: &Field, schema: &Schema, bytes: &'b [u8], depth: usize) -> Result<(), WireError> {
        if schema.form == Form::Map {
            self.sink.begin_map();
            self.members(schema, bytes, depth + 1)?;
            self.sink.end_map();
            return Ok(());
        }
        if depth >= DEPTH_MAX {
            return Err(WireError::TooDeep(DEPTH_MAX));
        }
        let begin = add_places(schema, bytes, &mut self.places)?;
        let [first, second] = [0, 1].map(|index| schema.fields.get(index));
        let [at_first, at_second] =
            [0, 1].map(|index| self.places[begin..].iter().find(|place| place.index == index).copied());
        self.places.truncate(begin);
        match (schema.form, first, second) {
            (Form::Items, Some(items), _) => self.bare_list(items, bytes, at_first, depth),
            (Form::OneOrMany, Some(_), Some(many)) if at_second.is_some() => {
                self.bare_list(many, bytes, at_second, depth)
            }
            (Form::BoolOrOne, Some(_), Some(one)) if at_second.is_some() => self.bare(one, at_second, depth + 1),
            (_, Some(one), _) => self.bare(one, at_first, depth + 1),
            _ => Err(WireError::FieldType(field.json.to_string())),
        }
    }

    /// A field's value without its key.
    fn bare(&mut self, field: &Field, place: Option<Place<'b>>, depth: usize) -> Result<(), WireError> {
        match place {
            Some(place) => self.value(field, &field.ty, Some(place.payload), depth),
            None if field.pointer => {
                self.sink.null();
                Ok(())
            }
            None => self.value(field, &field.ty, None, depth),
        }
    }

    fn bare_list(
        &mut self,
        field: &Field,
        bytes: &'b [u8],
        place: Option<Place<'b>>,
        depth: usize,
    ) -> Result<(), WireError> {
        let (Type::List(inner), Some(Place { span, .. })) = (&field.ty, place) else {
            self.sink.null();
            return Ok(());
        };
        self.elements(field, inner, bytes, span, depth + 1)
    }

    fn time(&mut self, ty: &Type, bytes: &'b [u8]) -> Result<(), WireError> {
        let Some(at) = timestamp(bytes)? else {
            self.sink.null();
            return Ok(());
        };
        let text = match ty {
            Type::MicroTime => meta::time::rfc3339_micro(at),
            _ => meta::time::rfc3339(at),
        };
        self.sink.string(&text);
        Ok(())
    }

    fn int_or_string(&mut self, field: &Field, bytes: &'b [u8]) -> Result<(), WireError> {
        let is_text = super::wire::find(bytes, 1)?.is_some_and(|kind| kind.number() == 1);
        if is_text {
            let payload = super::wire::find(bytes, 3)?.map_or(&[][..], Payload::bytes);
            self.sink.string(text(field, payload)?);
        } else {
            let number = super::wire::find(bytes, 2)?.map_or(0, Payload::number);
            self.sink.int(i64::from(number as i32));
        }
        Ok(())
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
