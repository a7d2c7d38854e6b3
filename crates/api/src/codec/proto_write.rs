//! Writes trees as protobuf messages by the schema table, byte for byte as upstream's generated code does: fields in number
//! order, scalars that are not pointers always present, map keys sorted.

use serde_json::{Map, Value};

use super::wire::{WireError, put_bytes, put_int, put_message, put_tag, put_varint};
use crate::schema::{Field, Form, Schema, Type};

/// Appends the message of a map.
pub fn message(schema: &Schema, map: &Map<String, Value>, out: &mut Vec<u8>) -> Result<(), WireError> {
    for field in schema.in_number_order() {
        if let (true, Type::Struct(inner)) = (field.inline, &field.ty) {
            if !field.pointer || holds_any(inner, map) {
                put_message(out, field.number, |out| message(inner, map, out))?;
            }
            continue;
        }
        let value = map.get(field.json.as_ref()).filter(|value| !value.is_null());
        match (&field.ty, value) {
            (Type::List(_) | Type::Map(_) | Type::Bytes, None) => {}
            (_, None) if field.pointer => {}
            (Type::List(inner), Some(value)) => list(field, inner, value, out)?,
            (Type::Map(inner), Some(value)) => entries(field, inner, value, out)?,
            (ty, Some(value)) => scalar(field, field.number, ty, value, out)?,
            (ty, None) => zero(field, ty, out)?,
        }
    }
    Ok(())
}

fn holds_any(schema: &Schema, map: &Map<String, Value>) -> bool {
    schema.fields.iter().any(|field| match &field.ty {
        Type::Struct(inner) if field.inline => holds_any(inner, map),
        _ => map.get(field.json.as_ref()).is_some_and(|value| !value.is_null()),
    })
}

fn wrong(field: &Field, value: &Value, wanted: &'static str) -> WireError {
    let mut shown = value.to_string();
    if shown.len() > 64 {
        shown = "the value".into();
    }
    WireError::Tree(field.json.to_string(), shown, wanted)
}

fn list(field: &Field, inner: &Type, value: &Value, out: &mut Vec<u8>) -> Result<(), WireError> {
    let items = value.as_array().ok_or_else(|| wrong(field, value, "list"))?;
    items.iter().try_for_each(|item| match item {
        Value::Null => zero(field, inner, out),
        item => scalar(field, field.number, inner, item, out),
    })
}

fn entries(field: &Field, inner: &Type, value: &Value, out: &mut Vec<u8>) -> Result<(), WireError> {
    let map = value.as_object().ok_or_else(|| wrong(field, value, "map"))?;
    let mut pairs: Vec<(&String, &Value)> = map.iter().collect();
    pairs.sort_by(|a, b| a.0.cmp(b.0));
    for (key, value) in pairs {
        put_message(out, field.number, |out| {
            put_bytes(out, 1, key.as_bytes());
            match value {
                Value::Null if matches!(inner, Type::Bytes) => Ok(()),
                Value::Null => zero_at(field, 2, inner, out),
                value => scalar(field, 2, inner, value, out),
            }
        })?;
    }
    Ok(())
}

fn scalar(field: &Field, number: u32, ty: &Type, value: &Value, out: &mut Vec<u8>) -> Result<(), WireError> {
    match ty {
        Type::String => put_bytes(out, number, text(field, value)?.as_bytes()),
        Type::Bool => {
            let flag = value.as_bool().ok_or_else(|| wrong(field, value, "bool"))?;
            put_int(out, number, i64::from(flag));
        }
        Type::Int32 | Type::Int64 | Type::Uint32 => put_int(out, number, integer(field, value)?),
        Type::Double => {
            let double = value.as_f64().ok_or_else(|| wrong(field, value, "number"))?;
            put_tag(out, number, 1);
            out.extend_from_slice(&double.to_bits().to_le_bytes());
        }
        Type::Bytes => put_bytes(out, number, &bytes(field, value)?),
        _ => return put_message(out, number, |out| body(field, ty, value, out)),
    }
    Ok(())
}

