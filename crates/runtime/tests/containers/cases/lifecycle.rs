//! From creation to removal, restarts of Coracle included.

use std::fs;

use cri::{Code, Cri, v1::*};
use futures::StreamExt;

use crate::node::Node;

pub async fn runs_a_container_and_logs_what_it_says(node: Node) {
    let sandbox = node.sandbox().await;
    let config = node.script("echo hello $FROM from $HOSTNAME as $(id -u); echo oops >&2; pwd; exit 3");
    let (status, log) = node.run(&sandbox, &config).await;
    assert_eq!(log, "hello image from pod as 0\n/tmp\n");
    assert_eq!(node.log(&status, "stderr"), "oops\n");
    assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
    assert!(status.started_at > 0 && status.finished_at >= status.started_at);
    let (status, _) = node.run(&sandbox, &node.script("true")).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"));
}

pub async fn a_missing_program_is_a_start_error_in_upstreams_words(node: Node) {
    let sandbox = node.sandbox().await;
    let cases = [
        ("xyz", "exec: \"xyz\": executable file not found in $PATH"),
        ("/bin/xyz", "exec: \"/bin/xyz\": stat /bin/xyz: no such file or directory"),
        ("/bin/plain", "exec: \"/bin/plain\": permission denied"),
        ("/etc", "exec: \"/etc\": is a directory"),
    ];
    for (program, words) in cases {
        let config = ContainerConfig { command: vec![program.into()], ..node.script("") };
        let id = node.create(&sandbox, &config).await.unwrap();
        let start = StartContainerRequest { container_id: id.clone() };
        let error = Cri::start_container(&node.runtime, start.clone()).await.unwrap_err();
        assert!(error.message().contains(words), "{error}");
        let status = node.status(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
        assert_eq!(status.state(), ContainerState::ContainerExited);
        assert!(status.message.contains(words));
        let again = Cri::start_container(&node.runtime, start).await.unwrap_err();
        assert_eq!(again.code(), Code::FailedPrecondition);
    }
    let config = node.script("");
    let config = ContainerConfig { image: Some(ImageSpec { image: "absent".into(), ..Default::default() }), ..config };
    assert!(node.create(&sandbox, &config).await.unwrap_err().is_not_found());
}

pub async fn stops_by_asking_then_by_killing(node: Node) {
    let sandbox = node.sandbox().await;
    let ready = "touch /tmp/ready; while true; do sleep 1; done";
    let polite = node.start(&sandbox, &node.script(&format!("trap 'echo bye; exit 7' TERM; {ready}"))).await;
    let stubborn = node.start(&sandbox, &node.script(&format!("trap '' TERM; {ready}"))).await;
    let mut config = node.script(&format!("trap 'exit 9' USR1; {ready}"));
    config.set_stop_signal(Signal::Sigusr1);
    let special = node.start(&sandbox, &config).await;
    for id in [&polite, &stubborn, &special] {
        node.exec(id, "until test -e /tmp/ready; do true; done").await.unwrap();
    }
    node.stop(&polite, 30).await;
    node.stop(&stubborn, 1).await;
    node.stop(&special, 30).await;
    let ended = |status: ContainerStatus| (status.exit_code, status.reason);
    let status = node.status(&polite).await;
    assert_eq!(node.log(&status, "stdout"), "bye\n");
    assert_eq!(ended(status), (7, "Error".into()));
    assert_eq!(ended(node.status(&stubborn).await), (137, "Error".into()));
    assert_eq!(ended(node.status(&special).await), (9, "Error".into()));
    node.stop(&polite, 1).await;
    node.stop("absent", 1).await;
}

pub async fn a_signal_that_comes_before_its_handler_is_not_lost(node: Node) {
    let sandbox = node.sandbox().await;
    // Told to stop while it is still far from its first `trap`, as a program on a busy machine is.
    let slow = "i=0; while test $i -lt 20000; do i=$((i+1)); done; trap 'echo bye; exit 7' TERM; while true; do sleep 0.05; done";
    let late = node.start(&sandbox, &node.script(slow)).await;
    node.stop(&late, 40).await;
    let status = node.status(&late).await;
    assert_eq!((status.exit_code, node.log(&status, "stdout").as_str()), (7, "bye\n"));
    // One that never has a handler is deaf to it, as everywhere.
    let deaf = node.start(&sandbox, &node.script("exec sleep 1000")).await;
    node.stop(&deaf, 1).await;
    assert_eq!(node.status(&deaf).await.exit_code, 137);
}

pub async fn an_ended_container_is_seen_after_a_restart_and_logs_are_unbroken(node: Node) {
    let sandbox = node.sandbox().await;
    let gate = node.folder.join("gate");
    fs::create_dir(&gate).unwrap();
    let mount = Mount { container_path: "/gate".into(), host_path: gate.display().to_string(), ..Default::default() };
    let waits = |name: &str, then: &str| ContainerConfig {
        mounts: vec![mount.clone()],
        ..node.script(&format!("echo before; until test -e /gate/{name}; do sleep 0.01; done; echo after; {then}"))
    };
    let ends = node.start(&sandbox, &waits("a", "exit 4")).await;
    let stays = node.start(&sandbox, &waits("b", "sleep 1000")).await;
    let created = node.create(&sandbox, &node.script("echo late")).await.unwrap();
    let (done, _) = node.run(&sandbox, &node.script("exit 5")).await;
    // No word to the shims: to them this is a kill.
    node.tasks.shutdown().await;
    fs::write(gate.join("a"), "").unwrap();
    fs::write(gate.join("b"), "").unwrap();
    // It ends while there is no Coracle to see it.
    let noted = node.folder.join("runtime/containers").join(&ends).join("exit.json");
    while !noted.exists() {
        tokio::task::yield_now().await;
    }
    let node = node.reopened().await;
    assert_eq!(*node.network.reconciled.lock(), std::slice::from_ref(&sandbox));
    let status = node.ended(&ends).await;
    assert_eq!((status.exit_code, node.log(&status, "stdout").as_str()), (4, "before\nafter\n"));
    let status = node.status(&stays).await;
    assert_eq!(status.state(), ContainerState::ContainerRunning);
    assert_eq!(node.exec(&stays, "echo still here").await.unwrap().stdout, b"still here\n");
    let kept = node.status(&done.id).await;
    assert_eq!((kept.exit_code, kept.finished_at), (5, done.finished_at));
    assert_eq!(node.status(&created).await.state(), ContainerState::ContainerCreated);
    Cri::start_container(&node.runtime, StartContainerRequest { container_id: created.clone() }).await.unwrap();
    let status = node.ended(&created).await;
    assert_eq!(node.log(&status, "stdout"), "late\n");
    node.stop(&stays, 0).await;
    let status = node.status(&stays).await;
    assert_eq!((status.exit_code, node.log(&status, "stdout").as_str()), (137, "before\nafter\n"));
}

pub async fn a_dead_shim_ends_its_pod(node: Node) {
    let sandbox = node.sandbox().await;
    let container = node.start(&sandbox, &node.script("sleep 1000")).await;
    let pid = rustix::process::Pid::from_raw(node.pid(&container).await).unwrap();
    let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    node.kill_shim(&sandbox);
    let status = node.ended(&container).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (255, "Unknown"));
    let request = PodSandboxStatusRequest { pod_sandbox_id: sandbox.clone(), verbose: false };
    let answer = node.runtime.pod_sandbox_status(request).await.unwrap();
    assert_eq!(answer.status.unwrap().state(), PodSandboxState::SandboxNotready);
    // Its process was killed, and goes as soon as the kernel gets to it.
    let gone = tokio::task::spawn_blocking(move || {
        let mut watched = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut watched, None)
    });
    assert_eq!(gone.await.unwrap(), Ok(1));
    let refused = node.create(&sandbox, &node.script("true")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

pub async fn a_container_out_of_memory_says_so(node: Node) {
    let sandbox = node.sandbox().await;
    let resources = LinuxContainerResources {
        memory_limit_in_bytes: 16 << 20,
        memory_swap_limit_in_bytes: 16 << 20,
        ..Default::default()
    };
    let linux = LinuxContainerConfig { resources: Some(resources), security_context: None };
    let config =
        ContainerConfig { linux: Some(linux), ..node.script("exec dd if=/dev/zero of=/dev/null bs=100M count=1") };
    let (status, _) = node.run(&sandbox, &config).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
}

pub async fn limits_are_set_and_can_be_changed(node: Node) {
    let sandbox = node.sandbox().await;
    let resources = LinuxContainerResources {
        memory_limit_in_bytes: 32 << 20,
        cpu_shares: 512,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        ..Default::default()
    };
    let linux = LinuxContainerConfig { resources: Some(resources), security_context: None };
    let config = ContainerConfig { linux: Some(linux), ..node.script("sleep 1000") };
    let id = node.start(&sandbox, &config).await;
    let read = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max 2>/dev/null || \
                cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us";
    let seen = |answer: ExecSyncResponse| String::from_utf8(answer.stdout).unwrap();
    let before = seen(node.exec(&id, read).await.unwrap());
    assert!(before.starts_with("33554432\n50000"), "{before}");
    let update = UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(LinuxContainerResources {
            memory_limit_in_bytes: 64 << 20,
            cpu_quota: 80_000,
            cpu_period: 100_000,
            ..Default::default()
        }),
        ..Default::default()
    };
    node.runtime.update_container_resources(update).await.unwrap();
    let after = seen(node.exec(&id, read).await.unwrap());
    assert!(after.starts_with("67108864\n80000"), "{after}");
    let resources = node.status(&id).await.resources.unwrap().linux.unwrap();
    assert_eq!((resources.memory_limit_in_bytes, resources.cpu_shares), (64 << 20, 512));
}

