//! Pods counted by domain, as they come and go: what pod affinity and anti-affinity are decided on.
//!
//! ```text
//! pod added to or removed from a node ──▶ for each rule that means it:  matching[domain of the node] ± 1
//!                                     ──▶ for each rule of its own:     repelled, drawn[domain of the node] ± weight
//! a cycle ──▶ a few look-ups per node; no other pod is looked at
//! ```
//!
//! Upstream goes through all pods of the cluster in every cycle. Here a rule ([`Rule`]) is counted once however many pods state
//! it, from the first pod that does; pods of the same namespace and labels ([`Kin`]) know together which rules mean them, so
//! that a pod costs as many additions as there are rules that concern it. A rule that no placed pod states is forgotten once
//! there are many of them.

mod domains;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::affinity::{Kin, Rule};
use crate::node_info::NodeFacts;
use crate::pod_info::PodInfo;
use domains::{Counts, Domains};

/// How many rules there may be before those that no placed pod states are looked for and forgotten.
const RULES_UNSWEPT_MAX: usize = 1024;

type RuleNumber = usize;
type Slot = usize;

/// A rule with its counts.
struct Counted {
    rule: Rule,
    /// Whose domains it counts by.
    key: usize,
    /// How many placed pods state it.
    stated: usize,
    /// Pods that it means.
    matching: Counts,
    /// Pods that keep those away that it means.
    repelled: Counts,
    /// Weights of the pods that draw those near that it means.
    drawn: Counts,
}

/// Placed pods that are alike.
#[derive(Default)]
struct Class {
    members: HashMap<Slot, i64>,
    /// The rules that mean them.
    rules: Vec<RuleNumber>,
}

#[derive(Default)]
pub struct Topology {
    namespaces: HashMap<String, BTreeMap<String, String>>,
    /// The nodes, by the cache's slots.
    nodes: Vec<Option<Arc<NodeFacts>>>,
    domains: Domains,
    rules: Vec<Option<Counted>>,
    vacant: Vec<RuleNumber>,
    numbers: HashMap<Rule, RuleNumber>,
    /// Rules that mean pods of a namespace by its name; the others mean by labels of namespaces.
    by_namespace: HashMap<String, Vec<RuleNumber>>,
    wide: Vec<RuleNumber>,
    classes: HashMap<Arc<Kin>, Class>,
    sweep_at: usize,
}

static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

impl Topology {
    /// A namespace is new, changed, or (none) gone.
    pub fn set_namespace(&mut self, name: &str, labels: Option<BTreeMap<String, String>>) {
        match labels {
            Some(labels) => drop(self.namespaces.insert(name.to_string(), labels)),
            None => drop(self.namespaces.remove(name)),
        }
        let labels = self.namespaces.get(name).unwrap_or(&NO_LABELS);
        for (kin, class) in self.classes.iter_mut().filter(|(kin, _)| kin.namespace == name) {
            for number in &self.wide {
                let Some(counted) = &mut self.rules[*number] else { continue };
                let known = class.rules.iter().position(|known| known == number);
                match (known, counted.rule.matches(kin, labels)) {
                    (None, true) => {
                        class.rules.push(*number);
                        counted.count_class(class, &self.domains, 1);
                    }
                    (Some(at), false) => {
                        class.rules.swap_remove(at);
                        counted.count_class(class, &self.domains, -1);
                    }
                    _ => {}
                }
            }
        }
    }

