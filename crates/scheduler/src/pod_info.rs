//! What the scheduler keeps of a pod.

use std::sync::Arc;

use base::Timestamp;
use client::{Encoded, Projection};
use k8s_openapi::api::core::v1::{NodeAffinity, Pod, PodSpec, Toleration};
use meta::{ObjectKey, Status};

use crate::affinity::{Kin, PodRules};
use crate::resources::{Resources, requests};

/// A port that a pod wants on its node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// `0.0.0.0` for all addresses.
    pub ip: String,
    pub protocol: String,
    pub port: i32,
}

/// A pod, as far as placement needs it.
#[derive(Clone, Debug, Default)]
pub struct PodInfo {
    pub key: ObjectKey,
    pub uid: String,
    pub revision: u64,
    pub generation: Option<i64>,
    /// Empty until bound.
    pub node: String,
    pub scheduler: String,
    pub priority: i32,
    pub created: Option<Timestamp>,
    /// It has ended, or is being deleted: it needs no node any more, or gives back what it has.
    pub terminal: bool,
    pub deleting: bool,
    pub gates: Vec<String>,
    pub preempts: bool,
    pub requests: Resources,
    /// With a floor for containers that ask for nothing; for scores only.
    pub requests_floored: Resources,
    pub host_ports: Vec<HostPort>,
    /// `spec.nodeSelector`
    pub node_selector: Vec<(String, String)>,
    pub node_affinity: Option<NodeAffinity>,
    /// What rules about pods see of it.
    pub kin: Arc<Kin>,
    /// `podAffinity` and `podAntiAffinity`; none without terms.
    pub rules: Option<Arc<PodRules>>,
    pub tolerations: Vec<Toleration>,
    pub images: Vec<String>,
    /// Names of the claims it mounts.
    pub claims: Vec<String>,
    /// The `PodScheduled` condition's reason and message, to write it only when it changes.
    pub unscheduled: Option<(String, String)>,
}

impl PodInfo {
    /// Whether this pod is for the scheduler called `name` to place, now.
    pub fn wants_placement(&self, name: &str) -> bool {
        self.node.is_empty() && self.scheduler == name && !self.terminal && !self.deleting
    }

    /// Whether, placed on the same node, the two take the same room and mean the same to others.
    pub fn counts_as(&self, other: &PodInfo) -> bool {
        self.requests == other.requests
            && self.requests_floored == other.requests_floored
            && self.host_ports == other.host_ports
            && self.kin == other.kin
            && self.rules == other.rules
    }
}

impl Projection for PodInfo {
    fn project(encoded: &Encoded) -> Result<Self, Status> {
        let pod: Pod = encoded.typed()?;
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let scheduled =
            status.conditions.iter().flatten().find(|it| it.type_ == "PodScheduled" && it.status == "False");
        let kin = Kin { namespace: encoded.key.namespace.to_string(), labels: pod.metadata.labels.unwrap_or_default() };
        Ok(PodInfo {
            rules: spec.affinity.as_ref().and_then(|affinity| PodRules::of(affinity, &kin.namespace)),
            kin: Arc::new(kin),
            key: encoded.key.clone(),
            uid: pod.metadata.uid.unwrap_or_default(),
            revision: encoded.revision,
            generation: pod.metadata.generation,
            priority: spec.priority.unwrap_or(0),
            created: pod.metadata.creation_timestamp.map(|time| time.0),
            terminal: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            gates: spec.scheduling_gates.iter().flatten().map(|gate| gate.name.clone()).collect(),
            preempts: spec.preemption_policy.as_deref() != Some("Never"),
            requests: pod_requests(&spec, false),
            requests_floored: pod_requests(&spec, true),
            host_ports: host_ports(&spec),
            claims: claims(&spec, &encoded.key.name),
            images: spec.containers.iter().filter_map(|container| container.image.clone()).collect(),
            node: spec.node_name.unwrap_or_default(),
            scheduler: spec.scheduler_name.unwrap_or_else(|| crate::NAME.to_string()),
            node_selector: spec.node_selector.unwrap_or_default().into_iter().collect(),
            node_affinity: spec.affinity.and_then(|affinity| affinity.node_affinity),
            tolerations: spec.tolerations.unwrap_or_default(),
            unscheduled: scheduled
                .map(|it| (it.reason.clone().unwrap_or_default(), it.message.clone().unwrap_or_default())),
        })
    }
}

/// Containers and overhead; a pod-level request (`spec.resources`) stands for its containers'.
fn pod_requests(spec: &PodSpec, floor: bool) -> Resources {
    let mut sum = requests(&spec.containers, spec.init_containers.as_deref().unwrap_or_default(), floor);
    if let Some(pod_level) = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()) {
        let asked = Resources::of(pod_level);
        if pod_level.contains_key("cpu") {
            sum.milli_cpu = asked.milli_cpu;
        }
        if pod_level.contains_key("memory") {
            sum.memory = asked.memory;
        }
    }
    if let Some(overhead) = &spec.overhead {
        sum.add(&Resources::of(overhead));
    }
    sum
}

/// Claims by name, and those made for the pod itself, which are called after it.
fn claims(spec: &PodSpec, pod: &str) -> Vec<String> {
    let volumes = spec.volumes.iter().flatten();
    let names = volumes.filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{pod}-{}", volume.name)),
        (None, None) => None,
    });
    names.collect()
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let init = spec.init_containers.iter().flatten();
    let sidecars = init.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let wanted = ports.filter_map(|port| {
        let number = port.host_port.filter(|number| *number > 0)?;
        let ip = port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_string());
        Some(HostPort { ip, protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_string()), port: number })
    });
    wanted.collect()
}
