//! What a pod says about the pods that it wants near or far, in the form in which it is counted.
//!
//! A term of `podAffinity` or `podAntiAffinity` is a [`Rule`]: which pods it means, and the label whose values divide the nodes
//! into domains. Equal rules of different pods are one rule to [`crate::topology`], which counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Affinity, PodAffinityTerm, WeightedPodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as Spec;
use meta::LabelSelector;

/// What a required term adds to the score of a node for the pods that it means, as upstream's default.
const REQUIRED_WEIGHT: i64 = 1;

/// What rules see of a pod. Pods that are alike in this are counted together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Kin {
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
}

/// Which pods a term means.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Meant {
    pub namespaces: BTreeSet<String>,
    /// Pods of namespaces with such labels are meant too.
    pub namespace_selector: LabelSelector,
    pub labels: LabelSelector,
}

impl Meant {
    /// `namespace_labels` are those of the pod's namespace.
    pub fn matches(&self, pod: &Kin, namespace_labels: &BTreeMap<String, String>) -> bool {
        let label = |labels: &BTreeMap<String, String>, selector: &LabelSelector| {
            selector.matches_labels(|key| labels.get(key).map(String::as_str))
        };
        (self.namespaces.contains(&pod.namespace) || label(namespace_labels, &self.namespace_selector))
            && label(&pod.labels, &self.labels)
    }
}

/// Pods that are meant by every one of some terms, counted by the values of a node label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    pub meant: Vec<Meant>,
    pub topology_key: String,
}

impl Rule {
    pub fn matches(&self, pod: &Kin, namespace_labels: &BTreeMap<String, String>) -> bool {
        self.meant.iter().all(|meant| meant.matches(pod, namespace_labels))
    }
}

/// The rules of one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodRules {
    /// A node must share its domain of each with a pod that all required terms mean: they differ in the key alone.
    pub requires: Vec<Rule>,
    /// A node must not share its domain with such a pod, nor the other way round.
    pub repels: Vec<Rule>,
    /// How much each such pod speaks for the nodes of its domain, or against them.
    pub prefers: Vec<(Rule, i64)>,
    /// How much this pod, once it is somewhere, speaks for the nodes of its domain to each pod that the rule means.
    pub draws: Vec<(Rule, i64)>,
}

