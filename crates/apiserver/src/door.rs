//! The entrance for components in the same process: everything but the socket.
//!
//! A request enters right after authentication, under the identity that the door was made with, passes audit, flow control
//! and authorization like any other, and reaches the same registry. Objects go out as the shared stored bytes: no form of the
//! wire is made for them.

use std::sync::Arc;

use api::Kind;
use async_trait::async_trait;
use client::door::{Body, Door, Encoded, EventStream, List, Request, Response, Verb, WatchEvent};
use futures::StreamExt;
use meta::{FieldSelector, Media, ObjectKey, Status};

use crate::audit;
use crate::chain::{Front, REQUEST_MAX};
use crate::context::{Context, Identity};
use crate::encode::answer::encode;
use crate::registry::{Answer, Event, Outcome, Target};
use crate::request_info::{RequestInfo, selected_name};
use crate::stored::Stored;

/// A door with an identity.
pub struct InProcess {
    front: Arc<Front>,
    user: Identity,
}

impl InProcess {
    pub fn new(front: Arc<Front>, user: Identity) -> Self {
        InProcess { front, user }
    }

    async fn enter(&self, request: &Request) -> Result<(Context, Target, Option<crate::flow::Seat>), Status> {
        let info = info(request);
        let mut cx = Context::of(self.user.clone(), request.verb);
        cx.options = request.options.clone();
        cx.user_agent = self.user.name.clone();
        audit::begin(&cx.request_uid, &self.user, &info);
        let seat = self.front.admit(&self.user, &info).await?;
        if request.verb != Verb::Watch {
            cx.deadline = Some(self.front.clock.instant() + REQUEST_MAX);
        }
        let resource = &request.resource;
        let kind = self
            .front
            .registry
            .kind(&resource.group, &resource.version, &resource.resource)
            .ok_or_else(Status::no_such_resource)?;
        let target = Target {
            namespace: if kind.namespaced() { request.namespace.clone() } else { String::new() },
            name: request.name.clone(),
            subresource: request.subresource.clone(),
            kind,
        };
        Ok((cx, target, seat))
    }

    async fn act(&self, cx: &Context, target: &Target, body: Body) -> Result<Response, Status> {
        let registry = &self.front.registry;
        let outcome = match (cx.verb, body) {
            (Verb::Get, _) => registry.get(cx, target).await?,
            (Verb::List, _) => {
                let page = registry.list(cx, target).await?;
                let items = page.items.iter().map(|stored| share(stored, &target.kind));
                return Ok(Response::List(List {
                    items: items.collect::<Result<_, _>>()?,
                    revision: page.revision,
                    continue_token: page.continue_token,
                    remaining: page.remaining,
                }));
            }
            (Verb::Create, Body::Object(object)) => registry.create(cx, target, object).await?,
            (Verb::Update, Body::Object(object)) => registry.update(cx, target, object).await?,
            (Verb::Patch, Body::Patch(kind, bytes)) => registry.patch(cx, target, kind, bytes).await?,
            (Verb::Delete, body) => registry.delete(cx, target, deletion(body)).await?,
            (Verb::DeleteCollection, body) => {
                registry.delete_collection(cx, target, deletion(body)).await?;
                return Ok(Response::Done);
            }
            (verb, _) => return Err(Status::bad_request(format!("a {} needs another body", verb.as_str()))),
        };
        respond(outcome, &target.kind)
    }
}

/// The stored bytes as they are; another form only for a version that is not the stored one.
fn share(stored: &Arc<Stored>, kind: &Kind) -> Result<Encoded, Status> {
    if kind.stored.as_ref().is_none_or(|storage| storage.convert.is_none()) {
        return Ok(stored.encoded());
    }
    let bytes = stored.serving(&kind.gvk().api_version(), stored.media)?;
    Ok(Encoded { bytes, ..stored.encoded() })
}

