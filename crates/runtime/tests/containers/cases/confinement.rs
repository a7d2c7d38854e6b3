//! What a container can see and do.

use std::{fs, os::unix::fs::MetadataExt};

use cri::v1::*;

use crate::node::{IMAGE, Node};

fn secured(mut config: ContainerConfig, security: LinuxContainerSecurityContext) -> ContainerConfig {
    config.linux = Some(LinuxContainerConfig { security_context: Some(security), resources: None });
    config
}

pub async fn users_and_groups_come_from_the_image_and_the_pod(node: Node) {
    let sandbox = node.sandbox().await;
    let id = |value| Some(Int64Value { value });
    let base = LinuxContainerSecurityContext::default;
    let strict = SupplementalGroupsPolicy::Strict as i32;
    let cases = [
        (base(), "0 0 0 /root"),
        (LinuxContainerSecurityContext { run_as_user: id(1000), ..base() }, "1000 1001 1001 50000 /tmp"),
        (LinuxContainerSecurityContext { run_as_username: "web".into(), ..base() }, "1000 1001 1001 50000 /tmp"),
        (
            LinuxContainerSecurityContext {
                run_as_user: id(1000),
                run_as_group: id(7),
                supplemental_groups: vec![9],
                supplemental_groups_policy: strict,
                ..base()
            },
            "1000 7 7 9 /tmp",
        ),
        (LinuxContainerSecurityContext { run_as_user: id(4242), ..base() }, "4242 0 0 /"),
    ];
    for (security, expected) in cases {
        let config = secured(node.script("echo $(id -u) $(id -g) $(id -G) $HOME"), security);
        let (status, log) = node.run(&sandbox, &config).await;
        assert_eq!(log.trim(), expected);
        let user = status.user.unwrap().linux.unwrap();
        assert_eq!(format!("{} {}", user.uid, user.gid), expected.split(' ').take(2).collect::<Vec<_>>().join(" "));
    }
    let unknown = LinuxContainerSecurityContext { run_as_username: "nobody".into(), ..base() };
    let created = node.create(&sandbox, &secured(node.script(""), unknown)).await.unwrap();
    let start = StartContainerRequest { container_id: created };
    let error = cri::Cri::start_container(&node.runtime, start).await.unwrap_err();
    assert!(error.message().contains("unable to find user nobody: no matching entries in passwd file"), "{error}");
}

pub async fn capabilities_and_system_calls_are_limited(node: Node) {
    let sandbox = node.sandbox().await;
    let script = "grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; \
                  unshare -m true 2>/dev/null && echo unshared; hostname x 2>/dev/null && echo named; true";
    let default =
        SecurityProfile { profile_type: security_profile::ProfileType::RuntimeDefault as i32, ..Default::default() };
    let strict = LinuxContainerSecurityContext {
        seccomp: Some(default.clone()),
        no_new_privs: true,
        capabilities: Some(Capability { drop_capabilities: vec!["ALL".into()], ..Default::default() }),
        ..Default::default()
    };
    let (_, log) = node.run(&sandbox, &secured(node.script(script), strict)).await;
    assert!(log.contains("CapEff:\t0000000000000000") && log.contains("CapBnd:\t0000000000000000"), "{log}");
    assert!(log.contains("NoNewPrivs:\t1") && log.contains("Seccomp:\t2"), "{log}");
    assert!(!log.contains("unshared") && !log.contains("named"), "{log}");
    let plain = LinuxContainerSecurityContext { seccomp: Some(default.clone()), ..Default::default() };
    let (_, log) = node.run(&sandbox, &secured(node.script(script), plain)).await;
    assert!(log.contains("CapEff:\t00000000a80425fb") && log.contains("NoNewPrivs:\t0"), "{log}");
    let admin = LinuxContainerSecurityContext {
        seccomp: Some(default),
        capabilities: Some(Capability { add_capabilities: vec!["SYS_ADMIN".into()], ..Default::default() }),
        ..Default::default()
    };
    let (_, log) = node.run(&sandbox, &secured(node.script(script), admin)).await;
    assert!(log.contains("unshared") && log.contains("named"), "{log}");
    let profile = node.folder.join("profile.json");
    fs::write(
        &profile,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":1}]}"#,
    )
    .unwrap();
    let custom = LinuxContainerSecurityContext {
        seccomp: Some(SecurityProfile {
            profile_type: security_profile::ProfileType::Localhost as i32,
            localhost_ref: profile.display().to_string(),
        }),
        ..Default::default()
    };
    let (status, _) = node.run(&sandbox, &secured(node.script("mkdir /tmp/x"), custom)).await;
    assert!(node.log(&status, "stderr").contains("Operation not permitted"));
}

