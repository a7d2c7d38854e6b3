//! Short ways through a tree, for defaults and rules: a missing field, a null and an empty value all read as empty.

use serde_json::{Map, Value};

/// Reading.
pub trait Read {
    /// The text of a field; empty when there is none.
    fn text(&self, field: &str) -> &str;
    /// The number in a field.
    fn number(&self, field: &str) -> Option<i64>;
    /// The elements of a list.
    fn items(&self, field: &str) -> &[Value];
    /// The entries of a map.
    fn entries(&self, field: &str) -> impl Iterator<Item = (&String, &Value)>;
    /// Whether there is a value other than null.
    fn has(&self, field: &str) -> bool;
    fn flag(&self, field: &str) -> bool;
}

impl Read for Value {
    fn text(&self, field: &str) -> &str {
        self.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    fn number(&self, field: &str) -> Option<i64> {
        self.get(field).and_then(Value::as_i64)
    }

    fn items(&self, field: &str) -> &[Value] {
        self.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    fn entries(&self, field: &str) -> impl Iterator<Item = (&String, &Value)> {
        self.get(field).and_then(Value::as_object).into_iter().flatten()
    }

    fn has(&self, field: &str) -> bool {
        self.get(field).is_some_and(|value| !value.is_null())
    }

    fn flag(&self, field: &str) -> bool {
        self.get(field).and_then(Value::as_bool).unwrap_or(false)
    }
}

/// Changing. All do nothing on a value that is not a map.
pub trait Write {
    /// Sets a field that is absent, null, empty text or zero: what Go's defaulting calls unset for plain fields.
    fn default_plain(&mut self, field: &str, value: impl Into<Value>);
    /// Sets a field that is absent or null: what Go's defaulting calls unset for pointers.
    fn default_pointer(&mut self, field: &str, value: impl Into<Value>);
    /// The elements of a list, to change.
    fn items_mut(&mut self, field: &str) -> impl Iterator<Item = &mut Value>;
    /// A map in a field, to change; none when absent.
    fn child_mut(&mut self, field: &str) -> Option<&mut Value>;
    fn put(&mut self, field: &str, value: impl Into<Value>);
    fn drop_field(&mut self, field: &str);
}

impl Write for Value {
    fn default_plain(&mut self, field: &str, value: impl Into<Value>) {
        let unset = match self.get(field) {
            None | Some(Value::Null) => true,
            Some(Value::String(text)) => text.is_empty(),
            Some(Value::Number(number)) => number.as_i64() == Some(0),
            Some(_) => false,
        };
        if unset {
            self.put(field, value);
        }
    }

    fn default_pointer(&mut self, field: &str, value: impl Into<Value>) {
        if !self.has(field) {
            self.put(field, value);
        }
    }

    fn items_mut(&mut self, field: &str) -> impl Iterator<Item = &mut Value> {
        self.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
    }

    fn child_mut(&mut self, field: &str) -> Option<&mut Value> {
        self.get_mut(field).filter(|value| value.is_object())
    }

    fn put(&mut self, field: &str, value: impl Into<Value>) {
        if let Some(map) = self.as_object_mut() {
            map.insert(field.to_string(), value.into());
        }
    }

    fn drop_field(&mut self, field: &str) {
        if let Some(map) = self.as_object_mut() {
            map.remove(field);
        }
    }
}

/// A map with nothing in it.
pub fn empty() -> Value {
    Value::Object(Map::new())
}
