//! Every stored kind goes through the same verbs, whether or not anything is special about it.

use client::Verb;
use serde_json::{Value, json};

use super::fixture::{Fixture, admin, object};
use crate::registry::{Outcome, Target};

#[tokio::test]
async fn a_kind_with_nothing_special_is_stored_and_says_so() {
    let fixture = Fixture::new().await;
    let mut refused = Vec::new();
    for kind in fixture.registry.kinds().iter().filter(|kind| kind.stored.is_some() && !kind.strategy.acted_upon()) {
        let target = Target::collection(kind, if kind.namespaced() { "default" } else { "" });
        let cx = admin(Verb::Create);
        let name = format!("every-{}", kind.version);
        let body = object(json!({"metadata": {"name": name}}));
        let (made, warnings) = (fixture.registry.create(&cx, &target, body).await, cx.warnings.take());
        let one = Target { name, ..target };
        let deleted = match made {
            Ok(_) => fixture.delete(&one).await.map(drop),
            Err(error) => Err(error),
        };
        if deleted.is_err() || warnings != ["stored, not acted upon yet"] {
            refused.push(format!("{kind:?}: {deleted:?} {warnings:?}"));
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[tokio::test]
async fn a_kind_that_is_acted_upon_does_not_warn() {
    let fixture = Fixture::new().await;
    let (cx, target) = (admin(Verb::Create), fixture.config_maps(""));
    fixture.registry.create(&cx, &target, object(json!({"metadata": {"name": "a"}}))).await.unwrap();
    assert_eq!(cx.warnings.take(), Vec::<String>::new());
}

#[tokio::test]
async fn both_groups_of_events_show_the_same_object() {
    let fixture = Fixture::new().await;
    let body = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "reason": "R", "type": "Normal",
        "message": "m", "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "count": 1,
        "source": {"component": "c"}});
    fixture.create("", "v1", "events", body).await.unwrap();
    let event = fixture.get(&fixture.target("events.k8s.io", "v1", "events", "e")).await.unwrap();
    assert_eq!((event.api_version(), event.str_at(&["regarding", "name"])), ("events.k8s.io/v1", "p"));
    assert_eq!((event.str_at(&["note"]), event.get(&["involvedObject"])), ("m", None));
    let mut cx = admin(Verb::List);
    cx.options.field_selector = "regarding.name=p".into();
    let page = fixture.registry.list(&cx, &fixture.target("events.k8s.io", "v1", "events", "")).await.unwrap();
    assert_eq!(page.items.len(), 1);
}

#[tokio::test]
async fn served_bytes_are_made_once_and_carry_the_version() {
    let fixture = Fixture::new().await;
    let made = fixture.config_map("a").await;
    let target = fixture.config_maps("a");
    let Outcome::Object { answer: crate::registry::Answer::Stored(stored), .. } =
        fixture.registry.get(&admin(Verb::Get), &target).await.unwrap()
    else {
        panic!("a stored object");
    };
    let bytes = stored.serving("v1", meta::Media::Json).unwrap();
    assert_eq!(bytes.as_ptr(), stored.serving("v1", meta::Media::Json).unwrap().as_ptr());
    let shown: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(shown, made.into_value());
    assert!(bytes.starts_with(br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a""#));
}
