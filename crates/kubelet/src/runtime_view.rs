//! A pod as the runtime has it: its sandboxes and containers, newest first.
//!
//! The agent keeps no books of what it started. Whatever it must know over a restart stands in labels, annotations and
//! attempt numbers of the runtime's own objects, under upstream's names, so an agent that starts anew finds everything here.

use std::collections::HashMap;

use base::Timestamp;
use cri::v1::{
    Container as CriContainer, ContainerFilter, ContainerState as CriState, ContainerStatus, ContainerStatusRequest,
    ListContainersRequest, ListPodSandboxRequest, NamespaceMode, PodSandboxFilter, PodSandboxState, PodSandboxStatus,
    PodSandboxStatusRequest,
};
use cri::{Cri, Error};
use k8s_openapi::api::core::v1::Container as ContainerSpec;
use sha2::{Digest, Sha256};

pub const LABEL_POD_NAME: &str = "io.kubernetes.pod.name";
pub const LABEL_POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const LABEL_POD_UID: &str = "io.kubernetes.pod.uid";
pub const LABEL_CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub const ANNOTATION_HASH: &str = "io.kubernetes.container.hash";
pub const ANNOTATION_RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub const ANNOTATION_TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const ANNOTATION_TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub const ANNOTATION_GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";

/// The state of a container, CRI's four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Created,
    Running,
    Exited,
    Unknown,
}

/// One sandbox of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sandbox {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    /// Empty for a pod on the host's network.
    pub ips: Vec<String>,
    pub host_network: bool,
    pub created_at: Timestamp,
}

/// One container of a pod, running or dead.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    pub id: String,
    pub sandbox_id: String,
    pub name: String,
    pub attempt: u32,
    pub state: State,
    /// As the pod names it.
    pub image: String,
    /// What it resolved to, with digest where the registry gave one.
    pub image_ref: String,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
    pub hash: String,
    /// Host paths by path in the container.
    pub mounts: HashMap<String, String>,
    pub log_path: String,
}

impl Container {
    pub fn is_running(&self) -> bool {
        self.state == State::Running
    }
}

/// Everything the runtime has of one pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuntimePod {
    /// Newest first.
    pub sandboxes: Vec<Sandbox>,
    /// Newest first.
    pub containers: Vec<Container>,
}

impl RuntimePod {
    /// The newest container of a name.
    pub fn latest(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// The container of a name before the newest.
    pub fn previous(&self, name: &str) -> Option<&Container> {
        self.containers.iter().filter(|container| container.name == name).nth(1)
    }

    /// The sandbox that is up.
    pub fn ready_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }

    pub fn any_running(&self) -> bool {
        self.containers.iter().any(Container::is_running)
    }

    pub fn by_id(&self, id: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.id == id)
    }
}

/// Reads a pod from the runtime.
pub async fn observe(cri: &dyn Cri, uid: &str) -> Result<RuntimePod, Error> {
    let label_selector = HashMap::from([(LABEL_POD_UID.to_string(), uid.to_string())]);
    let filter = PodSandboxFilter { label_selector: label_selector.clone(), ..PodSandboxFilter::default() };
    let listed = cri.list_pod_sandbox(ListPodSandboxRequest { filter: Some(filter) }).await?;
    let mut view = RuntimePod::default();
    for item in listed.items {
        let request = PodSandboxStatusRequest { pod_sandbox_id: item.id, verbose: false };
        match cri.pod_sandbox_status(request).await {
            Ok(answer) => view.sandboxes.extend(answer.status.map(sandbox)),
            // It went between the list and the question.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    let filter = ContainerFilter { label_selector, ..ContainerFilter::default() };
    for item in cri.list_containers(ListContainersRequest { filter: Some(filter) }).await?.containers {
        let request = ContainerStatusRequest { container_id: item.id.clone(), verbose: false };
        match cri.container_status(request).await {
            Ok(answer) => view.containers.extend(answer.status.map(|status| container(&item, status))),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    view.sandboxes.sort_by_key(|sandbox| std::cmp::Reverse((sandbox.attempt, sandbox.created_at)));
    view.containers.sort_by_key(|container| std::cmp::Reverse((container.created_at, container.attempt)));
    Ok(view)
}

fn sandbox(status: PodSandboxStatus) -> Sandbox {
    let options = status.linux.and_then(|linux| linux.namespaces).and_then(|namespaces| namespaces.options);
    let network = status.network.unwrap_or_default();
    let ips = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|more| more.ip));
    Sandbox {
        id: status.id,
        attempt: status.metadata.map_or(0, |metadata| metadata.attempt),
        ready: status.state == PodSandboxState::SandboxReady as i32,
        ips: ips.filter(|ip| !ip.is_empty()).collect(),
        host_network: options.is_some_and(|options| options.network == NamespaceMode::Node as i32),
        created_at: timestamp(status.created_at).unwrap_or_default(),
    }
}

fn container(listed: &CriContainer, status: ContainerStatus) -> Container {
    let state = match CriState::try_from(status.state) {
        Ok(CriState::ContainerCreated) => State::Created,
        Ok(CriState::ContainerRunning) => State::Running,
        Ok(CriState::ContainerExited) => State::Exited,
        Ok(CriState::ContainerUnknown) | Err(_) => State::Unknown,
    };
    let metadata = status.metadata.unwrap_or_default();
    let wanted = |image: &cri::v1::ImageSpec| match image.user_specified_image.as_str() {
        "" => image.image.clone(),
        specified => specified.to_string(),
    };
    Container {
        sandbox_id: listed.pod_sandbox_id.clone(),
        name: status.labels.get(LABEL_CONTAINER_NAME).cloned().unwrap_or(metadata.name),
        attempt: metadata.attempt,
        state,
        image: status.image.as_ref().map(wanted).unwrap_or_default(),
        image_ref: if status.image_ref.is_empty() { status.image_id } else { status.image_ref },
        created_at: timestamp(status.created_at).unwrap_or_default(),
        started_at: timestamp(status.started_at),
        finished_at: timestamp(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason,
        message: status.message,
        hash: status.annotations.get(ANNOTATION_HASH).cloned().unwrap_or_default(),
        mounts: status.mounts.into_iter().map(|mount| (mount.container_path, mount.host_path)).collect(),
        log_path: status.log_path,
        id: status.id,
    }
}

/// Nanoseconds since the epoch, 0 for never.
fn timestamp(nanoseconds: i64) -> Option<Timestamp> {
    if nanoseconds <= 0 { None } else { Timestamp::from_nanosecond(i128::from(nanoseconds)).ok() }
}

/// What, when changed in the spec, makes a running container be replaced: its name and its image.
pub fn spec_hash(container: &ContainerSpec) -> String {
    let text = format!("{}\0{}", container.name, container.image.as_deref().unwrap_or_default());
    Sha256::digest(text.as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}
