//! Field ownership: `metadata.managedFields`, kept on every write, and server-side apply, which is decided by it.
//!
//! Each manager owns a [`FieldSet`]. An ordinary write gives the writer what it changed and takes that from the others; an
//! apply gives the applier exactly the fields it sends, removes those it no longer sends and nobody else owns, and conflicts
//! with managers whose fields it would change. How values are split into fields (lists by key, atomic structs) is read from
//! the schema table. Sets recorded in other versions of a kind are read by the same schema: the served versions of built-in
//! kinds do not rename fields that matter here.

use jiff::Timestamp;
use meta::{Object, Reason, Status, StatusCause};
use serde_json::{Map, Value};

use crate::schema::Schema;

mod compare;
mod field_set;
mod managers;
mod merge;
mod path;
mod typed;

pub use field_set::FieldSet;
use managers::Managers;
pub use managers::{Manager, Operation};

/// Update managers beyond this many are folded into one, the oldest first, as upstream does.
const UPDATE_MANAGERS_MAX: usize = 10;
const FOLDED_MANAGER: &str = "ancient-changes";
const BEFORE_APPLY_MANAGER: &str = "before-first-apply";

/// Who writes, and how.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// `fieldManager`, or what is made of the user agent.
    pub manager: &'a str,
    /// The version the request spoke.
    pub api_version: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    pub now: Timestamp,
}

/// The manager of a request that names none: the user agent up to its first slash, at most 128 bytes.
pub fn manager_from_user_agent(user_agent: &str) -> String {
    let name = user_agent.split('/').next().unwrap_or_default();
    let printable: String = name.chars().filter(|c| !c.is_control()).collect();
    let end = (0..=128.min(printable.len())).rev().find(|end| printable.is_char_boundary(*end)).unwrap_or(0);
    printable[..end].to_string()
}

/// Records a create or update: call it with defaults filled in and what the writer may not set already reset, before mutating
/// admission, whose changes nobody owns.
pub fn record(schema: &Schema, old: Option<&Object>, new: &mut Object, writer: &Writer<'_>) {
    let sent = new.0.get("metadata").and_then(|metadata| metadata.get("managedFields")).cloned();
    let reset = sent.as_ref().is_some_and(managers::is_reset);
    let mut managers = match sent.as_ref().and_then(Managers::parse) {
        Some(managers) if !managers.is_empty() => managers,
        _ if reset => Managers::default(),
        _ => old.map(Managers::of).unwrap_or_default(),
    };
    let before = old.map_or_else(|| nothing(schema), |old| bare(old.clone()));
    let after = bare(new.clone());
    let change = compare::compare(schema, &before, &after);
    let taken = change.modified.union(&change.added);
    let manager = Manager::new(writer, Operation::Update);
    managers.take_from_others(&manager, &taken);
    managers.forget(&change.removed);
    if !taken.is_empty() {
        managers.add(manager, &taken);
    }
    managers.fold_updates(UPDATE_MANAGERS_MAX, FOLDED_MANAGER);
    managers.write(new);
}

