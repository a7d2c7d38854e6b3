//! From the spec of a container to CRI's `ContainerConfig`, and of a pod to `PodSandboxConfig`.
//!
//! Pure: what has to be looked up or made first (environment, mounts, the image's user) is handed in.

use std::collections::HashMap;
use std::path::Path;

use cri::v1::{
    ContainerConfig, ContainerMetadata, DnsConfig, ImageSpec, KeyValue, LinuxContainerConfig, LinuxContainerResources,
    LinuxPodSandboxConfig, Mount, PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol, Signal,
};
use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod};

use crate::environment::expansion::expand;
use crate::pod::{self, Sort};
use crate::resources::{self, CPU_PERIOD_US};
use crate::runtime_view as view;
use crate::security::{self, Defaults, ImageUser};

/// What a container's configuration is made from besides its spec.
pub struct Prepared<'a> {
    pub sort: Sort,
    pub attempt: u32,
    /// What the image resolved to on this machine.
    pub image_ref: &'a str,
    pub image_user: &'a ImageUser,
    pub environment: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    /// For an ephemeral container: whose processes it sees.
    pub target_id: Option<&'a str>,
    pub memory_capacity_bytes: i64,
    pub cgroup_v2: bool,
    pub defaults: Defaults,
}

pub fn container_config(pod: &Pod, container: &Container, prepared: Prepared<'_>) -> ContainerConfig {
    let lookup =
        |name: &str| prepared.environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let expanded = |list: &Option<Vec<String>>| list.iter().flatten().map(|word| expand(word, lookup)).collect();
    let image = container.image.clone().unwrap_or_default();
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: container.name.clone(), attempt: prepared.attempt }),
        image: Some(ImageSpec {
            image: prepared.image_ref.to_string(),
            user_specified_image: image,
            ..ImageSpec::default()
        }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        labels: container_labels(pod, container),
        annotations: container_annotations(pod, container, prepared.attempt),
        log_path: format!("{}/{}.log", container.name, prepared.attempt),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        stop_signal: stop_signal(container) as i32,
        linux: Some(LinuxContainerConfig {
            resources: Some(linux_resources(pod, container, &prepared)),
            security_context: Some(security::of_container(
                pod,
                container,
                prepared.image_user,
                prepared.target_id,
                prepared.defaults,
            )),
        }),
        envs: prepared
            .environment
            .into_iter()
            .map(|(key, value)| KeyValue { key, value: value.into_bytes() })
            .collect(),
        mounts: prepared.mounts,
        ..ContainerConfig::default()
    }
}

fn stop_signal(container: &Container) -> Signal {
    let named = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.as_deref());
    named
        .and_then(|name| Signal::from_str_name(&format!("SIGNAL_{}", name.replace('+', "PLUS").replace('-', "MINUS"))))
        .unwrap_or(Signal::RuntimeDefault)
}

fn container_labels(pod: &Pod, container: &Container) -> HashMap<String, String> {
    HashMap::from([
        (view::LABEL_POD_NAME.into(), pod::name(pod).into()),
        (view::LABEL_POD_NAMESPACE.into(), pod::namespace(pod).into()),
        (view::LABEL_POD_UID.into(), pod::uid(pod).into()),
        (view::LABEL_CONTAINER_NAME.into(), container.name.clone()),
    ])
}

fn container_annotations(pod: &Pod, container: &Container, attempt: u32) -> HashMap<String, String> {
    let text = |value: &Option<String>, otherwise: &str| value.clone().unwrap_or_else(|| otherwise.to_string());
    let grace = pod::spec(pod).termination_grace_period_seconds.unwrap_or(30);
    HashMap::from([
        (view::ANNOTATION_HASH.into(), view::spec_hash(container)),
        (view::ANNOTATION_RESTART_COUNT.into(), attempt.to_string()),
        (view::ANNOTATION_GRACE_PERIOD.into(), grace.to_string()),
        (
            view::ANNOTATION_TERMINATION_MESSAGE_PATH.into(),
            text(&container.termination_message_path, "/dev/termination-log"),
        ),
        (view::ANNOTATION_TERMINATION_MESSAGE_POLICY.into(), text(&container.termination_message_policy, "File")),
    ])
}

fn linux_resources(pod: &Pod, container: &Container, prepared: &Prepared<'_>) -> LinuxContainerResources {
    let settings = resources::of_container(container);
    let mut unified = HashMap::new();
    if prepared.cgroup_v2 {
        // One process too many takes the whole container, as it does on v1 by the runtime's wish.
        unified.insert("memory.oom.group".to_string(), "1".to_string());
        // What is over the limit is not to be had from swap either, on a machine that has some.
        unified.insert("memory.swap.max".to_string(), "0".to_string());
    }
    LinuxContainerResources {
        cpu_shares: settings.cpu_shares,
        cpu_period: CPU_PERIOD_US,
        cpu_quota: settings.cpu_quota_us,
        memory_limit_in_bytes: settings.memory_limit_bytes,
        oom_score_adj: resources::oom_score_adj(pod, container, prepared.memory_capacity_bytes),
        unified,
        ..LinuxContainerResources::default()
    }
}

