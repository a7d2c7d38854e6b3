//! Upstream Kubernetes in a lab: the whole cluster, some of its parts, or single programs in the place of Coracle's parts.
//!
//! ```text
//! node 1      etcd ◄─ kube-apiserver ◄─ kube-controller-manager, kube-scheduler
//! every node  containerd ◄─ kubelet, kube-proxy                     Debian's runc and network plugins below
//! in pods     CoreDNS
//! ```
//!
//! Settings are kubeadm's: TLS everywhere, authorization by Node and RBAC, NodeRestriction, bound tokens, leader election,
//! etcd durable. Each program is a process of the node, with its log and process number beside the node's others;
//! `lab-node start 1 kube-scheduler` and its like act on one. Pods have a bridge per node; the ways between the nodes are
//! plain routes, set here once kubelet has registered.
//!
//! `parts` knows what belongs to what, `keys` who is who, `control_plane` and `worker` the command lines. Nothing here
//! restarts what ended.

mod control_plane;
mod dns;
mod keys;
mod parts;
mod worker;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cluster::{self, kubectl};
use super::containerd;
use super::enter::{self, wait_for};
use super::init::lab_node;
use super::state::{API_PORT, Node, Plan, read_pid, slowness};
use crate::progress::step;
use crate::{paths, process};

use keys::{Holder, Keys};
pub use parts::{Part, Parts, Program, swappable};

const API_READY_MS_MAX: u64 = 120_000;
const REGISTERED_MS_MAX: u64 = 60_000;
const DNS_READY_S_MAX: u64 = 180;

/// In the first node's folder.
const CORACLE_KEYS: &str = "var-lib/coracle/pki";

/// Which cluster a lab's nodes run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Cluster {
    /// Coracle, with upstream's programs in the place of some of its parts.
    Coracle { swapped: Vec<Part> },
    /// These parts of upstream, and nothing of Coracle.
    Upstream { parts: Parts },
}

impl Cluster {
    /// Of upstream's parts, those that run.
    pub fn parts(&self) -> &[Part] {
        match self {
            Cluster::Coracle { swapped } => swapped,
            Cluster::Upstream { parts } => parts.as_slice(),
        }
    }

    pub fn is_coracle(&self) -> bool {
        matches!(self, Cluster::Coracle { .. })
    }

    /// Coracle and nothing beside it.
    pub fn is_plain_coracle(&self) -> bool {
        self.is_coracle() && self.parts().is_empty()
    }

    /// What Coracle does not run on a node because upstream does, in Coracle's words.
    pub fn left_out_of_coracle(&self, node: usize) -> Vec<&'static str> {
        let here = |part: &&Part| !Program::of(&[**part], node).is_empty();
        self.parts().iter().filter(here).filter_map(|part| part.of_coracle()).collect()
    }

    pub fn has(&self, part: Part) -> bool {
        self.parts().contains(&part)
    }

    /// Builds and installs what it takes, and says where it is.
    pub fn programs(&self) -> Result<BTreeMap<String, PathBuf>> {
        let mut programs = BTreeMap::new();
        let mut build = |name: &str| -> Result<()> {
            programs.insert(name.to_owned(), crate::upstream::program(name)?);
            Ok(())
        };
        for program in Program::of(self.parts(), 1).into_iter().filter(|program| *program != Program::Containerd) {
            build(program.name())?;
        }
        if self.has(Part::Dns) {
            build("coredns")?;
        }
        if !self.parts().is_empty() {
            crate::test::install_for_upstream()?;
        }
        Ok(programs)
    }
}

/// Where the cluster's addresses come from.
pub struct Ranges {
    pub pods: &'static str,
    pub services: &'static str,
    /// of the API, among the services
    pub api: Ipv4Addr,
    pub dns: Ipv4Addr,
    pub domain: &'static str,
}

/// As kubeadm and its usual networks have them.
const UPSTREAM_RANGES: Ranges = Ranges {
    pods: "10.244.0.0/16",
    services: "10.96.0.0/12",
    api: Ipv4Addr::new(10, 96, 0, 1),
    dns: Ipv4Addr::new(10, 96, 0, 10),
    domain: "cluster.local",
};

