//! Requests on resources: from a routed HTTP request to a call of the registry, and from its outcome to an answer.
//!
//! ```text
//! RequestInfo ─► kind's row ─► verb allowed? ─► options, body ─► registry ─► View (format, shape) ─► slices
//! ```

use std::sync::Arc;

use api::Kind;
use client::Verb;
use http::StatusCode;
use meta::{FieldSelector, GroupVersionKind, Status};

use crate::chain::{Call, Front};
use crate::context::Context;
use crate::decode::{self, Expected};
use crate::encode::answer::View;
use crate::encode::status;
use crate::encode::watch_stream::{self, Framer};
use crate::http::{Response, answer, websocket};
use crate::negotiate::{self, Offer};
use crate::options;
use crate::proxy::links::Links;
use crate::registry::{Outcome, Target};
use crate::request_info::RequestInfo;

/// Subresources that are a conversation with a node agent or a pod, not an object.
const STREAMS: [&str; 4] = ["exec", "attach", "portforward", "proxy"];

/// Serves a request on a resource.
pub async fn serve(front: &Front, call: &mut Call) -> Result<Response, Status> {
    let info = call.info.clone();
    let kind = front.registry.kind(&info.group, &info.version, &info.resource).ok_or_else(no_such_resource)?;
    check_scope(&kind, &info)?;
    if let Some(response) = stream(front, call, &kind, &info).await {
        return response;
    }
    if *call.received.method() == http::Method::HEAD {
        return Err(method_not_allowed());
    }
    let verb = verb(&kind, &info)?;
    check_name(&info)?;
    if let Some(warning) = deprecated(&kind) {
        call.warnings.add(warning.to_string());
    }
    let target = Target {
        namespace: if kind.namespaced() { info.namespace.clone() } else { String::new() },
        name: if verb == Verb::Watch || !info.names_one_object() { String::new() } else { info.name.clone() },
        subresource: info.subresource.clone(),
        kind,
    };
    call.accepted = negotiate::negotiate(
        call.received.header("accept"),
        &call.received.query,
        call.received.header("user-agent"),
        Offer {
            // a review or a binding is answered and not kept: there are no rows or metadata of it
            shapes: target.kind.stored.is_some(),
            stream: verb == Verb::Watch,
            routed: target.kind.protobuf,
            listed: is_listed(verb, &info),
        },
    )?;
    match verb {
        Verb::Get | Verb::List | Verb::Watch => read(front, call, verb, &target).await,
        Verb::Create | Verb::Update | Verb::Patch => write(front, call, verb, &target).await,
        Verb::Delete | Verb::DeleteCollection => delete(front, call, verb, &target).await,
    }
}

/// A name that no path could hold is refused before it is looked for.
fn check_name(info: &RequestInfo) -> Result<(), Status> {
    let wrong = if info.names_one_object() { meta::name::path_segment(&info.name) } else { Vec::new() };
    match wrong.first() {
        Some(why) => {
            let name = meta::quote::quoted(&info.name);
            Err(Status::bad_request(format!("Name parameter invalid: {name}: {why}")))
        }
        None => Ok(()),
    }
}

/// What clients of a kind that is on its way out are told with every answer.
fn deprecated(kind: &Kind) -> Option<&'static str> {
    match (&*kind.group, &*kind.version, &*kind.kind) {
        ("", "v1", "Endpoints") => Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        ("", "v1", "ComponentStatus") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        _ => None,
    }
}

/// Whether the request is a read of a collection.
fn is_listed(verb: Verb, info: &RequestInfo) -> bool {
    matches!(verb, Verb::List | Verb::Watch) && info.name.is_empty()
}

/// `404` for a resource that does not exist, with the empty details that upstream sends.
pub fn no_such_resource() -> Status {
    let mut status = Status::no_such_resource();
    status.details = Some(Box::default());
    status
}

fn method_not_allowed() -> Status {
    let mut status = Status::method_not_allowed("the server does not allow this method on the requested resource");
    status.details = Some(Box::default());
    status
}

/// A cluster-wide kind is not found below a namespace, nor one object of a namespaced kind outside of one.
fn check_scope(kind: &Kind, info: &RequestInfo) -> Result<(), Status> {
    let is_namespace = &*kind.plural == "namespaces" && kind.group.is_empty();
    let wrong = if kind.namespaced() {
        info.namespace.is_empty() && info.names_one_object() && info.verb != "watch"
    } else {
        !info.namespace.is_empty() && !is_namespace
    };
    if wrong { Err(no_such_resource()) } else { Ok(()) }
}

