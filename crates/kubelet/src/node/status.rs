//! The node's status: written when it changed, and every five minutes in any case.
//!
//! A runtime that does not answer makes the node not ready only after a while: one that is being restarted takes no pod's place
//! among a service's endpoints. For the same reason an agent that takes over a ready node says nothing before it has found it
//! ready, for as long: its pods ran on, and a node that turns takes all of them away from their services.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use client::{Patch, Typed};
use cri::RuntimeConditionType;
use cri::v1::{ListImagesRequest, RuntimeCondition, StatusRequest};
use k8s_openapi::api::core::v1::{
    AttachedVolume, ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus,
    NodeSystemInfo,
};
use meta::{ObjectKey, Quantity, Status};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::KUBELET_VERSION;
use super::conditions::{self, Facts};
use super::machine::{self, Machine};
use crate::agent::Agent;
use crate::log_rotation;

/// How often the machine is looked at; a status that did not change is not written.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// An unchanged status is written this often.
const WRITE_EVERY: Duration = Duration::from_secs(300);
/// While the node is not ready, and right after a failure, it is looked at this often.
const LOOK_SOON: Duration = Duration::from_millis(250);
/// How long a runtime that has answered may be silent before the node is not ready; upstream's limit.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long one answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// As many images as a node lists, the largest first.
const IMAGES_MAX: usize = 50;
const IMAGE_NAMES_MAX: usize = 5;

/// What the machine offers, and what pods may have of it (nothing is reserved yet).
pub fn capacity(machine: &Machine, data_dir: &std::path::Path, max_pods: u32) -> BTreeMap<String, Quantity> {
    let disk = i64::try_from(machine::room(data_dir).capacity_bytes).unwrap_or(i64::MAX);
    BTreeMap::from([
        ("cpu".to_string(), Quantity::from_units(machine.cpus)),
        ("memory".to_string(), Quantity::from_bytes(machine.memory_bytes)),
        ("ephemeral-storage".to_string(), Quantity::from_bytes(disk)),
        ("pods".to_string(), Quantity::from_units(i64::from(max_pods))),
        ("hugepages-1Gi".to_string(), Quantity::ZERO),
        ("hugepages-2Mi".to_string(), Quantity::ZERO),
    ])
}

/// Keeps the status true for ever, beginning with the one that the API has; `ready` is told when the node first is, and whenever
/// it turns.
pub async fn run(agent: Arc<Agent>, port: u16, found: Option<NodeStatus>, ready: watch::Sender<bool>) {
    let (begun, mut written_at): (Timestamp, Option<Timestamp>) = (agent.clock.now(), None);
    let taken_over = found.as_ref().is_some_and(is_ready);
    let mut written = found;
    let mut heard = Heard::default();
    let mut network = agent.config.network_ready.clone();
    loop {
        let now = agent.clock.now();
        let old = written.as_ref().and_then(|status| status.conditions.clone());
        heard.ask(&agent, now).await;
        let status = status(&agent, port, old.as_deref().unwrap_or_default(), now, &heard);
        let is_ready = is_ready(&status);
        let due = written_at.is_none_or(|at| now >= at + WRITE_EVERY);
        let mut wait = if is_ready { LOOK_EVERY } else { LOOK_SOON };
        if taken_over && written_at.is_none() && !is_ready && now < begun + SILENCE_MAX {
            tracing::debug!(why = ?heard.not_ready, "this node was ready and is not yet again");
        } else if due || written.as_ref().map(without_heartbeats) != Some(without_heartbeats(&status)) {
            match write(&agent, &status).await {
                Ok(()) => {
                    if is_ready && !written.as_ref().is_some_and(self::is_ready) {
                        tell_ready(&agent);
                    }
                    (written, written_at) = (Some(status), Some(now));
                    ready.send_replace(is_ready);
                }
                Err(status) => {
                    tracing::warn!(error = %status, "the node's status was not written, will retry");
                    wait = LOOK_SOON;
                }
            }
        }
        if agent.config.rotates_logs {
            // What it did not get to is there at the next look.
            drop(tokio::time::timeout(ANSWER_LIMIT, log_rotation::look(&agent)).await);
        }
        tokio::select! {
            () = agent.clock.sleep(wait) => {}
            () = turn(&mut network) => {}
        }
    }
}

/// Resolves when the runtime's network turns ready.
async fn turn(network: &mut Option<watch::Receiver<bool>>) {
    if let Some(receiver) = network {
        if receiver.changed().await.is_ok() {
            return;
        }
        // Nobody will tell any more.
        *network = None;
    }
    std::future::pending().await
}

