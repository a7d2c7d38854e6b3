//! Lists at one revision, and watches without gaps.

use client::Verb;
use futures::StreamExt;
use serde_json::json;

use super::fixture::{Fixture, admin};
use crate::registry::{Event, Events, Page};

/// A watch that says nothing for so long has failed.
const EVENT_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(30);

async fn list(fixture: &Fixture, set: impl Fn(&mut client::Options)) -> Result<Page, meta::Status> {
    let mut cx = admin(Verb::List);
    set(&mut cx.options);
    fixture.registry.list(&cx, &fixture.config_maps("")).await
}

fn names(page: &Page) -> Vec<String> {
    page.items.iter().map(|stored| stored.key.name.to_string()).collect()
}

#[tokio::test]
async fn pages_show_one_revision() {
    let fixture = Fixture::new().await;
    for name in ["a", "b", "c", "d", "e"] {
        fixture.config_map(name).await;
    }
    let first = list(&fixture, |options| options.limit = 2).await.unwrap();
    assert_eq!((names(&first), first.remaining), (vec!["a".into(), "b".into()], Some(3)));
    fixture.config_map("bb").await;
    fixture.delete(&fixture.config_maps("c")).await.unwrap();
    let next = |token: String| {
        list(&fixture, move |options| {
            options.limit = 2;
            options.continue_token.clone_from(&token);
        })
    };
    let second = next(first.continue_token).await.unwrap();
    assert_eq!((names(&second), second.revision), (vec!["c".into(), "d".into()], first.revision));
    let last = next(second.continue_token).await.unwrap();
    assert_eq!((names(&last), last.continue_token.as_str(), last.remaining), (vec!["e".into()], "", None));
}

#[tokio::test]
async fn an_expired_page_offers_to_go_on_with_what_is_there() {
    let fixture = Fixture::new().await;
    for name in ["a", "b", "c"] {
        fixture.config_map(name).await;
    }
    let first = list(&fixture, |options| options.limit = 1).await.unwrap();
    fixture.config_map("bb").await;
    fixture.store.compact(fixture.store.revision()).await.unwrap();
    let token = first.continue_token;
    let error = list(&fixture, |options| options.continue_token.clone_from(&token)).await.unwrap_err();
    assert_eq!(error.code, 410);
    let offered = error.continue_token.unwrap();
    let rest = list(&fixture, |options| options.continue_token.clone_from(&offered)).await.unwrap();
    assert_eq!(names(&rest), ["b", "bb", "c"]);
}

#[tokio::test]
async fn selectors_pick_and_unknown_fields_are_refused() {
    let fixture = Fixture::new().await;
    for name in ["a", "b"] {
        fixture.config_map(name).await;
    }
    fixture.merge(&fixture.config_maps("b"), json!({"metadata": {"labels": {"x": "y"}}})).await.unwrap();
    let labelled = list(&fixture, |options| options.label_selector = "x=y".into()).await.unwrap();
    assert_eq!(names(&labelled), ["b"]);
    let named = list(&fixture, |options| options.field_selector = "metadata.name!=a".into()).await.unwrap();
    assert_eq!(names(&named), ["b"]);
    let error = list(&fixture, |options| options.field_selector = "spec.x=a".into()).await.unwrap_err();
    assert_eq!(error.code, 400);
}

#[tokio::test]
async fn a_list_of_an_exact_revision_shows_the_past() {
    let fixture = Fixture::new().await;
    let made = fixture.config_map("a").await;
    fixture.config_map("b").await;
    let version = made.resource_version().to_string();
    let past = list(&fixture, |options| {
        options.resource_version.clone_from(&version);
        options.resource_version_match = "Exact".into();
    });
    assert_eq!(names(&past.await.unwrap()), ["a"]);
    let newer = list(&fixture, |options| options.resource_version.clone_from(&version)).await.unwrap();
    assert_eq!(names(&newer), ["a", "b"]);
}

#[tokio::test]
async fn a_collection_is_deleted_as_selected() {
    let fixture = Fixture::new().await;
    for name in ["a", "b", "c"] {
        fixture.config_map(name).await;
    }
    let mut cx = admin(Verb::DeleteCollection);
    cx.options.field_selector = "metadata.name!=b".into();
    let target = fixture.config_maps("");
    let deleted = fixture.registry.delete_collection(&cx, &target, Default::default()).await.unwrap();
    assert_eq!(names(&deleted), ["a", "c"]);
    assert_eq!(names(&list(&fixture, |_| {}).await.unwrap()), ["b"]);
}