/// The verb, when the kind or its subresource has it.
fn verb(kind: &Kind, info: &RequestInfo) -> Result<Verb, Status> {
    let verb = match info.verb.as_str() {
        "get" => Verb::Get,
        "list" => Verb::List,
        "watch" => Verb::Watch,
        "create" => Verb::Create,
        "update" => Verb::Update,
        "patch" => Verb::Patch,
        "delete" => Verb::Delete,
        "deletecollection" => Verb::DeleteCollection,
        _ => return Err(method_not_allowed()),
    };
    let has = |verbs: &[Arc<str>]| verbs.iter().any(|known| &**known == verb.as_str());
    let allowed = if info.subresource.is_empty() {
        // Only a collection is created in, and without a namespace there is no collection to create in.
        let creates = verb == Verb::Create
            && (!info.name.is_empty() && &*kind.plural != "namespaces"
                || (kind.namespaced() && info.namespace.is_empty()));
        let whole = matches!(verb, Verb::Update | Verb::Patch) && info.name.is_empty();
        has(&kind.verbs) && !creates && !whole
    } else {
        let subresource = kind.subresource(&info.subresource).ok_or_else(no_such_resource)?;
        if info.rest.as_ref().is_some_and(|rest| !rest.is_empty()) {
            return Err(no_such_resource());
        }
        has(&subresource.verbs)
    };
    if allowed { Ok(verb) } else { Err(method_not_allowed()) }
}

/// Hands logs and upgraded connections to the proxy; none for all other requests.
async fn stream(front: &Front, call: &mut Call, kind: &Kind, info: &RequestInfo) -> Option<Result<Response, Status>> {
    if kind.subresource(&info.subresource).is_none() || !kind.group.is_empty() {
        return None;
    }
    let received = &mut call.received;
    match info.subresource.as_str() {
        "log" if info.verb == "get" => Some(front.proxy.log(received, info).await),
        "proxy" => Some(proxied(front, call, info).await),
        subresource if STREAMS.contains(&subresource) => Some(front.proxy.stream(received, info).await),
        _ => None,
    }
}

async fn proxied(front: &Front, call: &mut Call, info: &RequestInfo) -> Result<Response, Status> {
    if info.rest.is_none() && info.verb == "get" && !call.received.wants_upgrade() {
        return with_trailing_slash(&call.received.parts.uri);
    }
    let backend = front.proxy.target(&info.resource, &info.namespace, &info.name).await?;
    let query = call.received.parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let asked = call.received.parts.uri.path();
    let rest = raw_rest(asked, info);
    let path = format!("/{rest}{query}");
    let prefix = asked.strip_suffix(rest).unwrap_or(asked).trim_end_matches('/').to_owned();
    let asked_host = call.received.headers().get(http::header::HOST).and_then(|host| host.to_str().ok());
    let asked_host = asked_host.or(call.received.parts.uri.authority().map(|authority| authority.as_str()));
    let links = Links { prefix, page_host: backend.authority(), asked_host: asked_host.unwrap_or_default().to_owned() };
    front.proxy.forward(&mut call.received, &backend, &path, Some(&links)).await
}

/// Relative links of a proxied page only work below a path that ends in a slash.
fn with_trailing_slash(uri: &http::Uri) -> Result<Response, Status> {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = http::HeaderValue::from_str(&format!("{}/{query}", uri.path())).map_err(Status::internal)?;
    let mut response = Response::new(crate::http::Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(http::header::LOCATION, location);
    Ok(response)
}

/// What follows `proxy/` in the path as it was sent: decoding and encoding again could change its meaning.
fn raw_rest<'a>(path: &'a str, info: &RequestInfo) -> &'a str {
    // "", "api", version, ["namespaces", namespace,] resource, name, "proxy"
    let before = if info.resource == "nodes" { 6 } else { 8 };
    path.splitn(before + 1, '/').nth(before).unwrap_or_default()
}

