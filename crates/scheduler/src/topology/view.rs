//! What the counts say about nodes for one pod.

use super::domains::{Counts, Domains};
use super::{Counted, NO_LABELS, RuleNumber, Slot, Topology};
use crate::affinity::{Kin, Rule};
use crate::pod_info::PodInfo;

/// One count of a rule.
struct Seen<'a> {
    domains: &'a Domains,
    key: usize,
    counts: &'a Counts,
}

impl Seen<'_> {
    /// None on a node without the label.
    fn at(&self, slot: Slot) -> Option<i64> {
        Some(self.counts.at(self.domains.at(self.key, slot)?))
    }
}

/// What can keep a pod from a node.
pub struct Obstacles<'a> {
    required: Vec<Seen<'a>>,
    /// No pod that is required is anywhere, and the pod is one itself: it may be the first.
    may_be_first: bool,
    repelled: Vec<Seen<'a>>,
    repelling: Vec<Seen<'a>>,
}

impl Obstacles<'_> {
    pub fn is_empty(&self) -> bool {
        self.required.is_empty() && self.repelled.is_empty() && self.repelling.is_empty()
    }

    /// Whether the pods that the pod requires are in the node's domains.
    pub fn has_required(&self, slot: Slot) -> bool {
        let mut all = true;
        for required in &self.required {
            match required.at(slot) {
                None => return false,
                Some(count) => all &= count > 0,
            }
        }
        all || self.may_be_first
    }

    /// Whether a pod that the pod keeps away from is in the node's domains.
    pub fn has_repelled(&self, slot: Slot) -> bool {
        self.repelled.iter().any(|seen| seen.at(slot).is_some_and(|count| count > 0))
    }

    /// Whether a pod in the node's domains keeps away from the pod.
    pub fn has_repelling(&self, slot: Slot) -> bool {
        self.repelling.iter().any(|seen| seen.at(slot).is_some_and(|count| count > 0))
    }
}

/// What speaks for and against nodes.
pub struct Pulls<'a> {
    prefers: Vec<(Seen<'a>, i64)>,
    drawn: Vec<Seen<'a>>,
}

impl Pulls<'_> {
    pub fn is_empty(&self) -> bool {
        self.prefers.is_empty() && self.drawn.is_empty()
    }

    pub fn at(&self, slot: Slot) -> i64 {
        let prefers = self.prefers.iter().map(|(seen, weight)| weight * seen.at(slot).unwrap_or(0));
        let drawn = self.drawn.iter().map(|seen| seen.at(slot).unwrap_or(0));
        prefers.sum::<i64>() + drawn.sum::<i64>()
    }
}

impl Topology {
    /// The pod's rules are counted: see [`Topology::follow`].
    pub fn obstacles(&self, pod: &PodInfo) -> Obstacles<'_> {
        let rules = pod.rules.as_deref();
        let requires = rules.map(|rules| rules.requires.as_slice()).unwrap_or_default();
        let repels = rules.map(|rules| rules.repels.as_slice()).unwrap_or_default();
        let required: Vec<Seen<'_>> = requires.iter().filter_map(|rule| self.matching(rule)).collect();
        let labels = self.namespaces.get(&pod.kin.namespace).unwrap_or(&NO_LABELS);
        let none_anywhere = required.iter().all(|seen| seen.counts.is_empty());
        Obstacles {
            may_be_first: none_anywhere && requires.first().is_some_and(|rule| rule.matches(&pod.kin, labels)),
            required,
            repelled: repels
                .iter()
                .filter_map(|rule| self.matching(rule))
                .filter(|seen| !seen.counts.is_empty())
                .collect(),
            repelling: self.of_rules_meaning(&pod.kin, |counted| &counted.repelled),
        }
    }

    pub fn pulls(&self, pod: &PodInfo) -> Pulls<'_> {
        let prefers = pod.rules.iter().flat_map(|rules| &rules.prefers);
        Pulls {
            prefers: prefers.filter_map(|(rule, weight)| Some((self.matching(rule)?, *weight))).collect(),
            drawn: self.of_rules_meaning(&pod.kin, |counted| &counted.drawn),
        }
    }

    fn matching(&self, rule: &Rule) -> Option<Seen<'_>> {
        let counted = self.rules[*self.numbers.get(rule)?].as_ref()?;
        Some(self.seen(counted, &counted.matching))
    }

    fn seen<'a>(&'a self, counted: &Counted, counts: &'a Counts) -> Seen<'a> {
        Seen { domains: &self.domains, key: counted.key, counts }
    }

    /// A count of each rule that means the pod, where there is something in it.
    fn of_rules_meaning(&self, kin: &Kin, count: fn(&Counted) -> &Counts) -> Vec<Seen<'_>> {
        let counted = |number: RuleNumber| self.rules[number].as_ref().filter(|counted| !count(counted).is_empty());
        let numbers = match self.classes.get(kin) {
            Some(class) => class.rules.clone(),
            None => self.rules_meaning(kin),
        };
        numbers.into_iter().filter_map(counted).map(|counted| self.seen(counted, count(counted))).collect()
    }
}
