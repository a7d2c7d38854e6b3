//! Eviction: a delete that asks the pod's disruption budget first.

use client::Verb;
use client::door::DeleteOptions;
use meta::{LabelSelector, Object, Reason, Status, StatusCause};
use serde_json::{Value, json};

use super::binding::set_condition;
use super::named;
use crate::context::Context;
use crate::registry::{Outcome, Registry, Revision, Target};

const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
const RETRY_AFTER_SECONDS: u32 = 10;

/// As many evictions as may be recorded in a budget that its controller has not looked at yet.
const DISRUPTED_PODS_MAX: usize = 2000;

pub async fn create(registry: &Registry, cx: &Context, target: &Target, eviction: &Object) -> Result<Outcome, Status> {
    let target = Target { subresource: String::new(), ..named(target, eviction)? };
    let options = delete_options(eviction);
    let pod = registry.read_latest(&target).await?.stored_object()?;
    let phase = pod.str_at(&["status", "phase"]);
    // A pod that has ended, has not begun or is going already disturbs nobody.
    if !matches!(phase, "Succeeded" | "Failed" | "Pending") && !pod.is_being_deleted() {
        ask_budget(registry, cx, &pod).await?;
        if !cx.options.dry_run {
            mark(registry, cx, &target).await?;
        }
    }
    registry.delete(cx, &target, options).await?;
    Ok(Outcome::Success { details: None, created: true })
}

fn delete_options(eviction: &Object) -> DeleteOptions {
    let text = |path: &[&str]| Some(eviction.str_at(path).to_string()).filter(|text| !text.is_empty());
    DeleteOptions {
        grace_period_seconds: eviction.i64_at(&["deleteOptions", "gracePeriodSeconds"]),
        propagation_policy: text(&["deleteOptions", "propagationPolicy"]),
        precondition_uid: text(&["deleteOptions", "preconditions", "uid"]),
        precondition_resource_version: text(&["deleteOptions", "preconditions", "resourceVersion"]),
        ..DeleteOptions::default()
    }
}

async fn ask_budget(registry: &Registry, cx: &Context, pod: &Object) -> Result<(), Status> {
    let budgets: Vec<Object> = registry
        .cached_objects("poddisruptionbudgets", pod.namespace())?
        .into_iter()
        .filter(|budget| LabelSelector::from_spec(budget.get(&["spec", "selector"])).is_ok_and(|all| all.matches(pod)))
        .collect();
    let budget = match budgets.as_slice() {
        [] => return Ok(()),
        [one] => one,
        _ => {
            return Err(Status::new(
                Reason::InternalError,
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    check(budget)?;
    if cx.options.dry_run {
        return Ok(());
    }
    let kind = registry.kind("policy", "v1", "poddisruptionbudgets").ok_or_else(Status::no_such_resource)?;
    let target = Target::object(&kind, &budget.key()).with_subresource("status");
    let (name, now) = (pod.name().to_string(), meta::time::rfc3339(registry.clock().now()));
    let edit = move |budget: &mut Object| {
        check(budget)?;
        let allowed = budget.i64_at(&["status", "disruptionsAllowed"]).unwrap_or(0);
        budget.set(&["status", "disruptionsAllowed"], allowed - 1);
        budget.set(&["status", "disruptedPods", &name], now.as_str());
        Ok(())
    };
    let cx = Context { verb: Verb::Update, ..cx.clone() };
    registry.revise(&cx, &target, Revision::Edit(Box::new(edit))).await.map(drop)
}

/// Whether the budget allows one more disruption now.
fn check(budget: &Object) -> Result<(), Status> {
    let refused = |message: String| {
        let cause = StatusCause { reason: "DisruptionBudget".into(), message, field: String::new() };
        Err(Status::too_many_requests(REFUSED, RETRY_AFTER_SECONDS).with_cause(cause))
    };
    let name = budget.name();
    if budget.i64_at(&["status", "observedGeneration"]).unwrap_or(0) < budget.generation() {
        return refused(format!("The disruption budget {name} is still being processed by the server."));
    }
    let disrupted = budget.get(&["status", "disruptedPods"]).and_then(Value::as_object);
    if disrupted.is_some_and(|pods| pods.len() > DISRUPTED_PODS_MAX) {
        return Err(Status::forbidden(
            &meta::GroupResource::new("policy", "poddisruptionbudgets"),
            name,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    let number = |field: &str| budget.i64_at(&["status", field]).unwrap_or(0);
    if number("disruptionsAllowed") > 0 {
        return Ok(());
    }
    let (desired, current) = (number("desiredHealthy"), number("currentHealthy"));
    refused(format!("The disruption budget {name} needs {desired} healthy pods and has {current} currently"))
}

/// Says in the pod's status why it goes.
async fn mark(registry: &Registry, cx: &Context, pod: &Target) -> Result<(), Status> {
    let now = meta::time::rfc3339(registry.clock().now());
    let edit = move |pod: &mut Object| {
        set_condition(
            pod,
            json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
                   "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": now}),
        );
        Ok(())
    };
    let target = pod.clone().with_subresource("status");
    let cx = Context { verb: Verb::Update, ..cx.clone() };
    registry.revise(&cx, &target, Revision::Edit(Box::new(edit))).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_without_room_refuses_and_says_what_it_needs() {
        let budget = |status: Value| {
            Object::from_value(json!({"metadata": {"name": "b", "generation": 1}, "status": status})).unwrap()
        };
        assert!(check(&budget(json!({"observedGeneration": 1, "disruptionsAllowed": 1}))).is_ok());
        let refused =
            check(&budget(json!({"observedGeneration": 1, "desiredHealthy": 3, "currentHealthy": 2}))).unwrap_err();
        assert_eq!((refused.code, refused.message.as_str()), (429, REFUSED));
        let details = refused.details.unwrap();
        assert_eq!(details.causes[0].message, "The disruption budget b needs 3 healthy pods and has 2 currently");
        let unseen = check(&budget(json!({"disruptionsAllowed": 1}))).unwrap_err();
        assert!(unseen.details.unwrap().causes[0].message.contains("still being processed"));
    }
}
