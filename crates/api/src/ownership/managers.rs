//! The entries of `metadata.managedFields`: who owns what.

use meta::Object;
use serde_json::{Map, Value, json};

use super::Writer;
use super::field_set::FieldSet;

/// How a manager came to its fields. The order is that of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// One entry's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manager {
    pub name: String,
    pub operation: Operation,
    pub api_version: String,
    pub subresource: String,
    /// RFC 3339, when its set last changed.
    time: String,
}

impl Manager {
    pub fn new(writer: &Writer<'_>, operation: Operation) -> Self {
        Manager {
            name: writer.manager.to_string(),
            operation,
            api_version: writer.api_version.to_string(),
            subresource: writer.subresource.to_string(),
            time: meta::time::rfc3339(writer.now),
        }
    }

    /// Whether two entries are one manager: an applier is the same in every version.
    fn is(&self, other: &Manager) -> bool {
        let version = self.operation == Operation::Apply || self.api_version == other.api_version;
        self.name == other.name && self.operation == other.operation && self.subresource == other.subresource && version
    }

    /// As conflicts name it.
    fn shown(&self) -> String {
        let mut shown = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            shown.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            shown.push_str(&format!(" using {}", self.api_version));
        }
        shown
    }
}

/// All entries of an object.
#[derive(Clone, Debug, Default)]
pub struct Managers(Vec<(Manager, FieldSet)>);

/// Whether a client asks for all ownership to be forgotten: an empty list, or one empty entry.
pub fn is_reset(sent: &Value) -> bool {
    match sent {
        Value::Array(entries) => match entries.as_slice() {
            [] => true,
            [Value::Object(entry)] => entry.is_empty(),
            _ => false,
        },
        _ => false,
    }
}

impl Managers {
    pub fn of(object: &Object) -> Self {
        object.get(&["metadata", "managedFields"]).and_then(Managers::parse).unwrap_or_default()
    }

    /// Reads the list; none when an entry is malformed.
    pub fn parse(value: &Value) -> Option<Self> {
        let entries = value.as_array()?.iter().map(|entry| {
            let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default().to_string();
            let operation = match entry.get("operation")?.as_str()? {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return None,
            };
            let set = match entry.get("fieldsV1") {
                Some(fields) => FieldSet::parse(fields)?,
                None => FieldSet::default(),
            };
            let manager = Manager {
                name: text("manager"),
                operation,
                api_version: text("apiVersion"),
                subresource: text("subresource"),
                time: text("time"),
            };
            Some((manager, set))
        });
        entries.collect::<Option<Vec<_>>>().map(Managers)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn set_of(&self, manager: &Manager) -> FieldSet {
        self.0.iter().find(|(other, _)| other.is(manager)).map(|(_, set)| set.clone()).unwrap_or_default()
    }

    pub fn owned_by_others(&self, manager: &Manager) -> FieldSet {
        let others = self.0.iter().filter(|(other, _)| !other.is(manager));
        others.fold(FieldSet::default(), |all, (_, set)| all.union(set))
    }

    /// The fields that others own among these, by manager.
    pub fn conflicts(&self, manager: &Manager, touched: &FieldSet) -> Vec<(String, Vec<String>)> {
        let others = self.0.iter().filter(|(other, _)| !other.is(manager));
        let mut conflicts: Vec<_> = others
            .map(|(other, set)| (other.shown(), set.intersection(touched).paths()))
            .filter(|(_, paths)| !paths.is_empty())
            .collect();
        conflicts.sort();
        conflicts
    }

    pub fn take_from_others(&mut self, manager: &Manager, taken: &FieldSet) {
        for (other, set) in &mut self.0 {
            if !other.is(manager) {
                *set = set.difference(taken);
            }
        }
    }

    /// Takes fields that are gone from everybody.
    pub fn forget(&mut self, gone: &FieldSet) {
        for (_, set) in &mut self.0 {
            *set = set.difference(gone);
        }
    }

    pub fn forget_of_others(&mut self, manager: &Manager, gone: &FieldSet) {
        self.take_from_others(manager, gone);
    }

    /// Adds fields to a manager's; its time moves only when its set does.
    pub fn add(&mut self, manager: Manager, more: &FieldSet) {
        match self.0.iter_mut().find(|(other, _)| other.is(&manager)) {
            Some((there, set)) => {
                let all = set.union(more);
                if all != *set {
                    *set = all;
                    there.time = manager.time;
                }
            }
            None => self.0.push((manager, more.clone())),
        }
    }

    /// Sets a manager's fields.
    pub fn replace(&mut self, manager: Manager, set: FieldSet) {
        match self.0.iter_mut().find(|(other, _)| other.is(&manager)) {
            Some((there, old)) => {
                if *old != set || there.api_version != manager.api_version {
                    *there = manager;
                }
                *old = set;
            }
            None => self.0.push((manager, set)),
        }
    }

    /// Keeps at most so many update managers; the oldest become one.
    pub fn fold_updates(&mut self, max: usize, name: &str) {
        let mut updates: Vec<usize> =
            (0..self.0.len()).filter(|at| self.0[*at].0.operation == Operation::Update).collect();
        if updates.len() <= max {
            return;
        }
        updates.sort_by(|a, b| self.0[*a].0.time.cmp(&self.0[*b].0.time));
        let mut folded: Vec<usize> = updates[..=updates.len() - max].to_vec();
        folded.sort_unstable_by(|a, b| b.cmp(a));
        let mut ancient: Option<(Manager, FieldSet)> = None;
        for at in folded {
            let (manager, set) = self.0.remove(at);
            ancient = Some(match ancient {
                Some((kept, all)) => {
                    let kept = if manager.time > kept.time { manager } else { kept };
                    (kept, all.union(&set))
                }
                None => (manager, set),
            });
        }
        if let Some((mut manager, set)) = ancient {
            manager.name = name.to_string();
            self.0.push((manager, set));
        }
    }

    /// Writes the list into the object, without managers that own nothing.
    pub fn write(mut self, object: &mut Object) {
        self.0.retain(|(_, set)| !set.is_empty());
        self.0.sort_by(|(a, _), (b, _)| {
            let key = |manager: &Manager| {
                let Manager { operation, time, name, api_version, subresource } = manager.clone();
                (operation, time, name, api_version, subresource)
            };
            key(a).cmp(&key(b))
        });
        let entries: Vec<Value> = self.0.iter().map(|(manager, set)| entry(manager, set)).collect();
        object.set_meta("managedFields", if entries.is_empty() { Value::Null } else { Value::Array(entries) });
    }
}

fn entry(manager: &Manager, set: &FieldSet) -> Value {
    let mut map = Map::new();
    map.insert("manager".into(), manager.name.as_str().into());
    map.insert("operation".into(), manager.operation.as_str().into());
    map.insert("apiVersion".into(), manager.api_version.as_str().into());
    if !manager.time.is_empty() {
        map.insert("time".into(), manager.time.as_str().into());
    }
    map.insert("fieldsType".into(), "FieldsV1".into());
    map.insert("fieldsV1".into(), set.to_value());
    if !manager.subresource.is_empty() {
        map.insert("subresource".into(), json!(manager.subresource));
    }
    Value::Object(map)
}
