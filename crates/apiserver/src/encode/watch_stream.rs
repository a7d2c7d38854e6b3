//! A watch as the body of an answer, or as WebSocket messages: each event of the registry becomes a frame in the format and shape
//! asked for.

use std::sync::Arc;

use api::Kind;
use api::codec::envelope;
use api::codec::wire::put_bytes;
use base::Clock;
use base::tasks::CancellationToken;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use meta::{Media, Status};
use serde_json::json;
use websocket::{Message, Utf8Bytes};

use super::answer::View;
use super::watch::{self, EventType};
use super::{status, table};
use crate::http::Body;
use crate::http::body::StreamError;
use crate::negotiate::{Accepted, Format, Shape};
use crate::registry::{Answer, Event, Events};
use crate::stored::Stored;

type Frames = BoxStream<'static, Result<Bytes, StreamError>>;

/// What turns events into frames.
pub struct Framer {
    kind: Arc<Kind>,
    api_version: String,
    accepted: Accepted,
    clock: Clock,
    /// The first table of a watch carries the column definitions.
    columns_sent: bool,
}

/// The body that ends when the server stops.
pub fn until(frames: Frames, token: CancellationToken) -> Body {
    Body::Stream(frames.take_until(token.cancelled_owned()).boxed())
}

impl Framer {
    pub fn new(kind: Arc<Kind>, accepted: Accepted, clock: Clock) -> Self {
        let api_version = kind.gvk().api_version();
        Framer { kind, api_version, accepted, clock, columns_sent: false }
    }

    /// The frames of a watch, one after the other.
    pub fn frames(mut self, events: Events) -> Frames {
        events.map(move |event| Ok(self.frame(event))).boxed()
    }

    /// The events of a watch, one in a message: text where the format is, else bytes, which need no length then.
    pub fn messages(mut self, events: Events) -> BoxStream<'static, Message> {
        let messages = events.map(move |event| {
            let frame = self.frame(event);
            if self.accepted.format == Format::Protobuf {
                return Message::Binary(frame.slice(watch::LENGTH_BYTES..));
            }
            Utf8Bytes::try_from(frame.clone()).map_or(Message::Binary(frame), Message::Text)
        });
        messages.boxed()
    }

    fn frame(&mut self, event: Event) -> Bytes {
        let framed = match event {
            Event::Added(stored) => self.object(EventType::Added, stored),
            Event::Modified(stored) => self.object(EventType::Modified, stored),
            Event::Deleted(stored) => self.object(EventType::Deleted, stored),
            Event::Bookmark { revision, initial_events_end } => Ok(self.bookmark(revision, initial_events_end)),
            Event::Error(status) => Err(status),
        };
        framed.unwrap_or_else(|status| self.error(&status))
    }

    fn object(&mut self, kind: EventType, stored: Arc<Stored>) -> Result<Bytes, Status> {
        let shared = match (self.accepted.shape, self.accepted.format, self.accepted.pretty) {
            (Shape::Object, Format::Protobuf, _) => Some(Media::Protobuf),
            (Shape::Object, Format::Json, false) => Some(Media::Json),
            _ => None,
        };
        if let Some(media) = shared {
            let wrap = |object: Bytes| match media {
                Media::Protobuf => watch::protobuf(kind, &object),
                Media::Json => watch::json(kind, &object),
            };
            return stored.event(&self.api_version, media, kind.as_str(), wrap);
        }
        let view = View {
            kind: &self.kind,
            api_version: self.api_version.clone(),
            accepted: &self.accepted,
            now: self.clock.now(),
        };
        let body = match self.accepted.shape {
            Shape::Table => {
                let object = stored.object(&view.api_version)?;
                let metadata = json!({"resourceVersion": object.resource_version()});
                let table = table::of(&view, &[object], metadata, !self.columns_sent);
                self.columns_sent = true;
                table.to_string().into()
            }
            Shape::Object | Shape::Metadata => Bytes::from(view.object(&Answer::Stored(stored))?.concat()),
        };
        Ok(self.wrap(kind, &body))
    }

    fn wrap(&self, kind: EventType, body: &[u8]) -> Bytes {
        match self.accepted.format {
            Format::Protobuf => watch::protobuf(kind, body),
            Format::Json | Format::Yaml => watch::json(kind, body.strip_suffix(b"\n").unwrap_or(body)),
        }
    }

    /// An object of the kind with nothing in it but how far the watch has come.
    fn bookmark(&self, revision: u64, initial_events_end: bool) -> Bytes {
        let gvk = self.kind.gvk();
        let (kind, api_version) = match self.accepted.shape {
            Shape::Object => (gvk.kind.to_string(), gvk.api_version()),
            Shape::Metadata => ("PartialObjectMetadata".to_string(), self.accepted.meta_version.to_string()),
            Shape::Table => ("Table".to_string(), self.accepted.meta_version.to_string()),
        };
        let body = if self.accepted.format == Format::Protobuf {
            bookmark_protobuf(&kind, &api_version, revision, initial_events_end)
        } else {
            let annotations =
                if initial_events_end { r#","annotations":{"k8s.io/initial-events-end":"true"}"# } else { "" };
            // A table has list metadata, which knows no creation time and no annotations: rows carry them.
            let text = if self.accepted.shape == Shape::Table {
                self.bookmark_table(revision, annotations)
            } else {
                format!(
                    r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{{"resourceVersion":"{revision}","creationTimestamp":null{annotations}}}}}"#
                )
            };
            Bytes::from(text)
        };
        self.wrap(EventType::Bookmark, &body)
    }

    fn bookmark_table(&self, revision: u64, annotations: &str) -> String {
        let version = self.accepted.meta_version;
        let cells = vec!["null"; self.kind.columns.len()].join(",");
        format!(
            r#"{{"kind":"Table","apiVersion":"{version}","metadata":{{"resourceVersion":"{revision}"}},"columnDefinitions":[],"rows":[{{"cells":[{cells}],"object":{{"kind":"PartialObjectMetadata","apiVersion":"{version}","metadata":{{"resourceVersion":"{revision}","creationTimestamp":null{annotations}}}}}}}]}}"#
        )
    }

    fn error(&self, refused: &Status) -> Bytes {
        if self.accepted.format == Format::Protobuf
            && let Some(body) = status::protobuf(&refused.to_json())
        {
            return watch::protobuf(EventType::Error, &body);
        }
        watch::json(EventType::Error, &status::json_bytes(refused))
    }
}

/// An envelope around `metadata { 6: resourceVersion, 12: annotations }`.
fn bookmark_protobuf(kind: &str, api_version: &str, revision: u64, initial_events_end: bool) -> Bytes {
    let mut metadata = Vec::new();
    put_bytes(&mut metadata, 6, revision.to_string().as_bytes());
    if initial_events_end {
        let mut annotation = Vec::new();
        put_bytes(&mut annotation, 1, b"k8s.io/initial-events-end");
        put_bytes(&mut annotation, 2, b"true");
        put_bytes(&mut metadata, 12, &annotation);
    }
    let mut message = Vec::new();
    put_bytes(&mut message, 1, &metadata);
    envelope::write(api_version, kind, &message).into()
}
