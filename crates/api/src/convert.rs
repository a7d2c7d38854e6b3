//! Conversion between the versions of a built-in kind.
//!
//! Two kinds are served by default in two shapes: Event (the core group and events.k8s.io share one storage) and
//! HorizontalPodAutoscaler (autoscaling v1 and v2). All other versions that share a storage share their fields too, so a new
//! `apiVersion` is all they need. Not built: the beta versions of resource.k8s.io, whose requests have another shape; they
//! are not served by default and are refused here.

use meta::{GroupVersionKind, Object, Status};

mod autoscaler;
mod event;

/// The object in the version asked for. The object says which version it is in.
pub fn convert(mut object: Object, to: &GroupVersionKind) -> Result<Object, Status> {
    let from = object.gvk().ok_or_else(|| Status::internal("an object to convert has no kind"))?;
    if from == *to {
        return Ok(object);
    }
    match (to.kind.as_ref(), from.group.as_ref(), to.group.as_ref()) {
        ("Event", "", "events.k8s.io") => event::to_events(&mut object),
        ("Event", "events.k8s.io", "") => event::to_core(&mut object),
        ("HorizontalPodAutoscaler", ..) if to.version.as_ref() == "v1" => autoscaler::to_v1(&mut object),
        ("HorizontalPodAutoscaler", ..) if from.version.as_ref() == "v1" => autoscaler::to_v2(&mut object),
        (kind, _, "resource.k8s.io") if kind != "DeviceTaintRule" => {
            return Err(Status::not_acceptable(format!("{kind} cannot be converted from {from} to {to} yet")));
        }
        _ => {}
    }
    object.set_gvk(to);
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    fn there_and_back(value: &Value, to: &GroupVersionKind) -> (Value, Value) {
        let original = object(value.clone());
        let from = original.gvk().unwrap();
        let there = convert(original, to).unwrap();
        (there.clone().into_value(), convert(there, &from).unwrap().into_value())
    }

    #[test]
    fn an_event_is_the_same_in_both_groups() {
        let core = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod"},
            "message": "m", "source": {"component": "c"}, "firstTimestamp": "2024-01-01T00:00:00Z", "count": 2,
            "reportingComponent": "r", "reportingInstance": "i", "type": "Normal", "series": {"count": 3}});
        let (events, back) = there_and_back(&core, &GroupVersionKind::new("events.k8s.io", "v1", "Event"));
        assert_eq!(
            events,
            json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "regarding": {"kind": "Pod"},
                "note": "m", "deprecatedSource": {"component": "c"}, "deprecatedFirstTimestamp": "2024-01-01T00:00:00Z",
                "deprecatedCount": 2, "reportingController": "r", "reportingInstance": "i", "type": "Normal", "series": {"count": 3}})
        );
        assert_eq!(back, core);
    }

    #[test]
    fn an_autoscaler_keeps_what_version_1_cannot_say_in_annotations() {
        let target = |percent: i64| json!({"type": "Utilization", "averageUtilization": percent});
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": target(70)}});
        let pods = json!({"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "10"}}});
        let v2 = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
            "spec": {"maxReplicas": 3, "metrics": [pods, cpu], "behavior": {"scaleUp": {"selectPolicy": "Max"}}},
            "status": {"desiredReplicas": 1, "conditions": [{"type": "AbleToScale"}]}});
        let (v1, back) = there_and_back(&v2, &GroupVersionKind::new("autoscaling", "v1", "HorizontalPodAutoscaler"));
        assert_eq!(v1["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 70}));
        assert_eq!(
            v1["metadata"]["annotations"],
            json!({"autoscaling.alpha.kubernetes.io/metrics": r#"[{"pods":{"metricName":"rps","targetAverageValue":"10"},"type":"Pods"}]"#,
                "autoscaling.alpha.kubernetes.io/behavior": r#"{"ScaleUp":{"SelectPolicy":"Max"}}"#,
                "autoscaling.alpha.kubernetes.io/conditions": r#"[{"type":"AbleToScale"}]"#})
        );
        assert_eq!(back, v2);
    }

    #[test]
    fn an_autoscaler_of_version_1_without_a_target_aims_at_80_percent_of_cpu() {
        let v1 = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {}, "spec": {"maxReplicas": 3},
            "status": {"currentCPUUtilizationPercentage": 4}});
        let (v2, _) = there_and_back(&v1, &GroupVersionKind::new("autoscaling", "v2", "HorizontalPodAutoscaler"));
        assert_eq!(
            v2["spec"]["metrics"],
            json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}])
        );
        assert_eq!(v2["status"]["currentMetrics"][0]["resource"]["current"], json!({"averageUtilization": 4}));
    }
}