impl PodRules {
    /// None for a pod without terms, as nearly all are.
    pub fn of(affinity: &Affinity, namespace: &str) -> Option<Arc<Self>> {
        let (near, apart) = (affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
        let required = near.and_then(|near| near.required_during_scheduling_ignored_during_execution.as_ref());
        let singles: Vec<Rule> = required.into_iter().flatten().map(|term| rule(term, namespace)).collect();
        let repelled = apart.and_then(|apart| apart.required_during_scheduling_ignored_during_execution.as_ref());
        let liked = near.and_then(|near| near.preferred_during_scheduling_ignored_during_execution.as_ref());
        let disliked = apart.and_then(|apart| apart.preferred_during_scheduling_ignored_during_execution.as_ref());
        let mut prefers = weighted(liked, namespace, 1);
        prefers.extend(weighted(disliked, namespace, -1));
        let together: Vec<Meant> = singles.iter().flat_map(|rule| rule.meant.iter().cloned()).collect();
        let rules = PodRules {
            requires: singles.iter().map(|rule| Rule { meant: together.clone(), ..rule.clone() }).collect(),
            repels: repelled.into_iter().flatten().map(|term| rule(term, namespace)).collect(),
            draws: singles.into_iter().map(|rule| (rule, REQUIRED_WEIGHT)).chain(prefers.iter().cloned()).collect(),
            prefers,
        };
        (rules != PodRules::default()).then(|| Arc::new(rules))
    }

    /// Those that others are judged by while the pod is somewhere.
    pub fn lasting(&self) -> impl Iterator<Item = &Rule> {
        self.repels.iter().chain(self.draws.iter().map(|(rule, _)| rule))
    }

    /// Those that the pod's own place is judged by.
    pub fn asked(&self) -> impl Iterator<Item = &Rule> {
        self.requires.iter().chain(&self.repels).chain(self.prefers.iter().map(|(rule, _)| rule))
    }
}

fn weighted(terms: Option<&Vec<WeightedPodAffinityTerm>>, namespace: &str, sign: i64) -> Vec<(Rule, i64)> {
    let terms = terms.into_iter().flatten();
    terms.map(|term| (rule(&term.pod_affinity_term, namespace), sign * i64::from(term.weight))).collect()
}

/// A term that names no namespaces means its own pod's.
fn rule(term: &PodAffinityTerm, namespace: &str) -> Rule {
    let named: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
    let own = named.is_empty() && term.namespace_selector.is_none();
    let meant = Meant {
        namespaces: if own { BTreeSet::from([namespace.to_string()]) } else { named },
        namespace_selector: selector(term.namespace_selector.as_ref()),
        labels: selector(term.label_selector.as_ref()),
    };
    Rule { meant: vec![meant], topology_key: term.topology_key.clone() }
}

/// The server has validated selectors; one that cannot be read selects nothing.
fn selector(spec: Option<&Spec>) -> LabelSelector {
    let read = || {
        let value = serde_json::to_value(spec?).ok()?;
        LabelSelector::from_spec(Some(&value)).ok()
    };
    read().unwrap_or_else(LabelSelector::nothing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(terms: serde_json::Value) -> PodRules {
        let affinity: Affinity = serde_json::from_value(terms).unwrap();
        (*PodRules::of(&affinity, "mine").unwrap()).clone()
    }

    fn kin(namespace: &str, app: &str) -> Kin {
        Kin { namespace: namespace.into(), labels: BTreeMap::from([("app".into(), app.into())]) }
    }

    #[test]
    fn a_term_means_its_own_namespace_unless_it_names_others() {
        let web = json!({"matchLabels": {"app": "web"}});
        let team = BTreeMap::from([("team".to_string(), "a".to_string())]);
        for (extra, mine, theirs) in [
            (json!({}), true, false),
            (json!({"namespaces": ["theirs"]}), false, true),
            (json!({"namespaceSelector": {}}), true, true),
            (json!({"namespaceSelector": {"matchLabels": {"team": "a"}}}), false, true),
            (json!({"namespaces": ["mine"], "namespaceSelector": {"matchLabels": {"team": "a"}}}), true, true),
        ] {
            let mut term = json!({"topologyKey": "zone", "labelSelector": web});
            term.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            let rules =
                of(json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term.clone()]}}));
            let rule = &rules.repels[0];
            assert_eq!(rule.matches(&kin("mine", "web"), &BTreeMap::new()), mine, "{term}");
            assert_eq!(rule.matches(&kin("theirs", "web"), &team), theirs, "{term}");
            assert!(!rule.matches(&kin("mine", "db"), &team), "{term}");
        }
    }

    #[test]
    fn an_absent_selector_means_no_pod_and_an_empty_one_every_pod() {
        let term = |selector| json!([{"topologyKey": "zone", "labelSelector": selector}]);
        for (selector, expected) in [(json!(null), false), (json!({}), true)] {
            let rules = of(json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term(selector)}}));
            assert_eq!(rules.requires[0].matches(&kin("mine", "x"), &BTreeMap::new()), expected);
        }
    }

    #[test]
    fn required_terms_mean_one_pod_together_and_draw_one_by_one() {
        let term = |app: &str, key: &str| json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}});
        let rules = of(json!({
            "podAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [term("a", "zone"), term("b", "rack")],
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 7, "podAffinityTerm": term("a", "zone")}],
            },
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 5, "podAffinityTerm": term("b", "zone")}],
            },
        }));
        assert!(rules.requires.iter().all(|rule| !rule.matches(&kin("mine", "a"), &BTreeMap::new())));
        let keys: Vec<&str> = rules.requires.iter().map(|rule| rule.topology_key.as_str()).collect();
        assert_eq!(keys, ["zone", "rack"]);
        let weights = |rules: &[(Rule, i64)]| rules.iter().map(|(_, weight)| *weight).collect::<Vec<_>>();
        assert_eq!((weights(&rules.draws), weights(&rules.prefers)), (vec![1, 1, 7, -5], vec![7, -5]));
        assert!(rules.draws[0].0.matches(&kin("mine", "a"), &BTreeMap::new()));
        assert!(PodRules::of(&Affinity::default(), "mine").is_none());
    }
}