pub async fn events_tell_the_whole_story_in_order(node: Node) {
    let mut events = node.runtime.get_container_events(GetEventsRequest {}).await.unwrap();
    let sandbox = node.sandbox().await;
    let (status, _) = node.run(&sandbox, &node.script("exit 2")).await;
    let remove = RemovePodSandboxRequest { pod_sandbox_id: sandbox.clone() };
    node.runtime.remove_pod_sandbox(remove).await.unwrap();
    let mut seen = Vec::new();
    loop {
        let event = events.next().await.unwrap().unwrap();
        let of_sandbox = event.container_id == sandbox;
        let kind = event.container_event_type();
        if kind == ContainerEventType::ContainerStoppedEvent && !of_sandbox {
            assert_eq!(event.containers_statuses[0].exit_code, 2);
        }
        assert!(of_sandbox || event.container_id == status.id);
        seen.push((of_sandbox, kind));
        if of_sandbox && kind == ContainerEventType::ContainerDeletedEvent {
            break;
        }
    }
    use ContainerEventType::{
        ContainerCreatedEvent as Created, ContainerDeletedEvent as Deleted, ContainerStartedEvent as Started,
        ContainerStoppedEvent as Stopped,
    };
    let story = [
        (true, Created),
        (true, Started),
        (false, Created),
        (false, Started),
        (false, Stopped),
        (true, Stopped),
        (false, Deleted),
        (true, Deleted),
    ];
    assert_eq!(seen, story);
}