pub async fn the_host_is_hidden(node: Node) {
    let sandbox = node.sandbox().await;
    let security = LinuxContainerSecurityContext {
        masked_paths: ["/proc/version", "/proc/keys", "/sys/firmware", "/proc/absent"].map(String::from).to_vec(),
        readonly_paths: ["/proc/sys", "/proc/bus", "/proc/absent"].map(String::from).to_vec(),
        readonly_rootfs: true,
        ..Default::default()
    };
    let script = "wc -c < /proc/version; ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/panic || echo sysctl kept; \
                  touch /new || echo root kept; touch /dev/shm/x && echo shm; echo $(ls /dev); \
                  mount | grep -c ' / '; test -d /work && echo host; touch /sys/x || echo sys kept";
    let (status, log) = node.run(&sandbox, &secured(node.script(script), security)).await;
    let lines: Vec<&str> = log.lines().collect();
    let devices = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";
    let expected = ["0", "0", "sysctl kept", "root kept", "shm", devices, "1", "sys kept"];
    assert_eq!(lines, expected, "{}", node.log(&status, "stderr"));
}

pub async fn privileged_containers_see_the_hosts_devices(node: Node) {
    let sandbox = node.sandbox().await;
    let security = LinuxContainerSecurityContext { privileged: true, ..Default::default() };
    let script = "ls /dev | wc -l; grep CapEff /proc/self/status; mkdir /sys/fs/cgroup/memory/x 2>/dev/null || mkdir /sys/fs/cgroup/x; \
                  mount -t tmpfs x /tmp && echo mounted";
    let (status, log) = node.run(&sandbox, &secured(node.script(script), security)).await;
    let count: usize = log.lines().next().unwrap().parse().unwrap();
    assert!(count > 14 && log.ends_with("mounted\n"), "{log} {}", node.log(&status, "stderr"));
}

pub async fn devices_outside_the_list_cannot_be_opened(node: Node) {
    let sandbox = node.sandbox().await;
    // A container may make a node for any device of the host, but only a privileged one may open it.
    if let Some(device) = node.foreign_device() {
        let script = format!("mknod /dev/k {device} && echo made; (: < /dev/k) 2>/dev/null && echo opened; true");
        assert_eq!(node.run(&sandbox, &node.script(&script)).await.1, "made\n");
        let privileged = LinuxContainerSecurityContext { privileged: true, ..Default::default() };
        assert_eq!(node.run(&sandbox, &secured(node.script(&script), privileged)).await.1, "made\nopened\n");
    }
    let script = "mknod /tmp/n c 1 3; head -c 0 /tmp/n 2>/dev/null && echo opened; head -c 3 /dev/zero | wc -c";
    assert_eq!(node.run(&sandbox, &node.script(script)).await.1, "3\n");
    let device =
        Device { container_path: "/dev/messages".into(), host_path: "/dev/full".into(), permissions: "r".into() };
    let config = ContainerConfig { devices: vec![device], ..node.script("head -c 2 /dev/messages | wc -c") };
    assert_eq!(node.run(&sandbox, &config).await.1, "2\n");
}