fn is_ready(status: &NodeStatus) -> bool {
    status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn tell_ready(agent: &Agent) {
    let name = &agent.config.node_name;
    let key = ObjectKey::cluster(name);
    // Upstream's events about nodes carry the name as uid.
    let about = client::events::reference_to(&Node::gvk(), &key, Some(name.as_str()), None);
    agent.recorder.normal(&about, "NodeReady", format!("Node {name} status is now: NodeReady"));
}

fn without_heartbeats(status: &NodeStatus) -> NodeStatus {
    let mut status = status.clone();
    for condition in status.conditions.iter_mut().flatten() {
        condition.last_heartbeat_time = None;
    }
    status
}

async fn write(agent: &Agent, status: &NodeStatus) -> Result<(), Status> {
    let mut tree = serde_json::to_value(status).map_err(Status::internal)?;
    // Merged by type and address: an address that went must not stay.
    if let Some(Value::Array(addresses)) = tree.get_mut("addresses") {
        addresses.insert(0, json!({"$patch": "replace"}));
    }
    let key = ObjectKey::cluster(&agent.config.node_name);
    let patch = Patch::Strategic(json!({"status": tree}));
    agent.client.patch_object(&Node::gvr(), &key, "status", patch).await.map(drop)
}

fn status(agent: &Agent, port: u16, old: &[NodeCondition], now: Timestamp, heard: &Heard) -> NodeStatus {
    let text = |map: &BTreeMap<String, Quantity>| {
        map.iter()
            .map(|(name, amount)| {
                (name.clone(), k8s_openapi::apimachinery::pkg::api::resource::Quantity(amount.to_string()))
            })
            .collect::<BTreeMap<_, _>>()
    };
    let addresses = agent.config.node_ips.iter().map(|ip| ("InternalIP", ip.to_string()));
    let addresses = addresses.chain([("Hostname", agent.config.node_name.clone())]);
    NodeStatus {
        addresses: Some(addresses.map(|(type_, address)| NodeAddress { type_: type_.to_string(), address }).collect()),
        capacity: Some(text(&agent.allocatable)),
        allocatable: Some(text(&agent.allocatable)),
        conditions: Some(conditions::all(&facts(agent, heard), &agent.config.eviction_hard, old, now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(port) }),
        }),
        images: Some(heard.images.clone()),
        node_info: Some(system_info(agent)),
        volumes_attached: None::<Vec<AttachedVolume>>,
        ..NodeStatus::default()
    }
}

fn system_info(agent: &Agent) -> NodeSystemInfo {
    let machine = &agent.machine;
    NodeSystemInfo {
        architecture: machine.architecture.clone(),
        boot_id: machine.boot_id.clone(),
        container_runtime_version: format!("{}://{}", agent.runtime_name, agent.runtime_version),
        kernel_version: machine.kernel_version.clone(),
        kube_proxy_version: String::new(),
        kubelet_version: KUBELET_VERSION.to_string(),
        machine_id: machine.machine_id.clone(),
        operating_system: "linux".to_string(),
        os_image: machine.os_image.clone(),
        system_uuid: machine.system_uuid.clone(),
        ..NodeSystemInfo::default()
    }
}

fn facts(agent: &Agent, heard: &Heard) -> Facts {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    Facts {
        not_ready: heard.not_ready.clone(),
        memory_available_bytes: machine::meminfo(&meminfo, "MemAvailable").unsigned_abs(),
        memory_bytes: agent.machine.memory_bytes.unsigned_abs(),
        disk: machine::room(&agent.config.data_dir),
        pids: pids(),
    }
}

/// Threads in use and the kernel's bound.
fn pids() -> (u64, u64) {
    let loadavg = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let used = loadavg.split_whitespace().nth(3).and_then(|field| field.split('/').nth(1)?.parse().ok());
    let most = std::fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|text| text.trim().parse().ok());
    (used.unwrap_or(0), most.unwrap_or(0))
}

/// What the runtime said when it last answered.
#[derive(Default)]
struct Heard {
    at: Option<Timestamp>,
    not_ready: Vec<String>,
    images: Vec<ContainerImage>,
}

impl Heard {
    async fn ask(&mut self, agent: &Agent, now: Timestamp) {
        let asking = agent.cri.status(StatusRequest { verbose: false });
        let answer = tokio::time::timeout(ANSWER_LIMIT, asking).await;
        let answer = answer.unwrap_or_else(|_| Err(cri::Error::deadline_exceeded("the runtime does not answer")));
        match answer {
            Ok(answer) => {
                self.at = Some(now);
                self.not_ready = not_ready(answer.status.unwrap_or_default().conditions);
                if let Some(images) = images(agent).await {
                    self.images = images;
                }
            }
            Err(error) if self.at.is_some_and(|at| now < at + SILENCE_MAX) => {
                tracing::warn!(%error, "the container runtime does not answer");
            }
            Err(error) => {
                if self.not_ready != [RUNTIME_IS_DOWN] {
                    tracing::error!(%error, "the container runtime is down: this node is not ready");
                }
                self.not_ready = vec![RUNTIME_IS_DOWN.to_string()];
            }
        }
    }
}

const RUNTIME_IS_DOWN: &str = "container runtime is down";

