//! RFC 7386 merge.

use serde_json::{Map, Value};

/// Merges the patch in.
pub fn apply(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            map.remove(&key);
        } else {
            apply(map.entry(key).or_insert(Value::Null), value);
        }
    }
}
