//! Strategic merge: maps merge, lists merge by their key or as sets where the schema says so, and directives in the patch
//! (`$patch`, `$retainKeys`, `$deleteFromPrimitiveList/x`, `$setElementOrder/x`) say the rest.

use meta::{Reason, Status};
use serde_json::{Map, Value};

use super::order;
use super::printed::{go_map, go_value};
use crate::schema::{Field, Schema, Type};

const DIRECTIVE: &str = "$patch";
/// What the directive may say.
const KNOWN: [&str; 3] = ["merge", "replace", "delete"];
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

type Tree = Map<String, Value>;

/// The patched map.
pub fn apply(schema: &Schema, original: Tree, patch: Tree) -> Result<Tree, Status> {
    merge_map(Some(schema), original, patch)
}

fn merge_map(schema: Option<&Schema>, mut original: Tree, mut patch: Tree) -> Result<Tree, Status> {
    match patch.remove(DIRECTIVE).as_ref().map(|directive| directive.as_str().unwrap_or_default()) {
        None | Some("merge") => {}
        Some("replace") => return Ok(patch),
        Some("delete") => return Ok(Map::new()),
        Some(other) => return Err(unknown_directive(other, patch)),
    }
    retain_keys(&mut original, &mut patch)?;
    ordered_lists(schema, &mut original, &mut patch)?;
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(DELETE_FROM_LIST) {
            delete_scalars(&mut original, list, &value)?;
            continue;
        }
        if value.is_null() {
            original.remove(&key);
            continue;
        }
        let merged = match original.remove(&key) {
            Some(old) => merge_value(schema, &key, old, value)?,
            None => plain(value),
        };
        original.insert(key, merged);
    }
    Ok(original)
}

fn merge_value(schema: Option<&Schema>, key: &str, old: Value, new: Value) -> Result<Value, Status> {
    let field = schema.and_then(|schema| schema.field(key));
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            if field.is_some_and(|field| field.patch.replace) {
                return Ok(plain(Value::Object(new)));
            }
            // A map of structs merges entry by entry: its keys are not fields.
            let inner = match field.map(|field| &field.ty) {
                Some(Type::Struct(schema)) => Some(&**schema),
                Some(Type::Map(inner)) => return merge_entries(inner, old, new).map(Value::Object),
                _ => None,
            };
            merge_map(inner, old, new).map(Value::Object)
        }
        (Value::Array(old), Value::Array(new)) => match field {
            Some(field) if field.patch.merge => {
                let order = new.clone();
                merge_list(field, old, new, &order).map(Value::Array)
            }
            _ => Ok(plain(Value::Array(new))),
        },
        (_, new) => Ok(plain(new)),
    }
}

fn merge_entries(inner: &Type, mut old: Tree, mut new: Tree) -> Result<Tree, Status> {
    let Type::Struct(schema) = inner else { return merge_map(None, old, new) };
    match new.remove(DIRECTIVE).as_ref().and_then(Value::as_str) {
        Some("replace") => return Ok(new),
        Some("delete") => return Ok(Map::new()),
        _ => {}
    }
    for (key, value) in new {
        let merged = match (old.remove(&key), value) {
            (_, Value::Null) => continue,
            (Some(Value::Object(old)), Value::Object(new)) => Value::Object(merge_map(Some(schema), old, new)?),
            (_, value) => plain(value),
        };
        old.insert(key, merged);
    }
    Ok(old)
}

/// `$retainKeys` lists all keys that may stay; every key of the patch must be among them.
fn retain_keys(original: &mut Tree, patch: &mut Tree) -> Result<(), Status> {
    let Some(retained) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(retained) = retained else {
        return Err(Status::bad_request("invalid patch format of retainKeys"));
    };
    let keeps = |key: &str| retained.iter().any(|kept| kept.as_str() == Some(key));
    if patch.iter().any(|(key, value)| !key.starts_with('$') && !value.is_null() && !keeps(key)) {
        return Err(Status::bad_request("invalid patch format of retainKeys"));
    }
    original.retain(|key, _| keeps(key));
    Ok(())
}

/// An error that upstream answers as it is, with neither a reason nor details.
fn unfit(why: String) -> Status {
    Status::new(Reason::Unknown, why)
}

fn unknown_directive(directive: &str, mut patch: Tree) -> Status {
    patch.insert(DIRECTIVE.into(), directive.into());
    unfit(format!("unknown patch type: {directive} in map: {}", go_map(&patch)))
}

/// Merges the lists whose order the patch states, and takes them out of the patch.
fn ordered_lists(schema: Option<&Schema>, original: &mut Tree, patch: &mut Tree) -> Result<(), Status> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let (Some(order), Some(key)) = (patch.remove(&directive), directive.strip_prefix(ELEMENT_ORDER)) else {
            continue;
        };
        let Value::Array(order) = order else {
            return Err(Status::bad_request("invalid patch format of setElementOrder list"));
        };
        let old = match original.remove(key) {
            Some(Value::Array(old)) => Some(old),
            Some(_) => return Err(Status::bad_request("invalid patch format of setElementOrder list")),
            None => None,
        };
        let new = match patch.remove(key) {
            Some(Value::Array(new)) => Some(new),
            Some(Value::Null) => continue,
            Some(_) => return Err(Status::bad_request("invalid patch format of setElementOrder list")),
            None => None,
        };
        if old.is_none() && new.is_none() {
            continue;
        }
        let field = schema.and_then(|schema| schema.field(key));
        let merged = match field {
            Some(field) if field.patch.merge => {
                check_order(field, new.as_deref().unwrap_or_default(), &order)?;
                merge_list(field, old.unwrap_or_default(), new.unwrap_or_default(), &order)?
            }
            _ => new.or(old).unwrap_or_default(),
        };
        original.insert(key.to_string(), Value::Array(merged));
    }
    Ok(())
}

