//! Resolves a pod's priority class to a number, and keeps a second class from being the default.

use async_trait::async_trait;
use meta::{Object, ObjectKey, Status};
use serde_json::Value;

use super::{Operation, Plugin, Review};
use crate::registry::Registry;

const CLASSES: &str = "priorityclasses";
const PREEMPT_LOWER: &str = "PreemptLowerPriority";

pub struct Priority;

/// What a class, or the lack of one, gives a pod.
struct Resolved {
    class: String,
    priority: i64,
    preemption_policy: String,
}

#[async_trait]
impl Plugin for Priority {
    async fn admit(&self, registry: &Registry, review: &Review<'_>, pod: &mut Object) -> Result<(), Status> {
        if !review.is("", "pods", "") {
            return Ok(());
        }
        if let (Operation::Update, Some(old)) = (review.operation, review.old) {
            for field in ["priority", "preemptionPolicy"] {
                if let Some(value) = old.get(&["spec", field]) {
                    pod.set_default(&["spec", field], value.clone());
                }
            }
            return Ok(());
        }
        let resolved = resolve(registry, review, pod).await?;
        apply(pod, resolved).map_err(|why| review.forbidden(Some(pod), why))
    }

    async fn validate(&self, registry: &Registry, review: &Review<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(class) = object.filter(|_| review.is("scheduling.k8s.io", CLASSES, "")) else { return Ok(()) };
        if !class.bool_at(&["globalDefault"]) {
            return Ok(());
        }
        match default_class(registry)?.filter(|default| default.name() != class.name()) {
            Some(default) => {
                let name = default.name();
                let why = format!("PriorityClass {name} is already marked as default. Only one default can exist");
                Err(review.forbidden(object, why))
            }
            None => Ok(()),
        }
    }
}

async fn resolve(registry: &Registry, review: &Review<'_>, pod: &Object) -> Result<Resolved, Status> {
    let name = pod.str_at(&["spec", "priorityClassName"]);
    let class = if name.is_empty() {
        default_class(registry)?
    } else {
        match registry.current(CLASSES, &ObjectKey::cluster(name)).await? {
            Some(class) => Some(class.stored_object()?),
            None => return Err(review.forbidden(Some(pod), format!("no PriorityClass with name {name} was found"))),
        }
    };
    let Some(class) = class else {
        return Ok(Resolved { class: String::new(), priority: 0, preemption_policy: PREEMPT_LOWER.into() });
    };
    let policy = class.str_at(&["preemptionPolicy"]);
    Ok(Resolved {
        class: class.name().to_string(),
        priority: class.i64_at(&["value"]).unwrap_or(0),
        preemption_policy: if policy.is_empty() { PREEMPT_LOWER } else { policy }.to_string(),
    })
}

/// The default class; of several (which only a race can make) the lowest.
fn default_class(registry: &Registry) -> Result<Option<Object>, Status> {
    let classes = registry.cached_objects(CLASSES, "")?.into_iter();
    let defaults = classes.filter(|class| class.bool_at(&["globalDefault"]));
    Ok(defaults.min_by_key(|class| class.i64_at(&["value"]).unwrap_or(0)))
}

fn apply(pod: &mut Object, resolved: Resolved) -> Result<(), String> {
    let Resolved { class, priority, preemption_policy } = resolved;
    if let Some(given) = pod.i64_at(&["spec", "priority"]).filter(|given| *given != priority) {
        return Err(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name"
        ));
    }
    let given = pod.str_at(&["spec", "preemptionPolicy"]);
    if !given.is_empty() && given != preemption_policy {
        return Err(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {preemption_policy} from the given PriorityClass name"
        ));
    }
    if !class.is_empty() {
        pod.set(&["spec", "priorityClassName"], class);
    }
    pod.set(&["spec", "priority"], Value::from(priority));
    pod.set(&["spec", "preemptionPolicy"], preemption_policy);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_may_not_bring_another_number_than_its_class() {
        let resolved = || Resolved { class: "high".into(), priority: 7, preemption_policy: PREEMPT_LOWER.into() };
        let mut pod = Object::from_value(json!({"spec": {"priority": 7}})).unwrap();
        apply(&mut pod, resolved()).unwrap();
        assert_eq!(pod.into_value()["spec"]["priorityClassName"], "high");
        let mut pod = Object::from_value(json!({"spec": {"priority": 8}})).unwrap();
        assert!(apply(&mut pod, resolved()).unwrap_err().starts_with("the integer value of priority (8)"));
    }
}