/// The sandbox of a pod.
pub fn sandbox_config(
    pod: &Pod,
    attempt: u32,
    hostname: &str,
    dns: DnsConfig,
    log_directory: &Path,
    cgroup_parent: &str,
) -> PodSandboxConfig {
    let spec = pod::spec(pod);
    let host_network = spec.host_network.unwrap_or(false);
    let mut labels: HashMap<String, String> = pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    labels.insert(view::LABEL_POD_NAME.into(), pod::name(pod).into());
    labels.insert(view::LABEL_POD_NAMESPACE.into(), pod::namespace(pod).into());
    labels.insert(view::LABEL_POD_UID.into(), pod::uid(pod).into());
    let sysctls = spec.security_context.as_ref().and_then(|context| context.sysctls.as_deref()).unwrap_or_default();
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: pod::name(pod).into(),
            uid: pod::uid(pod).into(),
            namespace: pod::namespace(pod).into(),
            attempt,
        }),
        hostname: if host_network { String::new() } else { hostname.to_string() },
        log_directory: log_directory.display().to_string(),
        dns_config: Some(dns),
        port_mappings: if host_network { Vec::new() } else { port_mappings(pod) },
        labels,
        annotations: pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: cgroup_parent.to_string(),
            security_context: Some(security::of_sandbox(pod)),
            sysctls: sysctls.iter().map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect(),
            overhead: None,
            resources: Some(pod_resources(pod)),
        }),
        windows: None,
    }
}

fn pod_resources(pod: &Pod) -> LinuxContainerResources {
    let settings = resources::of_pod(pod);
    LinuxContainerResources {
        cpu_shares: settings.cpu_shares,
        cpu_period: CPU_PERIOD_US,
        cpu_quota: settings.cpu_quota_us,
        memory_limit_in_bytes: settings.memory_limit_bytes,
        ..LinuxContainerResources::default()
    }
}

fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    let containers = pod::init_containers(pod).iter().filter(|container| pod::is_sidecar(container));
    let ports = containers.chain(pod::containers(pod)).flat_map(|container| container.ports.iter().flatten());
    ports.filter(|port| port.host_port.unwrap_or(0) > 0).map(port_mapping).collect()
}

fn port_mapping(port: &ContainerPort) -> PortMapping {
    let protocol = match port.protocol.as_deref() {
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        _ => Protocol::Tcp,
    };
    PortMapping {
        protocol: protocol as i32,
        container_port: port.container_port,
        host_port: port.host_port.unwrap_or(0),
        host_ip: port.host_ip.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::pod_of;
    use serde_json::json;

    #[test]
    fn a_container_becomes_what_cri_needs() {
        let pod =
            pod_of(json!({"containers": [{"name": "c", "image": "busybox:1.36", "command": ["echo", "$(A)", "$$(A)"],
            "args": ["$(B)"], "tty": true, "resources": {"limits": {"memory": "50Mi"}},
            "lifecycle": {"stopSignal": "SIGUSR1"}}]}));
        let prepared = Prepared {
            sort: Sort::Regular,
            attempt: 3,
            image_ref: "sha256:1",
            image_user: &ImageUser::default(),
            environment: vec![("A".into(), "1".into())],
            mounts: Vec::new(),
            target_id: None,
            memory_capacity_bytes: 1 << 30,
            cgroup_v2: true,
            defaults: Defaults::default(),
        };
        let made = container_config(&pod, &pod::containers(&pod)[0], prepared);
        assert_eq!(made.command, ["echo", "1", "$(A)"]);
        assert_eq!(made.args, ["$(B)"]);
        assert_eq!(made.log_path, "c/3.log");
        assert_eq!(made.stop_signal, Signal::Sigusr1 as i32);
        assert_eq!(made.labels[view::LABEL_POD_UID], "u");
        assert_eq!(made.annotations[view::ANNOTATION_RESTART_COUNT], "3");
        let resources = made.linux.unwrap().resources.unwrap();
        assert_eq!((resources.memory_limit_in_bytes, resources.cpu_shares), (50 << 20, 2));
        assert_eq!(resources.unified["memory.oom.group"], "1");
        assert_eq!(resources.unified["memory.swap.max"], "0");
    }

    #[test]
    fn a_sandbox_on_the_host_network_maps_no_ports_and_has_no_hostname() {
        for (host, ports, hostname) in [(false, 1, "h"), (true, 0, "")] {
            let pod = pod_of(json!({"hostNetwork": host, "containers": [{"name": "c", "ports": [
                {"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]}]}));
            let made = sandbox_config(&pod, 0, "h", DnsConfig::default(), Path::new("/logs"), "/kubepods");
            assert_eq!((made.port_mappings.len(), made.hostname.as_str()), (ports, hostname));
        }
    }
}
