//! Starting the cluster of a lab and waiting until it is whole.
//!
//! This is the one place that knows Coracle's command line: `up` on the first node, `agent` on the others. Upstream's
//! programs, whether instead of Coracle or in the place of some of its parts, are started by `upstream`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::containerd;
use super::enter::{is_alive, wait_for};
use super::init::lab_node;
use super::state::{API_PORT, CORACLE, HUB, Node, PRIVATE_REGISTRY_PORT, Plan, REGISTRY_PORT, read_pid, slowness};
use super::upstream::{self, Cluster, Part, Program};
use crate::process;
use crate::progress::step;

const API_READY_MS_MAX: u64 = 30_000;
const NODE_READY_S_MAX: u64 = 60;
/// Registries as manifests name them, and the port where the lab serves them.
pub const MIRRORED: [(&str, u16); 3] =
    [("docker.io", REGISTRY_PORT), ("registry.k8s.io", REGISTRY_PORT), ("private.lab", PRIVATE_REGISTRY_PORT)];

/// How Coracle is started on a node.
pub fn coracle_arguments(plan: &Plan, node: &Node) -> Vec<String> {
    let mut arguments: Vec<String> = Vec::new();
    let mut flag = |name: &str, value: String| arguments.push(format!("--{name}={value}"));
    flag("data-dir", "/var/lib/coracle".into());
    flag("node-name", node.name.clone());
    flag("node-ip", node.address.to_string());
    flag("cgroup-parent", format!("/{}", node.cgroup));
    flag("token", plan.token.clone());
    // The machine's disk is not the lab's: a nearly full one shall not turn pods away.
    flag("eviction-hard", "memory.available<100Mi,nodefs.available<1%".into());
    for (registry, port) in MIRRORED {
        flag("registry-mirror", format!("{registry}=http://{HUB}:{port}"));
    }
    if plan.containerd.is_some() {
        flag("container-runtime-endpoint", format!("unix://{}", containerd::SOCKET));
    }
    let without = plan.cluster.left_out_of_coracle(node.number);
    if !without.is_empty() {
        flag("without", without.join(","));
    }
    let verb = if node.number == 1 {
        flag("listen", format!("{}:{API_PORT}", node.address));
        "up"
    } else {
        flag("server", format!("https://{}:{API_PORT}", server_of(node)));
        "agent"
    };
    arguments.insert(0, verb.into());
    arguments
}

fn server_of(node: &Node) -> std::net::Ipv4Addr {
    let [a, b, c, _] = node.address.octets();
    std::net::Ipv4Addr::new(a, b, c, 11)
}

/// Starts the cluster and returns when every node is Ready.
pub fn start(plan: &Plan) -> Result<()> {
    if let Cluster::Upstream { .. } = plan.cluster {
        return upstream::start(plan);
    }
    let nodes = plan.all_nodes()?;
    let (first, others) = nodes.split_first().context("a cluster has a node")?;
    step("starting the control plane", || start_programs(plan, first))?;
    for node in others {
        step(&format!("joining {}", node.name), || start_programs(plan, node))?;
    }
    for node in &nodes {
        step(&format!("waiting for {} to be Ready", node.name), || wait_for_node(plan, node))?;
    }
    Ok(())
}

/// Starts all that one node runs, and returns when it is Ready.
pub fn start_node(plan: &Plan, node: &Node) -> Result<()> {
    if let Cluster::Upstream { .. } = plan.cluster {
        return upstream::start_node(plan, node);
    }
    start_programs(plan, node)?;
    wait_for_node(plan, node)
}

/// Coracle, and upstream's programs in the place of its parts as soon as there is an API to talk to.
fn start_programs(plan: &Plan, node: &Node) -> Result<()> {
    upstream::start_api(plan, node)?;
    lab_node(plan, &["start", &node.number.to_string(), CORACLE])?;
    if node.number == 1 {
        wait_for_api(plan, node)?;
    }
    upstream::start_programs(plan, node)
}

/// containerd, where Coracle runs on it and it does not run yet.
pub fn start_runtime(plan: &Plan, node: &Node) -> Result<()> {
    if plan.containerd.is_none() {
        return Ok(());
    }
    if !read_pid(&node.pid_file(containerd::NAME)).is_ok_and(is_alive) {
        lab_node(plan, &["start", &node.number.to_string(), containerd::NAME])?;
    }
    containerd::wait_until_ready(node)
}

/// What a node runs, in the order in which it is started.
pub fn programs(plan: &Plan, node: &Node) -> Vec<&'static str> {
    let coracle = plan.cluster.is_coracle().then_some(CORACLE);
    let upstream = Program::of(plan.cluster.parts(), node.number);
    coracle.into_iter().chain(upstream.into_iter().map(Program::name)).collect()
}

/// The administrator's kubeconfig, pointing at the address that the hub can reach.
fn take_kubeconfig(plan: &Plan, node: &Node) -> Result<()> {
    let source: PathBuf = node.data.join("var-lib/coracle/admin.kubeconfig");
    while_runs(node, &[CORACLE], API_READY_MS_MAX, || source.exists()).context("waiting for admin.kubeconfig")?;
    let text = fs::read_to_string(&source).context("reading admin.kubeconfig")?;
    fs::write(plan.kubeconfig(), redirected(&text, &format!("https://{}:{API_PORT}", node.address)))
        .context("writing the kubeconfig")
}

fn redirected(kubeconfig: &str, server: &str) -> String {
    let line = |line: &str| match line.find("server: ") {
        Some(at) if line.trim_start().trim_start_matches("- ").starts_with("server: ") => {
            format!("{}server: {server}\n", &line[..at])
        }
        _ => format!("{line}\n"),
    };
    kubeconfig.lines().map(line).collect()
}