pub async fn namespaces_are_shared_as_asked(node: Node) {
    let options = |pid: NamespaceMode, network: NamespaceMode| NamespaceOption {
        pid: pid as i32,
        network: network as i32,
        ..Default::default()
    };
    let pod = |options: NamespaceOption| {
        let security = LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
        let linux = LinuxPodSandboxConfig {
            cgroup_parent: node.cgroup.clone(),
            security_context: Some(security),
            ..Default::default()
        };
        PodSandboxConfig { linux: Some(linux), ..node.sandbox_config() }
    };
    let with = |config: ContainerConfig, options: NamespaceOption| {
        let config = ContainerConfig { log_path: base::chance::suffix(9), ..config };
        secured(config, LinuxContainerSecurityContext { namespace_options: Some(options), ..Default::default() })
    };
    let host = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
    let script = node.script("for n in net ipc uts pid mnt; do ls -l /proc/self/ns/$n; done");
    let (net, ipc, uts, pid) = (host("net"), host("ipc"), host("uts"), host("pid"));

    let own = options(NamespaceMode::Container, NamespaceMode::Pod);
    let sandbox = node.sandbox_of(pod(own.clone())).await.unwrap();
    let (_, first) = node.run(&sandbox, &with(script.clone(), own.clone())).await;
    let (_, second) = node.run(&sandbox, &with(script.clone(), own)).await;
    let lines = |log: &str| log.lines().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect::<Vec<_>>();
    let (first, second) = (lines(&first), lines(&second));
    assert_eq!(first[..3], second[..3]);
    assert_ne!(first[3..], second[3..]);
    assert!([&net, &ipc, &uts, &pid].into_iter().zip(&first).all(|(host, own)| host != own), "{first:?}");

    let shared = options(NamespaceMode::Pod, NamespaceMode::Node);
    let sandbox = node.sandbox_of(pod(shared.clone())).await.unwrap();
    let sleeper =
        with(ContainerConfig { command: vec!["sleep".into(), "999".into()], ..node.script("") }, shared.clone());
    let sleeper = node.start(&sandbox, &sleeper).await;
    let (_, log) = node.run(&sandbox, &with(script.clone(), shared.clone())).await;
    assert_eq!((&lines(&log)[0], &lines(&log)[2]), (&net, &uts));
    let (_, log) = node
        .run(&sandbox, &with(node.script("cat /proc/1/comm; ps | grep -c 'sleep 999'; kill -9 1; echo $?"), shared))
        .await;
    assert!(log.starts_with("pause\n"), "{log}");
    assert!(!log.contains("\n0\n") || log.ends_with("0\n"), "{log}");
    node.stop(&sleeper, 0).await;

    let host_pid = options(NamespaceMode::Node, NamespaceMode::Pod);
    let sandbox = node.sandbox_of(pod(host_pid.clone())).await.unwrap();
    let (_, log) = node.run(&sandbox, &with(script, host_pid.clone())).await;
    assert_eq!(lines(&log)[3], pid);
    // What it leaves behind in the host's process namespace goes with it.
    let marker = "sleep 31415926";
    let (_, _) = node.run(&sandbox, &with(node.script(&format!("{marker} & true")), host_pid)).await;
    let alive = fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let state = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        String::from_utf8_lossy(&command).replace('\0', " ").starts_with(marker) && !state.contains(") Z")
    });
    assert!(!alive);
}

