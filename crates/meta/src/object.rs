//! The tree form of an object, with accessors for what all kinds share.
//!
//! An `Object` is a JSON map: nothing in it is dropped because a reader does not know it. Absent and null are both read as
//! "not there"; setters remove a field rather than write an empty value, as Go's `omitempty` would.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{GroupVersion, GroupVersionKind, ObjectKey};

/// Any Kubernetes object as a tree.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Object(pub Map<String, Value>);

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerReference {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_owner_deletion: Option<bool>,
}

impl Object {
    /// An object of the given kind with nothing but `apiVersion` and `kind`.
    pub fn new(gvk: &GroupVersionKind) -> Self {
        let mut object = Object::default();
        object.set_gvk(gvk);
        object
    }

    /// Takes a JSON value; none when it is not a map.
    pub fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Object(map) => Some(Object(map)),
            _ => None,
        }
    }

    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    pub fn api_version(&self) -> &str {
        text(self.0.get("apiVersion"))
    }

    pub fn kind(&self) -> &str {
        text(self.0.get("kind"))
    }

    /// The kind it says it is; none when `apiVersion` or `kind` is missing or malformed.
    pub fn gvk(&self) -> Option<GroupVersionKind> {
        let kind = self.kind();
        if kind.is_empty() || self.api_version().is_empty() {
            return None;
        }
        GroupVersion::parse(self.api_version()).map(|gv| gv.with_kind(kind))
    }

    pub fn set_gvk(&mut self, gvk: &GroupVersionKind) {
        self.0.insert("apiVersion".into(), gvk.api_version().into());
        self.0.insert("kind".into(), gvk.kind.as_ref().into());
    }

    /// The value at a path of field names; none when any step is absent, null or not a map.
    pub fn get(&self, path: &[&str]) -> Option<&Value> {
        let (last, parents) = path.split_last()?;
        let mut map = &self.0;
        for step in parents {
            map = map.get(*step)?.as_object()?;
        }
        map.get(*last).filter(|value| !value.is_null())
    }

    /// The value at a path, to change in place; none as for [`Object::get`].
    pub fn get_mut(&mut self, path: &[&str]) -> Option<&mut Value> {
        let (last, parents) = path.split_last()?;
        let mut map = &mut self.0;
        for step in parents {
            map = map.get_mut(*step)?.as_object_mut()?;
        }
        map.get_mut(*last).filter(|value| !value.is_null())
    }

    /// The text at a path; empty when absent.
    pub fn str_at(&self, path: &[&str]) -> &str {
        text(self.get(path))
    }

    pub fn i64_at(&self, path: &[&str]) -> Option<i64> {
        self.get(path)?.as_i64()
    }

    /// Whether the flag at a path is set; false when absent.
    pub fn bool_at(&self, path: &[&str]) -> bool {
        self.get(path).and_then(Value::as_bool).unwrap_or(false)
    }

    /// The list at a path; empty when absent.
    pub fn list_at(&self, path: &[&str]) -> &[Value] {
        self.get(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// Writes a value at a path, making the maps on the way; a step that is not a map is replaced by one.
    pub fn set(&mut self, path: &[&str], value: impl Into<Value>) {
        let Some((last, parents)) = path.split_last() else { return };
        self.map_at(parents).insert((*last).to_string(), value.into());
    }

    /// Writes a value at a path unless one is there already; null counts as absent.
    pub fn set_default(&mut self, path: &[&str], value: impl Into<Value>) {
        if self.get(path).is_none() {
            self.set(path, value);
        }
    }

    /// Removes the value at a path and returns it.
    pub fn remove(&mut self, path: &[&str]) -> Option<Value> {
        let (last, parents) = path.split_last()?;
        let mut map = &mut self.0;
        for step in parents {
            map = map.get_mut(*step)?.as_object_mut()?;
        }
        map.remove(*last)
    }

    /// The map at a path, made where missing.
    pub fn map_at(&mut self, path: &[&str]) -> &mut Map<String, Value> {
        let mut map = &mut self.0;
        for step in path {
            let value = map.entry((*step).to_string()).or_insert(Value::Null);
            if !value.is_object() {
                *value = Value::Object(Map::new());
            }
            let Value::Object(next) = value else { unreachable!("made a map just above") };
            map = next;
        }
        map
    }

    fn meta(&self, field: &str) -> Option<&Value> {
        self.0.get("metadata")?.as_object()?.get(field).filter(|value| !value.is_null())
    }

    pub fn name(&self) -> &str {
        text(self.meta("name"))
    }

    pub fn generate_name(&self) -> &str {
        text(self.meta("generateName"))
    }

    pub fn namespace(&self) -> &str {
        text(self.meta("namespace"))
    }

    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(self.namespace(), self.name())
    }

    pub fn uid(&self) -> &str {
        text(self.meta("uid"))
    }

    pub fn resource_version(&self) -> &str {
        text(self.meta("resourceVersion"))
    }

    pub fn generation(&self) -> i64 {
        self.meta("generation").and_then(Value::as_i64).unwrap_or(0)
    }

    pub fn creation_timestamp(&self) -> Option<jiff::Timestamp> {
        crate::time::parse(text(self.meta("creationTimestamp")))
    }

    pub fn deletion_timestamp(&self) -> Option<jiff::Timestamp> {
        crate::time::parse(text(self.meta("deletionTimestamp")))
    }

    pub fn is_being_deleted(&self) -> bool {
        self.meta("deletionTimestamp").is_some()
    }

    pub fn deletion_grace_period_seconds(&self) -> Option<i64> {
        self.meta("deletionGracePeriodSeconds").and_then(Value::as_i64)
    }

    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        text_pairs(self.meta("labels"))
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.meta("labels")?.as_object()?.get(key)?.as_str()
    }

    pub fn annotations(&self) -> impl Iterator<Item = (&str, &str)> {
        text_pairs(self.meta("annotations"))
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.meta("annotations")?.as_object()?.get(key)?.as_str()
    }

    pub fn finalizers(&self) -> impl Iterator<Item = &str> {
        self.meta("finalizers").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    }

    /// The owner references that can be read; malformed entries (validation refuses them) are passed over.
    pub fn owner_references(&self) -> Vec<OwnerReference> {
        let list = self.meta("ownerReferences").and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|value| OwnerReference::deserialize(value).ok()).collect()
    }

    /// The owner whose `controller` is true.
    pub fn controller(&self) -> Option<OwnerReference> {
        self.owner_references().into_iter().find(|owner| owner.controller == Some(true))
    }

    /// Writes a `metadata` field; null removes it.
    pub fn set_meta(&mut self, field: &str, value: impl Into<Value>) {
        let value = value.into();
        let metadata = self.map_at(&["metadata"]);
        if value.is_null() {
            metadata.remove(field);
        } else {
            metadata.insert(field.to_string(), value);
        }
    }
}

