//! What the server sent in protobuf, split into encoded objects. Only metadata is looked into.

use api::codec::envelope::{self, Envelope};
use api::codec::head::Head;
use api::codec::wire::{Payload, Reader, find};
use bytes::Bytes;
use meta::{Media, ObjectKey, Status};

use super::answer::{INITIAL_EVENTS_END, malformed};
use crate::door::{Encoded, List, WatchEvent};

/// Fields of every list, and of its metadata.
const LIST_METADATA: u32 = 1;
const LIST_ITEMS: u32 = 2;
const RESOURCE_VERSION: u32 = 2;
const CONTINUE: u32 = 3;
const REMAINING: u32 = 4;
/// Fields of a watch event, and of the extension that carries its object.
const EVENT_TYPE: u32 = 1;
const EVENT_OBJECT: u32 = 2;
const RAW: u32 = 1;

/// A list. Each item gets an envelope of its own, so that whoever keeps one does not keep them all.
pub fn list(bytes: &Bytes) -> Result<List, Status> {
    let all = Envelope::parse(bytes).map_err(malformed)?;
    let Some(kind) = all.kind.strip_suffix("List") else {
        return Err(malformed(format_args!("{:?} is no list", all.kind)));
    };
    let mut list = List::default();
    let mut reader = Reader::new(all.raw, 0);
    while let Some((number, payload)) = reader.field().map_err(malformed)? {
        match number {
            LIST_METADATA => read_metadata(payload.bytes(), &mut list)?,
            LIST_ITEMS => {
                let message = payload.bytes();
                let head = Head::parse(message).map_err(malformed)?;
                let bytes = Bytes::from(envelope::write(all.api_version, kind, message));
                list.items.push(encoded(&head, bytes));
            }
            _ => {}
        }
    }
    Ok(list)
}

fn read_metadata(metadata: &[u8], list: &mut List) -> Result<(), Status> {
    let mut reader = Reader::new(metadata, 0);
    while let Some((number, payload)) = reader.field().map_err(malformed)? {
        match number {
            RESOURCE_VERSION => list.revision = revision(&String::from_utf8_lossy(payload.bytes())),
            CONTINUE => list.continue_token = String::from_utf8_lossy(payload.bytes()).into_owned(),
            REMAINING => list.remaining = Some(payload.number()),
            _ => {}
        }
    }
    Ok(())
}

fn encoded(head: &Head<'_>, bytes: Bytes) -> Encoded {
    let key = ObjectKey::new(head.namespace, head.name);
    Encoded { key, revision: revision(head.resource_version), media: Media::Protobuf, bytes }
}

fn revision(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

/// One frame of a watch, without its length.
pub fn event(frame: &Bytes) -> Result<WatchEvent, Status> {
    let part = |bytes, number| find(bytes, number).map(|found| found.map_or(&[][..], Payload::bytes));
    let (kind, object) = (part(frame, EVENT_TYPE).map_err(malformed)?, part(frame, EVENT_OBJECT).map_err(malformed)?);
    let bytes = frame.slice_ref(part(object, RAW).map_err(malformed)?);
    if kind == b"ERROR" {
        let told = api::codec::decode(Media::sniff(&bytes), &bytes)?;
        let status = Status::from_json(&told.into_value());
        return Err(status.unwrap_or_else(|| malformed("a watch error that is no Status")));
    }
    let whole = Envelope::parse(&bytes).map_err(malformed)?;
    let head = Head::parse(whole.raw).map_err(malformed)?;
    let item = encoded(&head, bytes.clone());
    Ok(match kind {
        b"ADDED" => WatchEvent::Added(item),
        b"MODIFIED" => WatchEvent::Modified(item),
        b"DELETED" => WatchEvent::Deleted(item),
        b"BOOKMARK" => {
            let ends = head.annotation(INITIAL_EVENTS_END).map_err(malformed)?;
            WatchEvent::Bookmark { revision: item.revision, initial_events_end: ends == Some("true") }
        }
        other => {
            return Err(malformed(format_args!("unknown watch event type {:?}", String::from_utf8_lossy(other))));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::codec::wire::put_bytes;
    use meta::Object;
    use serde_json::{Value, json};

    fn service(name: &str, version: &str) -> Value {
        json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": name, "namespace": "n", "resourceVersion": version,
            "annotations": {"a": "b", INITIAL_EVENTS_END: "true"}}, "spec": {"clusterIP": "10.43.0.7"}})
    }

    fn envelope_of(value: Value) -> Vec<u8> {
        let object = Object::from_value(value).unwrap();
        let schema = api::codec::schema_for(&object.gvk().unwrap()).unwrap();
        api::codec::proto(&schema, &object).unwrap()
    }

    #[test]
    fn a_list_becomes_objects_that_say_what_they_are() {
        let items = json!([service("a", "3"), service("b", "4")]);
        let metadata = json!({"resourceVersion": "9", "continue": "t", "remainingItemCount": 5});
        let whole = json!({"kind": "ServiceList", "apiVersion": "v1", "metadata": metadata, "items": items});
        let list = list(&envelope_of(whole).into()).unwrap();
        assert_eq!((list.revision, list.continue_token.as_str(), list.remaining), (9, "t", Some(5)));
        let keys: Vec<_> = list.items.iter().map(|item| (item.key.to_string(), item.revision)).collect();
        assert_eq!(keys, [("n/a".to_string(), 3), ("n/b".to_string(), 4)]);
        let object = list.items[1].object().unwrap();
        assert_eq!(
            (object.kind(), object.api_version(), object.str_at(&["spec", "clusterIP"])),
            ("Service", "v1", "10.43.0.7")
        );
        assert!(super::list(&envelope_of(service("a", "1")).into()).is_err(), "one object is no list");
        assert!(super::list(&Bytes::from_static(b"k8s\0\x0a\xff")).is_err(), "cut short");
    }

    fn frame(kind: &str, object: &[u8]) -> Bytes {
        let (mut raw, mut frame) = (Vec::new(), Vec::new());
        put_bytes(&mut raw, 1, object);
        put_bytes(&mut frame, 1, kind.as_bytes());
        put_bytes(&mut frame, 2, &raw);
        frame.into()
    }

    #[test]
    fn events_are_read_and_errors_carry_their_status() {
        let modified = event(&frame("MODIFIED", &envelope_of(service("a", "12")))).unwrap();
        let WatchEvent::Modified(item) = modified else { panic!("{modified:?}") };
        assert_eq!((item.key, item.revision), (ObjectKey::new("n", "a"), 12));
        let bookmark = event(&frame("BOOKMARK", &envelope_of(service("", "13")))).unwrap();
        assert!(matches!(bookmark, WatchEvent::Bookmark { revision: 13, initial_events_end: true }), "{bookmark:?}");
        let status =
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410});
        assert!(event(&frame("ERROR", &envelope_of(status))).unwrap_err().is_expired());
        assert!(event(&frame("NEWS", &envelope_of(service("a", "1")))).is_err());
        assert!(event(&Bytes::from_static(b"\x0a\x7f")).is_err(), "cut short");
    }
}