/// As Coracle has them unless told otherwise.
const CORACLE_RANGES: Ranges = Ranges {
    pods: "10.42.0.0/16",
    services: "10.43.0.0/16",
    api: Ipv4Addr::new(10, 43, 0, 1),
    dns: Ipv4Addr::new(10, 43, 0, 10),
    domain: "cluster.local",
};

/// What every program of upstream's has to know of its lab.
pub struct Site {
    /// The first node.
    server: Node,
    keys: Keys,
    ranges: Ranges,
}

impl Site {
    fn of(plan: &Plan) -> Result<Self> {
        let server = plan.node(1)?;
        let dir = folder(plan);
        // whose cluster it is decides who makes the authorities
        let keys = if plan.cluster.has(Part::Apiserver) {
            Keys::own(&dir)?
        } else {
            Keys::of(&server.data.join(CORACLE_KEYS), &dir)?
        };
        let ranges = if plan.cluster.is_coracle() { CORACLE_RANGES } else { UPSTREAM_RANGES };
        Ok(Self { server, keys, ranges })
    }

    fn api(&self) -> String {
        format!("https://{}:{API_PORT}", self.server.address)
    }

    fn arguments(&self, node: &Node, program: Program) -> Result<Vec<String>> {
        match program {
            Program::Etcd => control_plane::etcd(self),
            Program::Apiserver => control_plane::apiserver(self),
            Program::ControllerManager => control_plane::controller_manager(self),
            Program::Scheduler => control_plane::scheduler(self),
            Program::Containerd => bail!("containerd is started by `lab::containerd`"),
            Program::Kubelet => worker::kubelet(self, node),
            Program::KubeProxy => worker::kube_proxy(self, node),
        }
    }
}

fn folder(plan: &Plan) -> PathBuf {
    plan.dir().join("upstream")
}

/// Starts the cluster and returns when it is whole.
pub fn start(plan: &Plan) -> Result<()> {
    let nodes = plan.all_nodes()?;
    for node in nodes.iter().filter(|node| !Program::of(plan.cluster.parts(), node.number).is_empty()) {
        step(&format!("starting upstream's programs on {}", node.name), || start_programs(plan, node))?;
    }
    if plan.cluster.has(Part::Kubelet) {
        for node in &nodes {
            step(&format!("waiting for {} to be Ready", node.name), || become_part(plan, node))?;
        }
    }
    if plan.cluster.has(Part::Dns) {
        step("waiting for the cluster's DNS", || wait_for_dns(plan))?;
    }
    Ok(())
}

/// Starts what runs on one node and returns when the node is one of the cluster's.
pub fn start_node(plan: &Plan, node: &Node) -> Result<()> {
    start_programs(plan, node)?;
    if plan.cluster.has(Part::Kubelet) { become_part(plan, node) } else { Ok(()) }
}

/// Waits until the node is Ready and everybody knows the way to its pods.
pub fn become_part(plan: &Plan, node: &Node) -> Result<()> {
    let said = || tails(node, &Program::of(plan.cluster.parts(), node.number));
    wait_for(REGISTERED_MS_MAX, || ranges_of_pods(plan).is_ok_and(|ranges| ranges.contains_key(&node.name)))
        .with_context(|| format!("{} got no addresses for its pods\n{}", node.name, said()))?;
    if !plan.cluster.is_coracle() {
        set_routes(plan)?;
    }
    cluster::wait_until_ready(plan, node).with_context(said)
}

/// The API server that Coracle is a client of, if it is upstream's; Coracle gets the authorities of that.
pub fn start_api(plan: &Plan, node: &Node) -> Result<()> {
    if !plan.cluster.has(Part::Apiserver) || node.number != 1 {
        return Ok(());
    }
    Site::of(plan)?.keys.give(&node.data.join(CORACLE_KEYS))?;
    start_all(plan, node, &Program::of(&[Part::Apiserver], 1))
}