/// The conditions that count; runtimes have others of their own.
fn not_ready(conditions: Vec<RuntimeCondition>) -> Vec<String> {
    let counts = |condition: &RuntimeCondition| {
        [RuntimeConditionType::RuntimeReady, RuntimeConditionType::NetworkReady]
            .iter()
            .any(|known| known.as_str() == condition.r#type)
    };
    let wrong = conditions.into_iter().filter(|condition| !condition.status && counts(condition)).map(|condition| {
        let what = if condition.r#type == "NetworkReady" { "container runtime network" } else { "container runtime" };
        format!(
            "{what} not ready: {}=false reason:{} message:{}",
            condition.r#type, condition.reason, condition.message
        )
    });
    wrong.collect()
}

/// The largest images; none when they are not known.
async fn images(agent: &Agent) -> Option<Vec<ContainerImage>> {
    let asking = tokio::time::timeout(ANSWER_LIMIT, agent.cri.list_images(ListImagesRequest::default()));
    let mut listed = match asking.await {
        Ok(Ok(answer)) => answer.images,
        Ok(Err(error)) => {
            tracing::debug!(%error, "the runtime's images are not known");
            return None;
        }
        Err(_) => return None,
    };
    listed.sort_by(|one, other| (other.size, &one.id).cmp(&(one.size, &other.id)));
    listed.truncate(IMAGES_MAX);
    let names = |image: &cri::v1::Image| {
        let all = image.repo_digests.iter().chain(&image.repo_tags).take(IMAGE_NAMES_MAX).cloned();
        all.collect::<Vec<_>>()
    };
    let shown = listed
        .iter()
        .map(|image| ContainerImage { names: Some(names(image)), size_bytes: i64::try_from(image.size).ok() });
    Some(shown.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::FakeNode;

    #[test]
    fn only_the_two_conditions_of_cri_count() {
        let condition = |type_: &str, status| RuntimeCondition { r#type: type_.into(), status, ..Default::default() };
        let said = [condition("RuntimeReady", true), condition("NetworkReady", false), condition("HasWarnings", false)];
        assert_eq!(
            not_ready(said.into()),
            ["container runtime network not ready: NetworkReady=false reason: message:"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_runtime_may_be_silent_for_half_a_minute() {
        let node = FakeNode::start().await;
        let (mut heard, begun) = (Heard::default(), node.agent.clock.now());
        node.runtime.go_down(true);
        heard.ask(&node.agent, begun).await;
        assert_eq!(heard.not_ready, ["container runtime is down"], "it never answered");
        node.runtime.go_down(false);
        heard.ask(&node.agent, begun).await;
        assert!(heard.not_ready.is_empty());
        node.runtime.go_down(true);
        for (second, down) in [(29, false), (30, true)] {
            heard.ask(&node.agent, begun + Duration::from_secs(second)).await;
            assert_eq!(!heard.not_ready.is_empty(), down, "after {second} s");
        }
        node.tasks.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_ready_node_that_is_taken_over_does_not_turn_while_its_runtime_starts() {
        let node = FakeNode::start().await;
        let conditions = json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2025-12-31T00:00:00Z"}]);
        let found = json!({"metadata": {"name": "node1"}, "status": {"conditions": conditions}});
        node.api.put("nodes", found.clone());
        let status: NodeStatus = serde_json::from_value(found["status"].clone()).unwrap();
        node.runtime.go_down(true);
        let ready = watch::Sender::new(false);
        let told = ready.subscribe();
        node.tasks.spawn("node-status", run(node.agent.clone(), 0, Some(status), ready));
        let shown = || node.api.get("nodes", &ObjectKey::cluster("node1")).unwrap()["status"]["conditions"].clone();
        node.agent.clock.sleep(Duration::from_secs(20)).await;
        assert_eq!(shown(), conditions, "nothing is known against it");
        node.runtime.go_down(false);
        node.agent.clock.sleep(Duration::from_secs(1)).await;
        let now = shown();
        let now = now.as_array().unwrap().iter().find(|condition| condition["type"] == "Ready").unwrap();
        assert_eq!((&now["status"], &now["lastTransitionTime"]), (&json!("True"), &json!("2025-12-31T00:00:00Z")));
        assert!(*told.borrow());
        node.tasks.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_does_not_come_back_turns_after_half_a_minute() {
        let node = FakeNode::start().await;
        let found =
            json!({"metadata": {"name": "node1"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        node.api.put("nodes", found.clone());
        node.runtime.go_down(true);
        let status = serde_json::from_value(found["status"].clone()).unwrap();
        node.tasks.spawn("node-status", run(node.agent.clone(), 0, Some(status), watch::Sender::new(false)));
        let turned = |found: Option<&Value>| found.is_some_and(|node| node.to_string().contains(RUNTIME_IS_DOWN));
        let (limit, key) = (Duration::from_secs(60), ObjectKey::cluster("node1"));
        tokio::time::timeout(limit, node.api.when("nodes", &key, turned)).await.expect("it turns");
        assert_eq!(node.seconds(), 30);
        node.tasks.shutdown().await;
    }
}
