//! The security context of a container and of a sandbox, pod and container level put together.

use cri::v1::{
    Capability, Int64Value, LinuxContainerSecurityContext, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
    SeLinuxOption, SecurityProfile, SupplementalGroupsPolicy, security_profile::ProfileType,
};
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, SELinuxOptions, SeccompProfile, SecurityContext,
};

use crate::pod;

/// Paths of `/proc` and `/sys` that a container cannot see.
const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Paths of `/proc` that a container cannot write.
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The user an image runs as, as the runtime reports it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageUser {
    pub uid: Option<i64>,
    pub name: String,
}

/// Refuses a container that must not run as root and would, or might.
pub fn verify_non_root(pod: &Pod, container: &Container, image: &ImageUser) -> Result<(), String> {
    let (of_pod, own) = contexts(pod, container);
    if !own.run_as_non_root.or(of_pod.run_as_non_root).unwrap_or(false) {
        return Ok(());
    }
    let whom = format!("(pod: {:?}, container: {})", pod::full_name(pod), container.name);
    match own.run_as_user.or(of_pod.run_as_user) {
        Some(0) => return Err(format!("container's runAsUser breaks non-root policy {whom}")),
        Some(_) => return Ok(()),
        None => {}
    }
    match (image.uid, image.name.as_str()) {
        (Some(0), _) | (None, "") => Err(format!("container has runAsNonRoot and image will run as root {whom}")),
        (None, name) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {whom}"
        )),
        (Some(_), _) => Ok(()),
    }
}

/// The node's choices that a pod's settings are read with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Defaults {
    /// A container that says nothing gets the runtime's seccomp profile instead of none.
    pub seccomp_runtime_default: bool,
}

/// The security context of a container. `target_id` is the container whose processes an ephemeral one is to see.
pub fn of_container(
    pod: &Pod,
    container: &Container,
    image: &ImageUser,
    target_id: Option<&str>,
    defaults: Defaults,
) -> LinuxContainerSecurityContext {
    let (of_pod, own) = contexts(pod, container);
    let privileged = own.privileged.unwrap_or(false);
    let user = own.run_as_user.or(of_pod.run_as_user).or(image.uid);
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |list: &[&str]| if unmasked { Vec::new() } else { list.iter().map(|path| path.to_string()).collect() };
    let mut namespaces = namespaces(pod);
    if let Some(target_id) = target_id {
        namespaces.pid = NamespaceMode::Target as i32;
        namespaces.target_id = target_id.to_string();
    }
    let seccomp = own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref());
    let apparmor = own.app_armor_profile.as_ref().or(of_pod.app_armor_profile.as_ref());
    #[allow(deprecated)]
    LinuxContainerSecurityContext {
        capabilities: capabilities(own),
        privileged,
        namespace_options: Some(namespaces),
        selinux_options: own.se_linux_options.as_ref().or(of_pod.se_linux_options.as_ref()).map(selinux),
        run_as_user: user.map(|value| Int64Value { value }),
        run_as_username: if user.is_none() { image.name.clone() } else { String::new() },
        run_as_group: own.run_as_group.or(of_pod.run_as_group).map(|value| Int64Value { value }),
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups: groups(of_pod),
        supplemental_groups_policy: groups_policy(of_pod),
        no_new_privs: no_new_privileges(own),
        masked_paths: paths(&MASKED_PATHS),
        readonly_paths: paths(&READONLY_PATHS),
        seccomp: Some(if privileged { unconfined() } else { seccomp_profile(seccomp, defaults) }),
        apparmor: apparmor.map(apparmor_profile),
        ..LinuxContainerSecurityContext::default()
    }
}

