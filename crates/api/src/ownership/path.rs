//! How values are split into fields: which types are owned as a whole, which list items are told apart by keys.

use serde_json::{Map, Value};

use super::field_set::{FieldSet, text_of};
use crate::schema::{Field, ListKind, Schema, Type};

/// How apply sees a value of a field.
#[derive(Clone, Copy)]
pub enum Shape<'a> {
    /// Owned and replaced as a whole.
    Leaf,
    Struct(&'a Schema),
    /// A map whose entries are owned one by one.
    Map(&'a Type),
    /// A list whose items are told apart by these keys.
    Keyed(&'a Field, &'a Schema),
    /// A list of scalars without order.
    Set,
    /// Of no known type: maps are split, lists are not.
    Free,
}

/// How the value of a field is to be treated.
pub fn shape(field: &Field) -> Shape<'_> {
    match &field.ty {
        _ if field.atomic => Shape::Leaf,
        Type::Struct(schema) => shape_of_struct(schema),
        Type::Map(inner) => Shape::Map(inner),
        Type::List(inner) => match (field.list, inner.as_ref()) {
            (ListKind::Map, Type::Struct(schema)) => Shape::Keyed(field, schema),
            (ListKind::Set, _) => Shape::Set,
            _ => Shape::Leaf,
        },
        Type::RawExtension | Type::Any => Shape::Free,
        _ => Shape::Leaf,
    }
}

/// How an entry of a map is to be treated.
pub fn shape_of_entry(ty: &Type) -> Shape<'_> {
    match ty {
        Type::Struct(schema) => shape_of_struct(schema),
        Type::Map(inner) => Shape::Map(inner),
        Type::Any => Shape::Free,
        _ => Shape::Leaf,
    }
}

fn shape_of_struct(schema: &Schema) -> Shape<'_> {
    let is_map = schema.form == crate::schema::Form::Map;
    if schema.atomic || !is_map { Shape::Leaf } else { Shape::Struct(schema) }
}

/// The shape of a struct's member; members that the schema does not know are free.
pub fn member<'a>(schema: &'a Schema, name: &str) -> Shape<'a> {
    schema.field(name).map_or(Shape::Free, shape)
}

/// The step of a list's item. The error names the key that is missing.
pub fn item_step(field: &Field, schema: &Schema, item: &Value) -> Result<String, String> {
    let mut keys = Map::new();
    for key in &field.list_keys {
        let given = item.get(key.as_ref()).filter(|value| !value.is_null());
        let value = given.or_else(|| schema.field(key).and_then(|field| field.default.as_ref()));
        match value {
            Some(value) => keys.insert(key.to_string(), value.clone()),
            None if schema.field(key).is_some_and(|field| !field.required) => continue,
            None => {
                let why = "has an element that omits key field";
                return Err(format!(
                    ".{}: associative list with keys {why} {:?} (and doesn't have default value)",
                    field.json, key
                ));
            }
        };
    }
    Ok(format!("k:{}", text_of(&Value::Object(keys))))
}

pub fn set_step(item: &Value) -> String {
    format!("v:{}", text_of(item))
}

/// All fields of an applied configuration.
pub fn to_set(schema: &Schema, map: &Map<String, Value>) -> Result<FieldSet, String> {
    let mut set = FieldSet::default();
    for (name, value) in map {
        let mut below = value_set(member(schema, name), value)?;
        // A null or an empty map is a field of its own: there is nothing below it that could be owned.
        if value.is_null() || value.as_object().is_some_and(Map::is_empty) {
            below.here = true;
        }
        set.insert(format!("f:{name}"), below);
    }
    Ok(set)
}

fn value_set(shape: Shape<'_>, value: &Value) -> Result<FieldSet, String> {
    match (shape, value) {
        (Shape::Struct(schema), Value::Object(map)) => to_set(schema, map),
        (Shape::Map(inner), Value::Object(map)) => {
            let mut set = FieldSet::default();
            for (key, value) in map {
                let mut below = value_set(shape_of_entry(inner), value)?;
                below.here = true;
                set.insert(format!("f:{key}"), below);
            }
            Ok(set)
        }
        (Shape::Free, Value::Object(map)) if !map.is_empty() => {
            let mut set = FieldSet::default();
            for (key, value) in map {
                set.insert(format!("f:{key}"), value_set(Shape::Free, value)?);
            }
            Ok(set)
        }
        (Shape::Keyed(field, schema), Value::Array(items)) => {
            let mut set = FieldSet::default();
            for item in items {
                let mut below = value_set(Shape::Struct(schema), item)?;
                below.here = true;
                let step = item_step(field, schema, item)?;
                if set.below.contains_key(&step) {
                    return Err(format!(
                        ".{}: duplicate entries for key [{}]",
                        field.json,
                        step.trim_start_matches("k:")
                    ));
                }
                set.insert(step, below);
            }
            Ok(set)
        }
        (Shape::Set, Value::Array(items)) => {
            let mut set = FieldSet::default();
            for item in items {
                set.insert(set_step(item), FieldSet::place());
            }
            Ok(set)
        }
        _ => Ok(FieldSet::place()),
    }
}
