//! Whether an applied configuration is of the schema, in the words of upstream's typed values: apply refuses unknown fields
//! however lenient the request is.

use serde_json::{Map, Value};

use super::field_set::shown;
use super::path::{Shape, item_step, shape};
use crate::patch::go_value;
use crate::schema::{Field, Form, Schema, Type};

/// What is wrong, with the places.
pub fn check(schema: &Schema, map: &Map<String, Value>) -> Result<(), String> {
    let mut wrong = Vec::new();
    members(schema, map, "", &mut wrong);
    match wrong.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

fn members(schema: &Schema, map: &Map<String, Value>, path: &str, wrong: &mut Vec<String>) {
    for (name, value) in map {
        let path = format!("{path}.{name}");
        match schema.field(name) {
            Some(field) => of_field(field, value, &path, wrong),
            None if schema.preserve_unknown => {}
            None => wrong.push(format!("{path}: field not declared in schema")),
        }
    }
}

fn of_field(field: &Field, value: &Value, path: &str, wrong: &mut Vec<String>) {
    let (Type::List(inner), Value::Array(items)) = (&field.ty, value) else {
        return of_type(&field.ty, value, path, wrong);
    };
    for (index, item) in items.iter().enumerate() {
        let step = match shape(field) {
            Shape::Keyed(field, schema) => item_step(field, schema, item).ok().map(|step| shown(&step)),
            _ => None,
        };
        let step = step.unwrap_or_else(|| format!("[{index}]"));
        of_type(inner, item, &format!("{path}{step}"), wrong);
    }
}

fn of_type(ty: &Type, value: &Value, path: &str, wrong: &mut Vec<String>) {
    let wanted = match (ty, value) {
        (_, Value::Null) => return,
        (Type::Struct(schema), Value::Object(map)) if schema.form == Form::Map => {
            return members(schema, map, path, wrong);
        }
        (Type::Map(inner), Value::Object(map)) => {
            return map.iter().for_each(|(key, value)| of_type(inner, value, &format!("{path}.{key}"), wrong));
        }
        (Type::List(inner), Value::Array(items)) => {
            return items.iter().for_each(|item| of_type(inner, item, path, wrong));
        }
        (Type::Struct(schema), _) if schema.form == Form::Map => "map",
        (Type::Map(_), _) => "map",
        (Type::List(_), _) => "list",
        (Type::String | Type::Bytes, value) if !value.is_string() => "string",
        (Type::Bool, value) if !value.is_boolean() => "boolean",
        (Type::Int32 | Type::Int64 | Type::Uint32 | Type::Double, value) if !value.is_number() => {
            "numeric (int or float)"
        }
        _ => return,
    };
    wrong.push(format!("{path}: expected {wanted}, got &{{{}}}", go_value(value)));
}
