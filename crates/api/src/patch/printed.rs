//! Objects and patches as upstream's messages quote them.

use serde_json::{Map, Value};

use crate::codec::json_any;
use crate::codec::sink::JsonText;
use crate::schema::{Schema, Type};

/// A value as Go's `%v` prints it: `map[a:1 b:[x y]]`.
pub fn go_value(value: &Value) -> String {
    let list = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join(" ");
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", list(&mut items.iter().map(go_value))),
        Value::Object(map) => go_map(map),
        other => other.to_string(),
    }
}

/// The same of a map.
pub fn go_map(map: &Map<String, Value>) -> String {
    let mut pairs: Vec<(&String, &Value)> = map.iter().collect();
    pairs.sort_by_key(|(key, _)| *key);
    let pairs: Vec<String> = pairs.into_iter().map(|(key, value)| format!("{key}:{}", go_value(value))).collect();
    format!("map[{}]", pairs.join(" "))
}

/// A patched object as upstream's patch library leaves it: maps that the patch went into have their keys sorted, the rest
/// stands as it was encoded. `touched` is a map of those maps; where it ends, the patch's own value stands.
pub fn patched_json(schema: &Schema, object: &Map<String, Value>, touched: &Value) -> String {
    let mut out = Vec::new();
    write_touched(Some(schema), object, touched, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

fn write_touched(schema: Option<&Schema>, map: &Map<String, Value>, touched: &Value, out: &mut Vec<u8>) {
    let mut keys: Vec<&String> = map.keys().collect();
    keys.sort();
    out.push(b'{');
    for (index, key) in keys.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend(json_any(&Value::String(key.clone())));
        out.push(b':');
        let ty = schema.and_then(|schema| schema.field(key)).map(|field| &field.ty);
        let inner = if let Some(Type::Struct(inner)) = ty { Some(&**inner) } else { None };
        match (&map[key], touched.get(key), inner) {
            (Value::Object(map), Some(below @ Value::Object(_)), inner) => write_touched(inner, map, below, out),
            (Value::Object(map), None, Some(inner)) => {
                let mut text = JsonText::with_capacity(256);
                crate::codec::object_json(inner, map, &mut text);
                out.extend(text.out);
            }
            (value, _, _) => out.extend(json_any(value)),
        }
    }
    out.push(b'}');
}

/// The maps that a merge patch goes into.
pub fn touched_by_merge(patch: &Value) -> Value {
    match patch {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), touched_by_merge(value))).collect(),
        _ => Value::Null,
    }
}

/// The maps that a JSON pointer goes through.
pub fn touch(touched: &mut Value, pointer: &str) {
    let mut at = touched;
    for step in pointer.split('/').skip(1) {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Value::Object(map) = at else { return };
        at = map.entry(step.replace("~1", "/").replace("~0", "~")).or_insert(Value::Null);
    }
}

/// What upstream's converter of untyped maps says first about a value of the wrong type; none when all fit.
pub fn mismatch(schema: &Schema, map: &Map<String, Value>) -> Option<String> {
    schema.fields.iter().find_map(|field| mismatch_of(&field.ty, map.get(field.json.as_ref())?))
}

fn mismatch_of(ty: &Type, value: &Value) -> Option<String> {
    let kind = match value {
        Value::Null => return None,
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    };
    match (ty, value) {
        (Type::List(inner), Value::Array(items)) => items.iter().find_map(|item| mismatch_of(inner, item)),
        (Type::List(_), _) => Some(format!("cannot restore slice from {kind}")),
        (Type::Map(inner), Value::Object(map)) => map.values().find_map(|value| mismatch_of(inner, value)),
        (Type::Map(_), _) => Some(format!("cannot restore map from {kind}")),
        (Type::Struct(schema), Value::Object(map)) => mismatch(schema, map),
        (Type::Struct(schema), _) if schema.form == crate::schema::Form::Map => {
            Some(format!("cannot restore struct from: {kind}"))
        }
        (Type::String | Type::Bool | Type::Int32 | Type::Int64 | Type::Uint32 | Type::Double, _) => {
            cannot_convert(ty, value, kind)
        }
        _ => None,
    }
}

fn cannot_convert(ty: &Type, value: &Value, kind: &str) -> Option<String> {
    let (fits, wanted) = match ty {
        Type::String => (value.is_string(), "string"),
        Type::Bool => (value.is_boolean(), "bool"),
        Type::Double => (value.is_number(), "float64"),
        Type::Int64 => (value.is_number(), "int64"),
        Type::Uint32 => (value.is_number(), "uint32"),
        _ => (value.is_number(), "int32"),
    };
    let given = match kind {
        "slice" => "[]interface {}",
        "map" => "map[string]interface {}",
        other => other,
    };
    (!fits).then(|| format!("cannot convert {given} to {wanted}"))
}

#[cfg(test)]
mod tests {
    use meta::GroupVersionKind;
    use serde_json::json;

    use super::*;

    #[test]
    fn prints_as_go_does() {
        let value = json!({"b": [1, "x", null], "a": {"c": true}, "d": 1.5});
        assert_eq!(go_value(&value), "map[a:map[c:true] b:[1 x <nil>] d:1.5]");
    }

    #[test]
    fn keys_are_sorted_where_the_patch_went() {
        let schema = crate::codec::schema_for(&GroupVersionKind::new("", "v1", "ConfigMap")).unwrap();
        let Value::Object(map) = json!({"metadata": {"uid": "u", "name": "n"}, "kind": "ConfigMap", "data": 7}) else {
            return;
        };
        let mut touched = json!({});
        touch(&mut touched, "/data");
        assert_eq!(
            patched_json(&schema, &map, &touched),
            r#"{"data":7,"kind":"ConfigMap","metadata":{"name":"n","uid":"u"}}"#
        );
        let (name, uid) = (r#""name":"n""#, r#""uid":"u""#);
        let sorted = patched_json(&schema, &map, &json!({"metadata": {"uid": null}}));
        assert!(sorted.find(name) < sorted.find(uid), "{sorted}");
    }

    #[test]
    fn the_first_mismatch_in_the_order_of_fields_is_told() {
        let schema = crate::codec::schema_for(&GroupVersionKind::new("", "v1", "Pod")).unwrap();
        for (spec, expected) in [
            (json!({"containers": "x"}), Some("cannot restore slice from string")),
            (json!({"containers": [{"name": 1}]}), Some("cannot convert int64 to string")),
            (json!({"nodeSelector": 7}), Some("cannot restore map from int64")),
            (json!({"securityContext": []}), Some("cannot restore struct from: slice")),
            (json!({"containers": [{"name": "a", "ports": null}]}), None),
        ] {
            let Value::Object(map) = json!({"spec": spec}) else { return };
            assert_eq!(mismatch(&schema, &map).as_deref(), expected, "{spec}");
        }
    }
}