/// What the patch sets has to stand in the order that it states, in that order.
fn check_order(field: &Field, new: &[Value], order: &[Value]) -> Result<(), Status> {
    let key = field.patch.merge_key.as_ref();
    let is_deleted = |item: &Value| item.get(DIRECTIVE).and_then(Value::as_str) == Some("delete");
    let same = |a: &Value, b: &Value| if key.is_empty() { a == b } else { a.get(key) == b.get(key) };
    let mut rest = order.iter();
    let kept = new.iter().filter(|item| !is_deleted(item));
    let fits = order.is_empty() || kept.into_iter().all(|item| rest.any(|stated| same(stated, item)));
    if fits {
        return Ok(());
    }
    let (new, order) = (go_value(&Value::Array(new.to_vec())), go_value(&Value::Array(order.to_vec())));
    Err(unfit(format!("The order in patch list:\n{new}\n doesn't match $setElementOrder list:\n{order}\n")))
}

fn merge_list(field: &Field, old: Vec<Value>, mut new: Vec<Value>, order: &[Value]) -> Result<Vec<Value>, Status> {
    let Some(Type::Struct(schema)) = field.ty.element() else {
        return Ok(merge_scalars(old, new, order));
    };
    let key = field.patch.merge_key.as_ref();
    if key.is_empty() {
        return Err(Status::internal(format!("cannot merge lists without merge key for {}", field.json)));
    }
    let is_replace = |item: &Value| item.get(DIRECTIVE).and_then(Value::as_str) == Some("replace");
    if new.iter().any(is_replace) {
        new.retain(|item| item.get(DIRECTIVE).is_none());
        return Ok(new);
    }
    if !new.iter().chain(&old).all(Value::is_object) {
        let both = go_value(&Value::Array(vec![old.into(), new.into()]));
        return Err(unfit(format!("list element types are not identical: {both}")));
    }
    let server = old.clone();
    let mut merged = old;
    for item in new {
        let Value::Object(mut item) = item else { continue };
        if let Some(other) = item.get(DIRECTIVE).and_then(Value::as_str).filter(|text| !KNOWN.contains(text)) {
            let other = other.to_string();
            return Err(unknown_directive(&other, item));
        }
        let Some(wanted) = item.get(key).cloned() else {
            return Err(unfit(format!("map: {} does not contain declared merge key: {key}", go_map(&item))));
        };
        let at = merged.iter().position(|other| other.get(key) == Some(&wanted));
        match (item.get(DIRECTIVE).and_then(Value::as_str), at) {
            (Some("delete"), _) => merged.retain(|other| other.get(key) != Some(&wanted)),
            (_, Some(at)) => {
                let old = merged[at].take();
                let old = if let Value::Object(old) = old { old } else { Map::new() };
                merged[at] = Value::Object(merge_map(Some(schema), old, item)?);
            }
            (_, None) => {
                item.remove(DIRECTIVE);
                merged.push(plain(Value::Object(item)));
            }
        }
    }
    let same = |a: &Value, b: &Value| a.get(key).is_some() && a.get(key) == b.get(key);
    Ok(order::arrange(merged, order, &server, &same))
}

fn merge_scalars(old: Vec<Value>, new: Vec<Value>, order: &[Value]) -> Vec<Value> {
    let mut merged: Vec<Value> = Vec::new();
    for item in old.iter().cloned().chain(new) {
        if !merged.contains(&item) {
            merged.push(item);
        }
    }
    order::arrange(merged, order, &old, &|a, b| a == b)
}

fn delete_scalars(original: &mut Tree, key: &str, gone: &Value) -> Result<(), Status> {
    // Of a list that is not there, nothing is deleted, in whatever form.
    if !original.contains_key(key) {
        return Ok(());
    }
    let Value::Array(gone) = gone else {
        return Err(Status::bad_request("invalid patch format of primitive list"));
    };
    if let Some(Value::Array(items)) = original.get_mut(key) {
        items.retain(|item| !gone.contains(item));
    }
    Ok(())
}

/// A value that has nothing to merge with: nulls and directives have done their work.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(key, value)| !value.is_null() && !is_directive(key));
            Value::Object(kept.map(|(key, value)| (key, plain(value))).collect())
        }
        Value::Array(items) => {
            let is_gone = |item: &Value| item.get(DIRECTIVE).and_then(Value::as_str) == Some("delete");
            Value::Array(items.into_iter().filter(|item| !is_gone(item)).map(plain).collect())
        }
        other => other,
    }
}

fn is_directive(key: &str) -> bool {
    key == DIRECTIVE || key == RETAIN_KEYS || key.starts_with(DELETE_FROM_LIST) || key.starts_with(ELEMENT_ORDER)
}
