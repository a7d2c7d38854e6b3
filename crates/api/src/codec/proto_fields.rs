//! Where the fields of a protobuf message stand, and what JSON shows of them: what [`super::proto_read`] and [`super::view`] share.

use smallvec::SmallVec;

use super::wire::{Payload, Reader, WireError, find};
use crate::schema::{Field, Schema, Type};

/// Messages nested deeper than this are refused.
pub const DEPTH_MAX: usize = 100;

/// From the first to the last place of a field in a message.
#[derive(Clone, Copy)]
pub struct Span {
    pub first: usize,
    pub end: usize,
}

/// A field that a message has.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// In the schema's fields.
    pub index: usize,
    pub span: Span,
    /// The last one, which is the one that counts.
    pub payload: Payload<'a>,
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
        (_, None) if !field.is_shown_absent() => Shown::Nothing,
        (true, None) => Shown::Null,
        (false, Some(payload)) if is_left_out(field, payload) => Shown::Nothing,
        _ => Shown::Value,
    }
}

/// Whether values of this type may stand in one payload, one after the other.
pub fn is_packable(ty: &Type) -> bool {
    matches!(ty, Type::Int32 | Type::Int64 | Type::Uint32 | Type::Bool)
}

/// Adds the fields that a message has, in the schema's order; returns where they begin.
pub fn add_places<'a>(schema: &Schema, bytes: &'a [u8], places: &mut Vec<Place<'a>>) -> Result<usize, WireError> {
    let begin = places.len();
    let mut reader = Reader::new(bytes, 0);
    loop {
        let first = reader.at();
        let Some((number, payload)) = reader.field()? else { return Ok(begin) };
        let Some(index) = schema.index_of_number(number) else { continue };
        let place = Place { index, span: Span { first, end: reader.at() }, payload };
        // Upstream writes fields by number, which nearly is the schema's order.
        if places[begin..].last().is_none_or(|last| last.index < index) {
            places.push(place);
            continue;
        }
        match places[begin..].binary_search_by_key(&index, |place| place.index) {
            Ok(at) => {
                let known = &mut places[begin + at];
                (known.span.end, known.payload) = (place.span.end, payload);
            }
            Err(at) => places.insert(begin + at, place),
        }
    }
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
#[inline]
pub fn text<'a>(field: &Field, bytes: &'a [u8]) -> Result<&'a str, WireError> {
    std::str::from_utf8(bytes).map_err(|_| WireError::NotText(field.json.to_string()))
}

/// Whether Go's `omitempty` or `omitzero` leaves the value of a field that is not a pointer out.
fn is_left_out(field: &Field, payload: Payload<'_>) -> bool {
    (field.omit_zero || (field.omit_empty && field.ty.can_be_empty())) && is_zero(&field.ty, payload)
}

/// Whether the value is Go's zero value.
fn is_zero(ty: &Type, payload: Payload<'_>) -> bool {
    match (ty, payload) {
        (_, Payload::Varint(number) | Payload::Fixed64(number)) => number == 0,
        (_, Payload::Fixed32(number)) => number == 0,
        (Type::Struct(schema), Payload::Bytes(bytes)) => is_zero_message(schema, bytes),
        (Type::Time | Type::MicroTime, Payload::Bytes(bytes)) => timestamp(bytes).is_ok_and(|at| at.is_none()),
        (_, Payload::Bytes(bytes)) => bytes.is_empty(),
    }
}

fn is_zero_message(schema: &Schema, bytes: &[u8]) -> bool {
    let mut reader = Reader::new(bytes, 0);
    while let Ok(Some((number, payload))) = reader.field() {
        let Some(index) = schema.index_of_number(number) else { continue };
        let field = &schema.fields[index];
        if field.pointer || matches!(field.ty, Type::List(_) | Type::Map(_)) || !is_zero(&field.ty, payload) {
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
