//! The counts against counting anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Affinity;
use serde_json::{Value, json};

use super::{NO_LABELS, RULES_UNSWEPT_MAX, Topology};
use crate::affinity::{Kin, PodRules, Rule};
use crate::node_info::NodeFacts;
use crate::pod_info::PodInfo;

const KEYS: [&str; 2] = ["zone", "host"];

fn labels(pairs: &[(&str, String)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| (key.to_string(), value.clone())).collect()
}

fn term(app: usize, key: &str, scope: usize) -> Value {
    let mut term = json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": format!("a{app}")}}});
    match scope {
        0 => {}
        1 => term["namespaces"] = json!(["n0", "n1"]),
        _ => term["namespaceSelector"] = json!({"matchLabels": {"team": "t0"}}),
    }
    term
}

fn pod(uid: usize, namespace: &str, app: usize, affinity: Value) -> Arc<PodInfo> {
    let affinity: Affinity = serde_json::from_value(affinity).unwrap();
    let kin = Kin { namespace: namespace.into(), labels: labels(&[("app", format!("a{app}"))]) };
    let rules = PodRules::of(&affinity, namespace);
    Arc::new(PodInfo { uid: uid.to_string(), kin: Arc::new(kin), rules, ..PodInfo::default() })
}

/// A cluster kept twice: as counts, and as what is counted.
#[derive(Default)]
struct Twin {
    counts: Topology,
    nodes: BTreeMap<usize, Arc<NodeFacts>>,
    pods: Vec<(usize, Arc<PodInfo>)>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
}

impl Twin {
    fn set_node(&mut self, slot: usize, labels: Option<BTreeMap<String, String>>) {
        let facts = labels.map(|labels| Arc::new(NodeFacts { labels, ..NodeFacts::default() }));
        let there = self.pods.iter().filter(|(on, _)| *on == slot).map(|(_, pod)| pod);
        self.counts.set_node(slot, facts.as_ref(), there);
        match facts {
            Some(facts) => drop(self.nodes.insert(slot, facts)),
            None => drop(self.nodes.remove(&slot)),
        }
    }

    fn set_namespace(&mut self, name: &str, team: usize) {
        let labels = labels(&[("team", format!("t{team}"))]);
        self.counts.set_namespace(name, Some(labels.clone()));
        self.namespaces.insert(name.into(), labels);
    }

    fn add(&mut self, slot: usize, pod: Arc<PodInfo>) {
        self.counts.add(slot, &pod);
        self.pods.push((slot, pod));
    }

    fn remove(&mut self, at: usize) {
        let (slot, pod) = self.pods.swap_remove(at);
        self.counts.remove(slot, &pod);
    }

    fn means(&self, rule: &Rule, pod: &PodInfo) -> bool {
        rule.matches(&pod.kin, self.namespaces.get(&pod.kin.namespace).unwrap_or(&NO_LABELS))
    }

    /// Sums over the pods that share the node's domain; none on a node without the label.
    fn sum(&self, slot: usize, rule: &Rule, count: impl Fn(&PodInfo) -> i64) -> Option<i64> {
        let domain = |slot: usize| self.nodes.get(&slot)?.labels.get(&rule.topology_key);
        let here = domain(slot)?;
        Some(self.pods.iter().filter(|(on, _)| domain(*on) == Some(here)).map(|(_, pod)| count(pod)).sum())
    }

    fn matching(&self, slot: usize, rule: &Rule) -> Option<i64> {
        self.sum(slot, rule, |pod| i64::from(self.means(rule, pod)))
    }