async fn read(front: &Front, call: &mut Call, verb: Verb, target: &Target) -> Result<Response, Status> {
    let mut options = options::parse(&call.received.query, verb, None)?;
    if verb == Verb::Watch && options.field_selector.is_empty() && !call.info.name.is_empty() {
        // A watch on one object, spelled as a path.
        options.field_selector = FieldSelector::equals("metadata.name", &call.info.name).to_string();
    }
    let cx = call.context(verb, options);
    match verb {
        Verb::Watch => {
            let events = front.registry.watch(&cx, target).await?;
            let framer = Framer::new(target.kind.clone(), call.accepted.clone(), front.clock.clone());
            if call.received.wants_websocket() {
                return Ok(websocket::serve_events(&mut call.received, &front.tasks, framer.messages(events)));
            }
            let body = watch_stream::until(framer.frames(events), front.tasks.token());
            Ok(answer(StatusCode::OK, call.accepted.format.stream_content_type(), body))
        }
        Verb::List => {
            let page = front.registry.list(&cx, target).await?;
            Ok(answer(StatusCode::OK, call.accepted.format.content_type(), view(front, call, target).list(page)?))
        }
        _ => {
            let outcome = front.registry.get(&cx, target).await?;
            show(outcome, &view(front, call, target))
        }
    }
}

async fn write(front: &Front, call: &mut Call, verb: Verb, target: &Target) -> Result<Response, Status> {
    let content_type = call.received.header("content-type").to_string();
    if verb == Verb::Patch {
        let kind = options::patch_kind(&content_type, target.kind.protobuf)?;
        let cx = call.context(verb, options::parse(&call.received.query, verb, Some(kind))?);
        let bytes = call.received.read_body().await?;
        let outcome = front.registry.patch(&cx, target, kind, bytes).await?;
        return show(outcome, &view(front, call, target));
    }
    let format = negotiate::body_format(&content_type)?;
    let cx = call.context(verb, options::parse(&call.received.query, verb, None)?);
    let bytes = call.received.read_body().await?;
    let gvk = body_kind(target);
    let schema = if gvk == target.kind.gvk() { Some(target.kind.schema.clone()) } else { api::codec::schema_for(&gvk) };
    let expected = Expected { gvk: &gvk, schema, field_validation: &cx.options.field_validation };
    let body = decode::body(&bytes, format, &expected, &cx.warnings)?;
    let outcome = match verb {
        Verb::Create => front.registry.create(&cx, target, body).await?.as_created(),
        _ => front.registry.update(&cx, target, body).await?,
    };
    show(outcome, &view(front, call, target))
}

async fn delete(front: &Front, call: &mut Call, verb: Verb, target: &Target) -> Result<Response, Status> {
    let mut read = options::parse(&call.received.query, verb, None)?;
    let format = negotiate::body_format(call.received.header("content-type"));
    let bytes = call.received.read_body().await?;
    let body = if options::has_body(&bytes) { Some(decode::delete_options(&bytes, format?)?) } else { None };
    let deletion = options::delete(&call.received.query, body, &mut read)?;
    let cx = call.context(verb, read);
    let view = view(front, call, target);
    if verb == Verb::DeleteCollection {
        let page = front.registry.delete_collection(&cx, target, deletion).await?;
        return Ok(answer(StatusCode::OK, call.accepted.format.content_type(), view.list(page)?));
    }
    show(front.registry.delete(&cx, target, deletion).await?, &view)
}

/// The kind of a request's body: the subresource's own where it has one.
fn body_kind(target: &Target) -> GroupVersionKind {
    target
        .kind
        .subresource(&target.subresource)
        .map_or_else(|| target.kind.gvk(), |subresource| subresource.kind.clone())
}

fn view<'a>(front: &Front, call: &'a Call, target: &'a Target) -> View<'a> {
    View {
        kind: &target.kind,
        api_version: body_kind(target).api_version(),
        accepted: &call.accepted,
        now: front.clock.now(),
    }
}

fn show(outcome: Outcome, view: &View<'_>) -> Result<Response, Status> {
    match outcome {
        Outcome::Object { answer: shown, created } => {
            let code = if created { StatusCode::CREATED } else { StatusCode::OK };
            Ok(answer(code, view.accepted.format.content_type(), view.object(&shown)?))
        }
        Outcome::Success { details, created } => Ok(status::success(details.as_deref(), created, view.accepted)),
    }
}

impl Call {
    /// What the registry is told about the request.
    pub fn context(&self, verb: Verb, options: client::door::Options) -> Context {
        Context {
            user: self.user.clone(),
            verb,
            options,
            warnings: self.warnings.clone(),
            request_uid: self.audit_id.clone(),
            user_agent: self.received.header("user-agent").into(),
            source_ip: Some(self.received.peer.address.ip()),
            deadline: self.deadline,
        }
    }
}