pub async fn a_failed_network_leaves_nothing(node: Node) {
    *node.network.broken.lock() = true;
    let error = node.sandbox_of(node.sandbox_config()).await.unwrap_err();
    assert!(error.message().contains("failed to setup network for sandbox"), "{error}");
    assert!(error.message().contains("no addresses left"), "{error}");
    assert!(node.network.joined.lock().is_empty());
    assert!(node.runtime.list_pod_sandbox(Default::default()).await.unwrap().items.is_empty());
    assert_eq!(fs::read_dir(node.folder.join("runtime/sandboxes")).unwrap().count(), 0);
    let linux = LinuxPodSandboxConfig {
        cgroup_parent: node.cgroup.clone(),
        sysctls: [("kernel.nonsense".to_owned(), "1".to_owned())].into(),
        ..Default::default()
    };
    let config = PodSandboxConfig { linux: Some(linux), ..node.sandbox_config() };
    let error = node.sandbox_of(config).await.unwrap_err();
    assert!(error.message().contains("kernel.nonsense"), "{error}");
}

pub async fn sandboxes_and_containers_can_be_removed_twice(node: Node) {
    let sandbox = node.sandbox().await;
    let id = node.start(&sandbox, &node.script("sleep 1000")).await;
    for _ in 0..2 {
        let remove = RemoveContainerRequest { container_id: id.clone() };
        Cri::remove_container(&node.runtime, remove).await.unwrap();
    }
    node.start(&sandbox, &node.script("sleep 1000")).await;
    for _ in 0..2 {
        let stop = StopPodSandboxRequest { pod_sandbox_id: sandbox.clone() };
        node.runtime.stop_pod_sandbox(stop).await.unwrap();
    }
    assert!(node.network.joined.lock().is_empty());
    for _ in 0..2 {
        let remove = RemovePodSandboxRequest { pod_sandbox_id: sandbox.clone() };
        node.runtime.remove_pod_sandbox(remove).await.unwrap();
    }
    let request = ContainerStatusRequest { container_id: id, verbose: false };
    assert!(node.runtime.container_status(request).await.unwrap_err().is_not_found());
}

