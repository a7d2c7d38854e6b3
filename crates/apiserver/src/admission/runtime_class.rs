//! What a pod's runtime class adds to it: the overhead of the runtime, and the nodes that have it.

use async_trait::async_trait;
use meta::{Object, ObjectKey, Status};
use serde_json::Value;

use super::{Plugin, Review};
use crate::registry::Registry;

const CLASSES: &str = "runtimeclasses";

pub struct RuntimeClass;

#[async_trait]
impl Plugin for RuntimeClass {
    async fn admit(&self, registry: &Registry, review: &Review<'_>, pod: &mut Object) -> Result<(), Status> {
        if !review.creates("", "pods") {
            return Ok(());
        }
        let Some(class) = class_of(registry, review, pod).await? else { return Ok(()) };
        add_overhead(pod, &class)
            .and_then(|()| add_scheduling(pod, &class))
            .map_err(|why| review.forbidden(Some(pod), why))
    }

    async fn validate(&self, registry: &Registry, review: &Review<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(pod) = object.filter(|_| review.creates("", "pods")) else { return Ok(()) };
        let class = class_of(registry, review, pod).await?;
        let wanted = class.as_ref().and_then(|class| class.get(&["overhead", "podFixed"]));
        match (wanted, overhead(pod)) {
            (Some(wanted), given) if given != Some(wanted) => Err(review.forbidden(object, OTHER_OVERHEAD)),
            (None, Some(_)) => Err(review.forbidden(
                object,
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
            )),
            _ => Ok(()),
        }
    }
}

const OTHER_OVERHEAD: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

async fn class_of(registry: &Registry, review: &Review<'_>, pod: &Object) -> Result<Option<Object>, Status> {
    let name = pod.str_at(&["spec", "runtimeClassName"]);
    if name.is_empty() {
        return Ok(None);
    }
    match registry.current(CLASSES, &ObjectKey::cluster(name)).await? {
        Some(class) => class.stored_object().map(Some),
        None => Err(review.forbidden(Some(pod), format!("pod rejected: RuntimeClass {name:?} not found"))),
    }
}

fn overhead(pod: &Object) -> Option<&Value> {
    pod.get(&["spec", "overhead"]).filter(|overhead| overhead.as_object().is_some_and(|map| !map.is_empty()))
}

fn add_overhead(pod: &mut Object, class: &Object) -> Result<(), String> {
    let Some(fixed) = class.get(&["overhead", "podFixed"]) else { return Ok(()) };
    if overhead(pod).is_some_and(|given| given != fixed) {
        return Err(OTHER_OVERHEAD.into());
    }
    pod.set(&["spec", "overhead"], fixed.clone());
    Ok(())
}

fn add_scheduling(pod: &mut Object, class: &Object) -> Result<(), String> {
    if let Some(Value::Object(wanted)) = class.get(&["scheduling", "nodeSelector"]) {
        for (key, value) in wanted {
            let wanted = value.as_str().unwrap_or_default();
            match pod.get(&["spec", "nodeSelector", key]).and_then(Value::as_str) {
                Some(own) if own != wanted => {
                    return Err(format!(
                        "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {own}"
                    ));
                }
                _ => pod.set(&["spec", "nodeSelector", key], wanted),
            }
        }
    }
    let added = class.list_at(&["scheduling", "tolerations"]);
    if !added.is_empty() {
        let mut all = pod.list_at(&["spec", "tolerations"]).to_vec();
        all.extend(added.iter().filter(|toleration| !all.contains(toleration)).cloned().collect::<Vec<_>>());
        pod.set(&["spec", "tolerations"], all);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    #[test]
    fn a_pod_gets_the_overhead_and_the_nodes_of_its_class() {
        let class = object(json!({"handler": "h", "overhead": {"podFixed": {"cpu": "10m"}},
            "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm"}, {"key": "both"}]}}));
        let mut pod = object(json!({"spec": {"nodeSelector": {"disk": "fast"}, "tolerations": [{"key": "both"}]}}));
        add_overhead(&mut pod, &class).unwrap();
        add_scheduling(&mut pod, &class).unwrap();
        let wanted = json!({"overhead": {"cpu": "10m"}, "nodeSelector": {"disk": "fast", "vm": "yes"},
            "tolerations": [{"key": "both"}, {"key": "vm"}]});
        assert_eq!(pod.get(&["spec"]), Some(&wanted));
    }

    #[test]
    fn a_pod_that_says_otherwise_is_refused() {
        let class =
            object(json!({"overhead": {"podFixed": {"cpu": "10m"}}, "scheduling": {"nodeSelector": {"vm": "yes"}}}));
        let mut pod = object(json!({"spec": {"overhead": {"cpu": "1"}, "nodeSelector": {"vm": "no"}}}));
        assert_eq!(add_overhead(&mut pod, &class), Err(OTHER_OVERHEAD.into()));
        let conflict = "conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no";
        assert_eq!(add_scheduling(&mut pod, &class), Err(conflict.into()));
    }
}
