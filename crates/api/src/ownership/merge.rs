//! Merges an applied configuration into an object, and takes fields out that nobody applies any more.

use serde_json::{Map, Value};

use super::field_set::FieldSet;
use super::path::{Shape, item_step, member, set_step, shape_of_entry};
use crate::schema::Schema;

/// Merges what was sent into the object. The error is about a list item without its key.
pub fn merge(schema: &Schema, live: &mut Map<String, Value>, sent: &Map<String, Value>) -> Result<(), String> {
    members(live, sent, |name| member(schema, name))
}

fn members<'a>(
    live: &mut Map<String, Value>,
    sent: &Map<String, Value>,
    shape: impl Fn(&str) -> Shape<'a>,
) -> Result<(), String> {
    for (name, value) in sent {
        match live.get_mut(name) {
            Some(there) => merge_value(shape(name), there, value)?,
            None => {
                live.insert(name.clone(), value.clone());
            }
        }
    }
    Ok(())
}

fn merge_value(shape: Shape<'_>, live: &mut Value, sent: &Value) -> Result<(), String> {
    match (shape, &mut *live, sent) {
        (Shape::Struct(schema), Value::Object(live), Value::Object(sent)) => merge(schema, live, sent),
        (Shape::Map(inner), Value::Object(live), Value::Object(sent)) => members(live, sent, |_| shape_of_entry(inner)),
        (Shape::Free, Value::Object(live), Value::Object(sent)) => members(live, sent, |_| Shape::Free),
        (Shape::Keyed(field, schema), Value::Array(live), Value::Array(sent)) => {
            let step = |item: &Value| item_step(field, schema, item);
            merge_list(live, sent, step, |live, sent| merge_value(Shape::Struct(schema), live, sent))
        }
        (Shape::Set, Value::Array(live), Value::Array(sent)) => {
            merge_list(live, sent, |item| Ok(set_step(item)), |_, _| Ok(()))
        }
        (_, live, sent) => {
            *live = sent.clone();
            Ok(())
        }
    }
}

/// Items of both stand where the configuration has them among themselves; items only of the object keep their place.
fn merge_list(
    live: &mut Vec<Value>,
    sent: &[Value],
    step: impl Fn(&Value) -> Result<String, String>,
    merge_item: impl Fn(&mut Value, &Value) -> Result<(), String>,
) -> Result<(), String> {
    let sent_steps = sent.iter().map(&step).collect::<Result<Vec<_>, _>>()?;
    // An item of the object without its keys cannot be matched; it stays.
    let live_steps: Vec<String> = live.iter().map(|item| step(item).unwrap_or_default()).collect();
    let mut old: Vec<Option<Value>> = std::mem::take(live).into_iter().map(Some).collect();
    let mut next_old = 0;
    for (item, step) in sent.iter().zip(&sent_steps) {
        match live_steps.iter().position(|there| there == step) {
            Some(at) => {
                // Everything of the object alone that stood before this item comes before it still.
                for before in next_old..at {
                    if !sent_steps.contains(&live_steps[before]) {
                        live.extend(old[before].take());
                    }
                }
                next_old = next_old.max(at);
                if let Some(mut merged) = old[at].take() {
                    merge_item(&mut merged, item)?;
                    live.push(merged);
                }
            }
            None => live.push(item.clone()),
        }
    }
    live.extend(old.into_iter().flatten());
    Ok(())
}

/// Takes the places of the set out of the object; what becomes empty by that goes too.
pub fn remove(schema: &Schema, map: &mut Map<String, Value>, gone: &FieldSet) {
    remove_members(map, gone, |name| member(schema, name));
}

fn remove_members<'a>(map: &mut Map<String, Value>, gone: &FieldSet, shape: impl Fn(&str) -> Shape<'a>) {
    for (step, below) in &gone.below {
        let Some(name) = step.strip_prefix("f:") else { continue };
        let Some(value) = map.get_mut(name) else { continue };
        if below.here || remove_below(shape(name), value, below) {
            map.remove(name);
        }
    }
}

/// Whether nothing is left.
fn remove_below(shape: Shape<'_>, value: &mut Value, gone: &FieldSet) -> bool {
    match (shape, value) {
        (Shape::Struct(schema), Value::Object(map)) => {
            remove(schema, map, gone);
            map.is_empty()
        }
        (Shape::Map(inner), Value::Object(map)) => {
            remove_members(map, gone, |_| shape_of_entry(inner));
            map.is_empty()
        }
        (Shape::Free, Value::Object(map)) => {
            remove_members(map, gone, |_| Shape::Free);
            map.is_empty()
        }
        (Shape::Keyed(field, schema), Value::Array(items)) => {
            items.retain_mut(|item| {
                let step = item_step(field, schema, item).ok();
                match step.and_then(|step| gone.below.get(&step)) {
                    Some(below) if below.here => false,
                    Some(below) => {
                        remove_below(Shape::Struct(schema), item, below);
                        true
                    }
                    None => true,
                }
            });
            items.is_empty()
        }
        (Shape::Set, Value::Array(items)) => {
            items.retain(|item| !gone.below.contains_key(&set_step(item)));
            items.is_empty()
        }
        _ => false,
    }
}
