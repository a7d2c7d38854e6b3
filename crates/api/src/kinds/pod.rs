//! Pod: what may change once it exists is little, and every part of it has rules.

use meta::{FieldError, FieldPath, Object};
use serde_json::{Value, json};

use super::pod_rules;
use super::rules::{self, Errors};
use super::tree::{Read, empty};
use super::{pod_defaults, qos};
use crate::strategy::{Request, Strategy, keep_metadata, keep_other_half};

pub struct Pod;

impl Strategy for Pod {
    fn set_defaults(&self, new: &mut Object) {
        let spec = new.0.entry("spec").or_insert_with(empty);
        pod_defaults::pod_spec(spec);
        pod_defaults::pod_only(spec);
        // The singular address and the list say the same; the singular one wins.
        let ip = new.str_at(&["status", "podIP"]).to_string();
        let first = new.list_at(&["status", "podIPs"]).first().map(|ip| ip.text("ip").to_string());
        match first {
            Some(first) if ip.is_empty() => new.set(&["status", "podIP"], first),
            Some(first) if first == ip => {}
            _ if !ip.is_empty() => new.set(&["status", "podIPs"], json!([{"ip": ip}])),
            _ => {}
        }
    }

    fn before_create(&self, request: &Request, new: &mut Object) {
        let class = qos::class(new.get(&["spec"]).unwrap_or(&Value::Null));
        new.set(&["status"], json!({"phase": "Pending", "qosClass": class}));
        if !new.list_at(&["spec", "schedulingGates"]).is_empty() {
            let condition = json!({"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastTransitionTime": meta::time::rfc3339(request.now)});
            new.set(&["status", "conditions"], json!([condition]));
        }
    }

    fn before_update(&self, request: &Request, new: &mut Object, old: &Object) {
        keep_other_half(request, new, old);
        if request.subresource == "status" {
            keep_metadata(new, old, "ownerReferences");
            // The quality of service follows from the spec and never changes.
            let class = old.str_at(&["status", "qosClass"]).to_string();
            if !class.is_empty() {
                new.set(&["status", "qosClass"], class);
            }
            keep_observed_generations(new, old);
        }
    }

    /// Being placed on a node is no change of what is wanted, so that nobody waits for the node to observe it.
    fn generation_moves(&self, new: &Object, old: &Object) -> bool {
        let wanted = |pod: &Object| {
            let mut spec = spec(pod);
            spec["nodeName"] = Value::Null;
            spec
        };
        wanted(new) != wanted(old)
    }

    fn validate_create(&self, new: &Object) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = FieldPath::new("spec");
        let spec = new.get(&["spec"]).cloned().unwrap_or_else(empty);
        pod_rules::pod_spec(&mut errors, &spec, &path);
        if !spec.items("ephemeralContainers").is_empty() {
            let detail = "cannot be set on create";
            errors.push(FieldError::forbidden(&path.child("ephemeralContainers"), detail));
        }
        errors
    }

    fn validate_update(&self, request: &Request, new: &Object, old: &Object) -> Vec<FieldError> {
        let (new_spec, old_spec) = (spec(new), spec(old));
        let mut errors = Errors::new();
        match request.subresource.as_str() {
            "status" => return validate_status(new, old),
            "ephemeralcontainers" => ephemeral_only(&mut errors, &new_spec, &old_spec),
            "resize" => resize_only(&mut errors, &new_spec, &old_spec),
            _ => allowed_changes(&mut errors, &new_spec, &old_spec),
        }
        if errors.is_empty() {
            pod_rules::pod_spec(&mut errors, &new_spec, &FieldPath::new("spec"));
        }
        errors
    }

    fn grace_period_seconds(&self, old: &Object, asked: Option<i64>) -> Option<i64> {
        // A pod that was never placed, or has ended, has nothing to wind down.
        let ended = matches!(old.str_at(&["status", "phase"]), "Succeeded" | "Failed");
        if old.str_at(&["spec", "nodeName"]).is_empty() || ended {
            return Some(0);
        }
        let seconds = asked.or_else(|| old.i64_at(&["spec", "terminationGracePeriodSeconds"])).unwrap_or(0);
        Some(if seconds < 0 { 1 } else { seconds })
    }

    fn selectable_fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        let text = |path: &[&str]| object.str_at(path).to_string();
        vec![
            ("spec.nodeName", text(&["spec", "nodeName"])),
            ("spec.restartPolicy", text(&["spec", "restartPolicy"])),
            ("spec.schedulerName", text(&["spec", "schedulerName"])),
            ("spec.serviceAccountName", text(&["spec", "serviceAccountName"])),
            ("spec.hostNetwork", object.bool_at(&["spec", "hostNetwork"]).to_string()),
            ("status.phase", text(&["status", "phase"])),
            ("status.podIP", text(&["status", "podIP"])),
            ("status.podIPs", text(&["status", "podIP"])),
            ("status.nominatedNodeName", text(&["status", "nominatedNodeName"])),
        ]
    }

    fn acted_upon(&self) -> bool {
        true
    }
}

