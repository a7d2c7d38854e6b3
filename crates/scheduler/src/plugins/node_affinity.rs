//! `nodeSelector` and node affinity: required terms filter, preferred terms score.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};
use meta::label_selector::{Operator, Requirement};

use crate::cache::Cache;
use crate::events::Event;
use crate::node_info::NodeFacts;
use crate::plugin::{Filter, Plugin, Rejection, Score, stretch};
use crate::pod_info::PodInfo;

pub struct NodeAffinityPlugin;

/// A requirement as a label requirement; none for an operator there is not.
fn requirement(from: &NodeSelectorRequirement) -> Option<Requirement> {
    let operator = match from.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::Gt,
        "Lt" => Operator::Lt,
        _ => return None,
    };
    let values: BTreeSet<String> = from.values.iter().flatten().cloned().collect();
    Some(Requirement { key: from.key.clone(), operator, values })
}

/// Whether a node satisfies a term: all of its expressions and fields. A term with neither matches nothing.
fn term_matches(term: &NodeSelectorTerm, node: &NodeFacts) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let label = |key: &str| node.labels.get(key).map(String::as_str);
    let field = |key: &str| (key == "metadata.name").then_some(node.name.as_str());
    expressions.iter().all(|from| requirement(from).is_some_and(|it| it.matches(label)))
        && fields.iter().all(|from| requirement(from).is_some_and(|it| it.matches(field)))
}

/// Whether a node is one that the pod insists on.
fn fits(pod: &PodInfo, node: &NodeFacts) -> bool {
    let selected = pod.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
    let required = pod.node_affinity.as_ref();
    let required = required.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|selector| selector.node_selector_terms.iter().any(|term| term_matches(term, node)))
}

impl Plugin for NodeAffinityPlugin {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, _: &'a Cache) -> Option<Filter<'a>> {
        if pod.node_selector.is_empty() && pod.node_affinity.is_none() {
            return None;
        }
        Some(Box::new(|on| {
            if fits(pod, on.facts) {
                return Ok(());
            }
            Err(Rejection::lasting("node(s) didn't match Pod's node affinity/selector"))
        }))
    }

    fn weight(&self) -> i64 {
        2
    }

    fn score<'a>(&self, pod: &'a PodInfo, _: &'a Cache) -> Option<Score<'a>> {
        let affinity = pod.node_affinity.as_ref()?;
        let preferred = affinity.preferred_during_scheduling_ignored_during_execution.as_ref()?;
        Some(Box::new(|on| {
            let matching = preferred.iter().filter(|term| term_matches(&term.preference, on.facts));
            matching.map(|term| i64::from(term.weight)).sum()
        }))
    }

    fn normalize(&self, scores: &mut [i64]) {
        stretch(scores, false);
    }

    fn is_helped_by(&self, pod: &PodInfo, event: &Event) -> bool {
        match event {
            Event::NodeAdded(node) => fits(pod, node),
            Event::NodeUpdated { old, new } => !fits(pod, old) && fits(pod, new),
            Event::PodUpdated => true,
            Event::PodFreed(_) | Event::PodPlaced(_) | Event::ClaimChanged(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node() -> NodeFacts {
        let labels = [("zone".to_string(), "a".to_string()), ("cores".to_string(), "8".to_string())].into();
        NodeFacts { name: "n1".into(), labels, ..NodeFacts::default() }
    }

    #[test]
    fn terms_are_alternatives_and_their_parts_must_all_hold() {
        for (terms, expected) in [
            (json!([{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}]), true),
            (json!([{"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}]), false),
            (json!([{"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["4"]}]}]), true),
            (
                json!([{"matchExpressions": [{"key": "cores", "operator": "Lt", "values": ["4"]}]},
                    {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]),
                true,
            ),
            (json!([{"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}]), false),
            (json!([{}]), false),
        ] {
            let affinity = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
            let pod = PodInfo { node_affinity: serde_json::from_value(affinity).unwrap(), ..PodInfo::default() };
            assert_eq!(fits(&pod, &node()), expected, "{terms}");
        }
    }

    #[test]
    fn the_node_selector_needs_every_label() {
        let pod = |zone: &str| PodInfo { node_selector: vec![("zone".into(), zone.into())], ..PodInfo::default() };
        assert!(fits(&pod("a"), &node()) && !fits(&pod("b"), &node()));
    }
}