fn deletion(body: Body) -> client::DeleteOptions {
    match body {
        Body::Delete(options) => options,
        _ => client::DeleteOptions::default(),
    }
}

fn respond(outcome: Outcome, kind: &Kind) -> Result<Response, Status> {
    match outcome {
        Outcome::Object { answer: Answer::Stored(stored), .. } => Ok(Response::Object(share(&stored, kind)?)),
        Outcome::Object { answer: Answer::Made(object), .. } => Ok(Response::Object(Encoded {
            key: ObjectKey::new(object.namespace(), object.name()),
            revision: object.resource_version().parse().unwrap_or(0),
            media: Media::Json,
            bytes: encode(Media::Json, &object)?,
        })),
        Outcome::Success { .. } => Ok(Response::Done),
    }
}

fn watch_event(event: Event, kind: &Kind) -> WatchEvent {
    let shared = |stored: Arc<Stored>, wrap: fn(Encoded) -> WatchEvent| match share(&stored, kind) {
        Ok(encoded) => wrap(encoded),
        Err(status) => WatchEvent::Error(status),
    };
    match event {
        Event::Added(stored) => shared(stored, WatchEvent::Added),
        Event::Modified(stored) => shared(stored, WatchEvent::Modified),
        Event::Deleted(stored) => shared(stored, WatchEvent::Deleted),
        Event::Bookmark { revision, initial_events_end } => WatchEvent::Bookmark { revision, initial_events_end },
        Event::Error(status) => WatchEvent::Error(status),
    }
}

/// The request in the words that the chain's steps read.
fn info(request: &Request) -> RequestInfo {
    let by_selector =
        request.name.is_empty() && matches!(request.verb, Verb::List | Verb::Watch | Verb::DeleteCollection);
    let name = if by_selector { selected_name(&request.options.field_selector) } else { request.name.clone() };
    RequestInfo {
        is_resource: true,
        path: String::new(),
        verb: request.verb.as_str().to_string(),
        group: request.resource.group.to_string(),
        version: request.resource.version.to_string(),
        namespace: request.namespace.clone(),
        resource: request.resource.resource.to_string(),
        subresource: request.subresource.clone(),
        name,
        rest: None,
        label_selector: request.options.label_selector.clone(),
        field_selector: request.options.field_selector.clone(),
    }
}

#[async_trait]
impl Door for InProcess {
    async fn send(&self, request: Request) -> Result<Response, Status> {
        let (cx, target, _seat) = self.enter(&request).await?;
        let deadline = cx.deadline.unwrap_or_else(|| self.front.clock.instant() + REQUEST_MAX);
        match tokio::time::timeout_at(deadline, self.act(&cx, &target, request.body)).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::timeout("Timeout: request did not complete within requested timeout", 0)),
        }
    }

    async fn watch(&self, mut request: Request) -> Result<EventStream, Status> {
        request.verb = Verb::Watch;
        if !request.name.is_empty() {
            let name = std::mem::take(&mut request.name);
            request.options.field_selector = FieldSelector::equals("metadata.name", &name).to_string();
        }
        let (cx, target, _seat) = self.enter(&request).await?;
        let events = self.front.registry.watch(&cx, &target).await?;
        let token = self.front.tasks.token();
        let kind = target.kind.clone();
        let events = events.map(move |event| watch_event(event, &kind));
        Ok(events.take_until(token.cancelled_owned()).boxed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::door::Options;
    use meta::GroupVersionResource;

    #[test]
    fn a_selector_on_the_name_is_authorized_as_that_name() {
        let request = Request {
            verb: Verb::Watch,
            resource: GroupVersionResource::new("", "v1", "secrets"),
            subresource: String::new(),
            namespace: "a".into(),
            name: String::new(),
            options: Options { field_selector: "metadata.name=mine".into(), ..Options::default() },
            body: Body::None,
        };
        assert_eq!(info(&request).name, "mine");
        assert_eq!(info(&Request { verb: Verb::Create, ..request }).name, "");
    }
}
