//! Binding: the scheduler's decision becomes `spec.nodeName`, once and for good.

use client::Verb;
use meta::{FieldError, FieldPath, GroupResource, Object, Reason, Status};
use serde_json::{Value, json};

use super::named;
use crate::context::Context;
use crate::registry::{Outcome, Registry, Revision, Target};

pub async fn create(registry: &Registry, cx: &Context, target: &Target, binding: &Object) -> Result<Outcome, Status> {
    let mut target = named(target, binding)?;
    if target.subresource.is_empty() {
        let pods = registry.kind("", "v1", "pods").ok_or_else(Status::no_such_resource)?;
        target = Target { kind: pods, subresource: "binding".into(), ..target };
    }
    let node = check(binding)?.to_string();
    let name = target.name.clone();
    let now = meta::time::rfc3339(registry.clock().now());
    let binding = binding.clone();
    let edit = move |pod: &mut Object| {
        assign(pod, &binding, &node, &now)
            .map_err(|why| Status::conflict(&GroupResource::new("", "pods/binding"), &name, why))
    };
    let cx = Context { verb: Verb::Update, ..cx.clone() };
    registry.revise(&cx, &target, Revision::Edit(Box::new(edit))).await?;
    Ok(Outcome::Success { details: None, created: true })
}

/// The node that the binding names.
fn check(binding: &Object) -> Result<&str, Status> {
    let path = FieldPath::new("target");
    let (kind, name) = (binding.str_at(&["target", "kind"]), binding.str_at(&["target", "name"]));
    let mut errors = Vec::new();
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported(&path.child("kind"), kind, &["Node", "<empty>"]));
    }
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    }
    if errors.is_empty() {
        return Ok(name);
    }
    // Upstream answers with the bare errors, as ones whose reason it does not know.
    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let told = if let [one] = told.as_slice() { one.clone() } else { format!("[{}]", told.join(", ")) };
    Err(Status::new(Reason::Unknown, told))
}

fn assign(pod: &mut Object, binding: &Object, node: &str, now: &str) -> Result<(), String> {
    let name = pod.name().to_string();
    if !binding.uid().is_empty() && binding.uid() != pod.uid() {
        return Err(format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
            binding.uid(),
            pod.uid()
        ));
    }
    if pod.is_being_deleted() {
        return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let assigned = pod.str_at(&["spec", "nodeName"]);
    if !assigned.is_empty() {
        return Err(format!("pod {name} is already assigned to node {assigned:?}"));
    }
    if !pod.list_at(&["spec", "schedulingGates"]).is_empty() {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    pod.set(&["spec", "nodeName"], node);
    for (key, value) in binding.annotations() {
        pod.set(&["metadata", "annotations", key], value);
    }
    for (key, value) in binding.labels() {
        pod.set(&["metadata", "labels", key], value);
    }
    // The hint has served its purpose, and would only mislead from now on.
    pod.remove(&["status", "nominatedNodeName"]);
    set_condition(
        pod,
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now}),
    );
    Ok(())
}

/// Puts a condition in the place of the one of its type. An unchanged status keeps its transition time.
pub(super) fn set_condition(pod: &mut Object, mut condition: Value) {
    let mut conditions = pod.list_at(&["status", "conditions"]).to_vec();
    match conditions.iter_mut().find(|own| own["type"] == condition["type"]) {
        Some(own) => {
            if own["status"] == condition["status"] {
                condition["lastTransitionTime"] = own["lastTransitionTime"].clone();
            }
            *own = condition;
        }
        None => conditions.push(condition),
    }
    pod.set(&["status", "conditions"], conditions);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    #[test]
    fn a_pod_is_bound_once() {
        let mut pod = object(json!({"metadata": {"name": "p"}, "status": {"nominatedNodeName": "m", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}}));
        let binding = object(json!({"metadata": {"name": "p", "annotations": {"a": "b"}}}));
        assign(&mut pod, &binding, "n", "2026-01-01T00:00:00Z").unwrap();
        assert_eq!(pod.str_at(&["spec", "nodeName"]), "n");
        assert_eq!(pod.annotation("a"), Some("b"));
        assert_eq!(pod.str_at(&["status", "nominatedNodeName"]), "");
        let conditions = pod.list_at(&["status", "conditions"]);
        assert_eq!((conditions.len(), &conditions[0]["status"]), (1, &json!("True")));
        let again = assign(&mut pod, &binding, "m", "2026-01-01T00:00:00Z").unwrap_err();
        assert_eq!(again, "pod p is already assigned to node \"n\"");
    }

    #[test]
    fn a_pod_that_is_going_or_gated_is_not_bound() {
        let binding = Object::default();
        let mut going = object(json!({"metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"}}));
        assert!(assign(&mut going, &binding, "n", "").unwrap_err().contains("is being deleted"));
        let mut gated = object(json!({"metadata": {"name": "p"}, "spec": {"schedulingGates": [{"name": "g"}]}}));
        assert!(assign(&mut gated, &binding, "n", "").unwrap_err().contains("schedulingGates"));
    }
}
