//! Create, update, patch and delete, on kinds with nothing special about them.

use client::Verb;
use client::door::{DeleteOptions, PatchKind};
use serde_json::{Value, json};

use super::fixture::{Fixture, admin, object, shown};
use crate::registry::Outcome;

#[tokio::test]
async fn a_created_object_is_completed_and_found_again() {
    let fixture = Fixture::new().await;
    let made = fixture.config_map("a").await;
    assert_eq!(made.uid().len(), 36);
    assert!(made.creation_timestamp().is_some());
    assert_eq!((made.namespace(), made.api_version(), made.kind()), ("default", "v1", "ConfigMap"));
    assert_eq!(made.list_at(&["metadata", "managedFields"]).len(), 1);
    let found = fixture.get(&fixture.config_maps("a")).await.unwrap();
    assert_eq!(found, made);
    let again = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let error = fixture.create("", "v1", "configmaps", again).await.unwrap_err();
    assert_eq!(error.message, "configmaps \"a\" already exists");
}

#[tokio::test]
async fn what_is_stored_is_upstreams_envelope_without_a_resource_version() {
    let fixture = Fixture::new().await;
    fixture.config_map("a").await;
    let key = store::Key::from("/registry/configmaps/default/a");
    let entry = fixture.store.get(&key, None).await.unwrap().unwrap();
    assert!(entry.value.starts_with(b"k8s\0"));
    let stored = api::codec::read_proto(&entry.value).unwrap();
    assert_eq!((stored.name(), stored.resource_version()), ("a", ""));
}

#[tokio::test]
async fn names_are_generated_from_a_prefix() {
    let fixture = Fixture::new().await;
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "web-"}});
    let made = fixture.create("", "v1", "configmaps", body).await.unwrap();
    assert_eq!((made.name().len(), &made.name()[..4]), (9, "web-"));
}

#[tokio::test]
async fn all_that_is_wrong_is_said_at_once_and_nothing_is_stored() {
    let fixture = Fixture::new().await;
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "A_", "labels": {"x y": "1"}}});
    let error = fixture.create("", "v1", "configmaps", body).await.unwrap_err();
    assert_eq!(error.code, 422);
    let fields: Vec<String> = error.details.unwrap().causes.into_iter().map(|cause| cause.field).collect();
    assert_eq!(fields, ["metadata.name", "metadata.labels"]);
    let no_namespace = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "none"}});
    let error = fixture.create("", "v1", "configmaps", no_namespace).await.unwrap_err();
    assert_eq!(error.code, 400);
    assert!(fixture.get(&fixture.config_maps("a")).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn nothing_is_made_in_a_namespace_that_is_not_there() {
    let fixture = Fixture::new().await;
    let mut target = fixture.config_maps("");
    target.namespace = "none".into();
    let body = object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}));
    let error = fixture.registry.create(&admin(Verb::Create), &target, body).await.unwrap_err();
    assert_eq!(error.message, "namespaces \"none\" not found");
}