pub async fn logs_go_on_after_rotation(node: Node) {
    let sandbox = node.sandbox().await;
    let id = node
        .start(
            &sandbox,
            &node.script("echo one; trap 'echo two; exit' TERM; touch /tmp/r; while true; do sleep 1; done"),
        )
        .await;
    node.exec(&id, "until test -e /tmp/r; do true; done").await.unwrap();
    let path = node.status(&id).await.log_path;
    // The script has said "one" before it made the file, and the shim reads in the order things are written.
    let rotated = format!("{path}.1");
    fs::rename(&path, &rotated).unwrap();
    node.runtime.reopen_container_log(ReopenContainerLogRequest { container_id: id.clone() }).await.unwrap();
    node.stop(&id, 30).await;
    assert!(fs::read_to_string(&path).unwrap().ends_with(" stdout F two\n"));
    assert!(fs::read_to_string(&rotated).unwrap().ends_with(" stdout F one\n"));
}

pub async fn use_is_measured(node: Node) {
    let sandbox = node.sandbox().await;
    let id = node
        .start(&sandbox, &node.script("dd if=/dev/zero of=/tmp/x bs=1M count=3 2>/dev/null; touch /tmp/r; sleep 1000"))
        .await;
    node.exec(&id, "until test -e /tmp/r; do true; done").await.unwrap();
    let request = ContainerStatsRequest { container_id: id.clone() };
    let stats = Cri::container_stats(&node.runtime, request).await.unwrap().stats.unwrap();
    let value = |value: Option<UInt64Value>| value.unwrap().value;
    assert!(value(stats.cpu.unwrap().usage_core_nano_seconds) > 0);
    assert!(value(stats.memory.unwrap().working_set_bytes) > 0);
    assert!(value(stats.writable_layer.unwrap().used_bytes) >= 3 << 20);
    let request = ListPodSandboxStatsRequest::default();
    let pods = node.runtime.list_pod_sandbox_stats(request).await.unwrap().stats;
    let linux = pods[0].linux.clone().unwrap();
    assert_eq!(linux.containers.len(), 1);
    assert!(value(linux.memory.unwrap().usage_bytes) > 0);
    let images = node.runtime.image_fs_info(Default::default()).await.unwrap().image_filesystems;
    assert!(value(images[0].used_bytes) > 100_000);
}

