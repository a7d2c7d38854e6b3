//! Writes trees as JSON by the schema table: Go's field order, and what Go writes for fields that are absent.

use serde_json::{Map, Value};

use super::sink::Sink;
use crate::schema::{Field, Form, Schema, Type};

/// Writes the map of a type. Fields the schema does not know are left out, unless it says to keep them.
pub fn object(schema: &Schema, map: &Map<String, Value>, sink: &mut impl Sink) {
    sink.begin_map();
    members(schema, map, sink);
    if schema.preserve_unknown {
        let unknown = map.iter().filter(|(key, _)| schema.field(key).is_none());
        for (key, value) in unknown {
            sink.key(key);
            any(value, sink);
        }
    }
    sink.end_map();
}

fn members(schema: &Schema, map: &Map<String, Value>, sink: &mut impl Sink) {
    for field in &schema.fields {
        if let (true, Type::Struct(inner)) = (field.inline, &field.ty) {
            members_inline(field, inner, map, sink);
            continue;
        }
        let value = map.get(field.json.as_ref()).filter(|value| !value.is_null());
        match value {
            None if field.number == 0 && field.omit_empty => {}
            None => absent(field, sink),
            Some(value) if is_left_out(field, value) => {}
            Some(given) => {
                sink.key(&field.json);
                value_of(&field.ty, given, sink);
            }
        }
    }
}

/// A nil embedded pointer writes nothing, not even what is always written.
fn members_inline(field: &Field, inner: &Schema, map: &Map<String, Value>, sink: &mut impl Sink) {
    let named = |inner: &Schema| inner.fields.iter().any(|field| map.contains_key(field.json.as_ref()));
    if !field.pointer || named(inner) {
        members(inner, map, sink);
    }
}

fn is_left_out(field: &Field, value: &Value) -> bool {
    if field.pointer {
        return false;
    }
    let empty = match value {
        Value::String(text) => text.is_empty() && !matches!(field.ty, Type::IntOrString | Type::Quantity),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) if matches!(field.ty, Type::Struct(_)) => return field.omit_zero && map.is_empty(),
        Value::Object(map) => map.is_empty() && matches!(field.ty, Type::Map(_)),
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0) && !matches!(field.ty, Type::IntOrString),
        Value::Null => true,
    };
    empty && (field.omit_empty || field.omit_zero)
}

fn absent(field: &Field, sink: &mut impl Sink) {
    let structured = match &field.ty {
        Type::Struct(schema) => schema.form != Form::Items,
        Type::Quantity | Type::IntOrString | Type::Duration => true,
        Type::Time | Type::MicroTime | Type::RawExtension | Type::FieldsV1 | Type::Json => true,
        _ => false,
    };
    // Go's `omitempty` never leaves a struct out; `omitzero` does.
    let written = if field.pointer || !structured { !field.omit_empty && !field.omit_zero } else { !field.omit_zero };
    if !written {
        return;
    }
    sink.key(&field.json);
    if field.pointer { sink.null() } else { zero(&field.ty, sink) }
}

fn zero(ty: &Type, sink: &mut impl Sink) {
    match ty {
        Type::String => sink.string(""),
        Type::Bool => sink.bool(false),
        Type::Int32 | Type::Int64 | Type::Uint32 | Type::IntOrString => sink.int(0),
        Type::Double => sink.double(0.0),
        Type::Quantity => sink.string("0"),
        Type::Duration => sink.string("0s"),
        Type::Struct(schema) if schema.form == Form::Map => object(schema, &Map::new(), sink),
        Type::Struct(schema) if schema.form == Form::BoolOrOne => sink.bool(false),
        _ => sink.null(),
    }
}

fn value_of(ty: &Type, value: &Value, sink: &mut impl Sink) {
    match (ty, value) {
        (Type::Struct(schema), Value::Object(map)) if schema.form == Form::Map => object(schema, map, sink),
        (Type::Struct(schema), value) => union(schema, value, sink),
        (Type::List(inner), Value::Array(items)) => {
            sink.begin_list();
            for item in items {
                if item.is_null() { zero(inner, sink) } else { value_of(inner, item, sink) }
            }
            sink.end_list();
        }
        (Type::Map(inner), Value::Object(map)) => {
            sink.begin_map();
            for (key, value) in sorted(map) {
                sink.key(key);
                if value.is_null() { zero(inner, sink) } else { value_of(inner, value, sink) }
            }
            sink.end_map();
        }
        (_, value) => any(value, sink),
    }
}

fn union(schema: &Schema, value: &Value, sink: &mut impl Sink) {
    let field = match (schema.form, value) {
        (Form::Items, _) => schema.fields.first(),
        (Form::OneOrMany, Value::Array(_)) => schema.fields.get(1),
        (Form::BoolOrOne, Value::Object(_)) => schema.fields.get(1),
        _ => schema.fields.first(),
    };
    match field {
        Some(field) => value_of(&field.ty, value, sink),
        None => any(value, sink),
    }
}

/// A value of no known type, keys in order.
pub fn any(value: &Value, sink: &mut impl Sink) {
    match value {
        Value::Null => sink.null(),
        Value::Bool(flag) => sink.bool(*flag),
        Value::String(text) => sink.string(text),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => sink.int(whole),
            (None, Some(double)) => sink.double(double),
            (None, None) => sink.null(),
        },
        Value::Array(items) => {
            sink.begin_list();
            items.iter().for_each(|item| any(item, sink));
            sink.end_list();
        }
        Value::Object(map) => {
            sink.begin_map();
            for (key, value) in sorted(map) {
                sink.key(key);
                any(value, sink);
            }
            sink.end_map();
        }
    }
}

fn sorted(map: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut pairs: Vec<_> = map.iter().collect();
    if !pairs.is_sorted_by(|a, b| a.0 < b.0) {
        pairs.sort_by(|a, b| a.0.cmp(b.0));
    }
    pairs
}
