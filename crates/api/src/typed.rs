//! Typed views: `k8s-openapi` structs, decoded for reading and encoded for objects made from nothing.
//!
//! The serde code of a kind is instantiated here once, so that no other crate pays for it. A typed view silently drops fields
//! it does not know: never decode, modify and encode an existing object through one; write with patches or through the tree.

use meta::{Media, Object, Status};

/// A struct that stands for a kind.
pub trait Typed: Sized + Clone + Send + Sync + 'static {
    /// Reads an object; a field of the wrong type is an error, an unknown field is ignored.
    fn from_object(object: Object) -> Result<Self, Status>;

    /// The tree, with `apiVersion` and `kind`.
    fn to_object(&self) -> Result<Object, Status>;

    /// Reads stored or received bytes, without a tree in between.
    fn decode(media: Media, bytes: &[u8]) -> Result<Self, Status>;
}

macro_rules! typed {
    ($($kind:path),+ $(,)?) => {$(
        impl Typed for $kind {
            fn from_object(object: Object) -> Result<Self, Status> {
                serde_json::from_value(object.into_value()).map_err(|error| {
                    Status::bad_request(format!("cannot read {}: {error}", stringify!($kind)))
                })
            }

            fn decode(media: Media, bytes: &[u8]) -> Result<Self, Status> {
                crate::codec::view(media, bytes).map_err(|status| {
                    Status::bad_request(format!("cannot read {}: {}", stringify!($kind), status.message))
                })
            }

            fn to_object(&self) -> Result<Object, Status> {
                let value = serde_json::to_value(self).map_err(Status::internal)?;
                Object::from_value(value).ok_or_else(|| Status::internal("a kind is a map"))
            }
        }
    )+};
}

use k8s_openapi::api::{
    apps::v1 as apps, authentication::v1 as authentication, authorization::v1 as authorization,
    autoscaling::v1 as autoscaling, certificates::v1 as certificates, coordination::v1 as coordination,
    core::v1 as core, discovery::v1 as discovery, events::v1 as events, networking::v1 as networking,
    policy::v1 as policy, rbac::v1 as rbac, scheduling::v1 as scheduling,
};

typed!(
    apps::ControllerRevision,
    apps::DaemonSet,
    apps::Deployment,
    apps::ReplicaSet,
    apps::StatefulSet,
    authentication::TokenRequest,
    authentication::TokenReview,
    authorization::SubjectAccessReview,
    autoscaling::Scale,
    certificates::CertificateSigningRequest,
    coordination::Lease,
    core::ConfigMap,
    core::Endpoints,
    core::Event,
    core::Namespace,
    core::Node,
    core::PersistentVolume,
    core::PersistentVolumeClaim,
    core::Pod,
    core::ReplicationController,
    core::Secret,
    core::Service,
    core::ServiceAccount,
    discovery::EndpointSlice,
    events::Event,
    networking::IPAddress,
    networking::ServiceCIDR,
    policy::PodDisruptionBudget,
    rbac::ClusterRole,
    rbac::ClusterRoleBinding,
    rbac::Role,
    rbac::RoleBinding,
    scheduling::PriorityClass,
);