fn spec(pod: &Object) -> Value {
    pod.get(&["spec"]).cloned().unwrap_or_else(empty)
}

/// A writer that does not know of `observedGeneration` does not take it away.
fn keep_observed_generations(new: &mut Object, old: &Object) {
    let path = ["status", "observedGeneration"];
    if let (None, Some(generation)) = (new.get(&path), old.get(&path)) {
        new.set(&path, generation.clone());
    }
    let mut conditions = new.list_at(&["status", "conditions"]).to_vec();
    for condition in conditions.iter_mut().filter(|condition| condition["observedGeneration"].is_null()) {
        let known = old.list_at(&["status", "conditions"]).iter().find(|known| known["type"] == condition["type"]);
        if let Some(generation) = known.and_then(|known| known.get("observedGeneration")) {
            condition["observedGeneration"] = generation.clone();
        }
    }
    if !conditions.is_empty() {
        new.set(&["status", "conditions"], conditions);
    }
}

fn validate_status(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let path = FieldPath::new("status").child("nominatedNodeName");
    let nominated = new.str_at(&["status", "nominatedNodeName"]);
    if !nominated.is_empty() && nominated != old.str_at(&["status", "nominatedNodeName"]) {
        rules::each_invalid(&mut errors, &path, nominated, meta::name::dns1123_subdomain(nominated));
    }
    errors
}

/// What an ordinary update may change: images, the deadline (shorter), tolerations (more), the grace period of a pod that has
/// none, scheduling gates (fewer). Everything else must be as it was.
fn allowed_changes(errors: &mut Errors, new: &Value, old: &Value) {
    let path = FieldPath::new("spec");
    for list in ["containers", "initContainers"] {
        if new.items(list).len() != old.items(list).len() {
            errors.push(FieldError::forbidden(&path.child(list), "pod updates may not add or remove containers"));
            return;
        }
    }
    let mut munged = new.clone();
    for list in ["containers", "initContainers"] {
        for (index, container) in old.items(list).iter().enumerate() {
            munged[list][index]["image"] = container["image"].clone();
        }
    }
    deadline(errors, new, old, &mut munged);
    if new.number("terminationGracePeriodSeconds") == Some(1)
        && old.number("terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0)
    {
        munged["terminationGracePeriodSeconds"] = old["terminationGracePeriodSeconds"].clone();
    }
    let kept = old.items("tolerations").iter().all(|toleration| new.items("tolerations").contains(toleration));
    if !kept {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden(&path.child("tolerations"), detail));
    }
    copy(&mut munged, old, "tolerations");
    let gates = new.items("schedulingGates");
    if gates.iter().any(|gate| !old.items("schedulingGates").contains(gate)) {
        let detail = "only deletion is allowed, but found new scheduling gate";
        errors.push(FieldError::forbidden(&path.child("schedulingGates"), detail));
    }
    copy(&mut munged, old, "schedulingGates");
    if !old.items("schedulingGates").is_empty() {
        copy(&mut munged, old, "nodeSelector");
        copy(&mut munged, old, "affinity");
    }
    if munged != *old && errors.is_empty() {
        let detail = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
        errors.push(FieldError::forbidden(&path, detail));
    }
}