pub async fn metrics_tell_of_throttling_under_known_names(node: Node) {
    let sandbox = node.sandbox().await;
    let mut config = node.script("while true; do :; done");
    let resources = LinuxContainerResources { cpu_period: 10_000, cpu_quota: 1000, ..Default::default() };
    config.linux = Some(LinuxContainerConfig { resources: Some(resources), ..config.linux.unwrap_or_default() });
    let id = node.start(&sandbox, &config).await;
    let metrics = loop {
        let pods = node.runtime.list_pod_sandbox_metrics(Default::default()).await.unwrap().pod_metrics;
        let own = pods[0].container_metrics.iter().find(|known| known.container_id == id).unwrap().metrics.clone();
        let periods = own.iter().find(|metric| metric.name == "container_cpu_cfs_throttled_periods_total").unwrap();
        if periods.value.unwrap().value > 3 {
            break own;
        }
        tokio::task::yield_now().await;
    };
    let descriptors = node.runtime.list_metric_descriptors(Default::default()).await.unwrap().descriptors;
    let name = "container_cpu_cfs_throttled_nanoseconds_total";
    let descriptor = descriptors.iter().find(|descriptor| descriptor.name == name).unwrap();
    assert_eq!(descriptor.label_keys, ["container", "id", "image", "name", "namespace", "pod"]);
    let of = |name: &str| metrics.iter().find(|metric| metric.name == name).unwrap();
    let value = |name: &str| of(name).value.unwrap().value;
    assert_eq!(of(name).label_values[3], id);
    assert!(of(name).label_values[1].ends_with(&id), "{:?}", of(name).label_values);
    assert!(value(name) > 0 && value("container_cpu_usage_nanoseconds_total") > 0);
    assert_eq!((value("container_spec_cpu_quota"), value("container_spec_cpu_period")), (1000, 10_000));
    assert!(value("container_memory_usage_bytes") >= value("container_memory_working_set_bytes"));
    let started = i64::try_from(value("container_start_time_seconds")).unwrap();
    assert_eq!(started, node.status(&id).await.started_at / 1_000_000_000);
}

/// A hybrid host has the new tree without controllers: enough to be born in it, be seen in it and be killed by it.
pub async fn containers_live_in_the_unified_hierarchy_too(node: Node) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let Some(root) = mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4))
    else {
        return;
    };
    node.tasks.shutdown().await;
    let tree = runtime::cgroup::Hierarchies::Unified(root.into());
    let tasks = base::Tasks::root();
    let node = Node::open_with(&node.folder, &node.cgroup, Default::default(), tasks, Some(tree)).await;
    let sandbox = node.sandbox().await;
    let id = node.start(&sandbox, &node.script("sleep 1000 & sleep 1000")).await;
    let group = fs::read_to_string(format!("/proc/{}/cgroup", node.pid(&id).await)).unwrap();
    assert!(group.contains(&format!("0::{}/{id}", node.cgroup)), "{group}");
    let script = "grep 0:: /proc/self/cgroup; grep 0:: /proc/1/cgroup; grep -q . /sys/fs/cgroup/cgroup.procs && echo members; \
                  mknod /dev/k $DEVICE; (: < /dev/k) 2>/dev/null || echo closed; head -c 3 /dev/zero | wc -c";
    let script = script.replace("$DEVICE", &node.foreign_device().unwrap_or("c 10 200".into()));
    let seen = String::from_utf8(node.exec(&id, &script).await.unwrap().stdout).unwrap();
    assert_eq!(seen, "0::/\n0::/\nmembers\nclosed\n3\n");
    let request = ContainerStatsRequest { container_id: id.clone() };
    let stats = Cri::container_stats(&node.runtime, request).await.unwrap().stats.unwrap();
    assert!(stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0);
    node.stop(&id, 0).await;
    assert_eq!(node.status(&id).await.exit_code, 137);
    node.runtime.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: sandbox }).await.unwrap();
    assert!(!std::path::Path::new(root).join(node.cgroup.trim_start_matches('/')).join(&id).exists());
    node.tasks.shutdown().await;
}

/// Not a promise (that is `bench`'s), but printed where it can be seen.
pub async fn starts_quickly(node: Node) {
    let began = std::time::Instant::now();
    let sandbox = node.sandbox().await;
    let sandbox_ms = began.elapsed().as_secs_f64() * 1e3;
    let mut spans = Vec::new();
    for _ in 0..20 {
        let config = ContainerConfig { command: vec!["true".into()], ..node.script("") };
        let began = std::time::Instant::now();
        let id = node.start(&sandbox, &config).await;
        node.ended(&id).await;
        spans.push(began.elapsed().as_secs_f64() * 1e3);
    }
    spans.sort_by(f64::total_cmp);
    println!("sandbox {sandbox_ms:.1} ms; container create to exit p50 {:.1} ms, max {:.1} ms", spans[10], spans[19]);
}
