//! What the server sent in JSON, split into encoded objects. Only metadata is looked into.

use bytes::Bytes;
use http::StatusCode;
use meta::{Media, ObjectKey, Reason, Status};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::door::{Encoded, List, Response, WatchEvent};

/// The head of any object.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(default, borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(default, borrow, rename = "apiVersion")]
    api_version: std::borrow::Cow<'a, str>,
    #[serde(default)]
    metadata: Metadata,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    resource_version: Option<String>,
    #[serde(rename = "continue")]
    continue_token: Option<String>,
    remaining_item_count: Option<u64>,
    annotations: Option<std::collections::HashMap<String, String>>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    event_type: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// The annotation of the bookmark that ends the initial events of a watch.
pub const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

pub fn malformed(error: impl std::fmt::Display) -> Status {
    Status::internal(format!("the API server's answer cannot be read: {error}"))
}

impl Metadata {
    fn revision(&self) -> u64 {
        self.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn key(&self) -> ObjectKey {
        ObjectKey::new(self.namespace.as_deref().unwrap_or_default(), self.name.as_deref().unwrap_or_default())
    }
}

/// A refusal, or something else that is no success: a proxy's page, an empty body. A refusal is in the encoding that was asked for.
pub fn failure(code: StatusCode, bytes: &[u8]) -> Status {
    let told = api::codec::decode(Media::sniff(bytes), bytes).ok();
    let status = told.and_then(|object| Status::from_json(&object.into_value()));
    status.unwrap_or_else(|| {
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(1024)]).trim().to_string();
        let reason = match code.as_u16() {
            401 => Reason::Unauthorized,
            403 => Reason::Forbidden,
            404 => Reason::NotFound,
            429 => Reason::TooManyRequests,
            500 => Reason::InternalError,
            503 => Reason::ServiceUnavailable,
            _ => Reason::Unknown,
        };
        Status { code: code.as_u16(), ..Status::new(reason, text) }
    })
}

/// One object or a list.
pub fn read(bytes: &Bytes) -> Result<Response, Status> {
    if bytes.is_empty() {
        return Ok(Response::Done);
    }
    let head: Head<'_> = serde_json::from_slice(bytes).map_err(malformed)?;
    match &head.items {
        Some(items) if head.kind.ends_with("List") => list(bytes, &head, items).map(Response::List),
        _ if head.kind == "Status" => Ok(Response::Done),
        _ => Ok(Response::Object(encoded(bytes.clone(), &head.metadata))),
    }
}

fn encoded(bytes: Bytes, metadata: &Metadata) -> Encoded {
    Encoded { key: metadata.key(), revision: metadata.revision(), media: Media::Json, bytes }
}

fn list(bytes: &Bytes, head: &Head<'_>, items: &[&RawValue]) -> Result<List, Status> {
    let kind = head.kind.strip_suffix("List").unwrap_or(&head.kind);
    let items = items.iter().map(|item| list_item(bytes, item, &head.api_version, kind)).collect::<Result<_, _>>()?;
    Ok(List {
        items,
        revision: head.metadata.revision(),
        continue_token: head.metadata.continue_token.clone().unwrap_or_default(),
        remaining: head.metadata.remaining_item_count,
    })
}

/// Items of typed lists do not say what they are; those who decode them want to know.
fn list_item(all: &Bytes, item: &RawValue, api_version: &str, kind: &str) -> Result<Encoded, Status> {
    let head: Head<'_> = serde_json::from_str(item.get()).map_err(malformed)?;
    let bytes = if head.kind.is_empty() {
        let rest = item.get().trim_start().strip_prefix('{').unwrap_or_default();
        let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
        Bytes::from(format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}"{comma}{rest}"#))
    } else {
        all.slice_ref(item.get().as_bytes())
    };
    Ok(encoded(bytes, &head.metadata))
}

/// One line of a watch.
pub fn event(line: &Bytes) -> Result<WatchEvent, Status> {
    let event: Event<'_> = serde_json::from_slice(line).map_err(malformed)?;
    let bytes = line.slice_ref(event.object.get().as_bytes());
    if event.event_type == "ERROR" {
        let value = serde_json::from_slice(&bytes).map_err(malformed)?;
        return Err(Status::from_json(&value).unwrap_or_else(|| malformed("a watch error that is no Status")));
    }
    let head: Head<'_> = serde_json::from_slice(&bytes).map_err(malformed)?;
    let item = encoded(bytes.clone(), &head.metadata);
    Ok(match &*event.event_type {
        "ADDED" => WatchEvent::Added(item),
        "MODIFIED" => WatchEvent::Modified(item),
        "DELETED" => WatchEvent::Deleted(item),
        "BOOKMARK" => {
            let annotations = head.metadata.annotations.unwrap_or_default();
            let initial_events_end = annotations.get(INITIAL_EVENTS_END).is_some_and(|value| value == "true");
            WatchEvent::Bookmark { revision: item.revision, initial_events_end }
        }
        other => return Err(malformed(format!("unknown watch event type {other:?}"))),
    })
}
