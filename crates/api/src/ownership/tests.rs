//! Ownership through a life of writes.

use meta::GroupVersionKind;
use serde_json::json;

use super::*;
use crate::SchemaRef;

fn schema() -> SchemaRef {
    crate::codec::schema_for(&GroupVersionKind::new("apps", "v1", "Deployment")).unwrap()
}

fn writer(manager: &str, second: i64) -> Writer<'_> {
    Writer { manager, api_version: "apps/v1", subresource: "", now: Timestamp::from_second(second).unwrap() }
}

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

fn deployment(replicas: i64, image: &str) -> Object {
    object(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"app": "d"}},
        "spec": {"replicas": replicas, "template": {"spec": {"containers": [
            {"name": "a", "image": image, "ports": [{"containerPort": 80}]}]}}}}))
}

/// Manager, operation and fields of each entry.
fn owners(object: &Object) -> Value {
    let entry = |entry: &Value| json!([entry["manager"], entry["operation"], entry["fieldsV1"]]);
    object.list_at(&["metadata", "managedFields"]).iter().map(entry).collect()
}

#[test]
fn a_creator_owns_what_it_set_and_an_updater_takes_what_it_changes() {
    let mut created = deployment(1, "x:1");
    record(&schema(), None, &mut created, &writer("kubectl", 1));
    assert_eq!(
        owners(&created),
        json!([["kubectl", "Update", {
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {
                "k:{\"name\":\"a\"}": {".": {}, "f:name": {}, "f:image": {}, "f:ports": {".": {},
                    "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}}]])
    );
    let mut scaled = created.clone();
    scaled.set(&["spec", "replicas"], 5);
    record(&schema(), Some(&created), &mut scaled, &writer("hpa", 2));
    assert_eq!(owners(&scaled)[1], json!(["hpa", "Update", {"f:spec": {"f:replicas": {}}}]));
    assert!(owners(&scaled)[0][2]["f:spec"].get("f:replicas").is_none());
    let mut gone = scaled.clone();
    gone.remove(&["spec", "replicas"]);
    record(&schema(), Some(&scaled), &mut gone, &writer("kubectl", 3));
    assert_eq!(owners(&gone).as_array().unwrap().len(), 1);
    assert_eq!(gone.list_at(&["metadata", "managedFields"])[0]["time"], "1970-01-01T00:00:01Z");
}

#[test]
fn an_update_may_reset_ownership_but_does_not_lose_it_by_leaving_it_out() {
    let mut created = deployment(1, "x:1");
    record(&schema(), None, &mut created, &writer("a", 1));
    let mut silent = deployment(2, "x:1");
    record(&schema(), Some(&created), &mut silent, &writer("b", 2));
    assert_eq!(owners(&silent).as_array().unwrap().len(), 2);
    let mut reset = silent.clone();
    reset.set_meta("managedFields", json!([{}]));
    record(&schema(), Some(&silent), &mut reset, &writer("b", 3));
    assert_eq!(owners(&reset), json!([]));
}

#[test]
fn an_apply_keeps_the_parents_of_what_it_sends() {
    // As kubectl does when it moves from client-side to server-side apply: all fields, and the places above them, become the
    // applier's, and an apply of less follows.
    let mut live = deployment(1, "x:1");
    live.set_meta("managedFields", json!([{"manager": "me", "operation": "Apply", "apiVersion": "apps/v1",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {".": {}, "f:replicas": {}, "f:paused": {}, "f:template": {".": {}, "f:spec": {
            ".": {}, "f:containers": {".": {}, "k:{\"name\":\"a\"}": {".": {}, "f:name": {}, "f:image": {}}}}}}}}]));
    live.set(&["spec", "paused"], true);
    let applied = apply(&schema(), Some(&live), &deployment(1, "x:1"), &writer("me", 2), false, &[]).unwrap();
    assert_eq!(applied.get(&["spec", "template"]), live.get(&["spec", "template"]));
    assert_eq!((applied.i64_at(&["spec", "replicas"]), applied.get(&["spec", "paused"])), (Some(1), None));
}

#[test]
fn apply_owns_what_it_sends_and_removes_what_it_no_longer_sends() {
    let applied = apply(&schema(), None, &deployment(1, "x:1"), &writer("me", 1), false, &[]).unwrap();
    assert_eq!(
        owners(&applied),
        json!([["me", "Apply", {
            "f:metadata": {"f:labels": {"f:app": {}}},
            "f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {
                "k:{\"name\":\"a\"}": {".": {}, "f:name": {}, "f:image": {}, "f:ports": {
                    "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}}]])
    );
    let mut config = deployment(1, "x:2");
    config.remove(&["metadata", "labels"]);
    config.remove(&["spec", "replicas"]);
    let second = apply(&schema(), Some(&applied), &config, &writer("me", 2), false, &[]).unwrap();
    assert_eq!(second.get(&["metadata", "labels"]), None);
    assert_eq!(second.get(&["spec", "replicas"]), None);
    assert_eq!(second.list_at(&["spec", "template", "spec", "containers"])[0]["image"], "x:2");
    let third = apply(&schema(), Some(&second), &config, &writer("me", 3), false, &[]).unwrap();
    assert_eq!(third, second);
}

#[test]
fn apply_conflicts_with_other_managers_unless_forced() {
    let mut live = deployment(1, "x:1");
    record(&schema(), None, &mut live, &writer("kubectl-create", 1));
    let refused = apply(&schema(), Some(&live), &deployment(3, "x:1"), &writer("me", 2), false, &[]).unwrap_err();
    assert_eq!(refused.code, 409);
    assert_eq!(
        refused.message,
        "Apply failed with 1 conflict: conflict with \"kubectl-create\" using apps/v1: .spec.replicas"
    );
    let cause = &refused.details.as_ref().unwrap().causes[0];
    assert_eq!((cause.reason.as_str(), cause.field.as_str()), ("FieldManagerConflict", ".spec.replicas"));
    let many = apply(&schema(), Some(&live), &deployment(3, "x:2"), &writer("me", 2), false, &[]).unwrap_err();
    assert_eq!(
        many.message,
        "Apply failed with 2 conflicts: conflicts with \"kubectl-create\" using apps/v1:\n- .spec.replicas\n- .spec.template.spec.containers[name=\"a\"].image"
    );
    let forced = apply(&schema(), Some(&live), &deployment(3, "x:1"), &writer("me", 2), true, &[]).unwrap();
    assert_eq!(forced.i64_at(&["spec", "replicas"]), Some(3));
    assert!(owners(&forced)[1][2]["f:spec"].get("f:replicas").is_none());
    let same = apply(&schema(), Some(&live), &deployment(1, "x:1"), &writer("me", 2), false, &[]).unwrap();
    assert_eq!(owners(&same).as_array().unwrap().len(), 2);
}

#[test]
fn items_of_other_appliers_stay() {
    let with = |name: &str| {
        object(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
            "spec": {"template": {"spec": {"containers": [{"name": name, "image": "i"}]}}}}))
    };
    let first = apply(&schema(), None, &with("a"), &writer("one", 1), false, &[]).unwrap();
    let both = apply(&schema(), Some(&first), &with("b"), &writer("two", 2), false, &[]).unwrap();
    let names = |object: &Object| -> Vec<Value> {
        object.list_at(&["spec", "template", "spec", "containers"]).iter().map(|c| c["name"].clone()).collect()
    };
    assert_eq!(names(&both), [json!("b"), json!("a")]);
    let moved = apply(&schema(), Some(&both), &with("c"), &writer("two", 3), false, &[]).unwrap();
    assert_eq!(names(&moved), [json!("c"), json!("a")]);
}

#[test]
fn status_is_not_owned_by_an_apply_of_the_object() {
    let mut config = deployment(1, "x:1");
    config.set(&["status", "replicas"], 7);
    let applied = apply(&schema(), None, &config, &writer("me", 1), false, &["status"]).unwrap();
    assert_eq!(applied.get(&["status"]), None);
    assert!(owners(&applied)[0][2].get("f:status").is_none());
}

#[test]
fn a_list_item_without_its_key_has_an_empty_one_and_no_key_stands_twice() {
    let applied = |containers: Value| {
        let mut config = deployment(1, "x:1");
        config.set(&["spec", "template", "spec", "containers"], containers);
        apply(&schema(), None, &config, &writer("me", 1), false, &[])
    };
    assert!(applied(json!([{"image": "x"}])).is_ok());
    let twice = applied(json!([{"name": "a"}, {"name": "a"}])).unwrap_err();
    assert_eq!(
        twice.message,
        "failed to create typed patch object (/d; apps/v1, Kind=Deployment): .spec.template.spec.containers: duplicate entries for key [name=\"a\"]"
    );
    assert_eq!((twice.code, twice.reason), (500, Reason::Unknown));
}

#[test]
fn what_is_not_of_the_schema_is_told_with_its_place() {
    let mut config = deployment(1, "x:1");
    assert_eq!(check_types(&schema(), &config), Ok(()));
    config.set(&["datum"], json!({}));
    config.set(&["spec", "replicas"], "x");
    config.set(&["spec", "template", "spec", "containers"], json!([{"name": "a", "colour": 1}]));
    config.set(&["spec", "template", "spec", "volumes"], 7);
    let told = check_types(&schema(), &config).unwrap_err().message;
    let (_, told) = told.split_once(": errors:\n").unwrap();
    assert_eq!(
        told,
        "  .datum: field not declared in schema\n  .spec.replicas: expected numeric (int or float), got &{x}\n  .spec.template.spec.containers[name=\"a\"].colour: field not declared in schema\n  .spec.template.spec.volumes: expected list, got &{7}"
    );
}

#[test]
fn old_update_managers_are_folded_into_one() {
    let mut live = deployment(0, "x:1");
    record(&schema(), None, &mut live, &writer("creator", 1));
    for second in 2..=14 {
        let mut next = live.clone();
        next.set(&["metadata", "labels", &format!("l{second}")], "x");
        record(&schema(), Some(&live), &mut next, &writer(&format!("m{second}"), second));
        live = next;
    }
    let names: Vec<Value> = owners(&live).as_array().unwrap().iter().map(|entry| entry[0].clone()).collect();
    assert_eq!(names.len(), 10);
    assert_eq!(names[0], "ancient-changes");
}

#[test]
fn managers_are_named_by_the_user_agent() {
    assert_eq!(manager_from_user_agent("kubectl/v1.37.1 (linux/amd64)"), "kubectl");
    assert_eq!(manager_from_user_agent(&"x".repeat(300)).len(), 128);
}
