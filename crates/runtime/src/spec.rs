//! From CRI's configuration and the image's to a [`LaunchPlan`]: pure, so that every rule can be tested by comparing plans.
//!
//! Rules are upstream's runtimes': what the pod says wins over the image, `command` replaces the entry point and with it the
//! arguments, later variables replace earlier ones of the same name.

mod devices;
mod mounts;

use std::{collections::BTreeSet, path::Path, path::PathBuf};

use cri::{
    Error,
    v1::{
        ContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext, NamespaceMode, PodSandboxConfig,
        SecurityProfile, SupplementalGroupsPolicy, security_profile::ProfileType,
    },
};

use crate::{
    cgroup::{DeviceRule, Limits},
    image::ProcessDefaults,
    launch::{
        capability,
        plan::{CapabilityPlan, LaunchPlan, LogLimits, PidNamespace, ProcessPlan, RootPlan, SeccompPlan, UserPlan},
        process::DEFAULT_PATH,
    },
};

/// What a plan is made from.
pub struct Source<'a> {
    /// The container's id.
    pub id: &'a str,
    /// Its folder.
    pub folder: &'a Path,
    /// Its pod's folder.
    pub sandbox_folder: &'a Path,
    /// What is asked for.
    pub config: &'a ContainerConfig,
    /// The pod it is for.
    pub sandbox: &'a PodSandboxConfig,
    /// What the image says.
    pub image: &'a ProcessDefaults,
    /// Where layers are.
    pub layers_folder: PathBuf,
    /// The image's layers, top first.
    pub layers: Vec<String>,
    /// For each mount that is an image: its layers.
    pub image_mounts: Vec<Vec<String>>,
    /// The pod's cgroup.
    pub cgroup_parent: &'a str,
}

/// A plan and what has to be set up around it.
pub struct Built {
    /// For the shim.
    pub plan: LaunchPlan,
    /// For the container's cgroup.
    pub limits: Limits,
    /// For the container's cgroup.
    pub devices: Vec<DeviceRule>,
}

/// Makes the plan.
pub fn build(source: &Source<'_>) -> Result<Built, Error> {
    let empty = LinuxContainerSecurityContext::default();
    let linux = source.config.linux.as_ref();
    let security = linux.and_then(|linux| linux.security_context.as_ref()).unwrap_or(&empty);
    let resources = linux.and_then(|linux| linux.resources.as_ref());
    refuse_what_is_missing(security)?;
    let (devices, device_rules) = devices::plan(source.config, security.privileged)?;
    let plan = LaunchPlan {
        id: source.id.to_owned(),
        process: process(source, security, resources)?,
        root: RootPlan {
            layers_folder: source.layers_folder.clone(),
            layers: source.layers.clone(),
            target: source.folder.join("root"),
            upper: source.folder.join("upper"),
            work: source.folder.join("work"),
            readonly: security.readonly_rootfs,
        },
        mounts: mounts::plan(source, security)?,
        devices,
        pid_namespace: pid_namespace(security),
        cgroup: format!("{}/{}", source.cgroup_parent.trim_end_matches('/'), source.id),
        masked_paths: if security.privileged { Vec::new() } else { security.masked_paths.clone() },
        readonly_paths: if security.privileged { Vec::new() } else { security.readonly_paths.clone() },
        stdin: source.config.stdin,
        stdin_once: source.config.stdin_once,
        log_path: log_path(source.sandbox, source.config),
        log_limits: LogLimits::default(),
    };
    Ok(Built { plan, limits: limits(resources), devices: device_rules })
}

/// User namespaces are not built yet: better to say so than to run as the host's root.
fn refuse_what_is_missing(security: &LinuxContainerSecurityContext) -> Result<(), Error> {
    let users = security.namespace_options.as_ref().and_then(|options| options.userns_options.as_ref());
    match users {
        Some(users) if users.mode() == NamespaceMode::Pod => {
            Err(Error::new(cri::Code::Unimplemented, NO_USER_NAMESPACES))
        }
        _ => Ok(()),
    }
}

/// What is said to pods with `hostUsers: false`.
pub const NO_USER_NAMESPACES: &str = "user namespaces are not supported by this runtime yet";