fn text(value: Option<&Value>) -> &str {
    value.and_then(Value::as_str).unwrap_or_default()
}

fn text_pairs(value: Option<&Value>) -> impl Iterator<Item = (&str, &str)> {
    let map = value.and_then(Value::as_object);
    map.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    #[test]
    fn null_reads_as_absent() {
        let pod = object(json!({"metadata": {"name": null, "labels": null}, "spec": null}));
        assert_eq!(pod.name(), "");
        assert_eq!(pod.labels().count(), 0);
        assert!(pod.get(&["spec"]).is_none() && pod.get(&["spec", "nodeName"]).is_none());
    }

    #[test]
    fn set_makes_the_way_and_set_meta_null_removes() {
        let mut pod = Object::new(&GroupVersionKind::new("", "v1", "Pod"));
        pod.set(&["spec", "nodeName"], "a");
        pod.set_default(&["spec", "nodeName"], "b");
        pod.set_meta("uid", "u");
        pod.set_meta("uid", Value::Null);
        assert_eq!(
            pod.into_value(),
            json!({"apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": "a"}, "metadata": {}})
        );
    }

    #[test]
    fn the_controller_is_the_owner_that_says_so() {
        let pod = object(json!({"metadata": {"ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "1"},
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "2", "controller": true}]}}));
        assert_eq!(pod.controller().unwrap().name, "r");
    }
}
