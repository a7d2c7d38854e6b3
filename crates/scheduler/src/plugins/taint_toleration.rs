//! Taints keep pods away that do not tolerate them; taints that only prefer so lower the score.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::cache::Cache;
use crate::events::Event;
use crate::plugin::{Filter, Plugin, Rejection, Score, stretch};
use crate::pod_info::PodInfo;

pub struct TaintToleration;

/// Whether one toleration covers a taint.
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let effect = given(&toleration.effect).is_none_or(|effect| effect == taint.effect);
    let key = given(&toleration.key).is_none_or(|key| key == taint.key);
    let value = || toleration.value.as_deref().unwrap_or_default();
    let taint_value = taint.value.as_deref().unwrap_or_default();
    let numbers = || Some((taint_value.parse::<i64>().ok()?, value().parse::<i64>().ok()?));
    effect
        && key
        && match toleration.operator.as_deref() {
            Some("Exists") => true,
            Some("Lt") => numbers().is_some_and(|(taint, bound)| taint < bound),
            Some("Gt") => numbers().is_some_and(|(taint, bound)| taint > bound),
            _ => value() == taint_value,
        }
}

fn tolerated(pod: &PodInfo, taint: &Taint) -> bool {
    pod.tolerations.iter().any(|toleration| tolerates(toleration, taint))
}

/// Whether a pod may go to a node that is cordoned.
pub fn tolerates_unschedulable(pod: &PodInfo) -> bool {
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_string(),
        effect: "NoSchedule".to_string(),
        ..Taint::default()
    };
    tolerated(pod, &taint)
}

fn untolerated<'a>(pod: &PodInfo, taints: &'a [Taint]) -> Option<&'a Taint> {
    taints.iter().find(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute") && !tolerated(pod, taint))
}

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, _: &'a Cache) -> Option<Filter<'a>> {
        Some(Box::new(|on| match untolerated(pod, &on.facts.taints) {
            None => Ok(()),
            Some(_) => Err(Rejection::lasting("node(s) had untolerated taint(s)")),
        }))
    }

    fn weight(&self) -> i64 {
        3
    }

    fn score<'a>(&self, pod: &'a PodInfo, _: &'a Cache) -> Option<Score<'a>> {
        Some(Box::new(|on| {
            let preferred = on.facts.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
            preferred.filter(|taint| !tolerated(pod, taint)).count() as i64
        }))
    }

    fn normalize(&self, scores: &mut [i64]) {
        stretch(scores, true);
    }

    fn is_helped_by(&self, pod: &PodInfo, event: &Event) -> bool {
        match event {
            Event::NodeAdded(node) => untolerated(pod, &node.taints).is_none(),
            Event::NodeUpdated { old, new } => old.taints != new.taints && untolerated(pod, &new.taints).is_none(),
            Event::PodUpdated => true,
            Event::PodFreed(_) | Event::PodPlaced(_) | Event::ClaimChanged(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_kind_of_toleration_covers_what_it_should() {
        let taint: Taint = serde_json::from_value(json!({"key": "k", "value": "7", "effect": "NoSchedule"})).unwrap();
        for (toleration, expected) in [
            (json!({"key": "k", "operator": "Equal", "value": "7", "effect": "NoSchedule"}), true),
            (json!({"key": "k", "value": "7"}), true),
            (json!({"key": "k", "value": "8"}), false),
            (json!({"key": "k", "operator": "Exists"}), true),
            (json!({"operator": "Exists"}), true),
            (json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false),
            (json!({"key": "k", "operator": "Gt", "value": "5"}), true),
            (json!({"key": "k", "operator": "Lt", "value": "5"}), false),
        ] {
            let parsed: Toleration = serde_json::from_value(toleration.clone()).unwrap();
            assert_eq!(tolerates(&parsed, &taint), expected, "{toleration}");
        }
    }
}
