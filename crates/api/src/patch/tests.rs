//! Patches against what upstream documents of each.

use meta::GroupVersionKind;
use serde_json::json;

use super::*;

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

fn deployment() -> crate::SchemaRef {
    crate::codec::schema_for(&GroupVersionKind::new("apps", "v1", "Deployment")).unwrap()
}

fn strategic(before: Value, patch: Value) -> Value {
    let patched = strategic_merge_patch(&deployment(), object(before), patch.to_string().as_bytes());
    patched.unwrap().object.into_value()
}

#[test]
fn json_patch_operations() {
    let before = json!({"a": {"b": [1, 2]}, "c/d": 1});
    let cases = [
        (json!([{"op": "add", "path": "/a/b/1", "value": 9}]), json!({"a": {"b": [1, 9, 2]}, "c/d": 1})),
        (json!([{"op": "add", "path": "/a/b/-", "value": null}]), json!({"a": {"b": [1, 2, null]}, "c/d": 1})),
        (json!([{"op": "remove", "path": "/c~1d"}]), json!({"a": {"b": [1, 2]}})),
        (json!([{"op": "replace", "path": "/a/b/0", "value": {}}]), json!({"a": {"b": [{}, 2]}, "c/d": 1})),
        (json!([{"op": "move", "from": "/a/b", "path": "/e"}]), json!({"a": {}, "c/d": 1, "e": [1, 2]})),
        (json!([{"op": "copy", "from": "/a/b/1", "path": "/f"}]), json!({"a": {"b": [1, 2]}, "c/d": 1, "f": 2})),
        (json!([{"op": "test", "path": "/a/b/1", "value": 2}]), before.clone()),
        // Upstream's library takes what is not there for a null, in maps.
        (json!([{"op": "add", "path": "/a"}]), json!({"a": null, "c/d": 1})),
        (json!([{"op": "replace", "path": "/e", "value": 1}]), json!({"a": {"b": [1, 2]}, "c/d": 1, "e": 1})),
        (json!([{"op": "copy", "from": "/e", "path": "/f"}]), json!({"a": {"b": [1, 2]}, "c/d": 1, "f": null})),
    ];
    for (patch, after) in cases {
        let patched = json_patch(object(before.clone()), patch.to_string().as_bytes()).unwrap();
        assert_eq!(patched.object.into_value(), after, "{patch}");
    }
}

#[test]
fn a_json_patch_that_does_not_fit_is_rejected_with_422_and_a_malformed_one_with_400() {
    let unfit = [
        json!([{"op": "remove", "path": "/x"}]),
        json!([{"op": "replace", "path": "/x/y", "value": 1}]),
        json!([{"op": "add", "path": "/a/5", "value": 1}]),
        json!([{"op": "test", "path": "/a", "value": 1}]),
        json!([{"op": "fly", "path": "/a"}]),
        json!([{"op": "remove", "path": ""}]),
        json!([{"op": "add", "path": "", "value": 3}]),
    ];
    for patch in unfit {
        let status = json_patch(object(json!({"a": []})), patch.to_string().as_bytes()).unwrap_err();
        assert_eq!(status.code, 422, "{patch}");
        assert_eq!(status.message, "the server rejected our request due to an error in our request");
    }
    assert_eq!(json_patch(object(json!({})), b"{}").unwrap_err().code, 400);
    let many = format!("[{}]", vec![r#"{"op":"test","path":"/x"}"#; 10_001].join(","));
    assert_eq!(json_patch(object(json!({})), many.as_bytes()).unwrap_err().code, 413);
}

#[test]
fn copies_of_copies_are_bounded() {
    let mut patch = vec![json!({"op": "add", "path": "/a", "value": ["xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"]})];
    patch.extend((0..64).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/-"})));
    assert_eq!(json_patch(object(json!({})), Value::from(patch).to_string().as_bytes()).unwrap_err().code, 422);
}

#[test]
fn merge_patch_removes_merges_and_replaces() {
    let before = json!({"a": "b", "c": {"d": 1, "e": [1]}});
    let patched = merge_patch(object(before), br#"{"a":null,"c":{"e":[2],"f":{"g":null,"h":1}}}"#).unwrap();
    assert_eq!(patched.object.into_value(), json!({"c": {"d": 1, "e": [2], "f": {"h": 1}}}));
    assert_eq!(merge_patch(object(json!({})), b"[]").unwrap_err().code, 400);
}

#[test]
fn lists_merge_by_key_and_directives_delete_and_replace() {
    let before = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}]},
        {"name": "b", "image": "b:1"}]}}}});
    let patch = |containers: Value| json!({"spec": {"template": {"spec": {"containers": containers}}}});
    let list = |after: Value| after["spec"]["template"]["spec"]["containers"].clone();
    let merged = strategic(before.clone(), patch(json!([{"name": "b", "image": "b:2"}, {"name": "c"}])));
    assert_eq!(
        list(merged),
        json!([{"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "b:2"}, {"name": "c"}])
    );
    let deleted = strategic(before.clone(), patch(json!([{"name": "a", "$patch": "delete"}])));
    assert_eq!(list(deleted), json!([{"name": "b", "image": "b:1"}]));
    let replaced = strategic(before.clone(), patch(json!([{"name": "z"}, {"$patch": "replace"}])));
    assert_eq!(list(replaced), json!([{"name": "z"}]));
    let env = strategic(
        before,
        patch(json!([{"name": "a", "env": [{"name": "Y", "value": "2"}, {"name": "X", "$patch": "delete"}]}])),
    );
    assert_eq!(list(env)[0]["env"], json!([{"name": "Y", "value": "2"}]));
}

#[test]
fn the_patch_states_the_order_of_a_list() {
    let before = json!({"spec": {"template": {"spec": {"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}}}});
    let patch = json!({"spec": {"template": {"spec": {
        "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}, {"name": "d"}],
        "containers": [{"name": "d", "image": "d"}, {"name": "b", "$patch": "delete"}]}}}});
    let after = strategic(before, patch);
    assert_eq!(
        after["spec"]["template"]["spec"],
        json!({"containers": [{"name": "c"}, {"name": "a"}, {"name": "d", "image": "d"}]})
    );
}

#[test]
fn keys_are_retained_and_scalars_deleted() {
    let before = json!({"metadata": {"finalizers": ["a", "b"]}, "spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]},
        "spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(
        strategic(before.clone(), patch),
        json!({"metadata": {"finalizers": ["c", "b"]}, "spec": {"strategy": {"type": "Recreate"}}})
    );
    let bad = json!({"spec": {"strategy": {"$retainKeys": ["type"], "x": 1}}}).to_string();
    assert_eq!(strategic_merge_patch(&deployment(), object(before), bad.as_bytes()).unwrap_err().code, 400);
}

#[test]
fn atomic_lists_are_replaced_and_new_values_lose_their_directives() {
    let before = json!({"spec": {"template": {"spec": {"tolerations": [{"key": "a"}]}}}});
    let patch = json!({"spec": {"template": {"spec": {"tolerations": [{"key": "b"}], "volumes": [
        {"name": "v", "$retainKeys": ["name", "emptyDir"], "emptyDir": {}, "hostPath": null}]}}}});
    assert_eq!(
        strategic(before, patch)["spec"]["template"]["spec"],
        json!({"tolerations": [{"key": "b"}], "volumes": [{"name": "v", "emptyDir": {}}]})
    );
}
