//! A row of the kinds table: all that any other crate needs to know about a kind.
//!
//! Built-in rows come from data, custom resource definitions make the same rows at run time, so nothing here is static-only.

use std::sync::Arc;

use meta::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource, Object, Status};

use crate::columns::Column;
use crate::schema::SchemaRef;
use crate::strategy::Strategy;

/// One kind in one version.
#[derive(Clone)]
pub struct Kind {
    pub group: Arc<str>,
    pub version: Arc<str>,
    pub kind: Arc<str>,
    /// The kind of a list of them: `PodList`.
    pub list_kind: Arc<str>,
    /// The resource name in paths: `pods`.
    pub plural: Arc<str>,
    pub singular: Arc<str>,
    pub short_names: Vec<Arc<str>>,
    pub categories: Vec<Arc<str>>,
    pub scope: Scope,
    /// The verbs discovery announces; none for a resource that only has subresources.
    pub verbs: Vec<Arc<str>>,
    /// None for reviews, bindings and the like, which are answered and not kept.
    pub stored: Option<Storage>,
    pub served_by_default: bool,
    pub subresources: Vec<Subresource>,
    pub schema: SchemaRef,
    pub strategy: Arc<dyn Strategy>,
    pub columns: Arc<[Column]>,
    /// Whether stored and served as protobuf too; custom kinds are JSON only.
    pub protobuf: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    Cluster,
    Namespaced,
}

/// Where and in which version objects are kept.
#[derive(Clone, Debug)]
pub struct Storage {
    /// The segment after `/registry/`: `pods`, `services/specs`, `example.com/widgets`.
    pub key_segment: Arc<str>,
    /// The kind in its storage version; group and kind may differ from the row's (both Event groups share one storage).
    pub kind: GroupVersionKind,
    /// None when the served and the stored version are the same.
    pub convert: Option<Convert>,
}

/// Takes an object from one version of its kind to another. Both directions, told by the arguments.
pub type Convert = fn(object: Object, to: &GroupVersionKind) -> Result<Object, Status>;

/// A part or action of an object with a path of its own.
#[derive(Clone, Debug)]
pub struct Subresource {
    /// `status`, `scale`, `log`, ...
    pub name: Arc<str>,
    /// What is read and written there: the kind itself for `status`, `autoscaling/v1 Scale` for `scale`.
    pub kind: GroupVersionKind,
    pub verbs: Vec<Arc<str>>,
}

impl Kind {
    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind { group: self.group.clone(), version: self.version.clone(), kind: self.kind.clone() }
    }

    pub fn gvr(&self) -> GroupVersionResource {
        GroupVersionResource { group: self.group.clone(), version: self.version.clone(), resource: self.plural.clone() }
    }

    pub fn group_version(&self) -> GroupVersion {
        GroupVersion { group: self.group.clone(), version: self.version.clone() }
    }

    pub fn group_kind(&self) -> GroupKind {
        GroupKind { group: self.group.clone(), kind: self.kind.clone() }
    }

    pub fn group_resource(&self) -> GroupResource {
        GroupResource { group: self.group.clone(), resource: self.plural.clone() }
    }

    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|subresource| subresource.name.as_ref() == name)
    }

    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known.as_ref() == verb)
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.gvk())
    }
}