/// Where the container's log goes; `None` when nobody wants one.
pub fn log_path(sandbox: &PodSandboxConfig, config: &ContainerConfig) -> Option<PathBuf> {
    let wanted = !sandbox.log_directory.is_empty() && !config.log_path.is_empty();
    wanted.then(|| Path::new(&sandbox.log_directory).join(&config.log_path))
}

fn process(
    source: &Source<'_>,
    security: &LinuxContainerSecurityContext,
    resources: Option<&LinuxContainerResources>,
) -> Result<ProcessPlan, Error> {
    let directory = [&source.config.working_dir, &source.image.working_dir].into_iter().find(|text| !text.is_empty());
    let directory = directory.map_or("/", String::as_str);
    Ok(ProcessPlan {
        arguments: arguments(source.config, source.image)?,
        environment: environment(source),
        directory: if directory.starts_with('/') { directory.to_owned() } else { format!("/{directory}") },
        user: user(security, source.image)?,
        capabilities: capabilities(security)?,
        no_new_privileges: security.no_new_privs && !security.privileged,
        seccomp: seccomp(security)?,
        apparmor: apparmor(security),
        oom_score_adj: resources.map(|resources| resources.oom_score_adj as i32),
        terminal: source.config.tty,
    })
}

fn arguments(config: &ContainerConfig, image: &ProcessDefaults) -> Result<Vec<String>, Error> {
    let arguments = match (config.command.is_empty(), config.args.is_empty()) {
        (true, true) => [&image.entrypoint[..], &image.cmd[..]].concat(),
        (true, false) => [&image.entrypoint[..], &config.args[..]].concat(),
        (false, _) => [&config.command[..], &config.args[..]].concat(),
    };
    if arguments.is_empty() || arguments[0].is_empty() {
        return Err(Error::unknown("failed to generate container spec: no command specified"));
    }
    Ok(arguments)
}