fn deadline(errors: &mut Errors, new: &Value, old: &Value, munged: &mut Value) {
    let path = FieldPath::new("spec").child("activeDeadlineSeconds");
    let (after, before) = (new.number("activeDeadlineSeconds"), old.number("activeDeadlineSeconds"));
    match (after, before) {
        (Some(after), Some(before)) if after > before => {
            let detail = "must be less than or equal to previous value";
            errors.push(FieldError::invalid(&path, after, detail));
        }
        (None, Some(_)) => {
            errors.push(FieldError::invalid(
                &path,
                Value::Null,
                "must not update from a positive integer to nil value",
            ));
        }
        _ => copy(munged, old, "activeDeadlineSeconds"),
    }
}

fn copy(into: &mut Value, from: &Value, field: &str) {
    let Some(map) = into.as_object_mut() else { return };
    match from.get(field) {
        Some(value) => map.insert(field.to_string(), value.clone()),
        None => map.remove(field),
    };
}

/// Ephemeral containers are only ever added.
fn ephemeral_only(errors: &mut Errors, new: &Value, old: &Value) {
    let path = FieldPath::new("spec").child("ephemeralContainers");
    let (after, before) = (new.items("ephemeralContainers"), old.items("ephemeralContainers"));
    for container in before {
        match after.iter().find(|it| it.text("name") == container.text("name")) {
            None => {
                let detail = format!("existing ephemeral containers {:?} may not be removed\n", container.text("name"));
                errors.push(FieldError::forbidden(&path, detail));
            }
            Some(changed) if changed != container => {
                let detail = format!("existing ephemeral containers {:?} may not be changed\n", container.text("name"));
                errors.push(FieldError::forbidden(&path, detail));
            }
            Some(_) => {}
        }
    }
    let mut rest = new.clone();
    copy(&mut rest, old, "ephemeralContainers");
    if rest != *old {
        let detail = "only ephemeral containers may be changed here";
        errors.push(FieldError::forbidden(&FieldPath::new("spec"), detail));
    }
}

