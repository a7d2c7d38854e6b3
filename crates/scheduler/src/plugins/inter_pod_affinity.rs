//! `podAffinity` and `podAntiAffinity`: near pods that are wanted near, and away from those that are not, by domains of nodes.
//!
//! What pods already placed say about the pod counts as much as what it says itself. The counting is [`crate::topology`]'s.

use crate::affinity::{PodRules, Rule};
use crate::cache::Cache;
use crate::events::Event;
use crate::node_info::NodeFacts;
use crate::plugin::{Filter, Plugin, Rejection, SCORE_MAX, Score};
use crate::pod_info::PodInfo;

pub struct InterPodAffinity;

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, cache: &'a Cache) -> Option<Filter<'a>> {
        let obstacles = cache.topology().obstacles(pod);
        if obstacles.is_empty() {
            return None;
        }
        Some(Box::new(move |on| {
            if !obstacles.has_required(on.slot) {
                return Err(Rejection::lasting("node(s) didn't match pod affinity rules"));
            }
            if obstacles.has_repelled(on.slot) {
                return Err(Rejection::preemptible("node(s) didn't match pod anti-affinity rules"));
            }
            if obstacles.has_repelling(on.slot) {
                return Err(Rejection::preemptible("node(s) didn't satisfy existing pods anti-affinity rules"));
            }
            Ok(())
        }))
    }

    fn weight(&self) -> i64 {
        2
    }

    fn score<'a>(&self, pod: &'a PodInfo, cache: &'a Cache) -> Option<Score<'a>> {
        let pulls = cache.topology().pulls(pod);
        if pulls.is_empty() { None } else { Some(Box::new(move |on| pulls.at(on.slot))) }
    }

    /// From the least, which may be below zero, to the most.
    fn normalize(&self, scores: &mut [i64]) {
        let least = scores.iter().copied().min().unwrap_or(0);
        let span = scores.iter().copied().max().unwrap_or(0) - least;
        for score in scores {
            *score = if span == 0 { 0 } else { (SCORE_MAX as f64 * ((*score - least) as f64 / span as f64)) as i64 };
        }
    }

    fn is_helped_by(&self, pod: &PodInfo, event: &Event) -> bool {
        match event {
            Event::NodeAdded(_) | Event::PodUpdated => true,
            Event::NodeUpdated { old, new } => pod.rules.as_ref().is_some_and(|rules| moves(rules, old, new)),
            Event::PodPlaced(placed) => {
                let first = pod.rules.as_ref().and_then(|rules| rules.requires.first());
                first.is_some_and(|rule| may_mean(rule, placed))
            }
            Event::PodFreed(freed) => {
                let repels = |by: &PodInfo, other: &PodInfo| {
                    by.rules.iter().flat_map(|rules| &rules.repels).any(|rule| may_mean(rule, other))
                };
                repels(pod, freed) || repels(freed, pod)
            }
            Event::ClaimChanged(_) => false,
        }
    }
}

/// Whether a rule means a pod if its namespace is right: a try too many is better than one too few.
fn may_mean(rule: &Rule, pod: &PodInfo) -> bool {
    let label = |key: &str| pod.kin.labels.get(key).map(String::as_str);
    rule.meant.iter().all(|meant| {
        let by_name = meant.namespace_selector == meta::LabelSelector::nothing();
        (!by_name || meant.namespaces.contains(&pod.kin.namespace)) && meant.labels.matches_labels(label)
    })
}

/// Whether a node went to another domain, or out of one that a pod is kept from, or into one that it requires.
fn moves(rules: &PodRules, old: &NodeFacts, new: &NodeFacts) -> bool {
    let labels =
        |rule: &Rule| (old.labels.get(&rule.topology_key).cloned(), new.labels.get(&rule.topology_key).cloned());
    let required = rules.requires.iter().map(labels).any(|(old, new)| new.is_some() && old != new);
    let repelled = rules.repels.iter().map(labels).any(|(old, new)| old.is_some() && old != new);
    required || repelled
}