/// Waits until the API that a node serves is ready, and takes its administrator's kubeconfig.
pub fn wait_for_api(plan: &Plan, node: &Node) -> Result<()> {
    if let Cluster::Upstream { .. } = plan.cluster {
        return upstream::wait_for_api(plan, node);
    }
    take_kubeconfig(plan, node)?;
    let mut said = String::new();
    let ready = while_runs(node, &[CORACLE], API_READY_MS_MAX, || answers_ready(plan, &mut said));
    ready.with_context(|| format!("the API is not ready; the last answer: {said}"))
}

/// Whether the API says that it is ready; its last words otherwise.
pub fn answers_ready(plan: &Plan, said: &mut String) -> bool {
    let answer = process::capture(kubectl(plan).args(["get", "--raw", "/readyz", "--request-timeout=5s"]));
    answer.is_ok_and(|answer| {
        *said = String::from_utf8_lossy(&answer.stderr).into_owned();
        answer.status.success()
    })
}

fn wait_for_node(plan: &Plan, node: &Node) -> Result<()> {
    if plan.cluster.has(Part::Kubelet) {
        return upstream::become_part(plan, node);
    }
    if plan.cluster.has(Part::ControllerManager) && node.number > 1 {
        upstream::approve_server(plan, node)?;
    }
    wait_until_ready(plan, node)
        .with_context(|| format!("the end of what Coracle said on {}:\n{}", node.name, node.log_tail()))
}

/// Waits until the node is registered and Ready.
pub fn wait_until_ready(plan: &Plan, node: &Node) -> Result<()> {
    let name = format!("node/{}", node.name);
    let timeout = format!("--timeout={}s", NODE_READY_S_MAX * slowness());
    let tell = || format!("{} does not get Ready", node.name);
    let registered = || process::quiet(kubectl(plan).args(["get", &name])).is_ok();
    wait_for(NODE_READY_S_MAX * 1000, registered).with_context(tell)?;
    process::quiet(kubectl(plan).args(["wait", &name, "--for=condition=Ready", &timeout])).with_context(tell)
}

/// Waits for `condition` for as long as all of these programs run on the node.
pub fn while_runs(node: &Node, programs: &[&str], ms_max: u64, mut condition: impl FnMut() -> bool) -> Result<()> {
    let mut ended: Option<&str> = None;
    let tail = |name: &str| process::last_lines(&node.log_text(name), 40);
    let waited = wait_for(ms_max, || {
        // order matters: one that did its work and ended has done its work
        condition() || {
            let is_gone = |name: &&&str| !read_pid(&node.pid_file(name)).is_ok_and(is_alive);
            ended = programs.iter().find(is_gone).copied();
            ended.is_some()
        }
    });
    if let (Some(name), false) = (ended, condition()) {
        bail!("{name} ended on {}; the end of its log:\n{}", node.name, tail(name));
    }
    let name = programs.last().copied().unwrap_or(CORACLE);
    waited.with_context(|| format!("the end of {name}'s log on {}:\n{}", node.name, tail(name)))
}

pub fn kubectl(plan: &Plan) -> Command {
    let mut command = Command::new(&plan.kubectl);
    command.env("KUBECONFIG", plan.kubeconfig());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubeconfig_is_pointed_at_the_node_and_nothing_else_changes() {
        let text = "clusters:\n- cluster:\n    certificate-authority-data: eA==\n    server: https://127.0.0.1:6443\n  name: server: x\n";
        let expected = "clusters:\n- cluster:\n    certificate-authority-data: eA==\n    server: https://192.0.2.11:6443\n  name: server: x\n";
        assert_eq!(redirected(text, "https://192.0.2.11:6443"), expected);
    }

    #[test]
    fn the_first_node_is_the_server_and_the_others_join_it() {
        let plan = Plan::new(2, PathBuf::new(), PathBuf::new(), Vec::new()).unwrap();
        let first = coracle_arguments(&plan, &plan.node(1).unwrap());
        let second = coracle_arguments(&plan, &plan.node(2).unwrap());
        assert_eq!((first[0].as_str(), second[0].as_str()), ("up", "agent"));
        assert!(first.contains(&"--listen=192.0.2.11:6443".to_owned()), "{first:?}");
        assert!(second.contains(&"--server=https://192.0.2.11:6443".to_owned()), "{second:?}");
        assert!(second.contains(&"--registry-mirror=docker.io=http://192.0.2.1:5000".to_owned()), "{second:?}");
        assert!(!first.iter().any(|argument| argument.starts_with("--without")), "{first:?}");
    }

    #[test]
    fn a_swapped_part_is_left_out_of_coracle_and_started_beside_it() {
        let swapped = vec![Part::Scheduler, Part::KubeProxy];
        let cluster = Cluster::Coracle { swapped };
        let plan = Plan { cluster, ..Plan::new(2, PathBuf::new(), PathBuf::new(), Vec::new()).unwrap() };
        let (first, second) = (plan.node(1).unwrap(), plan.node(2).unwrap());
        assert!(coracle_arguments(&plan, &first).contains(&"--without=scheduler,proxy".to_owned()));
        assert!(coracle_arguments(&plan, &second).contains(&"--without=proxy".to_owned()));
        assert_eq!(programs(&plan, &first), ["coracle", "kube-scheduler", "kube-proxy"]);
        assert_eq!(programs(&plan, &second), ["coracle", "kube-proxy"]);
    }
}