fn environment(source: &Source<'_>) -> Vec<String> {
    let mut environment = vec![("PATH".to_owned(), DEFAULT_PATH.to_owned())];
    let mut set = |name: &str, value: &str| match environment.iter_mut().find(|(known, _)| known == name) {
        Some((_, known)) => *known = value.to_owned(),
        None => environment.push((name.to_owned(), value.to_owned())),
    };
    if source.config.tty {
        set("TERM", "xterm");
    }
    for entry in &source.image.env {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        set(name, value);
    }
    if !source.sandbox.hostname.is_empty() {
        set("HOSTNAME", &source.sandbox.hostname);
    }
    for variable in &source.config.envs {
        set(&variable.key, &String::from_utf8_lossy(&variable.value));
    }
    environment.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn user(security: &LinuxContainerSecurityContext, image: &ProcessDefaults) -> Result<UserPlan, Error> {
    let narrow =
        |number: i64| u32::try_from(number).map_err(|_| Error::invalid(format!("id {number} is out of range")));
    let name = match (&security.run_as_username, &security.run_as_user) {
        (name, _) if !name.is_empty() => name.clone(),
        (_, Some(user)) => narrow(user.value)?.to_string(),
        (_, None) if security.run_as_group.is_some() => {
            return Err(Error::invalid("user group is specified without user"));
        }
        (_, None) => image.user.clone(),
    };
    Ok(UserPlan {
        user: name,
        group: security.run_as_group.as_ref().map(|group| narrow(group.value)).transpose()?,
        supplemental_groups: security
            .supplemental_groups
            .iter()
            .map(|group| narrow(*group))
            .collect::<Result<_, _>>()?,
        strict_groups: security.supplemental_groups_policy() == SupplementalGroupsPolicy::Strict,
    })
}

fn capabilities(security: &LinuxContainerSecurityContext) -> Result<CapabilityPlan, Error> {
    if security.privileged {
        return Ok(CapabilityPlan { granted: capability::ALL, ambient: 0 });
    }
    let unknown = |name: String| Error::invalid(format!("unknown capability {name:?}"));
    let wanted = security.capabilities.clone().unwrap_or_default();
    let ambient = capability::apply(0, &wanted.add_ambient_capabilities, &[]).map_err(unknown)?;
    let add = [&wanted.add_capabilities[..], &wanted.add_ambient_capabilities[..]].concat();
    let granted = capability::apply(capability::default_set(), &add, &wanted.drop_capabilities).map_err(unknown)?;
    Ok(CapabilityPlan { granted, ambient: ambient & granted })
}

fn seccomp(security: &LinuxContainerSecurityContext) -> Result<SeccompPlan, Error> {
    let Some(profile) = security.seccomp.as_ref().filter(|_| !security.privileged) else {
        return Ok(SeccompPlan::Unconfined);
    };
    Ok(match profile.profile_type() {
        ProfileType::RuntimeDefault => SeccompPlan::RuntimeDefault,
        ProfileType::Unconfined => SeccompPlan::Unconfined,
        ProfileType::Localhost => {
            let path = PathBuf::from(profile.localhost_ref.trim_start_matches("localhost/"));
            if !path.is_file() {
                return Err(Error::unknown(format!("failed to load seccomp profile {}: no such file", path.display())));
            }
            SeccompPlan::File(path)
        }
    })
}

/// A named AppArmor profile, where the kernel has AppArmor. There is no default profile of our own.
fn apparmor(security: &LinuxContainerSecurityContext) -> Option<String> {
    let localhost =
        |profile: &&SecurityProfile| profile.profile_type() == ProfileType::Localhost && !security.privileged;
    let profile = security.apparmor.as_ref().filter(localhost)?;
    let enabled = Path::new("/sys/kernel/security/apparmor").exists();
    enabled.then(|| profile.localhost_ref.trim_start_matches("localhost/").to_owned())
}

fn pid_namespace(security: &LinuxContainerSecurityContext) -> PidNamespace {
    let Some(options) = &security.namespace_options else { return PidNamespace::Own };
    match options.pid() {
        NamespaceMode::Pod => PidNamespace::Pod,
        NamespaceMode::Container => PidNamespace::Own,
        NamespaceMode::Node => PidNamespace::Host,
        NamespaceMode::Target => PidNamespace::Target(options.target_id.clone()),
    }
}

/// CRI's resources as a group's limits: zero and empty leave a setting alone.
pub fn limits(resources: Option<&LinuxContainerResources>) -> Limits {
    let Some(resources) = resources else { return Limits::default() };
    let some = |value: i64| (value != 0).then_some(value);
    let positive = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
    Limits {
        cpu_period_us: positive(resources.cpu_period),
        cpu_quota_us: some(resources.cpu_quota),
        cpu_shares: positive(resources.cpu_shares),
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        memory_bytes: some(resources.memory_limit_in_bytes),
        memory_swap_bytes: some(resources.memory_swap_limit_in_bytes),
        pids: None,
        hugepages: resources.hugepage_limits.iter().map(|limit| (limit.page_size.clone(), limit.limit)).collect(),
        unified: resources.unified.clone().into_iter().collect(),
    }
}

/// Whether some container of the pod may want shared process ids.
pub fn shares_processes(sandbox: &PodSandboxConfig) -> bool {
    sandbox_options(sandbox).is_some_and(|options| options.pid() == NamespaceMode::Pod)
}

/// The pod's namespace options.
pub fn sandbox_options(sandbox: &PodSandboxConfig) -> Option<&cri::v1::NamespaceOption> {
    sandbox.linux.as_ref()?.security_context.as_ref()?.namespace_options.as_ref()
}

/// Names of mounts that are images, in their order.
pub fn image_mounts(config: &ContainerConfig) -> Vec<String> {
    let named = config.mounts.iter().filter_map(|mount| mount.image.as_ref());
    named.map(|image| image.image.clone()).filter(|name| !name.is_empty()).collect()
}

/// Layer folders that a plan stands on.
pub fn layers_in_use(plan: &LaunchPlan) -> BTreeSet<String> {
    let mounted = plan.mounts.iter().filter_map(|mount| match &mount.source {
        crate::launch::plan::MountSource::Layers { layers, .. } => Some(layers.clone()),
        _ => None,
    });
    plan.root.layers.iter().cloned().chain(mounted.flatten()).collect()
}

#[cfg(test)]
mod tests;