/// The security context of a pod's sandbox.
pub fn of_sandbox(pod: &Pod) -> LinuxSandboxSecurityContext {
    static EMPTY: std::sync::LazyLock<PodSecurityContext> = std::sync::LazyLock::new(PodSecurityContext::default);
    let of_pod = pod::spec(pod).security_context.as_ref().unwrap_or(&EMPTY);
    let containers = pod::init_containers(pod).iter().chain(pod::containers(pod));
    let privileged = |container: &Container| {
        container.security_context.as_ref().is_some_and(|context| context.privileged == Some(true))
    };
    LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        selinux_options: of_pod.se_linux_options.as_ref().map(selinux),
        run_as_user: of_pod.run_as_user.map(|value| Int64Value { value }),
        run_as_group: of_pod.run_as_group.map(|value| Int64Value { value }),
        supplemental_groups: groups(of_pod),
        supplemental_groups_policy: groups_policy(of_pod),
        privileged: containers.into_iter().any(privileged),
        // The sandbox runs nothing of the user's: the runtime's profile is right for it, whatever the containers have.
        seccomp: Some(SecurityProfile {
            profile_type: ProfileType::RuntimeDefault as i32,
            ..SecurityProfile::default()
        }),
        ..LinuxSandboxSecurityContext::default()
    }
}

fn contexts<'a>(pod: &'a Pod, container: &'a Container) -> (&'a PodSecurityContext, &'a SecurityContext) {
    static OF_POD: std::sync::LazyLock<PodSecurityContext> = std::sync::LazyLock::new(PodSecurityContext::default);
    static OWN: std::sync::LazyLock<SecurityContext> = std::sync::LazyLock::new(SecurityContext::default);
    (pod::spec(pod).security_context.as_ref().unwrap_or(&OF_POD), container.security_context.as_ref().unwrap_or(&OWN))
}

fn namespaces(pod: &Pod) -> NamespaceOption {
    let spec = pod::spec(pod);
    let node_or = |node: Option<bool>, otherwise: NamespaceMode| {
        if node == Some(true) { NamespaceMode::Node as i32 } else { otherwise as i32 }
    };
    let pid = if spec.share_process_namespace == Some(true) { NamespaceMode::Pod } else { NamespaceMode::Container };
    NamespaceOption {
        network: node_or(spec.host_network, NamespaceMode::Pod),
        ipc: node_or(spec.host_ipc, NamespaceMode::Pod),
        pid: node_or(spec.host_pid, pid),
        ..NamespaceOption::default()
    }
}

fn groups(of_pod: &PodSecurityContext) -> Vec<i64> {
    let mut groups = of_pod.supplemental_groups.clone().unwrap_or_default();
    groups.extend(of_pod.fs_group.filter(|group| !groups.contains(group)));
    groups
}

fn groups_policy(of_pod: &PodSecurityContext) -> i32 {
    let strict = of_pod.supplemental_groups_policy.as_deref() == Some("Strict");
    if strict { SupplementalGroupsPolicy::Strict as i32 } else { SupplementalGroupsPolicy::Merge as i32 }
}

/// Privilege escalation is possible unless forbidden; a container that has the privileges anyway cannot be kept from it.
fn no_new_privileges(own: &SecurityContext) -> bool {
    let added = own.capabilities.as_ref().and_then(|capabilities| capabilities.add.as_deref()).unwrap_or_default();
    let has_all =
        own.privileged == Some(true) || added.iter().any(|name| name == "CAP_SYS_ADMIN" || name == "SYS_ADMIN");
    own.allow_privilege_escalation == Some(false) && !has_all
}

fn capabilities(own: &SecurityContext) -> Option<Capability> {
    let asked = own.capabilities.as_ref()?;
    Some(Capability {
        add_capabilities: asked.add.clone().unwrap_or_default(),
        drop_capabilities: asked.drop.clone().unwrap_or_default(),
        add_ambient_capabilities: Vec::new(),
    })
}

fn selinux(options: &SELinuxOptions) -> SeLinuxOption {
    SeLinuxOption {
        user: options.user.clone().unwrap_or_default(),
        role: options.role.clone().unwrap_or_default(),
        r#type: options.type_.clone().unwrap_or_default(),
        level: options.level.clone().unwrap_or_default(),
    }
}

fn unconfined() -> SecurityProfile {
    SecurityProfile { profile_type: ProfileType::Unconfined as i32, ..SecurityProfile::default() }
}

