//! Validation of metadata, in upstream's words.

use std::collections::BTreeSet;

use api::Kind;
use meta::{FieldError, FieldPath, GroupVersion, Object, name};
use serde_json::Value;

/// Most bytes of all annotations of an object, keys and values.
const ANNOTATION_BYTES_MAX: usize = 256 * 1024;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What is wrong with the metadata of a new object.
pub fn of_new(kind: &Kind, object: &Object) -> Vec<FieldError> {
    let path = FieldPath::new("metadata");
    let mut errors = Vec::new();
    let names = |field: &str, value: &str, prefix: bool, errors: &mut Vec<FieldError>| {
        for why in kind.strategy.validate_name(value, prefix) {
            errors.push(FieldError::invalid(&path.child(field), value, why));
        }
    };
    if !object.generate_name().is_empty() {
        names("generateName", object.generate_name(), true, &mut errors);
    }
    if object.name().is_empty() {
        errors.push(FieldError::required(&path.child("name"), "name or generateName is required"));
    } else {
        names("name", object.name(), false, &mut errors);
    }
    namespace(kind, object, &path, &mut errors);
    common(object, &path, &mut errors);
    if kind.protobuf {
        known_finalizers(object, &path.child("finalizers"), &mut errors);
    }
    errors
}

fn namespace(kind: &Kind, object: &Object, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let (path, namespace) = (path.child("namespace"), object.namespace());
    match (kind.namespaced(), namespace.is_empty()) {
        (true, true) => errors.push(FieldError::required(&path, "")),
        (true, false) => {
            let wrong = name::dns1123_label(namespace).into_iter();
            errors.extend(wrong.map(|why| FieldError::invalid(&path, namespace, why)));
        }
        (false, false) => errors.push(FieldError::forbidden(&path, "not allowed on this type")),
        (false, true) => {}
    }
}

/// What is wrong with the metadata of an updated object, the fields that may not change included.
pub fn of_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let path = FieldPath::new("metadata");
    let mut errors = Vec::new();
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let at = |object: &Object| object.get(&["metadata", field]).cloned().unwrap_or(Value::Null);
        if at(new) != at(old) {
            errors.push(FieldError::invalid(&path.child(field), at(new), "field is immutable"));
        }
    }
    if old.is_being_deleted() {
        let known: BTreeSet<&str> = old.finalizers().collect();
        let added: Vec<String> =
            new.finalizers().filter(|own| !known.contains(own)).map(|own| format!("{own:?}")).collect();
        if !added.is_empty() {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.push(FieldError::forbidden(&path.child("finalizers"), why));
        }
    }
    common(new, &path, &mut errors);
    errors
}

fn common(object: &Object, path: &FieldPath, errors: &mut Vec<FieldError>) {
    labels(object, &path.child("labels"), errors);
    annotations(object, &path.child("annotations"), errors);
    owners(object, &path.child("ownerReferences"), errors);
    finalizers(object, &path.child("finalizers"), errors);
}

fn labels(object: &Object, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (key, value) in object.labels() {
        errors.extend(name::qualified_name(key).into_iter().map(|why| FieldError::invalid(path, key, why)));
        errors.extend(name::label_value(value).into_iter().map(|why| FieldError::invalid(path, value, why)));
    }
}

fn annotations(object: &Object, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut bytes = 0;
    for (key, value) in object.annotations() {
        let lower = key.to_ascii_lowercase();
        errors.extend(name::qualified_name(&lower).into_iter().map(|why| FieldError::invalid(path, key, why)));
        bytes += key.len() + value.len();
    }
    if bytes > ANNOTATION_BYTES_MAX {
        errors.push(FieldError::too_long(path, ANNOTATION_BYTES_MAX));
    }
}

fn owners(object: &Object, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut controller: Option<String> = None;
    for (index, owner) in object.list_at(&["metadata", "ownerReferences"]).iter().enumerate() {
        let path = path.index(index);
        let text = |field: &str| owner.get(field).and_then(Value::as_str).unwrap_or_default();
        let version = GroupVersion::parse(text("apiVersion"));
        for field in ["apiVersion", "kind", "name", "uid"] {
            if text(field).is_empty() {
                errors.push(FieldError::required(&path.child(field), "must not be empty"));
            } else if field == "apiVersion" && version.as_ref().is_none_or(|version| version.version.is_empty()) {
                let why = "must be <group>/<version> or <version>";
                errors.push(FieldError::invalid(&path.child(field), text(field), why));
            }
        }
        if (text("apiVersion"), text("kind")) == ("v1", "Event") {
            let why = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(&path, owner.clone(), why));
        }
        if owner.get("controller") == Some(&Value::Bool(true)) {
            let own = format!("{}/{}", text("kind"), text("name"));
            if let Some(first) = &controller {
                let why = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {own}"
                );
                let all = object.list_at(&["metadata", "ownerReferences"]);
                let error = FieldError::invalid(&FieldPath::new("metadata.ownerReferences"), all.to_vec(), why);
                errors.push(error.shown_as(shown_owners(all)));
            }
            controller.get_or_insert(own);
        }
    }
}

/// Owners with their fields in the order in which Go writes them.
fn shown_owners(owners: &[Value]) -> String {
    let fields = ["apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"];
    let shown = owners.iter().map(|owner| {
        let given = fields.iter().filter_map(|field| Some(format!("{field:?}:{}", owner.get(field)?)));
        format!("{{{}}}", given.collect::<Vec<_>>().join(","))
    });
    format!("[{}]", shown.collect::<Vec<_>>().join(","))
}

/// New objects of built-in kinds only have finalizers that upstream knows, or that name a domain.
fn known_finalizers(object: &Object, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, finalizer) in object.finalizers().enumerate() {
        if !finalizer.contains('/') && !["kubernetes", ORPHAN, FOREGROUND].contains(&finalizer) {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(&path.index(index), finalizer, why));
        }
    }
}

fn finalizers(object: &Object, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let all: Vec<&str> = object.finalizers().collect();
    for finalizer in &all {
        let wrong = name::qualified_name(finalizer).into_iter();
        errors.extend(wrong.map(|why| FieldError::invalid(path, *finalizer, why)));
    }
    if all.contains(&ORPHAN) && all.contains(&FOREGROUND) {
        let why = format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set");
        errors.push(FieldError::invalid(path, all.iter().map(|text| Value::from(*text)).collect::<Vec<_>>(), why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    fn told(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn refuses_what_may_not_change() {
        let old = object(json!({"metadata": {"name": "a", "uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z",
            "finalizers": ["a/b"]}}));
        let mut new = old.clone();
        new.set_meta("uid", "2");
        new.set_meta("finalizers", json!(["a/b", "c/d"]));
        assert_eq!(
            told(&of_update(&new, &old)),
            [
                "metadata.uid: Invalid value: \"2\": field is immutable",
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"c/d\"}"
            ]
        );
    }

    #[test]
    fn refuses_two_controllers_and_incomplete_owners() {
        let owner =
            |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "1", "controller": true});
        let mut errors = Vec::new();
        let two = object(json!({"metadata": {"ownerReferences": [owner("a"), owner("b"), {"apiVersion": "v1"}]}}));
        owners(&two, &FieldPath::new("metadata.ownerReferences"), &mut errors);
        let told = told(&errors);
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(told[0].contains("references for Pod/a and Pod/b"), "{told:?}");
        assert_eq!(told[3], "metadata.ownerReferences[2].uid: Required value: must not be empty");
    }
}
