//! Which fields a write added, changed and removed.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::field_set::FieldSet;
use super::path::{Shape, item_step, member, set_step, shape_of_entry};
use crate::schema::Schema;

/// The difference between two objects.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub added: FieldSet,
    pub modified: FieldSet,
    pub removed: FieldSet,
}

/// Compares field by field.
pub fn compare(schema: &Schema, old: &Map<String, Value>, new: &Map<String, Value>) -> Change {
    let mut change = Change::default();
    members(&mut change, old, new, |name| member(schema, name));
    change
}

fn members<'a>(
    change: &mut Change,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    shape: impl Fn(&str) -> Shape<'a>,
) {
    for (name, before) in old {
        let after = new.get(name);
        change.put(format!("f:{name}"), value(shape(name), Some(before), after));
    }
    for (name, after) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        change.put(format!("f:{name}"), value(shape(name), None, Some(after)));
    }
}

impl Change {
    fn put(&mut self, step: String, below: Change) {
        self.added.insert(step.clone(), below.added);
        self.modified.insert(step.clone(), below.modified);
        self.removed.insert(step, below.removed);
    }
}

fn is_hollow(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    }
}

fn value(shape: Shape<'_>, old: Option<&Value>, new: Option<&Value>) -> Change {
    // Two hollow values are told apart as a whole, so that empty and absent differ.
    if is_hollow(old) && is_hollow(new) {
        return leaf(old, new);
    }
    let mut change = Change::default();
    let empty_map = Map::new();
    let full = |value: &&Value| !value.is_null();
    let (old_map, new_map) = (old.filter(full), new.filter(full));
    let maps = (old_map.map_or(Some(&empty_map), Value::as_object), new_map.map_or(Some(&empty_map), Value::as_object));
    let lists = (old.map_or(Some(&[][..]), list_of), new.map_or(Some(&[][..]), list_of));
    match (shape, maps, lists) {
        (Shape::Struct(schema), (Some(old), Some(new)), _) => {
            members(&mut change, old, new, |name| member(schema, name));
        }
        (Shape::Map(inner), (Some(old), Some(new)), _) => members(&mut change, old, new, |_| shape_of_entry(inner)),
        (Shape::Free, (Some(old), Some(new)), _) => members(&mut change, old, new, |_| Shape::Free),
        (Shape::Keyed(field, schema), _, (Some(old), Some(new))) => {
            let steps = |items| keyed(items, |item| item_step(field, schema, item).ok());
            items(&mut change, &steps(old), &steps(new), Shape::Struct(schema));
        }
        (Shape::Set, _, (Some(old), Some(new))) => {
            let steps = |items| keyed(items, |item| Some(set_step(item)));
            items(&mut change, &steps(old), &steps(new), Shape::Leaf);
        }
        _ => return leaf(old, new),
    }
    change.added.here |= old.is_none();
    change.removed.here |= new.is_none();
    change
}

/// Null is there and holds nothing.
fn list_of(value: &Value) -> Option<&[Value]> {
    if value.is_null() { Some(&[]) } else { value.as_array().map(Vec::as_slice) }
}

fn leaf(old: Option<&Value>, new: Option<&Value>) -> Change {
    let mut change = Change::default();
    match (old, new) {
        (None, Some(_)) => change.added.here = true,
        (Some(_), None) => change.removed.here = true,
        (Some(old), Some(new)) if old != new => change.modified.here = true,
        _ => {}
    }
    change
}

fn keyed(items: &[Value], step: impl Fn(&Value) -> Option<String>) -> BTreeMap<String, &Value> {
    items.iter().filter_map(|item| Some((step(item)?, item))).collect()
}

fn items(change: &mut Change, old: &BTreeMap<String, &Value>, new: &BTreeMap<String, &Value>, shape: Shape<'_>) {
    for (step, before) in old {
        change.put(step.clone(), value(shape, Some(before), new.get(step).copied()));
    }
    for (step, after) in new.iter().filter(|(step, _)| !old.contains_key(*step)) {
        change.put(step.clone(), value(shape, None, Some(after)));
    }
}
