//! Fills the plain defaults that the schema table states: those that depend on nothing but the field being absent.
//!
//! Defaults that depend on other fields belong to the kind's strategy and run after this walk.

use serde_json::{Map, Value};

use super::{Schema, Type};

/// Fills absent fields that have a default, all the way down. Structs that are absent stay so.
pub fn fill(schema: &Schema, map: &mut Map<String, Value>) {
    for field in &schema.fields {
        if field.inline {
            if let Type::Struct(inner) = &field.ty {
                fill(inner, map);
            }
            continue;
        }
        let absent = map.get(field.json.as_ref()).is_none_or(Value::is_null);
        match (&field.default, absent) {
            (Some(default), true) => {
                map.insert(field.json.to_string(), default.clone());
            }
            (_, false) if field.ty.element_schema().is_some() => {
                if let Some(value) = map.get_mut(field.json.as_ref()) {
                    fill_value(&field.ty, value);
                }
            }
            _ => {}
        }
    }
}

fn fill_value(ty: &Type, value: &mut Value) {
    match (ty, value) {
        (Type::Struct(schema), Value::Object(map)) => fill(schema, map),
        (Type::List(inner), Value::Array(items)) => items.iter_mut().for_each(|item| fill_value(inner, item)),
        (Type::Map(inner), Value::Object(map)) => map.values_mut().for_each(|item| fill_value(inner, item)),
        _ => {}
    }
}