/// The programs of a node that do not run yet in their order, each as soon as what it stands on answers.
pub fn start_programs(plan: &Plan, node: &Node) -> Result<()> {
    start_all(plan, node, &Program::of(plan.cluster.parts(), node.number))
}

fn start_all(plan: &Plan, node: &Node, programs: &[Program]) -> Result<()> {
    if plan.cluster.has(Part::Apiserver) {
        write_admin_kubeconfig(plan)?;
    }
    for program in programs {
        if !read_pid(&node.pid_file(program.name())).is_ok_and(enter::is_alive) {
            lab_node(plan, &["start", &node.number.to_string(), program.name()])?;
        }
        match program {
            Program::Apiserver => {
                wait_for_api(plan, node)?;
                if plan.cluster.has(Part::Dns) {
                    apply_dns(plan)?;
                }
            }
            Program::Containerd => containerd::wait_until_ready(node)?,
            _ => {}
        }
    }
    Ok(())
}

fn write_admin_kubeconfig(plan: &Plan) -> Result<()> {
    let site = Site::of(plan)?;
    let admin = Holder::client("kubernetes-admin", "system:masters");
    let written = site.keys.kubeconfig("admin", &site.api(), &admin)?;
    fs::copy(written, plan.kubeconfig()).context("writing the kubeconfig").map(drop)
}

/// Starts one program. Enters the node, which is for good.
pub fn start_program(plan: &Plan, node: &Node, program: Program, flags: &[OsString]) -> Result<()> {
    let site = Site::of(plan)?;
    let mut command = Command::new(plan.upstream(program.name())?);
    command.args(site.arguments(node, program)?).args(flags);
    enter::launch(node, program.name(), command, || match program {
        Program::Kubelet => worker::cover_kernel_settings(node),
        _ => Ok(()),
    })
}

/// The configuration of the pod network in which kubelet's pods are, for containerd to fill in the node's range; none where
/// Coracle answers for the network.
pub fn pod_network(plan: &Plan) -> Option<Value> {
    (!plan.cluster.is_coracle()).then(worker::pod_network)
}

/// What a node needs for kubelet's pods besides. To be called by a process that has entered the node.
pub fn prepare_for_pods(plan: &Plan, node: &Node) -> Result<()> {
    if plan.cluster.has(Part::Kubelet) {
        worker::share_mounts()?;
    }
    // Coracle does it by itself
    if plan.cluster.has(Part::Kubelet) && !plan.cluster.is_coracle() { masquerade(node) } else { Ok(()) }
}

/// Pods that talk to somebody outside the cluster do it under their node's name, because nobody there knows a way to them.
fn masquerade(node: &Node) -> Result<()> {
    let pods = UPSTREAM_RANGES.pods;
    let rules = format!(
        "add table ip lab\nflush table ip lab\ntable ip lab {{\n chain out {{\n  type nat hook postrouting priority srcnat;\n  \
         ip saddr {pods} ip daddr != {pods} oifname \"eth0\" masquerade\n }}\n}}\n"
    );
    let file = node.run.join("masquerade.nft");
    fs::write(&file, rules)?;
    let nft = paths::find_program("nft").context("nft is not installed")?;
    process::quiet(Command::new(nft).arg("-f").arg(file))
}

/// Waits until the API is ready.
pub fn wait_for_api(plan: &Plan, node: &Node) -> Result<()> {
    let mut said = String::new();
    let ready = cluster::while_runs(node, &[Program::Etcd.name(), Program::Apiserver.name()], API_READY_MS_MAX, || {
        cluster::answers_ready(plan, &mut said)
    });
    ready.with_context(|| format!("the API is not ready; the last answer: {said}"))
}

/// What the API says about where each node's pods are.
fn ranges_of_pods(plan: &Plan) -> Result<BTreeMap<String, String>> {
    let format = "jsonpath={range .items[*]}{.metadata.name} {.spec.podCIDR}{\"\\n\"}{end}";
    let text = process::output(kubectl(plan).args(["get", "nodes", "--output", format]))?;
    Ok(pairs(&text))
}

