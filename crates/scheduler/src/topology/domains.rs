//! Domains: the nodes that have the same value of a label, by number, and counts by such numbers.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::Slot;
use crate::node_info::NodeFacts;

type Domain = u32;

/// One label.
#[derive(Default)]
struct Key {
    name: String,
    /// How many rules count by it.
    held: usize,
    /// The number of each value, and how many nodes have it.
    values: HashMap<String, (Domain, usize)>,
    vacant: Vec<Domain>,
    numbers: Domain,
    of_slot: Vec<Option<Domain>>,
}

impl Key {
    fn enter(&mut self, slot: Slot, value: &str) {
        if self.of_slot.len() <= slot {
            self.of_slot.resize(slot + 1, None);
        }
        if !self.values.contains_key(value) {
            let number = self.vacant.pop().unwrap_or_else(|| {
                self.numbers += 1;
                self.numbers
            });
            self.values.insert(value.to_string(), (number, 0));
        }
        if let Some((number, nodes)) = self.values.get_mut(value) {
            *nodes += 1;
            self.of_slot[slot] = Some(*number);
        }
    }

    /// A value's number is given to another when its last node is gone: nothing is counted under it then.
    fn leave(&mut self, slot: Slot, value: &str) {
        if let Some(domain) = self.of_slot.get_mut(slot) {
            *domain = None;
        }
        let Some((number, nodes)) = self.values.get_mut(value) else { return };
        *nodes -= 1;
        if *nodes == 0 {
            self.vacant.push(*number);
            self.values.remove(value);
        }
    }
}

/// The labels that rules count by. A label that none counts by any more is forgotten.
#[derive(Default)]
pub struct Domains {
    keys: Vec<Key>,
    by_name: HashMap<String, usize>,
    vacant: Vec<usize>,
}

impl Domains {
    /// The domain of a node; none without the label.
    pub fn at(&self, key: usize, slot: Slot) -> Option<Domain> {
        self.keys[key].of_slot.get(slot).copied().flatten()
    }

    /// A rule counts by a label from now on.
    pub fn hold(&mut self, name: &str, nodes: &[Option<Arc<NodeFacts>>]) -> usize {
        if let Some(key) = self.by_name.get(name) {
            self.keys[*key].held += 1;
            return *key;
        }
        let mut key = Key { name: name.to_string(), held: 1, ..Key::default() };
        for (slot, facts) in nodes.iter().enumerate() {
            if let Some(value) = facts.as_ref().and_then(|facts| facts.labels.get(name)) {
                key.enter(slot, value);
            }
        }
        let number = self.vacant.pop().unwrap_or(self.keys.len());
        if number == self.keys.len() {
            self.keys.push(key);
        } else {
            self.keys[number] = key;
        }
        self.by_name.insert(name.to_string(), number);
        number
    }

    /// A rule counts by a label no more.
    pub fn let_go(&mut self, key: usize) {
        self.keys[key].held -= 1;
        if self.keys[key].held == 0 {
            let gone = std::mem::take(&mut self.keys[key]);
            self.by_name.remove(&gone.name);
            self.vacant.push(key);
        }
    }

    /// The labels of a node have changed.
    pub fn move_node(&mut self, slot: Slot, before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) {
        for key in self.keys.iter_mut().filter(|key| key.held > 0) {
            let (before, now) = (before.get(&key.name), now.get(&key.name));
            if before == now {
                continue;
            }
            if let Some(value) = before {
                key.leave(slot, value);
            }
            if let Some(value) = now {
                key.enter(slot, value);
            }
        }
    }
}

/// A sum for each domain that has one other than zero.
#[derive(Default)]
pub struct Counts(HashMap<Domain, i64, BuildHasherDefault<Spread>>);

impl Counts {
    /// Nothing is counted where there is no domain.
    pub fn add(&mut self, domain: Option<Domain>, by: i64) {
        let Some(domain) = domain else { return };
        let sum = self.0.entry(domain).or_default();
        *sum += by;
        if *sum == 0 {
            self.0.remove(&domain);
        }
    }

    pub fn at(&self, domain: Domain) -> i64 {
        self.0.get(&domain).copied().unwrap_or(0)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Domains are small numbers that nobody outside chooses: one multiplication spreads them well enough.
#[derive(Default)]
pub struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
