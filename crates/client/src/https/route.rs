//! A request as method, path, query and body.

use bytes::Bytes;
use http::{Method, Uri};
use meta::Status;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use crate::door::{Body, DeleteOptions, Options, Request, Verb};

/// Everything but the characters that need no escape in a path segment or a query value.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b':');

pub fn method(verb: Verb) -> Method {
    match verb {
        Verb::Get | Verb::List | Verb::Watch => Method::GET,
        Verb::Create => Method::POST,
        Verb::Update => Method::PUT,
        Verb::Patch => Method::PATCH,
        Verb::Delete | Verb::DeleteCollection => Method::DELETE,
    }
}

pub fn uri(server: &Uri, request: &Request) -> Result<Uri, http::Error> {
    let mut path_and_query = path(request);
    let query = query(request);
    if !query.is_empty() {
        path_and_query = format!("{path_and_query}?{query}");
    }
    let mut parts = server.clone().into_parts();
    parts.path_and_query = Some(path_and_query.parse()?);
    Ok(Uri::from_parts(parts)?)
}

fn path(request: &Request) -> String {
    let resource = &request.resource;
    let mut path = if resource.group.is_empty() {
        format!("/api/{}", resource.version)
    } else {
        format!("/apis/{}/{}", resource.group, resource.version)
    };
    if !request.namespace.is_empty() {
        path = format!("{path}/namespaces/{}", escape(&request.namespace));
    }
    path = format!("{path}/{}", resource.resource);
    for segment in [&request.name, &request.subresource] {
        if !segment.is_empty() {
            path = format!("{path}/{}", escape(segment));
        }
    }
    path
}

fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

fn query(request: &Request) -> String {
    let Options {
        label_selector,
        field_selector,
        resource_version,
        resource_version_match,
        limit,
        continue_token,
        timeout_seconds,
        allow_watch_bookmarks,
        send_initial_events,
        dry_run,
        field_manager,
        field_validation,
        force,
        media: _,
    } = &request.options;
    let number = |value: &u64| if *value == 0 { String::new() } else { value.to_string() };
    let flag = |value: bool, word: &str| if value { word.to_string() } else { String::new() };
    let pairs = [
        ("watch", flag(request.verb == Verb::Watch, "true")),
        ("labelSelector", label_selector.clone()),
        ("fieldSelector", field_selector.clone()),
        ("resourceVersion", resource_version.clone()),
        ("resourceVersionMatch", resource_version_match.clone()),
        ("limit", number(limit)),
        ("continue", continue_token.clone()),
        ("timeoutSeconds", number(timeout_seconds)),
        ("allowWatchBookmarks", flag(*allow_watch_bookmarks, "true")),
        ("sendInitialEvents", send_initial_events.map(|send| send.to_string()).unwrap_or_default()),
        ("dryRun", flag(*dry_run, "All")),
        ("fieldManager", field_manager.clone()),
        ("fieldValidation", field_validation.clone()),
        ("force", flag(*force, "true")),
    ];
    let given = pairs.iter().filter(|(_, value)| !value.is_empty());
    given.map(|(name, value)| format!("{name}={}", escape(value))).collect::<Vec<_>>().join("&")
}

/// The content type and the bytes of a body.
pub fn body(body: &Body) -> Result<(Option<&'static str>, Bytes), Status> {
    let json = |value: &Value| serde_json::to_vec(value).map(Bytes::from).map_err(Status::internal);
    Ok(match body {
        Body::None => (None, Bytes::new()),
        Body::Object(object) => {
            (Some("application/json"), serde_json::to_vec(object).map(Bytes::from).map_err(Status::internal)?)
        }
        Body::Patch(kind, bytes) => (Some(kind.media_type()), bytes.clone()),
        Body::Delete(options) => (Some("application/json"), json(&delete_options(options))?),
    })
}

fn delete_options(options: &DeleteOptions) -> Value {
    let mut map = Map::new();
    map.insert("kind".into(), "DeleteOptions".into());
    map.insert("apiVersion".into(), "v1".into());
    let mut preconditions = Map::new();
    let put = |map: &mut Map<String, Value>, field: &str, value: Option<Value>| {
        if let Some(value) = value {
            map.insert(field.into(), value);
        }
    };
    put(&mut map, "gracePeriodSeconds", options.grace_period_seconds.map(Value::from));
    put(&mut map, "propagationPolicy", options.propagation_policy.clone().map(Value::from));
    put(&mut map, "orphanDependents", options.orphan_dependents.map(Value::from));
    put(&mut preconditions, "uid", options.precondition_uid.clone().map(Value::from));
    put(&mut preconditions, "resourceVersion", options.precondition_resource_version.clone().map(Value::from));
    if !preconditions.is_empty() {
        map.insert("preconditions".into(), json!(preconditions));
    }
    if options.ignore_store_read_error {
        map.insert("ignoreStoreReadErrorWithClusterBreakingPotential".into(), true.into());
    }
    Value::Object(map)
}
