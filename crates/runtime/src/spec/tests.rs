//! Plans compared with what upstream's runtimes would make.

use cri::v1::{
    Capability, Int64Value, KeyValue, LinuxContainerConfig, Mount, NamespaceOption, SecurityProfile, UserNamespace,
};

use super::*;
use crate::launch::plan::MountSource;

fn image() -> ProcessDefaults {
    ProcessDefaults {
        user: "web".into(),
        env: vec!["PATH=/app".into(), "A=image".into()],
        entrypoint: vec!["/entry".into()],
        cmd: vec!["default".into()],
        working_dir: "srv".into(),
        stop_signal: String::new(),
    }
}

fn built(config: &ContainerConfig) -> Result<Built, Error> {
    let sandbox =
        PodSandboxConfig { hostname: "pod".into(), log_directory: "/log/pod".into(), ..PodSandboxConfig::default() };
    build(&Source {
        id: "c1",
        folder: Path::new("/c"),
        sandbox_folder: Path::new("/s"),
        config,
        sandbox: &sandbox,
        image: &image(),
        layers_folder: "/layers".into(),
        layers: vec!["2".into(), "1".into()],
        image_mounts: vec![],
        cgroup_parent: "/kubepods/pod1",
    })
}

fn secured(security: LinuxContainerSecurityContext) -> ContainerConfig {
    let linux = LinuxContainerConfig { security_context: Some(security), resources: None };
    ContainerConfig { linux: Some(linux), ..Default::default() }
}

#[test]
fn commands_and_arguments_combine_as_documented() {
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let cases: [(&[&str], &[&str], &[&str]); 4] = [
        (&[], &[], &["/entry", "default"]),
        (&[], &["x"], &["/entry", "x"]),
        (&["run"], &[], &["run"]),
        (&["run"], &["x"], &["run", "x"]),
    ];
    for (command, args, expected) in cases {
        let config = ContainerConfig { command: words(command), args: words(args), ..Default::default() };
        assert_eq!(arguments(&config, &image()).unwrap(), words(expected));
    }
    assert!(arguments(&ContainerConfig::default(), &ProcessDefaults::default()).is_err());
}

#[test]
fn the_pods_variables_win_over_the_images() {
    let envs = vec![
        KeyValue { key: "A".into(), value: b"pod".to_vec() },
        KeyValue { key: "B".into(), value: b"x=y".to_vec() },
    ];
    let plan = built(&ContainerConfig { envs, log_path: "c/0.log".into(), ..Default::default() }).unwrap().plan;
    assert_eq!(plan.process.environment, ["PATH=/app", "A=pod", "HOSTNAME=pod", "B=x=y"]);
    assert_eq!(plan.process.directory, "/srv");
    assert_eq!(plan.process.user.user, "web");
    assert_eq!(plan.cgroup, "/kubepods/pod1/c1");
    assert_eq!(plan.log_path, Some("/log/pod/c/0.log".into()));
}

#[test]
fn users_and_groups_follow_the_security_context() {
    let id = |value| Some(Int64Value { value });
    let with = |run_as_user, run_as_group| {
        user(&LinuxContainerSecurityContext { run_as_user, run_as_group, ..Default::default() }, &image())
    };
    let chosen = with(id(5), id(6)).unwrap();
    assert_eq!((chosen.user.as_str(), chosen.group), ("5", Some(6)));
    assert_eq!(with(None, None).unwrap().user, "web");
    assert!(with(None, id(6)).is_err());
    assert!(with(id(-1), None).is_err());
}

#[test]
fn privileged_containers_are_not_confined() {
    let security = LinuxContainerSecurityContext {
        privileged: true,
        no_new_privs: true,
        masked_paths: vec!["/proc/kcore".into()],
        seccomp: Some(SecurityProfile { profile_type: ProfileType::RuntimeDefault as i32, ..Default::default() }),
        ..Default::default()
    };
    let built = built(&secured(security)).unwrap();
    let process = &built.plan.process;
    assert_eq!(process.capabilities.granted, capability::ALL);
    assert_eq!(process.seccomp, SeccompPlan::Unconfined);
    assert!(!process.no_new_privileges && built.plan.masked_paths.is_empty());
    assert_eq!(built.devices, [DeviceRule::all()]);
    assert!(built.plan.mounts.iter().all(|mount| !mount.readonly));
    assert!(built.plan.devices.iter().any(|device| device.path == "/dev/null"));
}

#[test]
fn capabilities_are_granted_by_name_and_unknown_ones_refused() {
    let with = |add: &str| {
        let capabilities = Capability {
            add_capabilities: vec![add.into()],
            drop_capabilities: vec!["ALL".into()],
            ..Default::default()
        };
        capabilities_of(capabilities)
    };
    fn capabilities_of(wanted: Capability) -> Result<CapabilityPlan, Error> {
        capabilities(&LinuxContainerSecurityContext { capabilities: Some(wanted), ..Default::default() })
    }
    assert_eq!(with("NET_BIND_SERVICE").unwrap().granted, capability::bit("NET_BIND_SERVICE").unwrap());
    assert!(with("FLY").unwrap_err().message().contains("FLY"));
}

#[test]
fn what_is_asked_for_replaces_standard_mounts_and_comes_in_order_of_depth() {
    let mount = |path: &str| Mount { container_path: path.into(), host_path: "/h".into(), ..Default::default() };
    let mounts = vec![mount("/data/a/b"), mount("/etc/hosts"), mount("/data")];
    let plan = built(&ContainerConfig { mounts, ..Default::default() }).unwrap().plan;
    let targets: Vec<&str> = plan.mounts.iter().map(|mount| mount.target.as_str()).collect();
    assert_eq!(&targets[targets.len() - 3..], ["/data", "/etc/hosts", "/data/a/b"]);
    assert_eq!(targets.iter().filter(|target| **target == "/etc/hosts").count(), 1);
    let hosts = plan.mounts.iter().find(|mount| mount.target == "/etc/hosts").unwrap();
    assert!(matches!(&hosts.source, MountSource::Bind(path) if path == Path::new("/h")));
}

#[test]
fn says_what_is_not_built_yet() {
    let options = NamespaceOption {
        userns_options: Some(UserNamespace { mode: NamespaceMode::Pod as i32, ..Default::default() }),
        ..Default::default()
    };
    let security = LinuxContainerSecurityContext { namespace_options: Some(options), ..Default::default() };
    assert_eq!(built(&secured(security)).err().unwrap().message(), NO_USER_NAMESPACES);
}

#[test]
fn zero_leaves_a_limit_alone() {
    assert_eq!(limits(Some(&LinuxContainerResources::default())), Limits::default());
    let limits =
        limits(Some(&LinuxContainerResources { cpu_quota: -1, memory_limit_in_bytes: 7, ..Default::default() }));
    assert_eq!((limits.cpu_quota_us, limits.memory_bytes), (Some(-1), Some(7)));
}