fn seccomp_profile(profile: Option<&SeccompProfile>, defaults: Defaults) -> SecurityProfile {
    match profile {
        Some(profile) => named_profile(&profile.type_, profile.localhost_profile.as_deref()),
        None if defaults.seccomp_runtime_default => named_profile("RuntimeDefault", None),
        None => unconfined(),
    }
}

fn apparmor_profile(profile: &AppArmorProfile) -> SecurityProfile {
    named_profile(&profile.type_, profile.localhost_profile.as_deref())
}

fn named_profile(kind: &str, localhost: Option<&str>) -> SecurityProfile {
    let profile_type = match kind {
        "RuntimeDefault" => ProfileType::RuntimeDefault,
        "Localhost" => ProfileType::Localhost,
        _ => ProfileType::Unconfined,
    };
    SecurityProfile {
        profile_type: profile_type as i32,
        localhost_ref: localhost.filter(|_| kind == "Localhost").unwrap_or_default().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::pod_of;
    use serde_json::{Value, json};

    fn pod(of_pod: Value, own: Value) -> Pod {
        pod_of(json!({"securityContext": of_pod, "containers": [{"name": "c", "securityContext": own}]}))
    }

    #[test]
    fn non_root_is_verified_against_spec_and_image() {
        let user = |uid, name: &str| ImageUser { uid, name: name.into() };
        let whom = "(pod: \"p_n(u)\", container: c)";
        for (of_pod, own, image, expected) in [
            (json!({}), json!({}), user(None, ""), None),
            (
                json!({"runAsNonRoot": true}),
                json!({}),
                user(None, ""),
                Some("container has runAsNonRoot and image will run as root"),
            ),
            (
                json!({"runAsNonRoot": true}),
                json!({}),
                user(Some(0), ""),
                Some("container has runAsNonRoot and image will run as root"),
            ),
            (json!({"runAsNonRoot": true}), json!({}), user(Some(7), ""), None),
            (json!({"runAsNonRoot": true, "runAsUser": 5}), json!({}), user(Some(0), ""), None),
            (
                json!({"runAsUser": 5}),
                json!({"runAsNonRoot": true, "runAsUser": 0}),
                user(None, ""),
                Some("container's runAsUser breaks non-root policy"),
            ),
            (json!({"runAsNonRoot": true}), json!({"runAsNonRoot": false}), user(None, ""), None),
            (
                json!({"runAsNonRoot": true}),
                json!({}),
                user(None, "www"),
                Some("container has runAsNonRoot and image has non-numeric user (www), cannot verify user is non-root"),
            ),
        ] {
            let pod = pod(of_pod.clone(), own.clone());
            let verdict = verify_non_root(&pod, &pod::containers(&pod)[0], &image);
            assert_eq!(verdict.err(), expected.map(|text| format!("{text} {whom}")), "{of_pod} {own} {image:?}");
        }
    }

    #[test]
    fn the_container_wins_over_the_pod_over_the_image() {
        let pod = pod(
            json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4],
                   "seccompProfile": {"type": "RuntimeDefault"}}),
            json!({"runAsUser": 9, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                   "readOnlyRootFilesystem": true}),
        );
        let image = ImageUser { uid: Some(7), name: String::new() };
        let made = of_container(&pod, &pod::containers(&pod)[0], &image, None, Defaults::default());
        assert_eq!(made.run_as_user.unwrap().value, 9);
        assert_eq!(made.run_as_group.unwrap().value, 2);
        assert_eq!(made.supplemental_groups, [4, 3]);
        assert!(made.no_new_privs && made.readonly_rootfs && !made.masked_paths.is_empty());
        assert_eq!(made.capabilities.unwrap().drop_capabilities, ["ALL"]);
        assert_eq!(made.seccomp.unwrap().profile_type, ProfileType::RuntimeDefault as i32);
    }

    #[test]
    fn a_privileged_container_sees_everything() {
        let pod = pod(json!({}), json!({"privileged": true, "allowPrivilegeEscalation": false}));
        let made = of_container(&pod, &pod::containers(&pod)[0], &ImageUser::default(), None, Defaults::default());
        assert!(made.privileged && !made.no_new_privs && made.masked_paths.is_empty());
        assert!(of_sandbox(&pod).privileged);
    }
}