pub async fn volumes_are_mounted_as_asked(node: Node) {
    let sandbox = node.sandbox().await;
    let data = node.folder.join("data");
    fs::create_dir_all(data.join("sub")).unwrap();
    fs::create_dir_all(data.join("nested")).unwrap();
    fs::write(data.join("file"), "content\n").unwrap();
    let mount = |target: &str, source: &str, readonly| Mount {
        container_path: target.into(),
        host_path: data.join(source).display().to_string(),
        readonly,
        ..Default::default()
    };
    let mounts = vec![
        mount("/vol/nested", "sub", false),
        mount("/vol", "", true),
        mount("/etc/one-file", "file", true),
        mount("/made", "made-by-the-runtime", false),
    ];
    let script = "cat /vol/file /etc/one-file; touch /vol/x || echo kept; touch /vol/nested/y && echo written; \
                  echo z > /etc/one-file || echo file kept; touch /made/m";
    let (status, log) = node.run(&sandbox, &ContainerConfig { mounts, ..node.script(script) }).await;
    assert_eq!(log, "content\ncontent\nkept\nwritten\nfile kept\n", "{}", node.log(&status, "stderr"));
    assert!(data.join("sub/y").exists() && data.join("made-by-the-runtime/m").exists() && !data.join("x").exists());
    let own = node.folder.join("runtime/containers").join(&status.id).join("upper");
    assert_eq!(fs::read_dir(own).unwrap().count(), 0, "what is mounted on is not the container's own");

    // What the host mounts later shows only where that was asked for, and the reverse.
    let shared = data.join("shared");
    fs::create_dir(&shared).unwrap();
    let path = shared.as_path();
    rustix::mount::mount("none", path, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    rustix::mount::mount_change(path, rustix::mount::MountPropagationFlags::SHARED).unwrap();
    fs::create_dir(shared.join("in")).unwrap();
    fs::create_dir(shared.join("out")).unwrap();
    let with = |target: &str, propagation: MountPropagation| {
        let mut mount = mount(target, "shared", false);
        mount.set_propagation(propagation);
        mount
    };
    let mounts = vec![
        with("/private", MountPropagation::PropagationPrivate),
        with("/slave", MountPropagation::PropagationHostToContainer),
        with("/shared", MountPropagation::PropagationBidirectional),
    ];
    let mut config = ContainerConfig { mounts, ..node.script("sleep 1000") };
    config = secured(config, LinuxContainerSecurityContext { privileged: true, ..Default::default() });
    let id = node.start(&sandbox, &config).await;
    rustix::mount::mount("none", shared.join("in"), "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    fs::write(shared.join("in/seen"), "").unwrap();
    let look = "for d in private slave shared; do test -e /$d/in/seen && echo $d; done; \
                mount -t tmpfs x /slave/out; mount -t tmpfs x /shared/out; touch /shared/out/back; true";
    let answer = node.exec(&id, look).await.unwrap();
    let back = shared.join("out/back").exists();
    node.stop(&id, 0).await;
    for folder in [shared.join("in"), shared.join("out"), shared] {
        let _ = rustix::mount::unmount(&folder, rustix::mount::UnmountFlags::DETACH);
    }
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "slave\nshared\n");
    assert!(back);
}

pub async fn image_volumes_are_read_only(node: Node) {
    let sandbox = node.sandbox().await;
    let mount = |target: &str, path: &str| Mount {
        container_path: target.into(),
        image: Some(ImageSpec { image: IMAGE.into(), ..Default::default() }),
        image_sub_path: path.into(),
        readonly: true,
        ..Default::default()
    };
    let mounts = vec![mount("/image", ""), mount("/part", "etc")];
    let script =
        "cat /image/etc/notes /part/notes; ls /image/old; touch /image/x || echo kept; touch /part/x || echo kept";
    let (status, log) = node.run(&sandbox, &ContainerConfig { mounts, ..node.script(script) }).await;
    assert_eq!(log, "top\ntop\nkept\nkept\nkept\n", "{}", node.log(&status, "stderr"));
}

pub async fn the_runtimes_program_cannot_be_overwritten(node: Node) {
    let sandbox = node.sandbox().await;
    let before = fs::metadata(std::env::current_exe().unwrap()).unwrap();
    // A container in the host's process namespace can look at its shim; the program there is on a read-only mount, so that it
    // cannot be written even when nothing runs it any more.
    let options = NamespaceOption { pid: NamespaceMode::Node as i32, ..Default::default() };
    let security =
        LinuxContainerSecurityContext { namespace_options: Some(options), privileged: true, ..Default::default() };
    let shim = node.shim_pid(&sandbox);
    let script = format!("echo bad >> /proc/{shim}/exe || echo refused");
    let (_, log) = node.run(&sandbox, &secured(node.script(&script), security)).await;
    assert_eq!(log, "refused\n");
    let program = format!("/proc/{shim}/exe");
    let flags = rustix::fs::statvfs(&program).unwrap().f_flag;
    assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    let seen = fs::metadata(program).unwrap();
    assert_eq!((seen.ino(), seen.len()), (before.ino(), before.len()));
}

pub async fn sysctls_and_resolver_are_the_pods(node: Node) {
    let linux = LinuxPodSandboxConfig {
        cgroup_parent: node.cgroup.clone(),
        sysctls: [("kernel.shm_rmid_forced".to_owned(), "1".to_owned())].into(),
        ..Default::default()
    };
    let dns =
        DnsConfig { servers: vec!["10.43.0.10".into()], searches: vec!["svc".into()], options: vec!["ndots:5".into()] };
    let config = PodSandboxConfig { linux: Some(linux), dns_config: Some(dns), ..node.sandbox_config() };
    let sandbox = node.sandbox_of(config).await.unwrap();
    let script = "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_unprivileged_port_start /etc/resolv.conf /etc/hostname; \
                  hostname; grep -c lo: /proc/net/dev; wc -l < /proc/net/dev";
    let (_, log) = node.run(&sandbox, &node.script(script)).await;
    assert!(log.starts_with("1\n0\nsearch svc\nnameserver 10.43.0.10\noptions ndots:5\npod\npod\n1\n"), "{log}");
    let status = PodSandboxStatusRequest { pod_sandbox_id: sandbox, verbose: false };
    let status = cri::Cri::pod_sandbox_status(&node.runtime, status).await.unwrap().status.unwrap();
    assert_eq!(status.network.unwrap().ip, "127.0.0.9");
}