async fn watch(fixture: &Fixture, set: impl Fn(&mut client::Options)) -> Events {
    let mut cx = admin(Verb::Watch);
    set(&mut cx.options);
    fixture.registry.watch(&cx, &fixture.config_maps("")).await.unwrap()
}

/// An event in short: `+a` added, `~a` modified, `-a` deleted, `=` bookmark, with `!` at the end of initial events.
async fn next(events: &mut Events) -> String {
    let event = tokio::time::timeout(EVENT_WAIT_MAX, events.next()).await;
    match event.expect("an event in time") {
        Some(Event::Added(stored)) => format!("+{}", stored.key.name),
        Some(Event::Modified(stored)) => format!("~{}", stored.key.name),
        Some(Event::Deleted(stored)) => format!("-{}", stored.key.name),
        Some(Event::Bookmark { initial_events_end, .. }) => format!("={}", if initial_events_end { "!" } else { "" }),
        Some(Event::Error(status)) => status.message,
        None => "end".into(),
    }
}

#[tokio::test]
async fn a_watch_begins_with_what_is_there_and_goes_on() {
    let fixture = Fixture::new().await;
    fixture.config_map("a").await;
    let mut events = watch(&fixture, |options| {
        options.send_initial_events = Some(true);
        options.allow_watch_bookmarks = true;
    })
    .await;
    assert_eq!((next(&mut events).await, next(&mut events).await), ("+a".into(), "=!".into()));
    fixture.config_map("b").await;
    fixture.merge(&fixture.config_maps("a"), json!({"data": {"x": "y"}})).await.unwrap();
    fixture.delete(&fixture.config_maps("a")).await.unwrap();
    assert_eq!((next(&mut events).await, next(&mut events).await), ("+b".into(), "~a".into()));
    let Some(Event::Deleted(gone)) = events.next().await else { panic!("a delete") };
    let gone = gone.stored_object().unwrap();
    assert_eq!(gone.str_at(&["data", "x"]), "y");
    assert_eq!(gone.resource_version(), fixture.store.revision().to_string());
}

#[tokio::test]
async fn a_watch_goes_on_from_a_revision_and_follows_its_selector() {
    let fixture = Fixture::new().await;
    let made = fixture.config_map("a").await;
    fixture.config_map("b").await;
    let target = fixture.config_maps("a");
    fixture.merge(&target, json!({"metadata": {"labels": {"x": "y"}}})).await.unwrap();
    fixture.merge(&target, json!({"data": {"x": "y"}})).await.unwrap();
    fixture.merge(&target, json!({"metadata": {"labels": null}})).await.unwrap();
    let mut events = watch(&fixture, |options| {
        options.resource_version = made.resource_version().into();
        options.label_selector = "x=y".into();
    })
    .await;
    let seen = [next(&mut events).await, next(&mut events).await, next(&mut events).await];
    assert_eq!(seen, ["+a", "~a", "-a"]);
    let mut all = watch(&fixture, |options| options.resource_version = made.resource_version().into()).await;
    assert_eq!(next(&mut all).await, "+b");
}

#[tokio::test]
async fn a_watch_from_before_memory_is_told_so() {
    let fixture = Fixture::new().await;
    let made = fixture.config_map("a").await;
    fixture.config_map("b").await;
    let restarted = fixture.restarted().await;
    let version = made.resource_version();
    let mut events = watch(&restarted, |options| options.resource_version = version.into()).await;
    let told = next(&mut events).await;
    assert!(told.starts_with(&format!("too old resource version: {version} (")), "{told}");
    assert_eq!(next(&mut events).await, "end");
}

#[tokio::test]
async fn a_restart_finds_everything_and_writes_nothing() {
    let fixture = Fixture::new().await;
    fixture.config_map("a").await;
    let before = fixture.store.revision();
    let restarted = fixture.restarted().await;
    assert_eq!(restarted.store.revision(), before);
    assert_eq!(names(&list(&restarted, |_| {}).await.unwrap()), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_at_its_time_limit_with_a_bookmark_before() {
    let fixture = Fixture::new().await;
    let made = fixture.config_map("a").await;
    let mut events = watch(&fixture, |options| {
        options.resource_version = made.resource_version().into();
        options.timeout_seconds = 10;
        options.allow_watch_bookmarks = true;
    })
    .await;
    assert_eq!((next(&mut events).await, next(&mut events).await), ("=".into(), "end".into()));
}
