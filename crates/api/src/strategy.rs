//! What is special about a kind: the hooks that the generic registry calls on every write.
//!
//! Everything has an empty default, so a kind says only where it differs. Hooks work on the tree in the storage version, see
//! neither keys nor bytes, and do no I/O; the one exception, [`Strategy::allocate`], reaches the outside through
//! [`Allocators`]. The registry itself does what all kinds share: metadata rules, `generation`, ownership, deletion.

use std::collections::BTreeMap;
use std::net::IpAddr;

use async_trait::async_trait;
use jiff::Timestamp;
use meta::{FieldError, Object, Status};

/// Who asks for what, as far as a strategy may care.
#[derive(Clone, Debug)]
pub struct Request {
    /// Empty for the object itself, else `status`, `approval`, ...
    pub subresource: String,
    pub user: Requester,
    pub now: Timestamp,
    pub dry_run: bool,
}

/// The authenticated caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requester {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Addresses and ports that must be unique in the cluster, as one write sees them. Implemented by the API server.
#[async_trait]
pub trait Allocators: Send + Sync {
    /// The families of the cluster's service ranges, the primary one first.
    fn families(&self) -> Vec<IpFamily>;
    /// Takes the wanted service address, or any free one of the family. Errors are what the field error should say.
    async fn service_address(&self, owner: &Object, family: IpFamily, wanted: Option<IpAddr>)
    -> Result<IpAddr, String>;
    /// Takes the wanted node port, or any free one.
    async fn node_port(&self, wanted: Option<u16>) -> Result<u16, String>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpFamily {
    V4,
    V6,
}

/// What an object holds of the [`Allocators`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    ServiceAddress(IpAddr),
    NodePort(u16),
}

/// The hooks of a kind, in the order the registry calls them.
#[async_trait]
pub trait Strategy: Send + Sync + 'static {
    /// Fills what the schema's plain defaults cannot: values that depend on other fields. Runs on every read of a written
    /// object, create or update, after the schema's defaults.
    fn set_defaults(&self, _new: &mut Object) {}

    /// Clears what a creator may not set (`status`) and sets what creation implies.
    fn before_create(&self, _request: &Request, new: &mut Object) {
        new.remove(&["status"]);
    }

    /// Puts back what this caller may not change: an update of the object keeps the old `status`, an update of `status`
    /// keeps everything else. The registry moves `generation` when [`Strategy::generation_moves`] says so.
    fn before_update(&self, request: &Request, new: &mut Object, old: &Object) {
        keep_other_half(request, new, old);
    }

    /// Whether the change is one that `metadata.generation` counts: anything outside `metadata` and `status`.
    fn generation_moves(&self, new: &Object, old: &Object) -> bool {
        let counted = |object: &Object| -> Vec<(String, serde_json::Value)> {
            let not = ["metadata", "status", "kind", "apiVersion"];
            let kept = object.0.iter().filter(|(key, _)| !not.contains(&key.as_str()));
            kept.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        self.has_generation() && counted(new) != counted(old)
    }

    /// Whether objects of the kind carry `metadata.generation` at all.
    fn has_generation(&self) -> bool {
        true
    }

    /// Takes cluster-wide addresses and ports and writes them into `new`; answers what `old` held and the object no longer needs,
    /// which is all of it on delete, where `new` is none.
    ///
    /// A strategy that fails half-way has nothing to undo: `allocators` are made for one write, remember what was taken of them
    /// and give it back unless the write is done. What is no longer needed is freed only then.
    async fn allocate(
        &self,
        _allocators: &dyn Allocators,
        _new: Option<&mut Object>,
        _old: Option<&Object>,
    ) -> Result<Vec<Claim>, Status> {
        Ok(Vec::new())
    }

    /// The rules of the kind beyond those of metadata; all broken ones at once.
    fn validate_create(&self, _new: &Object) -> Vec<FieldError> {
        Vec::new()
    }

    /// As [`Strategy::validate_create`], and what may not change. `request` tells the subresource.
    fn validate_update(&self, _request: &Request, new: &Object, _old: &Object) -> Vec<FieldError> {
        self.validate_create(new)
    }

    /// The rules of the kind's names. The default is that of DNS subdomains, upstream's for most kinds.
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        crate::strategy::dns_subdomain(name, prefix)
    }

    /// Sentences for the `Warning` header of a write that succeeds.
    fn warnings(&self, _new: &Object, _old: Option<&Object>) -> Vec<String> {
        Vec::new()
    }

    /// An update of an object that does not exist creates it (leases, events, a few more).
    fn allow_create_on_update(&self) -> bool {
        false
    }

    /// An update without `resourceVersion` is taken as it is.
    fn allow_unconditional_update(&self) -> bool {
        true
    }

    /// How long the object goes on living when it is deleted and `asked` is the grace period given, if one is. None: its
    /// kind knows no grace.
    fn grace_period_seconds(&self, _old: &Object, _asked: Option<i64>) -> Option<i64> {
        None
    }

    /// The fields that field selectors may name besides `metadata.name` and `metadata.namespace`, with their values.
    fn selectable_fields(&self, _object: &Object) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Seconds after which the object expires by itself (events).
    fn time_to_live_seconds(&self, _object: &Object) -> Option<u64> {
        None
    }

    /// Whether anything in this server acts on the kind; where not, writes are answered with a warning.
    fn acted_upon(&self) -> bool {
        false
    }
}