    /// The node of a slot is new, changed or (none) gone; `pods` are the ones on it.
    pub fn set_node<'a>(
        &mut self,
        slot: Slot,
        facts: Option<&Arc<NodeFacts>>,
        pods: impl Iterator<Item = &'a Arc<PodInfo>> + Clone,
    ) {
        if self.nodes.len() <= slot {
            self.nodes.resize(slot + 1, None);
        }
        let old = self.nodes[slot].take();
        let labels = |facts: Option<&Arc<NodeFacts>>| facts.map(|facts| facts.labels.clone()).unwrap_or_default();
        let (before, now) = (labels(old.as_ref()), labels(facts));
        if before != now {
            pods.clone().for_each(|pod| self.shift(slot, pod, -1));
            self.domains.move_node(slot, &before, &now);
            pods.for_each(|pod| self.shift(slot, pod, 1));
        }
        self.nodes[slot] = facts.cloned();
    }

    /// A pod takes its place on a node.
    pub fn add(&mut self, slot: Slot, pod: &PodInfo) {
        // Before the pod is among those that a new rule is counted over, for it is counted below.
        for rule in pod.rules.iter().flat_map(|rules| rules.lasting()) {
            let number = self.number(rule);
            if let Some(counted) = &mut self.rules[number] {
                counted.stated += 1;
            }
        }
        if !self.classes.contains_key(&pod.kin) {
            let class = Class { members: HashMap::new(), rules: self.rules_meaning(&pod.kin) };
            self.classes.insert(pod.kin.clone(), class);
        }
        if let Some(class) = self.classes.get_mut(&pod.kin) {
            *class.members.entry(slot).or_default() += 1;
        }
        self.shift(slot, pod, 1);
    }

    /// A pod leaves its node.
    pub fn remove(&mut self, slot: Slot, pod: &PodInfo) {
        self.shift(slot, pod, -1);
        for rule in pod.rules.iter().flat_map(|rules| rules.lasting()) {
            if let Some(counted) = self.numbers.get(rule).and_then(|number| self.rules[*number].as_mut()) {
                counted.stated = counted.stated.saturating_sub(1);
            }
        }
        let Some(class) = self.classes.get_mut(&pod.kin) else { return };
        if let Some(members) = class.members.get_mut(&slot) {
            *members -= 1;
            if *members == 0 {
                class.members.remove(&slot);
            }
        }
        if class.members.is_empty() {
            self.classes.remove(&pod.kin);
        }
    }

    /// Has the rules counted that the place of a waiting pod is judged by.
    pub fn follow(&mut self, pod: &PodInfo) {
        let Some(rules) = &pod.rules else { return };
        if self.numbers.len() > self.sweep_at.max(RULES_UNSWEPT_MAX) {
            self.sweep();
        }
        for rule in rules.asked() {
            self.number(rule);
        }
    }

    /// Counts a pod's being on a node, or takes it back.
    fn shift(&mut self, slot: Slot, pod: &PodInfo, by: i64) {
        let class = self.classes.get(&pod.kin);
        for number in class.into_iter().flat_map(|class| &class.rules) {
            let Some(counted) = &mut self.rules[*number] else { continue };
            counted.matching.add(self.domains.at(counted.key, slot), by);
        }
        let Some(rules) = &pod.rules else { return };
        for rule in &rules.repels {
            let Some(counted) = self.numbers.get(rule).and_then(|number| self.rules[*number].as_mut()) else {
                continue;
            };
            counted.repelled.add(self.domains.at(counted.key, slot), by);
        }
        for (rule, weight) in &rules.draws {
            let Some(counted) = self.numbers.get(rule).and_then(|number| self.rules[*number].as_mut()) else {
                continue;
            };
            counted.drawn.add(self.domains.at(counted.key, slot), by * weight);
        }
    }

    /// The number of a rule, which is counted from now on.
    fn number(&mut self, rule: &Rule) -> RuleNumber {
        if let Some(number) = self.numbers.get(rule) {
            return *number;
        }
        let key = self.domains.hold(&rule.topology_key, &self.nodes);
        let mut counted = Counted {
            rule: rule.clone(),
            key,
            stated: 0,
            matching: Counts::default(),
            repelled: Counts::default(),
            drawn: Counts::default(),
        };
        let number = self.vacant.pop().unwrap_or(self.rules.len());
        for (kin, class) in &mut self.classes {
            if rule.matches(kin, self.namespaces.get(&kin.namespace).unwrap_or(&NO_LABELS)) {
                class.rules.push(number);
                counted.count_class(class, &self.domains, 1);
            }
        }
        if number == self.rules.len() {
            self.rules.push(None);
        }
        self.rules[number] = Some(counted);
        self.numbers.insert(rule.clone(), number);
        match named(rule) {
            Some(namespaces) => {
                namespaces.for_each(|name| self.by_namespace.entry(name.clone()).or_default().push(number));
            }
            None => self.wide.push(number),
        }
        number
    }

    fn rules_meaning(&self, kin: &Kin) -> Vec<RuleNumber> {
        let labels = self.namespaces.get(&kin.namespace).unwrap_or(&NO_LABELS);
        let named = self.by_namespace.get(&kin.namespace).into_iter().flatten();
        let means = |number: &&RuleNumber| {
            self.rules[**number].as_ref().is_some_and(|counted| counted.rule.matches(kin, labels))
        };
        named.chain(&self.wide).filter(means).copied().collect()
    }

    /// Forgets the rules that no placed pod states.
    fn sweep(&mut self) {
        let unstated = |counted: &Option<Counted>| counted.as_ref().is_some_and(|counted| counted.stated == 0);
        let gone: Vec<bool> = self.rules.iter().map(unstated).collect();
        for (number, slot) in self.rules.iter_mut().enumerate().filter(|(number, _)| gone[*number]) {
            if let Some(counted) = slot.take() {
                self.domains.let_go(counted.key);
                self.numbers.remove(&counted.rule);
                self.vacant.push(number);
            }
        }
        self.classes.values_mut().for_each(|class| class.rules.retain(|number| !gone[*number]));
        self.wide.retain(|number| !gone[*number]);
        self.by_namespace.retain(|_, numbers| {
            numbers.retain(|number| !gone[*number]);
            !numbers.is_empty()
        });
        self.sweep_at = 2 * self.numbers.len();
    }
}

impl Counted {
    fn count_class(&mut self, class: &Class, domains: &Domains, sign: i64) {
        for (slot, members) in &class.members {
            self.matching.add(domains.at(self.key, *slot), sign * members);
        }
    }
}

/// The namespaces that a rule is found under, if it means them by name alone. Terms that hold together are found by the first.
fn named(rule: &Rule) -> Option<impl Iterator<Item = &String>> {
    let first = rule.meant.first()?;
    let by_name = !first.namespaces.is_empty() && first.namespace_selector == meta::LabelSelector::nothing();
    by_name.then(|| first.namespaces.iter())
}
