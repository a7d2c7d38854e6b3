//! How values are split into fields: which types are owned as a whole, which list items are told apart by keys.

use serde_json::{Map, Value};

use super::field_set::{FieldSet, shown, text_of};
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

/// The step of a list's item. The error names the key that is missing; the place comes before it.
pub fn item_step(field: &Field, schema: &Schema, item: &Value) -> Result<String, String> {
    let mut keys = Map::new();
    for key in &field.list_keys {
        let given = item.get(key.as_ref()).filter(|value| !value.is_null());
        let value = given.or_else(|| schema.field(key).and_then(|field| field.default.as_ref()));
        match (value, schema.field(key)) {
            (Some(value), _) => keys.insert(key.to_string(), value.clone()),
            // What is always written counts as given: it is validation that refuses an empty name.
            (None, Some(Field { omit_empty: false, pointer: false, ty: Type::String, .. })) => {
                keys.insert(key.to_string(), "".into())
            }
            (None, Some(Field { omit_empty: false, pointer: false, ty: Type::Int32 | Type::Int64, .. })) => {
                keys.insert(key.to_string(), 0.into())
            }
            (None, Some(Field { required: false, .. })) => continue,
            (None, _) => {
                let why = "has an element that omits key field";
                return Err(format!(": associative list with keys {why} {key:?} (and doesn't have default value)"));
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
        let mut below = value_set(member(schema, name), value).map_err(|why| format!(".{name}{why}"))?;
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
                let below = value_set(shape_of_entry(inner), value);
                let mut below = below.map_err(|why| format!(".{key}{why}"))?;
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
                let step = item_step(field, schema, item)?;
                let below = value_set(Shape::Struct(schema), item);
                let mut below = below.map_err(|why| format!("{}{why}", shown(&step)))?;
                below.here = true;
                if set.below.contains_key(&step) {
                    return Err(format!(": duplicate entries for key {}", shown(&step)));
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