/// The inside of a value that is a message of its own.
fn body(field: &Field, ty: &Type, value: &Value, out: &mut Vec<u8>) -> Result<(), WireError> {
    match ty {
        Type::Struct(schema) => return structure(field, schema, value, out),
        Type::Time | Type::MicroTime => time(field, ty, value, out)?,
        Type::Duration => {
            let nanos = super::duration::parse(text(field, value)?).ok_or_else(|| wrong(field, value, "duration"))?;
            put_int(out, 1, nanos);
        }
        Type::Quantity => match value {
            Value::Number(number) => put_bytes(out, 1, number.to_string().as_bytes()),
            value => put_bytes(out, 1, text(field, value)?.as_bytes()),
        },
        Type::IntOrString => {
            let is_text = value.is_string();
            put_int(out, 1, i64::from(is_text));
            put_int(out, 2, if is_text { 0 } else { integer(field, value)? });
            put_bytes(out, 3, value.as_str().unwrap_or_default().as_bytes());
        }
        _ => put_bytes(out, 1, &serde_json::to_vec(value).map_err(|_| wrong(field, value, "JSON value"))?),
    }
    Ok(())
}

fn structure(field: &Field, schema: &Schema, value: &Value, out: &mut Vec<u8>) -> Result<(), WireError> {
    let one = |index: usize| schema.fields.get(index).ok_or_else(|| wrong(field, value, "value of its type"));
    match (schema.form, value) {
        (Form::Map, Value::Object(map)) => message(schema, map, out),
        (Form::Items | Form::OneOrMany, Value::Array(_)) => {
            let many = one(usize::from(schema.form == Form::OneOrMany))?;
            let inner = many.ty.element().ok_or_else(|| wrong(field, value, "list"))?;
            list(many, inner, value, out)
        }
        (Form::OneOrMany, value) => scalar(one(0)?, 1, &one(0)?.ty, value, out),
        (Form::BoolOrOne, Value::Bool(flag)) => {
            put_int(out, 1, i64::from(*flag));
            Ok(())
        }
        (Form::BoolOrOne, value) => {
            // Reading JSON, upstream takes a schema to mean "allowed".
            put_int(out, 1, 1);
            scalar(one(1)?, 2, &one(1)?.ty, value, out)
        }
        _ => Err(wrong(field, value, "map")),
    }
}

/// What upstream writes for a field that is not a pointer and has no value.
fn zero(field: &Field, ty: &Type, out: &mut Vec<u8>) -> Result<(), WireError> {
    zero_at(field, field.number, ty, out)
}

fn zero_at(field: &Field, number: u32, ty: &Type, out: &mut Vec<u8>) -> Result<(), WireError> {
    match ty {
        Type::String => put_bytes(out, number, b""),
        Type::Bool | Type::Int32 | Type::Int64 | Type::Uint32 => put_int(out, number, 0),
        Type::Double => {
            put_tag(out, number, 1);
            out.extend_from_slice(&[0; 8]);
        }
        Type::Struct(schema) if schema.form == Form::Map => {
            put_message(out, number, |out| message(schema, &Map::new(), out))?;
        }
        Type::Struct(schema) if schema.form == Form::BoolOrOne => {
            put_message(out, number, |out| {
                put_int(out, 1, 0);
                Ok::<(), WireError>(())
            })?;
        }
        Type::Quantity => put_message(out, number, |out| {
            put_bytes(out, 1, b"0");
            Ok::<(), WireError>(())
        })?,
        Type::IntOrString => scalar(field, number, ty, &Value::from(0), out)?,
        Type::Duration => scalar(field, number, ty, &Value::from("0s"), out)?,
        _ => {
            put_tag(out, number, 2);
            put_varint(out, 0);
        }
    }
    Ok(())
}

fn text<'a>(field: &Field, value: &'a Value) -> Result<&'a str, WireError> {
    value.as_str().ok_or_else(|| wrong(field, value, "string"))
}

fn integer(field: &Field, value: &Value) -> Result<i64, WireError> {
    let whole =
        value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 9e15).map(|number| number as i64);
    value.as_i64().or(whole).ok_or_else(|| wrong(field, value, "whole number"))
}

fn bytes(field: &Field, value: &Value) -> Result<Vec<u8>, WireError> {
    use base64::Engine as _;
    let text = text(field, value)?;
    base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| wrong(field, value, "base64 text"))
}

fn time(field: &Field, ty: &Type, value: &Value, out: &mut Vec<u8>) -> Result<(), WireError> {
    let at = meta::time::parse(text(field, value)?).ok_or_else(|| wrong(field, value, "time"))?;
    let (seconds, nanos) = (at.as_second(), at.subsec_nanosecond());
    put_int(out, 1, seconds);
    // Upstream drops fractions of a plain time and keeps micros of the other.
    put_int(out, 2, if matches!(ty, Type::MicroTime) { i64::from(nanos / 1000 * 1000) } else { 0 });
    Ok(())
}
