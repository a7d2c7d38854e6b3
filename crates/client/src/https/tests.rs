//! Paths and answers, without a socket; the whole door is proven against the API server's own tests.

use super::*;
use crate::door::{DeleteOptions, Options, WatchEvent};
use meta::{GroupVersionResource, ObjectKey};

fn request(verb: Verb, namespace: &str, name: &str) -> Request {
    Request {
        verb,
        resource: GroupVersionResource::new("apps", "v1", "deployments"),
        subresource: String::new(),
        namespace: namespace.into(),
        name: name.into(),
        options: Options::default(),
        body: Body::None,
    }
}

#[test]
fn paths_and_queries_are_escaped() {
    let server = "https://127.0.0.1:6443".parse().unwrap();
    let mut scale = request(Verb::Get, "n", "a:b/c");
    scale.subresource = "scale".into();
    assert_eq!(
        route::uri(&server, &scale).unwrap().to_string(),
        "https://127.0.0.1:6443/apis/apps/v1/namespaces/n/deployments/a:b%2Fc/scale"
    );
    let mut watch = request(Verb::Watch, "", "");
    watch.options.label_selector = "a in (b,c)".into();
    watch.options.resource_version = "7".into();
    assert_eq!(
        route::uri(&server, &watch).unwrap().path_and_query().unwrap().as_str(),
        "/apis/apps/v1/deployments?watch=true&labelSelector=a%20in%20%28b%2Cc%29&resourceVersion=7"
    );
}

#[test]
fn delete_options_say_only_what_was_given() {
    let options = DeleteOptions { precondition_uid: Some("u".into()), ..DeleteOptions::default() };
    let (_, bytes) = route::body(&Body::Delete(options)).unwrap();
    assert_eq!(bytes, r#"{"apiVersion":"v1","kind":"DeleteOptions","preconditions":{"uid":"u"}}"#);
}

#[test]
fn list_items_learn_what_they_are() {
    let bytes = Bytes::from_static(
        br#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"9","continue":"t"},
            "items":[{"metadata":{"name":"a","namespace":"n","resourceVersion":"3"}},{}]}"#,
    );
    let Response::List(list) = answer::read(&bytes).unwrap() else { panic!("a list") };
    assert_eq!((list.revision, list.continue_token.as_str(), list.items.len()), (9, "t", 2));
    assert_eq!((list.items[0].key.clone(), list.items[0].revision), (ObjectKey::new("n", "a"), 3));
    assert_eq!(list.items[0].object().unwrap().kind(), "Pod");
    assert_eq!(list.items[1].object().unwrap().api_version(), "v1");
}

#[test]
fn events_are_read_and_errors_carry_their_status() {
    let line = Bytes::from_static(
        b"{\"type\":\"BOOKMARK\",\"object\":{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{\"resourceVersion\":\"12\",\
          \"annotations\":{\"k8s.io/initial-events-end\":\"true\"}}}}\n",
    );
    let event = answer::event(&line).unwrap();
    assert!(matches!(event, WatchEvent::Bookmark { revision: 12, initial_events_end: true }), "{event:?}");
    let line = Bytes::from_static(
        b"{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"status\":\"Failure\",\"reason\":\"Expired\",\"code\":410}}\n",
    );
    assert!(answer::event(&line).unwrap_err().is_expired());
}

#[test]
fn an_answer_that_is_no_status_still_says_what_it_was() {
    let status = answer::failure(StatusCode::BAD_GATEWAY, b"upstream down");
    assert_eq!((status.code, status.message.as_str()), (502, "upstream down"));
}

use http::StatusCode;
