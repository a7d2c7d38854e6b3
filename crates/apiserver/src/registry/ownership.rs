//! Who set which field: `metadata.managedFields`, kept with every write.

use api::Kind;
use api::ownership::{Writer, manager_from_user_agent, record};
use base::Timestamp;
use meta::Object;
use serde_json::Value;

use super::Target;
use crate::context::Context;

/// How a write came about, as far as ownership is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Sent by the client: what changed is the writer's.
    Written,
    /// Made by server-side apply, which has settled ownership already.
    Applied,
    /// Made by the server on the client's behalf (a binding): owners stay as they are.
    Server,
}

/// Brings the owners of a new (`old` is none) or changed object up to date.
pub fn settle(
    cx: &Context,
    target: &Target,
    row: &Kind,
    origin: Origin,
    new: &mut Object,
    old: Option<&Object>,
    now: Timestamp,
) {
    match origin {
        Origin::Applied => {}
        Origin::Server => {
            let kept = old.and_then(|old| old.get(&["metadata", "managedFields"])).cloned().unwrap_or(Value::Null);
            new.set_meta("managedFields", kept);
        }
        Origin::Written => {
            let manager = manager(cx);
            record(&row.schema, old, new, &writer(&manager, &row.group_version().to_string(), target, now));
        }
    }
}

/// The name fields are owned under: as given, or the program that asks.
pub fn manager(cx: &Context) -> String {
    if !cx.options.field_manager.is_empty() {
        return cx.options.field_manager.clone();
    }
    let manager = manager_from_user_agent(&cx.user_agent);
    if manager.is_empty() { "unknown".to_string() } else { manager }
}

pub fn writer<'a>(manager: &'a str, api_version: &'a str, target: &'a Target, now: Timestamp) -> Writer<'a> {
    Writer { manager, api_version, subresource: &target.subresource, now }
}