/// The strategy of a kind about which nothing special is known.
pub struct DefaultStrategy;

impl Strategy for DefaultStrategy {}

/// An update through `status` changes the status and may touch labels, annotations, finalizers and owners; any other may not
/// change the status. Most kinds are like that.
pub fn keep_other_half(request: &Request, new: &mut Object, old: &Object) {
    if request.subresource != "status" {
        copy_part(new, old, "status");
        return;
    }
    let written = std::mem::replace(new, old.clone());
    copy_part(new, &written, "status");
    copy_part(new, &written, "metadata");
}

/// As [`keep_other_half`], for the kinds whose status writers may touch nothing but the status.
pub fn keep_all_but_status(request: &Request, new: &mut Object, old: &Object) {
    keep_other_half(request, new, old);
    if request.subresource == "status" {
        for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
            keep_metadata(new, old, field);
        }
    }
}

/// Puts back one field of the metadata.
pub fn keep_metadata(new: &mut Object, old: &Object, field: &str) {
    new.set_meta(field, old.get(&["metadata", field]).cloned().unwrap_or(serde_json::Value::Null));
}

/// Makes one part of `new` what it is in `from`.
fn copy_part(new: &mut Object, from: &Object, part: &str) {
    match from.0.get(part) {
        Some(value) => new.0.insert(part.into(), value.clone()),
        None => new.0.remove(part),
    };
}

/// What is wrong with a DNS subdomain name; a prefix for generated names may end in a dash.
pub fn dns_subdomain(name: &str, prefix: bool) -> Vec<String> {
    let trimmed = if prefix {
        name.strip_suffix('-').map_or_else(|| name.to_string(), |stem| format!("{stem}a"))
    } else {
        name.to_string()
    };
    meta::name::dns1123_subdomain(&trimmed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written_through_status(keep: fn(&Request, &mut Object, &Object)) -> serde_json::Value {
        let old = json!({"metadata": {"name": "o", "labels": {"a": "1"}}, "spec": {"x": 1}, "status": {"y": 1}});
        let new = json!({"metadata": {"name": "o", "labels": {"a": "2"}, "annotations": {"b": "3"}}, "spec": {"x": 2}, "status": {"y": 2}});
        let [old, mut new] = [old, new].map(|value| Object::from_value(value).unwrap());
        let request = Request {
            subresource: "status".into(),
            user: Requester::default(),
            now: Timestamp::UNIX_EPOCH,
            dry_run: false,
        };
        keep(&request, &mut new, &old);
        new.into_value()
    }

    #[test]
    fn a_status_write_may_touch_metadata_but_not_the_spec() {
        let expected = json!({"metadata": {"name": "o", "labels": {"a": "2"}, "annotations": {"b": "3"}}, "spec": {"x": 1}, "status": {"y": 2}});
        assert_eq!(written_through_status(keep_other_half), expected);
    }

    #[test]
    fn of_some_kinds_a_status_write_touches_the_status_alone() {
        let expected = json!({"metadata": {"name": "o", "labels": {"a": "1"}}, "spec": {"x": 1}, "status": {"y": 2}});
        assert_eq!(written_through_status(keep_all_but_status), expected);
    }
}
