//! Deployment and ReplicaSet, and the rules they share: a template, a selector that matches it, a number of pods.

use meta::{FieldError, FieldPath, Object};
use serde_json::{Value, json};

use super::pod_defaults;
use super::pod_rules;
use super::rules::{self, Errors};
use super::tree::{Read, Write, empty};
use crate::strategy::{Request, Strategy, keep_metadata, keep_other_half};

pub struct Deployment;
pub struct ReplicaSet;

fn template_defaults(new: &mut Object) {
    let spec = new.map_at(&["spec", "template"]).entry("spec").or_insert_with(empty);
    pod_defaults::pod_spec(spec);
}

/// The rules of a workload's spec. Pods of a controller must be restarted for ever.
fn workload(errors: &mut Errors, spec: &Value) {
    let path = FieldPath::new("spec");
    rules::non_negative(errors, spec, &path, "replicas");
    rules::non_negative(errors, spec, &path, "minReadySeconds");
    rules::selects_template(errors, spec, &path);
    let template = spec.get("template").cloned().unwrap_or_else(empty);
    if let Some(labels) = template.pointer("/metadata/labels") {
        rules::labels(errors, labels, &path.child("template").child("labels"));
    }
    let pod = template.get("spec").cloned().unwrap_or_else(empty);
    let pod_path = path.child("template").child("spec");
    pod_rules::pod_spec(errors, &pod, &pod_path);
    let policy = pod.text("restartPolicy");
    if policy != "Always" && !policy.is_empty() {
        errors.push(FieldError::not_supported(&pod_path.child("restartPolicy"), policy, &["Always"]));
    }
    if pod.has("activeDeadlineSeconds") {
        let detail = "activeDeadlineSeconds in ReplicaSet is not Supported";
        errors.push(FieldError::forbidden(&pod_path.child("activeDeadlineSeconds"), detail));
    }
}

fn spec(object: &Object) -> Value {
    object.get(&["spec"]).cloned().unwrap_or_else(empty)
}

/// Counts of a status are never negative.
fn status_counts(new: &Object, fields: &[&str]) -> Errors {
    let mut errors = Errors::new();
    let status = new.get(&["status"]).cloned().unwrap_or_else(empty);
    let path = FieldPath::new("status");
    fields.iter().for_each(|field| rules::non_negative(&mut errors, &status, &path, field));
    let replicas = status.number("replicas").unwrap_or(0);
    for field in ["readyReplicas", "availableReplicas", "fullyLabeledReplicas", "updatedReplicas"] {
        if let Some(count) = status.number(field).filter(|count| *count > replicas) {
            errors.push(FieldError::invalid(&path.child(field), count, "cannot be greater than status.replicas"));
        }
    }
    errors
}

fn update(request: &Request, new: &Object, old: &Object, counts: &[&str], create: impl Fn() -> Errors) -> Errors {
    if request.subresource == "status" {
        return status_counts(new, counts);
    }
    let mut errors = create();
    let path = FieldPath::new("spec").child("selector");
    rules::immutable(&mut errors, new.get(&["spec", "selector"]), old.get(&["spec", "selector"]), &path);
    errors
}

impl Strategy for Deployment {
    fn set_defaults(&self, new: &mut Object) {
        new.set_default(&["spec", "replicas"], 1);
        let strategy = new.map_at(&["spec"]).entry("strategy").or_insert_with(empty);
        strategy.default_plain("type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate" {
            strategy.default_pointer("rollingUpdate", empty());
            strategy["rollingUpdate"].default_pointer("maxUnavailable", "25%");
            strategy["rollingUpdate"].default_pointer("maxSurge", "25%");
        }
        new.set_default(&["spec", "revisionHistoryLimit"], 10);
        new.set_default(&["spec", "progressDeadlineSeconds"], 600);
        template_defaults(new);
    }

    fn before_update(&self, request: &Request, new: &mut Object, old: &Object) {
        keep_other_half(request, new, old);
        if request.subresource == "status" {
            keep_metadata(new, old, "labels");
        }
    }

    fn generation_moves(&self, new: &Object, old: &Object) -> bool {
        // Annotations count too: they are carried over to replica sets.
        let annotations = |object: &Object| object.get(&["metadata", "annotations"]).cloned();
        new.get(&["spec"]) != old.get(&["spec"]) || annotations(new) != annotations(old)
    }

    fn validate_create(&self, new: &Object) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let (spec, path) = (spec(new), FieldPath::new("spec"));
        workload(&mut errors, &spec);
        rolling(&mut errors, &spec, &path.child("strategy"));
        rules::non_negative(&mut errors, &spec, &path, "revisionHistoryLimit");
        rules::non_negative(&mut errors, &spec, &path, "progressDeadlineSeconds");
        let ready = spec.number("minReadySeconds").unwrap_or(0);
        if let Some(deadline) = spec.number("progressDeadlineSeconds").filter(|deadline| *deadline <= ready) {
            let detail = "must be greater than minReadySeconds";
            errors.push(FieldError::invalid(&path.child("progressDeadlineSeconds"), deadline, detail));
        }
        errors
    }

