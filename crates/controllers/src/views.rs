//! What controllers keep of the objects they watch.
//!
//! Pods are many, so their cache holds the handful of fields that controllers read. Kinds of which there are few are kept as a
//! typed view beside their bytes: the view to read, the bytes to take unknown fields (a pod template's) along.

use std::collections::BTreeMap;

use base::Timestamp;
use client::{Encoded, Index, Informer, Informers, Projection, Typed, Watched};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use meta::{Object, ObjectKey, Status};

/// The metadata that controllers read.
#[derive(Clone, Debug, Default)]
pub struct Meta {
    pub key: ObjectKey,
    pub uid: String,
    pub revision: u64,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// The owner whose `controller` is true.
    pub controller: Option<Owner>,
    pub created: Option<Timestamp>,
    /// Since when it is being deleted.
    pub deleting: Option<Timestamp>,
}

/// An owner reference, as far as it matters for finding the owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
}

/// A pod, as far as controllers care.
#[derive(Clone, Debug, Default)]
pub struct PodView {
    pub meta: Meta,
    /// `Pending`, `Running`, `Succeeded`, `Failed`, `Unknown`
    pub phase: String,
    pub node: String,
    /// The `Ready` condition is true.
    pub ready: bool,
    /// When the `Ready` condition last changed.
    pub ready_changed: Option<Timestamp>,
    /// The highest restart count of its containers.
    pub restarts: i32,
    pub ips: Vec<String>,
    pub hostname: String,
    pub subdomain: String,
    pub host_network: bool,
    /// Named and numbered ports of regular containers and sidecars: name, protocol, number.
    pub ports: Vec<(String, String, i32)>,
    pub tolerations: Vec<k8s_openapi::api::core::v1::Toleration>,
}

/// A typed view and the bytes it was read from.
#[derive(Clone, Debug)]
pub struct Whole<K> {
    pub view: K,
    pub encoded: Encoded,
}

/// Names of the indices of the pod cache.
pub const BY_OWNER: &str = "owner";
pub const BY_NODE: &str = "node";

/// Every user of the pod cache names the same indices.
pub const POD_INDICES: &[Index<PodView>] = &[
    Index { name: BY_OWNER, values: |_, pod| pod.meta.controller.iter().map(|owner| owner.uid.clone()).collect() },
    Index { name: BY_NODE, values: |_, pod| vec![pod.node.clone()] },
];

/// The shared cache of all pods.
pub fn pods(informers: &Informers) -> Informer<PodView> {
    informers.of::<PodView>(Watched::all_of::<Pod>(), POD_INDICES)
}

/// The shared cache of all objects of a kind of which there are few.
pub fn whole<K: Typed>(informers: &Informers) -> Informer<Whole<K>> {
    informers.of::<Whole<K>>(Watched::all_of::<K>(), &[])
}

/// All objects of a kind that have one name, in whatever namespace.
pub fn watched_named<K: Typed>(name: &str) -> Watched {
    Watched { field_selector: format!("metadata.name={name}"), ..Watched::all_of::<K>() }
}

/// A namespace that takes new objects.
pub fn is_alive(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
}

/// The metadata alone, of any kind; the bytes are only looked at, not kept.
impl Projection for Meta {
    fn project(encoded: &Encoded) -> Result<Self, Status> {
        let object = encoded.object()?;
        let controller = object.controller().map(|owner| Owner {
            api_version: owner.api_version,
            kind: owner.kind,
            name: owner.name,
            uid: owner.uid,
        });
        let text = |(key, value): (&str, &str)| (key.to_string(), value.to_string());
        Ok(Meta {
            key: encoded.key.clone(),
            uid: object.uid().to_string(),
            revision: encoded.revision,
            labels: object.labels().map(text).collect(),
            annotations: object.annotations().map(text).collect(),
            controller,
            created: object.creation_timestamp(),
            deleting: object.deletion_timestamp(),
        })
    }
}

impl<K: Typed> Projection for Whole<K> {
    fn project(encoded: &Encoded) -> Result<Self, Status> {
        Ok(Whole { view: encoded.typed()?, encoded: encoded.clone() })
    }
}

impl<K> Whole<K> {
    /// The tree, with every field the object has.
    pub fn object(&self) -> Result<Object, Status> {
        self.encoded.object()
    }
}

pub fn timestamp(time: &Time) -> Timestamp {
    time.0
}

impl Meta {
    pub fn of(metadata: &ObjectMeta, revision: u64) -> Self {
        let owners = metadata.owner_references.iter().flatten();
        let controller = owners.filter(|owner| owner.controller == Some(true)).map(|owner| Owner {
            api_version: owner.api_version.clone(),
            kind: owner.kind.clone(),
            name: owner.name.clone(),
            uid: owner.uid.clone(),
        });
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        Meta {
            key: ObjectKey::new(namespace, metadata.name.as_deref().unwrap_or_default()),
            uid: metadata.uid.clone().unwrap_or_default(),
            revision,
            labels: metadata.labels.clone().unwrap_or_default(),
            annotations: metadata.annotations.clone().unwrap_or_default(),
            controller: controller.into_iter().next(),
            created: metadata.creation_timestamp.as_ref().map(timestamp),
            deleting: metadata.deletion_timestamp.as_ref().map(timestamp),
        }
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }

    pub fn is_controlled_by(&self, uid: &str) -> bool {
        self.controller.as_ref().is_some_and(|owner| owner.uid == uid)
    }
}

impl PodView {
    /// It has ended for good.
    pub fn is_terminal(&self) -> bool {
        self.phase == "Succeeded" || self.phase == "Failed"
    }

    /// It counts as a replica: not ended, not being deleted.
    pub fn is_active(&self) -> bool {
        !self.is_terminal() && self.meta.deleting.is_none()
    }

    /// Ready for at least `min_ready_seconds` at `now`.
    pub fn is_available(&self, min_ready_seconds: i32, now: Timestamp) -> bool {
        self.ready && (min_ready_seconds == 0 || self.available_at(min_ready_seconds).is_some_and(|at| at <= now))
    }

    /// When a ready pod becomes available.
    pub fn available_at(&self, min_ready_seconds: i32) -> Option<Timestamp> {
        let since = self.ready_changed.filter(|_| self.ready)?;
        Some(since + std::time::Duration::from_secs(u64::try_from(min_ready_seconds).unwrap_or(0)))
    }
}

impl Projection for PodView {
    fn project(encoded: &Encoded) -> Result<Self, Status> {
        let pod: Pod = encoded.typed()?;
        let meta = Meta::of(&pod.metadata, encoded.revision);
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
        let sidecars = spec.init_containers.iter().flatten();
        let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
        let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
        let ips = status.pod_ips.iter().flatten().map(|ip| ip.ip.clone());
        let restarts = status.container_statuses.iter().flatten().map(|status| status.restart_count).max();
        Ok(PodView {
            meta,
            ready: ready.is_some_and(|condition| condition.status == "True"),
            ready_changed: ready.and_then(|condition| condition.last_transition_time.as_ref()).map(timestamp),
            phase: status.phase.clone().unwrap_or_default(),
            restarts: restarts.unwrap_or(0),
            ips: ips.collect(),
            ports: ports
                .map(|port| {
                    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_string());
                    (port.name.clone().unwrap_or_default(), protocol, port.container_port)
                })
                .collect(),
            node: spec.node_name.unwrap_or_default(),
            hostname: spec.hostname.unwrap_or_default(),
            subdomain: spec.subdomain.unwrap_or_default(),
            host_network: spec.host_network.unwrap_or(false),
            tolerations: spec.tolerations.unwrap_or_default(),
        })
    }
}
