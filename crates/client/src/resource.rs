//! From a Rust type to the resource it is: what generic code needs to know of a typed view.

use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meta::{GroupVersionKind, GroupVersionResource, ObjectKey};

/// A typed view of a kind: a struct of `k8s-openapi` that `api` can decode and encode.
pub trait Typed: api::typed::Typed + Metadata<Ty = ObjectMeta> + Send + Sync + 'static {
    fn gvr() -> GroupVersionResource {
        let gvk = Self::gvk();
        GroupVersionResource { group: gvk.group, version: gvk.version, resource: Self::plural().into() }
    }

    fn gvk() -> GroupVersionKind;

    fn plural() -> &'static str;

    /// Namespace and name of this object.
    fn key(&self) -> ObjectKey {
        let metadata = self.metadata();
        ObjectKey::new(metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
    }
}

impl<K> Typed for K
where
    K: api::typed::Typed + k8s_openapi::Resource + Metadata<Ty = ObjectMeta> + Send + Sync + 'static,
{
    fn gvk() -> GroupVersionKind {
        GroupVersionKind::new(K::GROUP, K::VERSION, K::KIND)
    }

    fn plural() -> &'static str {
        K::URL_PATH_SEGMENT
    }
}
