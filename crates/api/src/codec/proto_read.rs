//! Reads protobuf messages by the schema table and hands what it finds to a [`Sink`], in JSON's field order.
//!
//! One pass notes where each field stands, a second one walks the schema, so JSON comes out in Go's order whatever the order
//! on the wire, with what Go writes for absent fields. Stored objects become JSON text this way without a tree.

use super::proto_fields::{
    DEPTH_MAX, Shown, Span, entries, is_packable, last, shown, spans, text, timestamp, type_meta,
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
    Walk { sink, fill }.members(schema, bytes, 0)?;
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
    Walk { sink, fill: Fill::default() }.value(field, ty, payload, depth)
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
    Walk { sink, fill: Fill::default() }.elements(field, inner, bytes, span, depth)
}

struct Walk<'s, 'f, S> {
    sink: &'s mut S,
    fill: Fill<'f>,
}

impl<S: Sink> Walk<'_, '_, S> {
    fn members(&mut self, schema: &Schema, bytes: &[u8], depth: usize) -> Result<(), WireError> {
        if depth > DEPTH_MAX {
            return Err(WireError::TooDeep(DEPTH_MAX));
        }
        let spans = spans(schema, bytes)?;
        for (field, span) in schema.fields.iter().zip(&spans) {
            if field.number == 0 {
                if let Some(text) = type_meta(field, self.fill.api_version, self.fill.kind, depth) {
                    self.sink.key(&field.json);
                    self.sink.string(text);
                }
                continue;
            }
            self.field(field, bytes, *span, depth)?;
        }
        Ok(())
    }

    fn field(&mut self, field: &Field, bytes: &[u8], span: Option<Span>, depth: usize) -> Result<(), WireError> {
        match &field.ty {
            Type::List(inner) => return self.list(field, inner, bytes, span, depth),
            Type::Map(inner) => return self.map(field, inner, bytes, span, depth),
            _ => {}
        }
        let payload = match span {
            Some(span) => last(field, bytes, span)?,
            None => None,
        };
        if let (true, Type::Struct(inner)) = (field.inline, &field.ty) {
            if payload.is_some() || !field.pointer {
                self.members(inner, payload.map_or(&[], Payload::bytes), depth + 1)?;
            }
            return Ok(());
        }
        if let Some(version) = self.fill.resource_version.filter(|_| depth == 1 && is_resource_version(field)) {
            self.sink.key(&field.json);
            self.sink.string(version);
            return Ok(());
        }
        match shown(field, payload) {
            Shown::Nothing => return Ok(()),
            Shown::Null => {
                self.sink.key(&field.json);
                self.sink.null();
                return Ok(());
            }
            Shown::Value => self.sink.key(&field.json),
        }
        self.value(field, &field.ty, payload, depth)
    }

    fn list(
        &mut self,
        field: &Field,
        inner: &Type,
        bytes: &[u8],
        span: Option<Span>,
        depth: usize,
    ) -> Result<(), WireError> {
        let Some(span) = span else {
            self.nothing(field);
            return Ok(());
        };
        self.sink.key(&field.json);
        self.elements(field, inner, bytes, span, depth)
    }

    fn elements(
        &mut self,
        field: &Field,
        inner: &Type,
        bytes: &[u8],
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

    fn packed(&mut self, field: &Field, inner: &Type, packed: &[u8], depth: usize) -> Result<(), WireError> {
        // Packed numbers have no tags of their own: read each as the payload of a made-up one.
        let mut at = 0;
        while at < packed.len() {
            let mut end = at;
            while packed.get(end).ok_or(WireError::Truncated)? & 0x80 != 0 {
                end += 1;
            }
            let mut tagged = vec![0x08];
            tagged.extend_from_slice(&packed[at..=end]);
            if let Some((_, payload)) = Reader::new(&tagged, 0).field()? {
                self.value(field, inner, Some(payload), depth)?;
            }
            at = end + 1;
        }
        Ok(())
    }

    fn map(
        &mut self,
        field: &Field,
        inner: &Type,
        bytes: &[u8],
        span: Option<Span>,
        depth: usize,
    ) -> Result<(), WireError> {
        let Some(span) = span else {
            self.nothing(field);
            return Ok(());
        };
        let entries = entries(field, bytes, span)?;
        self.sink.key(&field.json);
        self.sink.begin_map();
        for (key, payload) in entries {
            self.sink.key(key);
            self.value(field, inner, payload, depth)?;
        }
        self.sink.end_map();
        Ok(())
    }

    fn nothing(&mut self, field: &Field) {
        if !field.omit_empty && !field.omit_zero {
            self.sink.key(&field.json);
            self.sink.null();
        }
    }

    /// One value; no payload stands for the zero value.
    fn value(&mut self, field: &Field, ty: &Type, payload: Option<Payload<'_>>, depth: usize) -> Result<(), WireError> {
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

    fn message(&mut self, field: &Field, ty: &Type, bytes: &[u8], depth: usize) -> Result<(), WireError> {
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

    fn structure(&mut self, field: &Field, schema: &Schema, bytes: &[u8], depth: usize) -> Result<(), WireError> {
        if schema.form == Form::Map {
            self.sink.begin_map();
            self.members(schema, bytes, depth + 1)?;
            self.sink.end_map();
            return Ok(());
        }
        if depth >= DEPTH_MAX {
            return Err(WireError::TooDeep(DEPTH_MAX));
        }
        let spans = spans(schema, bytes)?;
        let [first, second] = [schema.fields.first(), schema.fields.get(1)];
        let (first_span, second_span) = (spans.first().copied().flatten(), spans.get(1).copied().flatten());
        match (schema.form, first, second) {
            (Form::Items, Some(items), _) => self.bare_list(items, bytes, first_span, depth),
            (Form::OneOrMany, Some(_), Some(many)) if second_span.is_some() => {
                self.bare_list(many, bytes, second_span, depth)
            }
            (Form::BoolOrOne, Some(_), Some(one)) if second_span.is_some() => {
                self.bare(one, bytes, second_span, depth + 1)
            }
            (_, Some(one), _) => self.bare(one, bytes, first_span, depth + 1),
            _ => Err(WireError::FieldType(field.json.to_string())),
        }
    }

    /// A field's value without its key.
    fn bare(&mut self, field: &Field, bytes: &[u8], span: Option<Span>, depth: usize) -> Result<(), WireError> {
        match span {
            Some(span) => {
                let payload = last(field, bytes, span)?;
                self.value(field, &field.ty, payload, depth)
            }
            None if field.pointer => {
                self.sink.null();
                Ok(())
            }
            None => self.value(field, &field.ty, None, depth),
        }
    }

    fn bare_list(&mut self, field: &Field, bytes: &[u8], span: Option<Span>, depth: usize) -> Result<(), WireError> {
        let (Type::List(inner), Some(span)) = (&field.ty, span) else {
            self.sink.null();
            return Ok(());
        };
        self.sink.begin_list();
        let mut reader = Reader::new(&bytes[..span.end], span.first);
        while let Some((number, payload)) = reader.field()? {
            if number == field.number {
                self.value(field, inner, Some(payload), depth + 1)?;
            }
        }
        self.sink.end_list();
        Ok(())
    }

    fn time(&mut self, ty: &Type, bytes: &[u8]) -> Result<(), WireError> {
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

    fn int_or_string(&mut self, field: &Field, bytes: &[u8]) -> Result<(), WireError> {
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

fn is_resource_version(field: &Field) -> bool {
    field.number == 6 && field.json.as_ref() == "resourceVersion"
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