    fn validate_update(&self, request: &Request, new: &Object, old: &Object) -> Vec<FieldError> {
        let counts = ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas"];
        update(request, new, old, &counts, || self.validate_create(new))
    }

    fn acted_upon(&self) -> bool {
        true
    }
}

fn rolling(errors: &mut Errors, spec: &Value, path: &FieldPath) {
    let strategy = &spec["strategy"];
    let rolling = strategy.get("rollingUpdate").filter(|rolling| !rolling.is_null());
    match strategy.text("type") {
        "Recreate" if rolling.is_some() => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(FieldError::forbidden(&path.child("rollingUpdate"), detail));
        }
        "Recreate" => {}
        "RollingUpdate" => {
            let (path, rolling) = (path.child("rollingUpdate"), rolling.cloned().unwrap_or_else(empty));
            let surge = count_or_percent(errors, &rolling, &path, "maxSurge");
            let unavailable = count_or_percent(errors, &rolling, &path, "maxUnavailable");
            if surge == Some(0) && unavailable == Some(0) {
                let detail = "may not be 0 when `maxSurge` is 0";
                errors.push(FieldError::invalid(
                    &path.child("maxUnavailable"),
                    rolling["maxUnavailable"].clone(),
                    detail,
                ));
            }
            if rolling["maxUnavailable"].is_string() && unavailable.is_some_and(|percent| percent > 100) {
                let shown = rolling["maxUnavailable"].clone();
                errors.push(FieldError::invalid(&path.child("maxUnavailable"), shown, "must not be greater than 100%"));
            }
        }
        other => errors.push(FieldError::not_supported(&path.child("type"), other, &["Recreate", "RollingUpdate"])),
    }
}

/// A count, or the number of a percentage.
fn count_or_percent(errors: &mut Errors, of: &Value, path: &FieldPath, field: &str) -> Option<i64> {
    let path = path.child(field);
    match of.get(field)? {
        Value::String(text) => match text.strip_suffix('%').and_then(|digits| digits.parse::<i64>().ok()) {
            Some(percent) if percent >= 0 => Some(percent),
            _ => {
                let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                errors.push(FieldError::invalid(&path, text.as_str(), detail));
                None
            }
        },
        value => {
            let count = value.as_i64().unwrap_or(-1);
            if count < 0 {
                errors.push(FieldError::invalid(&path, count, "must be greater than or equal to 0"));
            }
            Some(count)
        }
    }
}

impl Strategy for ReplicaSet {
    fn set_defaults(&self, new: &mut Object) {
        new.set_default(&["spec", "replicas"], 1);
        template_defaults(new);
    }

    fn before_create(&self, _: &Request, new: &mut Object) {
        new.set(&["status"], json!({"replicas": 0}));
    }

    fn validate_create(&self, new: &Object) -> Vec<FieldError> {
        let mut errors = Errors::new();
        workload(&mut errors, &spec(new));
        errors
    }

    fn validate_update(&self, request: &Request, new: &Object, old: &Object) -> Vec<FieldError> {
        let counts = ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"];
        update(request, new, old, &counts, || self.validate_create(new))
    }

    fn selectable_fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        vec![("status.replicas", object.i64_at(&["status", "replicas"]).unwrap_or(0).to_string())]
    }

    fn acted_upon(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(change: impl FnOnce(&mut Value)) -> Object {
        let mut value = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"app": "a"}},
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        change(&mut value);
        let mut object = Object::from_value(value).unwrap();
        Deployment.set_defaults(&mut object);
        object
    }

    #[test]
    fn defaults_are_upstreams() {
        let made = deployment(|_| {});
        assert_eq!(
            made.get(&["spec", "strategy"]),
            Some(&json!({"type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}))
        );
        assert_eq!(made.i64_at(&["spec", "progressDeadlineSeconds"]), Some(600));
        assert_eq!(made.get(&["spec", "template", "spec", "enableServiceLinks"]), None, "templates stay as written");
    }

    #[test]
    fn broken_rules_are_named() {
        for (change, expected) in [
            (
                (|it: &mut Value| it["spec"]["selector"]["matchLabels"]["app"] = "b".into()) as fn(&mut Value),
                "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
            ),
            (|it| it["spec"]["selector"] = Value::Null, "spec.selector: Required value"),
            (
                |it| it["spec"]["replicas"] = (-1).into(),
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                |it| it["spec"]["template"]["spec"]["restartPolicy"] = "Never".into(),
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            ),
            (
                |it| it["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}),
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
            ),
        ] {
            let found: Vec<_> =
                Deployment.validate_create(&deployment(change)).iter().map(ToString::to_string).collect();
            assert!(found.contains(&expected.to_string()), "{found:?}");
        }
    }
}