/// Lines of a name and a value; names without one are left out.
fn pairs(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|line| line.trim().split_once(' '));
    lines.map(|(name, range)| (name.to_owned(), range.to_owned())).collect()
}

/// On every node that lives, the ways to the others' pods.
fn set_routes(plan: &Plan) -> Result<()> {
    let ranges = ranges_of_pods(plan)?;
    let known = ranges.iter().filter_map(|(name, range)| {
        let number = name.strip_prefix("node")?.parse().ok()?;
        Some((plan.node(number).ok()?, range))
    });
    let known: Vec<(Node, &String)> = known.collect();
    for (from, _) in known.iter().filter(|(node, _)| node.init_pid().is_ok_and(enter::is_alive)) {
        for (to, range) in known.iter().filter(|(to, _)| to.number != from.number) {
            let (number, gateway) = (from.number.to_string(), to.address.to_string());
            lab_node(plan, &["exec", &number, "--", "ip", "route", "replace", range, "via", &gateway])?;
        }
    }
    Ok(())
}

/// Approves the certificate by which a joined node of Coracle's serves. Upstream's controllers leave that to people.
pub fn approve_server(plan: &Plan, node: &Node) -> Result<()> {
    let format = "jsonpath={range .items[?(@.spec.signerName==\"kubernetes.io/kubelet-serving\")]}{.spec.username} {.metadata.name}{\"\\n\"}{end}";
    let user = format!("system:node:{}", node.name);
    let mut request = None;
    wait_for(REGISTERED_MS_MAX, || {
        let listed = process::output(kubectl(plan).args(["get", "certificatesigningrequests", "--output", format]));
        request = listed.ok().and_then(|text| pairs(&text).remove(&user));
        request.is_some()
    })
    .with_context(|| format!("{} does not ask for a certificate to serve with", node.name))?;
    let request = request.unwrap_or_default();
    process::quiet(kubectl(plan).args(["certificate", "approve", &request]))
        .with_context(|| format!("approving the certificate of {}", node.name))
}

/// Asks for CoreDNS as soon as there is an API, as kubeadm does; its pods come when there is a node for them.
fn apply_dns(plan: &Plan) -> Result<()> {
    let file = folder(plan).join("dns.json");
    let objects = dns::objects(&UPSTREAM_RANGES, &plan.upstream("coredns")?.to_string_lossy());
    fs::write(&file, format!("{objects:#}\n"))?;
    let mut applied = Ok(());
    // its namespace is made a moment after the API is ready; the error that counts is the last attempt's
    let _ = wait_for(REGISTERED_MS_MAX, || {
        applied = process::quiet(kubectl(plan).arg("apply").arg("--filename").arg(&file));
        applied.is_ok()
    });
    applied.context("applying the cluster's DNS")
}

fn wait_for_dns(plan: &Plan) -> Result<()> {
    let timeout = format!("--timeout={}s", DNS_READY_S_MAX * slowness());
    let waited =
        kubectl(plan).args(["rollout", "status", "deployment/coredns", "-n", "kube-system", &timeout]).output()?;
    if !waited.status.success() {
        let pods = process::capture(kubectl(plan).args(["describe", "pods", "-n", "kube-system"]))?;
        let pods = process::last_lines(&String::from_utf8_lossy(&pods.stdout), 60);
        bail!("the cluster's DNS does not get ready:\n{pods}");
    }
    Ok(())
}

/// The ends of some programs' logs.
fn tails(node: &Node, programs: &[Program]) -> String {
    let tail = |program: &Program| {
        let text = process::last_lines(&node.log_text(program.name()), 15);
        format!("the end of what {} said on {}:\n{text}\n", program.name(), node.name)
    };
    programs.iter().map(tail).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_without_a_range_are_left_out() {
        let found = pairs("node1 10.244.0.0/24\nnode2 \n\n");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [("node1".to_owned(), "10.244.0.0/24".to_owned())]);
    }
}
