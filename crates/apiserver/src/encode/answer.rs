//! One object, or one page of a list, as the client asked to see it.

use std::sync::Arc;

use api::codec::sink::JsonText;
use api::{Kind, codec};
use bytes::Bytes;
use jiff::Timestamp;
use meta::{Media, Object, Status};
use serde_json::{Map, Value, json};

use super::list::{self, ListHead};
use super::{metadata, pretty, table, yaml};
use crate::http::Body;
use crate::http::body::StreamError;
use crate::negotiate::{Accepted, Format, Shape};
use crate::registry::{Answer, Page};
use crate::stored::Stored;

/// A kind's objects as one request sees them.
pub struct View<'a> {
    pub kind: &'a Kind,
    /// The version that the answer is in; usually that of `kind`, but `autoscaling/v1` for a scale.
    pub api_version: String,
    pub accepted: &'a Accepted,
    pub now: Timestamp,
}

impl View<'_> {
    /// One object.
    pub fn object(&self, answer: &Answer) -> Result<Vec<Bytes>, Status> {
        match self.accepted.shape {
            Shape::Object => self.plain(answer),
            Shape::Metadata => self.metadata(answer),
            Shape::Table => {
                let object = answer.object(&self.api_version)?;
                let revision = object.resource_version().to_string();
                let table = table::of(self, std::slice::from_ref(&object), json!({"resourceVersion": revision}), true);
                self.document(&table)
            }
        }
    }

    fn plain(&self, answer: &Answer) -> Result<Vec<Bytes>, Status> {
        let object = match (self.accepted.format, answer) {
            (Format::Yaml, _) => return self.document(&answer.object(&self.api_version)?.into_value()),
            (Format::Protobuf, Answer::Stored(stored)) => {
                return Ok(vec![stored.serving(&self.api_version, Media::Protobuf)?]);
            }
            (Format::Protobuf, Answer::Made(object)) => return Ok(vec![encode(Media::Protobuf, object)?]),
            (Format::Json, Answer::Stored(stored)) => stored.serving(&self.api_version, Media::Json)?,
            (Format::Json, Answer::Made(object)) => encode(Media::Json, object)?,
        };
        Ok(self.json(vec![object, Bytes::from_static(b"\n")]))
    }

    fn metadata(&self, answer: &Answer) -> Result<Vec<Bytes>, Status> {
        if self.accepted.format == Format::Protobuf {
            let whole = match answer {
                Answer::Stored(stored) => stored.serving(&self.api_version, Media::Protobuf)?,
                Answer::Made(object) => encode(Media::Protobuf, object)?,
            };
            return Ok(vec![metadata::protobuf(&whole, self.accepted.meta_version)?]);
        }
        self.document(&metadata::json(&answer.object(&self.api_version)?, self.accepted.meta_version))
    }

    /// One page of a list: made while it is sent, unless it is short.
    pub fn list(&self, page: Page) -> Result<Body, Status> {
        let Page { items, revision, ref continue_token, remaining } = page;
        let head = ListHead {
            api_version: &self.api_version,
            kind: &self.kind.list_kind,
            revision,
            continue_token,
            remaining,
        };
        let (api_version, meta_version) = (self.api_version.clone(), self.accepted.meta_version);
        match (self.accepted.shape, self.accepted.format) {
            (Shape::Object, Format::Json) => {
                let prefix = self.repeated_prefix();
                let append =
                    move |stored: &Arc<Stored>, text: &mut JsonText| stored.append_json(&api_version, &prefix, text);
                let chunks = list::json(&head, items, append);
                if self.accepted.pretty {
                    return Ok(Body::from(vec![pretty::indent(&chunks.collect::<Result<Vec<_>, _>>()?)]));
                }
                in_chunks(chunks)
            }
            (Shape::Object, Format::Protobuf) => {
                let envelope = move |stored: &Arc<Stored>| stored.unkept(&api_version, Media::Protobuf);
                in_chunks(list::protobuf(&head, items, envelope)?)
            }
            (Shape::Metadata, Format::Protobuf) => {
                let envelope = move |stored: &Arc<Stored>| {
                    metadata::protobuf(&stored.unkept(&api_version, Media::Protobuf)?, meta_version)
                };
                let head = ListHead { api_version: meta_version, kind: "PartialObjectMetadataList", ..head };
                in_chunks(list::protobuf(&head, items, envelope)?)
            }
            (Shape::Object, Format::Yaml) => {
                let items: Vec<Value> = self.trees(&items)?.into_iter().map(Object::into_value).collect();
                self.document(&self.list_document(&head, items)).map(Body::from)
            }
            (Shape::Metadata, _) => {
                let items = self.trees(&items)?.iter().map(|object| metadata::json(object, meta_version)).collect();
                let head = ListHead { api_version: meta_version, kind: "PartialObjectMetadataList", ..head };
                self.document(&self.list_document(&head, items)).map(Body::from)
            }
            (Shape::Table, _) => {
                let metadata: Value = serde_json::from_str(&head.json_metadata()).map_err(Status::internal)?;
                self.document(&table::of(self, &self.trees(&items)?, metadata, true)).map(Body::from)
            }
        }
    }

    fn trees(&self, items: &[Arc<Stored>]) -> Result<Vec<Object>, Status> {
        items.iter().map(|stored| stored.object(&self.api_version)).collect()
    }

    /// Built-in kinds do not repeat kind and version in the items of a JSON list; custom ones do.
    fn repeated_prefix(&self) -> String {
        if self.kind.protobuf { list::json_item_prefix(&self.api_version, &self.kind.kind) } else { String::new() }
    }

    fn list_document(&self, head: &ListHead<'_>, items: Vec<Value>) -> Value {
        let metadata: Value = serde_json::from_str(&head.json_metadata()).unwrap_or_default();
        let mut document = Map::new();
        document.insert("kind".into(), head.kind.into());
        document.insert("apiVersion".into(), head.api_version.into());
        document.insert("metadata".into(), metadata);
        document.insert("items".into(), items.into());
        Value::Object(document)
    }

    fn document(&self, value: &Value) -> Result<Vec<Bytes>, Status> {
        document(value, self.accepted)
    }

    fn json(&self, slices: Vec<Bytes>) -> Vec<Bytes> {
        if self.accepted.pretty { vec![pretty::indent(&slices)] } else { slices }
    }
}