/// A resize changes CPU and memory of containers and nothing else.
fn resize_only(errors: &mut Errors, new: &Value, old: &Value) {
    let mut rest = new.clone();
    for list in ["containers", "initContainers"] {
        if new.items(list).len() != old.items(list).len() {
            let path = FieldPath::new("spec").child(list);
            errors.push(FieldError::forbidden(&path, "containers may not be added or removed on resize"));
            return;
        }
        for (index, container) in old.items(list).iter().enumerate() {
            copy(&mut rest[list][index], container, "resources");
            copy(&mut rest[list][index], container, "resizePolicy");
        }
    }
    if rest != *old {
        let detail = "only cpu and memory resources are mutable";
        errors.push(FieldError::forbidden(&FieldPath::new("spec"), detail));
    } else if qos::class(new) != qos::class(old) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid(&FieldPath::new("spec"), qos::class(new), detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: Value) -> Object {
        let mut pod = Object::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec})).unwrap();
        Pod.set_defaults(&mut pod);
        pod
    }

    fn complaints(spec: Value) -> Vec<String> {
        Pod.validate_create(&pod(spec)).iter().map(ToString::to_string).collect()
    }

    fn update(change: impl FnOnce(&mut Object)) -> Vec<String> {
        let old = pod(json!({"containers": [{"name": "c", "image": "i:1"}]}));
        let mut new = old.clone();
        change(&mut new);
        let request = Request {
            subresource: String::new(),
            user: Default::default(),
            now: jiff::Timestamp::UNIX_EPOCH,
            dry_run: false,
        };
        Pod.validate_update(&request, &new, &old).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_placement_does_not_move_the_generation_and_a_new_image_does() {
        let old = pod(json!({"containers": [{"name": "c", "image": "i:1"}]}));
        let mut placed = old.clone();
        placed.set(&["spec", "nodeName"], "n");
        assert!(!Pod.generation_moves(&placed, &old));
        let mut changed = placed.clone();
        changed.set(&["spec", "containers"], json!([{"name": "c", "image": "i:2"}]));
        assert!(Pod.generation_moves(&changed, &placed));
    }

    #[test]
    fn a_status_written_without_observed_generations_keeps_them() {
        let condition = |fields: Value| json!({"status": {"conditions": [fields]}});
        let mut old = Object::from_value(condition(json!({"type": "Ready", "observedGeneration": 2}))).unwrap();
        old.set(&["status", "observedGeneration"], 3);
        for (written, kept) in [(json!({"type": "Ready"}), 2), (json!({"type": "Ready", "observedGeneration": 1}), 1)] {
            let mut new = Object::from_value(condition(written)).unwrap();
            keep_observed_generations(&mut new, &old);
            assert_eq!(new.list_at(&["status", "conditions"])[0]["observedGeneration"], kept);
            assert_eq!(new.i64_at(&["status", "observedGeneration"]), Some(3));
        }
    }

    #[test]
    fn a_plain_pod_is_fine() {
        assert_eq!(complaints(json!({"containers": [{"name": "c", "image": "i"}]})), [""; 0]);
    }

    #[test]
    fn broken_rules_are_named_in_upstreams_words() {
        for (spec, expected) in [
            (json!({}), "spec.containers: Required value"),
            (json!({"containers": [{"image": "i"}]}), "spec.containers[0].name: Required value"),
            (json!({"containers": [{"name": "c"}]}), "spec.containers[0].image: Required value"),
            (
                json!({"containers": [{"name": "c", "image": "i"}, {"name": "c", "image": "i"}]}),
                "spec.containers[1].name: Duplicate value: \"c\"",
            ),
            (
                json!({"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}),
                "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
            ),
            (
                json!({"restartPolicy": "Sometimes", "containers": [{"name": "c", "image": "i"}]}),
                "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
            ),
            (
                json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}]}),
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ),
            (
                json!({"containers": [{"name": "c", "image": "i", "livenessProbe": {}}]}),
                "spec.containers[0].livenessProbe: Required value: must specify a handler type",
            ),
            (
                json!({"containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]}),
                "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
            ),
        ] {
            let found = complaints(spec.clone());
            assert!(found.contains(&expected.to_string()), "{spec}: {found:?}");
        }
    }

    #[test]
    fn an_update_may_change_images_and_little_else() {
        assert_eq!(update(|pod| pod.0["spec"]["containers"][0]["image"] = "i:2".into()), [""; 0]);
        assert_eq!(update(|pod| pod.set(&["metadata", "labels", "a"], "b")), [""; 0]);
        let found = update(|pod| pod.0["spec"]["containers"][0]["command"] = json!(["x"]));
        assert!(found[0].starts_with("spec: Forbidden: pod updates may not change fields other than"), "{found:?}");
        let found = update(|pod| pod.set(&["spec", "nodeName"], "n"));
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn the_grace_period_that_is_asked_for_counts_before_the_pods_own() {
        let grace = |node: &str, phase: &str, own: i64, asked: Option<i64>| {
            let pod =
                json!({"spec": {"nodeName": node, "terminationGracePeriodSeconds": own}, "status": {"phase": phase}});
            Pod.grace_period_seconds(&Object::from_value(pod).unwrap(), asked).unwrap()
        };
        assert_eq!(grace("n", "Running", 30, None), 30);
        assert_eq!(grace("n", "Running", 30, Some(5)), 5);
        assert_eq!(grace("n", "Running", 30, Some(0)), 0);
        assert_eq!(grace("n", "Running", 0, Some(60)), 60, "its own is none");
        assert_eq!(grace("n", "Running", 30, Some(-7)), 1);
        assert_eq!([grace("", "Pending", 30, Some(60)), grace("n", "Failed", 30, Some(60))], [0, 0]);
    }
}
