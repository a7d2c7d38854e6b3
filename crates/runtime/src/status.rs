//! Sandboxes, containers and images in CRI's words.

use std::collections::HashMap;

use cri::v1::{
    Container as CriContainer, ContainerResources, ContainerState, ContainerStatus, ContainerUser, Image, ImageSpec,
    Int64Value, LinuxContainerUser, LinuxPodSandboxStatus, Namespace, PodIp, PodSandbox, PodSandboxNetworkStatus,
    PodSandboxState, PodSandboxStatus,
};

use crate::{
    image::{ImageRecord, Images},
    spec,
    state::{Container, Sandbox},
};

fn sandbox_state(sandbox: &Sandbox) -> PodSandboxState {
    if sandbox.is_ready() { PodSandboxState::SandboxReady } else { PodSandboxState::SandboxNotready }
}

/// A sandbox in full.
pub fn sandbox(sandbox: &Sandbox) -> PodSandboxStatus {
    let config = sandbox.config();
    let record = sandbox.record.lock().clone();
    let mut ips = record.addresses.ips.iter().filter(|_| record.ready).map(|ip| ip.to_string());
    let network = PodSandboxNetworkStatus {
        ip: ips.next().unwrap_or_default(),
        additional_ips: ips.map(|ip| PodIp { ip }).collect(),
    };
    PodSandboxStatus {
        id: sandbox.id.clone(),
        state: sandbox_state(sandbox) as i32,
        created_at: record.created_at_ns,
        network: Some(network),
        linux: Some(LinuxPodSandboxStatus {
            namespaces: Some(Namespace { options: spec::sandbox_options(config).cloned() }),
        }),
        metadata: config.metadata.clone(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        runtime_handler: sandbox.request.runtime_handler.clone(),
    }
}

/// A sandbox in a list.
pub fn listed_sandbox(sandbox: &Sandbox) -> PodSandbox {
    let config = sandbox.config();
    PodSandbox {
        id: sandbox.id.clone(),
        metadata: config.metadata.clone(),
        state: sandbox_state(sandbox) as i32,
        created_at: sandbox.record.lock().created_at_ns,
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        runtime_handler: sandbox.request.runtime_handler.clone(),
    }
}

/// The image as the pod's author named it, as far as it can be known.
fn image_spec(container: &Container, images: &Images) -> ImageSpec {
    let mut spec = container.config.image.clone().unwrap_or_default();
    let record = images.find(&container.record.image_id);
    let asked = crate::image::reference::Name::parse(&spec.user_specified_image).ok().and_then(|name| name.tagged());
    if let Some(record) = record {
        let tag = asked.filter(|asked| record.tags.contains(asked)).or_else(|| record.tags.first().cloned());
        spec.image = tag.unwrap_or(spec.image);
    }
    spec
}

/// A container in full.
pub fn container(container: &Container, images: &Images) -> ContainerStatus {
    let life = container.life.borrow().clone();
    let config = &container.config;
    let log = spec::log_path(container.sandbox.config(), config);
    let user = life.started.as_ref().map(|started| ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: started.user.uid.into(),
            gid: started.user.gid.into(),
            supplemental_groups: started.user.groups.iter().map(|group| (*group).into()).collect(),
        }),
    });
    ContainerStatus {
        id: container.id.clone(),
        metadata: config.metadata.clone(),
        state: life.state() as i32,
        created_at: container.record.created_at_ns,
        started_at: life.started.as_ref().map_or(0, |started| started.at_ns),
        finished_at: life.exited.as_ref().map_or(0, |exited| exited.at_ns),
        exit_code: life.exited.as_ref().map_or(0, |exited| exited.code),
        image: Some(image_spec(container, images)),
        image_ref: container.record.image_ref.clone(),
        reason: life.reason().to_owned(),
        message: life.failure.map(|failure| failure.message).unwrap_or_default(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        mounts: config.mounts.clone(),
        log_path: log.map(|path| path.display().to_string()).unwrap_or_default(),
        resources: Some(ContainerResources { linux: container.resources.lock().clone(), windows: None }),
        image_id: container.record.image_id.clone(),
        user,
        stop_signal: config.stop_signal,
    }
}

/// A container in a list.
pub fn listed_container(container: &Container) -> CriContainer {
    let config = &container.config;
    CriContainer {
        id: container.id.clone(),
        pod_sandbox_id: container.sandbox.id.clone(),
        metadata: config.metadata.clone(),
        image: config.image.clone(),
        image_ref: container.record.image_ref.clone(),
        state: container.state() as i32,
        created_at: container.record.created_at_ns,
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        image_id: container.record.image_id.clone(),
    }
}

/// What only verbose answers carry.
pub fn container_info(container: &Container) -> HashMap<String, String> {
    let pid = container.life.borrow().started.as_ref().map_or(0, |started| started.pid);
    let running = container.state() == ContainerState::ContainerRunning;
    let info = serde_json::json!({
        "sandboxID": container.sandbox.id, "pid": if running { pid } else { 0 }, "cgroup": container.record.cgroup,
    });
    HashMap::from([("info".to_owned(), info.to_string())])
}

/// An image.
pub fn image(record: &ImageRecord, images: &Images) -> Image {
    // An image whose configuration cannot be read is still listed, so that it can be removed.
    let user = images.defaults(record).map(|defaults| defaults.user).unwrap_or_default();
    let user = user.split(':').next().unwrap_or_default().to_owned();
    let uid = user.parse::<i64>().ok().map(|value| Int64Value { value });
    Image {
        id: record.id.clone(),
        repo_tags: record.tags.iter().cloned().collect(),
        repo_digests: record.digests.iter().cloned().collect(),
        size: record.size_bytes,
        username: if uid.is_some() { String::new() } else { user },
        uid,
        spec: Some(ImageSpec { image: record.id.clone(), ..Default::default() }),
        pinned: record.pinned,
    }
}

/// Whether `labels` has all of `selector`.
pub fn selects(selector: &HashMap<String, String>, labels: &HashMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