#[tokio::test]
async fn an_update_with_an_old_version_loses() {
    let fixture = Fixture::new().await;
    let made = fixture.config_map("a").await;
    let target = fixture.config_maps("a");
    let mut first = made.clone();
    first.set(&["data", "a"], "2");
    let updated = fixture.update(&target, first).await.unwrap();
    assert_ne!(updated.resource_version(), made.resource_version());
    let mut second = made;
    second.set(&["data", "a"], "3");
    let error = fixture.update(&target, second).await.unwrap_err();
    assert_eq!(
        error.message,
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    assert_eq!(fixture.get(&target).await.unwrap().str_at(&["data", "a"]), "2");
}

#[tokio::test]
async fn an_update_that_changes_nothing_writes_nothing() {
    let fixture = Fixture::new().await;
    let made = fixture.config_map("a").await;
    let again = fixture.update(&fixture.config_maps("a"), made.clone()).await.unwrap();
    assert_eq!(again.resource_version(), made.resource_version());
}

#[tokio::test]
async fn patches_that_race_all_take_effect() {
    let fixture = Fixture::new().await;
    fixture.config_map("a").await;
    let target = fixture.config_maps("a");
    let patches = (0..16).map(|index| fixture.merge(&target, json!({"data": {format!("k{index}"): "v"}})));
    for patched in futures::future::join_all(patches).await {
        patched.unwrap();
    }
    let found = fixture.get(&target).await.unwrap();
    assert_eq!(found.get(&["data"]).unwrap().as_object().unwrap().len(), 17);
}

#[tokio::test]
async fn apply_creates_and_then_conflicts_over_fields_of_others() {
    let fixture = Fixture::new().await;
    let target = fixture.config_maps("a");
    let apply = |manager: &str, text: &str| {
        let mut cx = admin(Verb::Patch);
        cx.options.field_manager = manager.into();
        let patch = format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  a: {text}\n");
        let (fixture, target) = (&fixture, &target);
        async move { fixture.registry.patch(&cx, target, PatchKind::Apply, patch.into()).await }
    };
    let made = apply("one", "x").await.unwrap();
    assert!(matches!(made, Outcome::Object { created: true, .. }));
    let managed = shown(&target, made).unwrap().list_at(&["metadata", "managedFields"]).to_vec();
    assert_eq!((managed.len(), &managed[0]["operation"]), (1, &json!("Apply")));
    let error = apply("two", "z").await.unwrap_err();
    assert_eq!(error.code, 409);
    assert!(error.message.contains(".data.a"), "{error}");
}

#[tokio::test]
async fn a_dry_run_shows_and_stores_nothing() {
    let fixture = Fixture::new().await;
    let mut cx = admin(Verb::Create);
    cx.options.dry_run = true;
    let target = fixture.config_maps("");
    let body = object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}));
    let made = shown(&target, fixture.registry.create(&cx, &target, body).await.unwrap()).unwrap();
    assert_eq!((made.name(), made.resource_version()), ("a", ""));
    assert!(fixture.get(&fixture.config_maps("a")).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn finalizers_hold_a_deleted_object_until_they_are_gone() {
    let fixture = Fixture::new().await;
    fixture.config_map("a").await;
    let target = fixture.config_maps("a");
    fixture.merge(&target, json!({"metadata": {"finalizers": ["x/y"]}})).await.unwrap();
    let marked = shown(&target, fixture.delete(&target).await.unwrap()).unwrap();
    assert!(marked.is_being_deleted());
    let error = fixture.merge(&target, json!({"metadata": {"finalizers": ["x/y", "z/z"]}})).await.unwrap_err();
    assert!(error.message.contains("no new finalizers can be added"), "{error}");
    fixture.merge(&target, json!({"metadata": {"finalizers": null}})).await.unwrap();
    assert!(fixture.get(&target).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_delete_minds_its_preconditions_and_policy() {
    let fixture = Fixture::new().await;
    fixture.config_map("a").await;
    let target = fixture.config_maps("a");
    let delete = |options| {
        let (fixture, target) = (&fixture, &target);
        async move { fixture.registry.delete(&admin(Verb::Delete), target, options).await }
    };
    let other = DeleteOptions { precondition_uid: Some("other".into()), ..DeleteOptions::default() };
    assert!(delete(other).await.unwrap_err().message.contains("does not match the UID in record"));
    let foreground = DeleteOptions { propagation_policy: Some("Foreground".into()), ..DeleteOptions::default() };
    delete(foreground).await.unwrap();
    let marked = fixture.get(&target).await.unwrap();
    assert_eq!(marked.finalizers().collect::<Vec<_>>(), ["foregroundDeletion"]);
    assert!(marked.is_being_deleted());
}

#[tokio::test]
async fn a_plain_delete_answers_with_success_and_the_uid() {
    let fixture = Fixture::new().await;
    let made = fixture.config_map("a").await;
    let Outcome::Success { details: Some(details), created: false } =
        fixture.delete(&fixture.config_maps("a")).await.unwrap()
    else {
        panic!("a success");
    };
    assert_eq!((details.kind.as_str(), details.uid.as_str()), ("configmaps", made.uid()));
}

#[tokio::test]
async fn generation_counts_changes_of_the_spec_only() {
    let fixture = Fixture::new().await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let body = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let made = fixture.create("apps", "v1", "deployments", body).await.unwrap();
    assert_eq!((made.generation(), made.i64_at(&["spec", "replicas"])), (1, Some(1)));
    let target = fixture.target("apps", "v1", "deployments", "d");
    let labelled = fixture.merge(&target, json!({"metadata": {"labels": {"x": "y"}}})).await.unwrap();
    assert_eq!(labelled.generation(), 1);
    let status = target.clone().with_subresource("status");
    let reported = fixture.merge(&status, json!({"status": {"replicas": 5}, "spec": {"replicas": 9}})).await.unwrap();
    assert_eq!((reported.generation(), reported.i64_at(&["spec", "replicas"])), (1, Some(1)));
    assert_eq!(reported.i64_at(&["status", "replicas"]), Some(5));
    let scale = target.clone().with_subresource("scale");
    let scaled = fixture.merge(&scale, json!({"spec": {"replicas": 3}})).await.unwrap();
    assert_eq!((scaled.kind(), scaled.str_at(&["status", "selector"])), ("Scale", "a=b"));
    let found = fixture.get(&target).await.unwrap();
    assert_eq!((found.generation(), found.i64_at(&["spec", "replicas"])), (2, Some(3)));
    assert_eq!(found.i64_at(&["status", "replicas"]), Some(5));
}

#[tokio::test]
async fn a_namespace_goes_when_its_last_finalizer_does() {
    let fixture = Fixture::new().await;
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}});
    let made = fixture.create("", "v1", "namespaces", body).await.unwrap();
    assert_eq!(made.list_at(&["spec", "finalizers"]), [Value::from("kubernetes")]);
    let target = fixture.target("", "v1", "namespaces", "n");
    let going = shown(&target, fixture.delete(&target).await.unwrap()).unwrap();
    assert_eq!(going.str_at(&["status", "phase"]), "Terminating");
    let mut inside = fixture.config_maps("");
    inside.namespace = "n".into();
    let body = object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}));
    let error = fixture.registry.create(&admin(Verb::Create), &inside, body).await.unwrap_err();
    assert_eq!(
        error.message,
        "configmaps \"a\" is forbidden: unable to create new content in namespace n because it is being terminated"
    );
    let mut finalized = going;
    finalized.remove(&["spec", "finalizers"]);
    fixture.update(&target.clone().with_subresource("finalize"), finalized).await.unwrap();
    assert!(fixture.get(&target).await.unwrap_err().is_not_found());
    let kept = fixture.delete(&fixture.target("", "v1", "namespaces", "default")).await.unwrap_err();
    assert_eq!(kept.message, "namespaces \"default\" is forbidden: this namespace may not be deleted");
}