/// A body that is made while it is sent; one that is a single chunk, whole.
fn in_chunks<C>(mut chunks: C) -> Result<Body, Status>
where
    C: Iterator<Item = Result<Bytes, Status>> + Send + 'static,
{
    let first = chunks.next().transpose()?;
    let Some(second) = chunks.next() else { return Ok(Body::from(Vec::from_iter(first))) };
    let chunks = first.map(Ok).into_iter().chain([second]).chain(chunks);
    Ok(Body::Chunks(Box::new(chunks.map(|chunk| {
        // The head is out already: all that is left is to break off.
        chunk.inspect_err(|status| tracing::error!(%status, "a list breaks off")).map_err(StreamError::from)
    }))))
}

/// A document made of a tree, in JSON or YAML.
pub fn document(value: &Value, accepted: &Accepted) -> Result<Vec<Bytes>, Status> {
    if accepted.format == Format::Yaml {
        return Ok(vec![yaml::write(value).into()]);
    }
    let mut compact = serde_json::to_vec(value).map_err(Status::internal)?;
    compact.push(b'\n');
    let slices = vec![Bytes::from(compact)];
    Ok(if accepted.pretty { vec![pretty::indent(&slices)] } else { slices })
}

/// A tree as bytes in the order of its schema; of no known schema, as it is.
pub fn encode(media: Media, object: &Object) -> Result<Bytes, Status> {
    let schema = object.gvk().and_then(|gvk| codec::schema_for(&gvk));
    match (media, schema) {
        (Media::Json, Some(schema)) => Ok(codec::json(&schema, object).into()),
        (Media::Json, None) => serde_json::to_vec(object).map(Bytes::from).map_err(Status::internal),
        (Media::Protobuf, Some(schema)) => codec::proto(&schema, object).map(Bytes::from),
        (Media::Protobuf, None) => {
            let offered = "application/json, application/yaml";
            Err(Status::not_acceptable(format!("only the following media types are accepted: {offered}")))
        }
    }
}
