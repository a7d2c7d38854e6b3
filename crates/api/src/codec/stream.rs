//! Lists and watch frames, put together from objects that are encoded already: nothing is decoded, each object is copied once.

use meta::{Media, Status};
use serde_json::Value;

use super::envelope;
use super::sink::write_string;
use super::wire::{self, WireError, put_bytes, put_int, put_message};
use super::{Envelope, JsonText, sink::Sink as _};
use crate::kind::Kind;

/// The metadata of a list.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListHead<'a> {
    pub resource_version: &'a str,
    /// Empty on the last page.
    pub continue_token: &'a str,
    pub remaining: Option<u64>,
}

/// A list of the kind. `items` are in the form that a GET serves, all of the same media type.
pub fn list<'a>(
    kind: &Kind,
    media: Media,
    head: ListHead<'_>,
    items: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<u8>, Status> {
    let api_version = kind.group_version().to_string();
    match media {
        Media::Json => Ok(json_list(&kind.list_kind, &api_version, head, items.map(|item| json_item(kind, item)))),
        Media::Protobuf => proto_list(&kind.list_kind, &api_version, head, items).map_err(Status::internal),
    }
}

/// A JSON list of parts: `kind` and `apiVersion` are written where an item keeps its own, so a part is either the whole item
/// or its text after them.
fn json_list<'a>(
    list_kind: &str,
    api_version: &str,
    head: ListHead<'_>,
    items: impl Iterator<Item = (&'static str, &'a [u8])>,
) -> Vec<u8> {
    let mut out = json_list_head(list_kind, api_version, head);
    let mut first = true;
    for (opening, rest) in items {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        out.extend_from_slice(opening.as_bytes());
        out.extend_from_slice(rest);
    }
    out.extend_from_slice(b"]}");
    out
}

/// Everything of a JSON list up to its first item; `]}` ends it.
pub fn json_list_head(list_kind: &str, api_version: &str, head: ListHead<'_>) -> Vec<u8> {
    let mut text = JsonText::with_capacity(4096);
    text.begin_map();
    text.key("kind");
    text.string(list_kind);
    text.key("apiVersion");
    text.string(api_version);
    text.key("metadata");
    text.begin_map();
    if !head.resource_version.is_empty() {
        text.key("resourceVersion");
        text.string(head.resource_version);
    }
    if !head.continue_token.is_empty() {
        text.key("continue");
        text.string(head.continue_token);
    }
    if let Some(remaining) = head.remaining {
        text.key("remainingItemCount");
        text.int(i64::try_from(remaining).unwrap_or(i64::MAX));
    }
    text.end_map();
    text.key("items");
    text.begin_list();
    text.out
}

/// The items of a built-in list carry neither `kind` nor `apiVersion`.
fn json_item<'a>(kind: &Kind, item: &'a [u8]) -> (&'static str, &'a [u8]) {
    if !kind.protobuf {
        return ("", item);
    }
    let mut prefix = b"{\"kind\":".to_vec();
    write_string(&mut prefix, &kind.kind);
    prefix.extend_from_slice(b",\"apiVersion\":");
    write_string(&mut prefix, &kind.group_version().to_string());
    match item.strip_prefix(prefix.as_slice()) {
        Some(rest) => ("{", rest.strip_prefix(b",").unwrap_or(rest)),
        None => ("", item),
    }
}

fn proto_list<'a>(
    list_kind: &str,
    api_version: &str,
    head: ListHead<'_>,
    items: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<u8>, WireError> {
    let mut raw = Vec::with_capacity(4096);
    put_message(&mut raw, 1, |out| {
        put_bytes(out, 1, b"");
        put_bytes(out, 2, head.resource_version.as_bytes());
        put_bytes(out, 3, head.continue_token.as_bytes());
        if let Some(remaining) = head.remaining {
            put_int(out, 4, i64::try_from(remaining).unwrap_or(i64::MAX));
        }
        Ok::<(), WireError>(())
    })?;
    for item in items {
        put_bytes(&mut raw, 2, Envelope::parse(item)?.raw);
    }
    Ok(envelope::write(api_version, list_kind, &raw))
}

/// One event of a watch. `kind` is `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`; `object` is encoded already.
pub fn watch_frame(media: Media, kind: &str, object: &[u8]) -> Vec<u8> {
    match media {
        Media::Json => {
            let mut out = Vec::with_capacity(object.len() + 40);
            out.extend_from_slice(b"{\"type\":");
            write_string(&mut out, kind);
            out.extend_from_slice(b",\"object\":");
            out.extend_from_slice(object);
            out.extend_from_slice(b"}\n");
            out
        }
        Media::Protobuf => {
            // Four bytes of length, then a bare WatchEvent whose object is a whole envelope.
            let mut out = vec![0; 4];
            put_bytes(&mut out, 1, kind.as_bytes());
            let mut extension = Vec::with_capacity(object.len() + 6);
            put_bytes(&mut extension, 1, object);
            put_bytes(&mut out, 2, &extension);
            let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
            out[..4].copy_from_slice(&length.to_be_bytes());
            out
        }
    }
}

/// Takes a protobuf `WatchEvent` (one frame without its length) apart.
pub fn read_watch_frame(frame: &[u8]) -> Result<(&str, &[u8]), WireError> {
    let kind = wire::find(frame, 1)?.map_or(&[][..], wire::Payload::bytes);
    let extension = wire::find(frame, 2)?.map_or(&[][..], wire::Payload::bytes);
    let object = wire::find(extension, 1)?.map_or(&[][..], wire::Payload::bytes);
    Ok((std::str::from_utf8(kind).map_err(|_| WireError::NotText("type".into()))?, object))
}

/// The items of a protobuf list, each as an envelope of its own, and the list's metadata message.
pub fn read_proto_list(bytes: &[u8]) -> Result<(Value, Vec<Vec<u8>>), WireError> {
    let list = Envelope::parse(bytes)?;
    let item_kind = list.kind.strip_suffix("List").unwrap_or(list.kind);
    let (mut metadata, mut items) = (Value::Null, Vec::new());
    let mut reader = wire::Reader::new(list.raw, 0);
    while let Some((number, payload)) = reader.field()? {
        match number {
            1 => metadata = read_list_meta(payload.bytes())?,
            2 => items.push(envelope::write(list.api_version, item_kind, payload.bytes())),
            _ => {}
        }
    }
    Ok((metadata, items))
}

fn read_list_meta(bytes: &[u8]) -> Result<Value, WireError> {
    let Some(schema) = crate::schema::builtin_by_go_name("ListMeta") else { return Ok(Value::Null) };
    let mut tree = super::Tree::default();
    super::proto_read::object(&schema, bytes, super::proto_read::Fill::default(), &mut tree)?;
    Ok(tree.finish().unwrap_or_default())
}
