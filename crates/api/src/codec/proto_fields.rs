//! Where the fields of a protobuf message stand, and what JSON shows of them: what [`super::proto_read`] and [`super::view`] share.

use smallvec::SmallVec;

use super::wire::{Payload, Reader, WireError, find};
use crate::schema::{Field, Schema, Type};

/// Messages nested deeper than this are refused.
pub const DEPTH_MAX: usize = 100;

/// First and last place of a field in a message.
#[derive(Clone, Copy)]
pub struct Span {
    pub first: usize,
    pub end: usize,
}

/// A key and a value of a map.
pub type Entry<'a> = (&'a str, Option<Payload<'a>>);

/// What stands for a field that is neither a list nor a map nor inlined.
pub enum Shown {
    Nothing,
    Null,
    Value,
}

/// `kind` and `apiVersion`, which the envelope carries and not the message.
pub fn type_meta<'f>(field: &Field, api_version: &'f str, kind: &'f str, depth: usize) -> Option<&'f str> {
    let text = match field.json.as_ref() {
        "kind" => kind,
        "apiVersion" => api_version,
        _ => "",
    };
    (depth == 0 && !text.is_empty()).then_some(text)
}

/// Whether a field that is neither a list nor a map nor inlined is shown.
pub fn shown(field: &Field, payload: Option<Payload<'_>>) -> Shown {
    match (field.pointer, payload) {
        (true, None) if field.omit_empty => Shown::Nothing,
        (true, None) => Shown::Null,
        (false, payload) if is_left_out(field, payload) => Shown::Nothing,
        _ => Shown::Value,
    }
}

/// Whether values of this type may stand in one payload, one after the other.
pub fn is_packable(ty: &Type) -> bool {
    matches!(ty, Type::Int32 | Type::Int64 | Type::Uint32 | Type::Bool)
}

/// Of every field of the schema, where it stands.
pub fn spans(schema: &Schema, bytes: &[u8]) -> Result<SmallVec<[Option<Span>; 32]>, WireError> {
    let mut spans: SmallVec<[Option<Span>; 32]> = SmallVec::from_elem(None, schema.fields.len());
    let mut reader = Reader::new(bytes, 0);
    loop {
        let at = reader.at();
        let Some((number, _)) = reader.field()? else { return Ok(spans) };
        if let Some(index) = schema.index_of_number(number) {
            let first = spans[index].map_or(at, |span| span.first);
            spans[index] = Some(Span { first, end: reader.at() });
        }
    }
}

/// The last payload of the field, which is the one that counts.
pub fn last<'a>(field: &Field, bytes: &'a [u8], span: Span) -> Result<Option<Payload<'a>>, WireError> {
    let mut found = None;
    let mut reader = Reader::new(&bytes[..span.end], span.first);
    while let Some((number, payload)) = reader.field()? {
        if number == field.number {
            found = Some(payload);
        }
    }
    Ok(found)
}

/// The entries of a map, in the order of their keys.
pub fn entries<'a>(field: &Field, bytes: &'a [u8], span: Span) -> Result<SmallVec<[Entry<'a>; 16]>, WireError> {
    let mut entries: SmallVec<[Entry<'_>; 16]> = SmallVec::new();
    let mut reader = Reader::new(&bytes[..span.end], span.first);
    while let Some((number, payload)) = reader.field()? {
        if number == field.number {
            entries.push(entry(field, payload.bytes())?);
        }
    }
    // Upstream writes keys in order; other writers need not, and of two entries of one key the later counts.
    if !entries.is_sorted_by(|a, b| a.0 < b.0) {
        entries.sort_by(|a, b| a.0.cmp(b.0));
        entries.reverse();
        entries.dedup_by(|a, b| a.0 == b.0);
        entries.reverse();
    }
    Ok(entries)
}

/// One entry of a map.
pub fn entry<'a>(field: &Field, bytes: &'a [u8]) -> Result<Entry<'a>, WireError> {
    let (mut key, mut value) = ("", None);
    let mut reader = Reader::new(bytes, 0);
    while let Some((number, payload)) = reader.field()? {
        match number {
            1 => key = text(field, payload.bytes())?,
            2 => value = Some(payload),
            _ => {}
        }
    }
    Ok((key, value))
}

/// The payload of a field that holds text.
pub fn text<'a>(field: &Field, bytes: &'a [u8]) -> Result<&'a str, WireError> {
    std::str::from_utf8(bytes).map_err(|_| WireError::NotText(field.json.to_string()))
}

/// Whether Go's `omitempty` or `omitzero` leaves the value of a field that is not a pointer out.
fn is_left_out(field: &Field, payload: Option<Payload<'_>>) -> bool {
    let scalar = matches!(
        field.ty,
        Type::String | Type::Bool | Type::Int32 | Type::Int64 | Type::Uint32 | Type::Double | Type::Bytes
    );
    if scalar {
        return (field.omit_empty || field.omit_zero) && is_zero(&field.ty, payload);
    }
    field.omit_zero && is_zero(&field.ty, payload)
}

/// Whether the value is Go's zero value.
fn is_zero(ty: &Type, payload: Option<Payload<'_>>) -> bool {
    match (ty, payload) {
        (_, None) => true,
        (_, Some(Payload::Varint(number) | Payload::Fixed64(number))) => number == 0,
        (_, Some(Payload::Fixed32(number))) => number == 0,
        (Type::Struct(schema), Some(Payload::Bytes(bytes))) => is_zero_message(schema, bytes),
        (Type::Time | Type::MicroTime, Some(Payload::Bytes(bytes))) => timestamp(bytes).is_ok_and(|at| at.is_none()),
        (_, Some(Payload::Bytes(bytes))) => bytes.is_empty(),
    }
}

fn is_zero_message(schema: &Schema, bytes: &[u8]) -> bool {
    let mut reader = Reader::new(bytes, 0);
    while let Ok(Some((number, payload))) = reader.field() {
        let Some(index) = schema.index_of_number(number) else { continue };
        let field = &schema.fields[index];
        if field.pointer || matches!(field.ty, Type::List(_) | Type::Map(_)) || !is_zero(&field.ty, Some(payload)) {
            return false;
        }
    }
    true
}

/// Go's zero time, the first of January of year 1.
const ZERO_TIME_SECONDS: i64 = -62_135_596_800;

/// A time; none for Go's zero time.
pub fn timestamp(bytes: &[u8]) -> Result<Option<jiff::Timestamp>, WireError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let seconds = find(bytes, 1)?.map_or(0, Payload::number) as i64;
    let nanos = find(bytes, 2)?.map_or(0, Payload::number) as i32;
    if seconds == ZERO_TIME_SECONDS && nanos == 0 {
        return Ok(None);
    }
    jiff::Timestamp::new(seconds, nanos).map(Some).map_err(|_| WireError::Overflow)
}