/// Server-side apply. `config` is what was sent, in the schema's form; `ignored` are fields that the resource or subresource
/// does not let this request own (`status` on the object itself). The answer is the object to be written, with its
/// `managedFields`; equal to `live` when nothing changes.
pub fn apply(
    schema: &Schema,
    live: Option<&Object>,
    config: &Object,
    writer: &Writer<'_>,
    force: bool,
    ignored: &[&str],
) -> Result<Object, Status> {
    if config.get(&["metadata", "managedFields"]).is_some() {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let mut managers = live.map(Managers::of).unwrap_or_default();
    let live_bare = live.map(|live| bare(live.clone())).unwrap_or_default();
    if managers.is_empty() && live.is_some() {
        // Fields from before ownership was kept belong to nobody who could lose them silently.
        let everything = compare::compare(schema, &Map::new(), &live_bare).added;
        let before = Writer { manager: BEFORE_APPLY_MANAGER, ..*writer };
        managers.add(Manager::new(&before, Operation::Update), &everything);
    }
    let mut sent = bare(config.clone());
    for field in ignored {
        sent.remove(*field);
    }
    let set = path::to_set(schema, &sent).map_err(|why| invalid_config(config, &why))?;
    let manager = Manager::new(writer, Operation::Apply);
    let last = managers.set_of(&manager);
    let mut merged = live.map(|live| live.0.clone()).unwrap_or_default();
    merge::merge(schema, &mut merged, &whole(config, ignored)).map_err(|why| invalid_config(config, &why))?;
    let kept = set.union(&managers.owned_by_others(&manager)).with_parents();
    let dropped = last.difference(&kept);
    merge::remove(schema, &mut merged, &dropped);
    let mut result = Object(merged);
    let change = compare::compare(schema, &live_bare, &bare(result.clone()));
    let touched = change.modified.union(&change.added);
    let conflicts = managers.conflicts(&manager, &touched);
    if !conflicts.is_empty() && !force {
        return Err(conflict(&conflicts));
    }
    managers.take_from_others(&manager, &touched);
    managers.forget_of_others(&manager, &change.removed);
    managers.replace(manager, set);
    managers.write(&mut result);
    Ok(result)
}

/// Whether what was sent can be read as the kind at all. Call it with the configuration as it was sent.
pub fn check_types(schema: &Schema, config: &Object) -> Result<(), Status> {
    typed::check(schema, &config.0).map_err(|why| invalid_config(config, &why))
}

/// Upstream answers this as an error it does not know, with neither a reason nor details.
fn invalid_config(config: &Object, why: &str) -> Status {
    let (namespace, name) = (config.namespace(), config.name());
    let (version, kind) = (config.api_version(), config.kind());
    let slash = if version.contains('/') { "" } else { "/" };
    let message =
        format!("failed to create typed patch object ({namespace}/{name}; {slash}{version}, Kind={kind}): {why}");
    Status::new(Reason::Unknown, message)
}

/// The config with what may be merged: all that was sent but the ignored fields.
fn whole(config: &Object, ignored: &[&str]) -> Map<String, Value> {
    let kept = config.0.iter().filter(|(key, _)| !ignored.contains(&key.as_str()));
    kept.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// An object without any value, in the form objects have: what is always written is there, so creating does not own it.
fn nothing(schema: &Schema) -> Map<String, Value> {
    let written = crate::codec::json(schema, &Object::default());
    let mut nothing = serde_json::from_slice(&written).map(|object| bare(Object(object))).unwrap_or_default();
    nothing.insert("metadata".into(), Map::new().into());
    nothing
}

/// What nobody owns: identity and what the server itself keeps.
fn bare(mut object: Object) -> Map<String, Value> {
    object.0.remove("apiVersion");
    object.0.remove("kind");
    if let Some(Value::Object(metadata)) = object.0.get_mut("metadata") {
        let kept_by_server = [
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "clusterName",
            "generation",
            "managedFields",
            "resourceVersion",
        ];
        for field in kept_by_server {
            metadata.remove(field);
        }
        if metadata.is_empty() {
            object.0.remove("metadata");
        }
    }
    object.0
}

/// Upstream's conflict: one cause for each field, the message grouped by manager.
fn conflict(conflicts: &[(String, Vec<String>)]) -> Status {
    let count: usize = conflicts.iter().map(|(_, paths)| paths.len()).sum();
    let message = match conflicts {
        [(manager, paths)] if paths.len() == 1 => {
            format!("Apply failed with 1 conflict: conflict with {manager}: {}", paths[0])
        }
        many => {
            let lines = many.iter().flat_map(|(manager, paths)| {
                let head = format!("conflicts with {manager}:");
                std::iter::once(head).chain(paths.iter().map(|path| format!("- {path}")))
            });
            format!("Apply failed with {count} conflicts: {}", lines.collect::<Vec<_>>().join("\n"))
        }
    };
    let mut status = Status::new(Reason::Conflict, message);
    for (manager, paths) in conflicts {
        for path in paths {
            status = status.with_cause(StatusCause {
                reason: "FieldManagerConflict".into(),
                message: format!("conflict with {manager}"),
                field: path.clone(),
            });
        }
    }
    status
}

#[cfg(test)]
mod tests;
