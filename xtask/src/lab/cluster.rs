//! Starting Coracle on the nodes of a lab and waiting until the cluster is whole.
//!
//! This is the one place that knows Coracle's command line: `up` on the first node, `agent` on the others.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::containerd;
use super::enter::{is_alive, wait_for};
use super::init::lab_node;
use super::state::{API_PORT, HUB, Node, PRIVATE_REGISTRY_PORT, Plan, REGISTRY_PORT, read_pid, slowness};
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

/// Starts the server, then the agents, and returns when every node is Ready.
pub fn start(plan: &Plan) -> Result<()> {
    let nodes = plan.all_nodes()?;
    let (first, others) = nodes.split_first().context("a cluster has a node")?;
    step("starting the control plane", || {
        lab_node(plan, &["start", "1"])?;
        wait_for_api(plan, first)
    })?;
    for node in others {
        step(&format!("joining {}", node.name), || lab_node(plan, &["start", &node.number.to_string()]))?;
    }
    for node in &nodes {
        step(&format!("waiting for {} to be Ready", node.name), || wait_for_node(plan, node))?;
    }
    Ok(())
}

/// The administrator's kubeconfig, pointing at the address that the hub can reach.
fn take_kubeconfig(plan: &Plan, node: &Node) -> Result<()> {
    let source: PathBuf = node.data.join("var-lib/coracle/admin.kubeconfig");
    while_coracle_runs(node, || source.exists()).context("waiting for admin.kubeconfig")?;
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
    take_kubeconfig(plan, node)?;
    let mut said = String::new();
    let ready = while_coracle_runs(node, || {
        let answer = process::capture(kubectl(plan).args(["get", "--raw", "/readyz", "--request-timeout=5s"]));
        answer.is_ok_and(|answer| {
            said = String::from_utf8_lossy(&answer.stderr).into_owned();
            answer.status.success()
        })
    });
    ready.with_context(|| format!("the API is not ready; the last answer: {said}"))
}

fn wait_for_node(plan: &Plan, node: &Node) -> Result<()> {
    let name = format!("node/{}", node.name);
    let timeout = format!("--timeout={}s", NODE_READY_S_MAX * slowness());
    let tell = || format!("{} does not get Ready; the end of its log:\n{}", node.name, node.log_tail());
    let registered = || process::quiet(kubectl(plan).args(["get", &name])).is_ok();
    wait_for(NODE_READY_S_MAX * 1000, registered).with_context(tell)?;
    process::quiet(kubectl(plan).args(["wait", &name, "--for=condition=Ready", &timeout])).with_context(tell)
}

fn while_coracle_runs(node: &Node, mut condition: impl FnMut() -> bool) -> Result<()> {
    let mut ended = false;
    let waited = wait_for(API_READY_MS_MAX, || {
        // order matters: one that did its work and ended has done its work
        condition() || {
            ended = !read_pid(&node.coracle_pid_file()).is_ok_and(is_alive);
            ended
        }
    });
    if ended && !condition() {
        bail!("coracle ended on {}; the end of its log:\n{}", node.name, node.log_tail());
    }
    waited.with_context(|| format!("the end of {}'s log:\n{}", node.name, node.log_tail()))
}

fn kubectl(plan: &Plan) -> Command {
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
    }
}
