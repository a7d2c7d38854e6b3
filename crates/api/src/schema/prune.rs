//! Drops what a schema does not know, all the way down: what is left of an object when another version is made of it.

use serde_json::{Map, Value};

use super::{Schema, Type};

/// Removes the fields that `schema` does not have. Values of free form are kept as they are.
pub fn prune(schema: &Schema, map: &mut Map<String, Value>) {
    map.retain(|name, value| {
        let Some(field) = schema.field(name) else { return false };
        prune_value(&field.ty, value);
        true
    });
}

fn prune_value(ty: &Type, value: &mut Value) {
    match (ty, value) {
        (Type::Struct(schema), Value::Object(map)) => prune(schema, map),
        (Type::List(inner), Value::Array(items)) => items.iter_mut().for_each(|item| prune_value(inner, item)),
        (Type::Map(inner), Value::Object(map)) => map.values_mut().for_each(|item| prune_value(inner, item)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema;

    #[test]
    fn only_known_fields_are_kept_at_every_depth() {
        let schema = schema::builtin("io.k8s.api.core.v1.Pod").unwrap();
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "extra": 1,
            "metadata": {"labels": {"any": "key"}, "unknown": 1},
            "spec": {"containers": [{"name": "c", "colour": "red"}], "nodeSelector": {"free": "form"}}});
        if let Value::Object(map) = &mut pod {
            prune(&schema, map);
        }
        let kept = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"any": "key"}},
            "spec": {"containers": [{"name": "c"}], "nodeSelector": {"free": "form"}}});
        assert_eq!(pod, kept);
    }
}