    /// Whether the pod may go to the node, and what speaks for it.
    fn verdict(&self, slot: usize, pod: &PodInfo) -> ([bool; 3], i64) {
        let own = (*pod.rules.clone().unwrap_or_default()).clone();
        let labelled = own.requires.iter().all(|rule| self.matching(slot, rule).is_some());
        let found = own.requires.iter().all(|rule| self.matching(slot, rule).is_some_and(|count| count > 0));
        let anywhere = self
            .nodes
            .keys()
            .any(|slot| own.requires.iter().any(|rule| self.matching(*slot, rule).is_some_and(|count| count > 0)));
        let first = !anywhere && own.requires.first().is_some_and(|rule| self.means(rule, pod));
        let repelled = own.repels.iter().any(|rule| self.matching(slot, rule).is_some_and(|count| count > 0));
        let (mut repelling, mut pull) = (false, 0);
        for (_, other) in &self.pods {
            let theirs = (*other.rules.clone().unwrap_or_default()).clone();
            for rule in theirs.repels.iter().filter(|rule| self.means(rule, pod)) {
                let same = |pod: &PodInfo| i64::from(pod.uid == other.uid);
                repelling |= self.sum(slot, rule, same).is_some_and(|count| count > 0);
            }
            for (rule, weight) in theirs.draws.iter().filter(|(rule, _)| self.means(rule, pod)) {
                let same = |pod: &PodInfo| i64::from(pod.uid == other.uid);
                pull += weight * self.sum(slot, rule, same).unwrap_or(0);
            }
        }
        let likes = own.prefers.iter().map(|(rule, weight)| weight * self.matching(slot, rule).unwrap_or(0));
        ([labelled && (found || first), repelled, repelling], pull + likes.sum::<i64>())
    }

    fn check(&mut self, pod: &PodInfo) {
        self.counts.follow(pod);
        for slot in self.nodes.keys() {
            let obstacles = self.counts.obstacles(pod);
            let seen = [obstacles.has_required(*slot), obstacles.has_repelled(*slot), obstacles.has_repelling(*slot)];
            let counted = (seen, self.counts.pulls(pod).at(*slot));
            assert_eq!(counted, self.verdict(*slot, pod), "node {slot}, pod {pod:?}");
        }
    }
}

/// The same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

fn some_pod(numbers: &mut Numbers, uid: usize) -> Arc<PodInfo> {
    let mut some_term = || term(numbers.below(3), KEYS[numbers.below(2)], numbers.below(3));
    let (a, b, c, d, e) = (some_term(), some_term(), some_term(), some_term(), some_term());
    let affinity = match numbers.below(5) {
        0 => json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [a, b]}}),
        1 => json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [c]}}),
        2 => json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [c, d]}}),
        3 => json!({
            "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 3, "podAffinityTerm": d}]},
            "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 2, "podAffinityTerm": e}]},
        }),
        _ => json!({}),
    };
    pod(uid, &format!("n{}", numbers.below(3)), numbers.below(3), affinity)
}

fn some_labels(numbers: &mut Numbers, slot: usize) -> Option<BTreeMap<String, String>> {
    match numbers.below(6) {
        0 => None,
        1 => Some(BTreeMap::new()),
        _ => Some(labels(&[("zone", format!("z{}", numbers.below(2))), ("host", format!("h{slot}"))])),
    }
}

#[test]
fn counts_kept_step_by_step_are_those_counted_anew() {
    for seed in 0..40 {
        let (mut twin, mut numbers) = (Twin::default(), Numbers(seed));
        for slot in 0..5 {
            twin.set_node(slot, some_labels(&mut numbers, slot));
        }
        for step in 0..60 {
            match numbers.below(10) {
                0 => {
                    let slot = numbers.below(5);
                    twin.set_node(slot, some_labels(&mut numbers, slot));
                }
                1 => twin.set_namespace(&format!("n{}", numbers.below(3)), numbers.below(2)),
                2 | 3 if !twin.pods.is_empty() => twin.remove(numbers.below(twin.pods.len())),
                4 => twin.counts.sweep(),
                _ => twin.add(numbers.below(5), some_pod(&mut numbers, step)),
            }
            twin.check(&some_pod(&mut numbers, 1000));
        }
    }
}

#[test]
fn rules_that_no_placed_pod_states_are_forgotten() {
    let mut twin = Twin::default();
    twin.set_node(0, Some(labels(&[("zone", "z".into())])));
    let apart = |uid: usize| {
        let own = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": format!("a{uid}")}}});
        pod(uid, "n", uid, json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [own]}}))
    };
    twin.add(0, apart(0));
    for uid in 1..3 * RULES_UNSWEPT_MAX {
        twin.counts.follow(&apart(uid));
    }
    assert!(twin.counts.numbers.len() <= RULES_UNSWEPT_MAX + 2, "{}", twin.counts.numbers.len());
    twin.check(&apart(0));
    twin.remove(0);
    twin.counts.sweep();
    assert_eq!((twin.counts.numbers.len(), twin.counts.classes.len()), (0, 0));
}
