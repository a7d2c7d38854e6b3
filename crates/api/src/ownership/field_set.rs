//! A set of fields as a tree, in the notation of `fieldsV1`.
//!
//! A step is its text in that notation: `f:name` a field, `k:{...}` the item of a list with these keys, `v:...` an item of a
//! set. A node says whether the place itself is in the set, besides what is below it:
//! `{"f:spec": {"f:replicas": {}}}` holds one field.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A set of fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// Whether the place of this node is in the set.
    pub here: bool,
    pub below: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    /// A set of one place.
    pub fn place() -> Self {
        FieldSet { here: true, below: BTreeMap::new() }
    }

    pub fn is_empty(&self) -> bool {
        !self.here && self.below.values().all(FieldSet::is_empty)
    }

    /// Puts a set below a step; an empty one is not put.
    pub fn insert(&mut self, step: String, set: FieldSet) {
        if set.is_empty() {
            return;
        }
        match self.below.get_mut(&step) {
            Some(there) => *there = there.union(&set),
            None => {
                self.below.insert(step, set);
            }
        }
    }

    pub fn union(&self, other: &FieldSet) -> FieldSet {
        let mut both = self.clone();
        both.here |= other.here;
        for (step, set) in &other.below {
            match both.below.get_mut(step) {
                Some(there) => *there = there.union(set),
                None => {
                    both.below.insert(step.clone(), set.clone());
                }
            }
        }
        both
    }

    /// What is in this set and not in the other.
    pub fn difference(&self, other: &FieldSet) -> FieldSet {
        self.combine(other, |here, there| here && !there, true)
    }

    /// The set with every place that something of it is below: who keeps `.spec.replicas` keeps `.spec`.
    pub fn with_parents(&self) -> FieldSet {
        let below = self.below.iter().map(|(step, set)| (step.clone(), set.with_parents()));
        FieldSet { here: self.here || !self.below.is_empty(), below: below.collect() }
    }

    /// What is in both.
    pub fn intersection(&self, other: &FieldSet) -> FieldSet {
        self.combine(other, |here, there| here && there, false)
    }

    fn combine(&self, other: &FieldSet, keep: fn(bool, bool) -> bool, keep_unmatched: bool) -> FieldSet {
        let mut result = FieldSet { here: keep(self.here, other.here), below: BTreeMap::new() };
        for (step, set) in &self.below {
            let kept = match other.below.get(step) {
                Some(there) => set.combine(there, keep, keep_unmatched),
                None if keep_unmatched => set.clone(),
                None => FieldSet::default(),
            };
            result.insert(step.clone(), kept);
        }
        result
    }

    /// Reads `fieldsV1`; none when it is not of that form.
    pub fn parse(value: &Value) -> Option<FieldSet> {
        let Value::Object(map) = value else { return None };
        let mut set = FieldSet::default();
        for (step, below) in map {
            if step == "." {
                set.here = true;
                continue;
            }
            let mut below = FieldSet::parse(below)?;
            if below.below.is_empty() {
                below.here = true;
            }
            set.below.insert(canonical(step)?, below);
        }
        Some(set)
    }

    /// The `fieldsV1` form.
    pub fn to_value(&self) -> Value {
        let below = self.below.iter().map(|(step, set)| (step.clone(), set.to_value()));
        let mut map: Map<String, Value> = Map::new();
        if self.here && !self.below.is_empty() {
            map.insert(".".into(), Value::Object(Map::new()));
        }
        map.extend(below);
        Value::Object(map)
    }

    /// Every place in the set, as messages name it: `.spec.containers[name="a"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.collect_paths("", &mut found);
        found
    }

    fn collect_paths(&self, path: &str, found: &mut Vec<String>) {
        if self.here && !path.is_empty() {
            found.push(path.to_string());
        }
        for (step, set) in &self.below {
            set.collect_paths(&format!("{path}{}", shown(step)), found);
        }
    }
}

/// The keys of a `k:` step in order, so that two writers of one step agree.
fn canonical(step: &str) -> Option<String> {
    let (kind, rest) = step.split_once(':')?;
    match kind {
        "f" => Some(step.to_string()),
        "k" | "v" => {
            let value: Value = serde_json::from_str(rest).ok()?;
            Some(format!("{kind}:{}", text_of(&value)))
        }
        "i" => rest.parse::<usize>().ok().map(|_| step.to_string()),
        _ => None,
    }
}

/// A value as a step carries it.
pub fn text_of(value: &Value) -> String {
    String::from_utf8(crate::codec::json_any(value)).unwrap_or_default()
}

/// A step as messages name it.
pub fn shown(step: &str) -> String {
    match step.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("k", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let pairs: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", pairs.join(","))
        }
        Some(("v", value)) => format!("[={value}]"),
        Some((_, index)) => format!("[{index}]"),
        None => step.to_string(),
    }
}
