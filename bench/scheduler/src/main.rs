//! `bench scheduler`: pods bound per second, end to end: each counts when the API tells a watcher that it has a node,
//! which it does after the binding is durable.
//!
//! ```text
//! simulated nodes (1,000, later 5,000) ─► plain pods ─► scheduler ─► pods that keep apart ─► scheduler ─► the next size
//! ```
//!
//! The pods are there before the scheduler starts, so that creating them is not what is measured; the clock runs from the
//! first pod that a watcher sees bound to the last one. On the peer's side the scheduler's own limit on requests (50 a second
//! unless told otherwise) is lifted, as upstream's own benchmark does. Nothing else of a cluster runs: no controllers, no
//! node agent. Our scheduler is a part of the server's process, which is started anew with it.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bench_cluster::lab::SERVER;
use bench_cluster::nodes::{self, Simulated};
use bench_cluster::{Access, Connection, Lab, crowd};
use bench_harness::{Figure, Meter, Round, RoundArguments, Side, Subject};
use serde_json::{Value, json};

const NAMESPACE: &str = "bench-scheduler";
const SIZES: [usize; 2] = [1000, 5000];
const PLAIN_PODS: usize = 5000;
const APART_PODS: usize = 1000;
/// Often enough to be alive, and seldom enough not to be what is measured.
const RENEW_EVERY: Duration = Duration::from_secs(30);
const IMAGE: &str = "registry.k8s.io/pause:3.10";
/// As upstream's scheduler benchmark lifts it; and with nobody to lose an election to while the disk is busy.
const UNLIMITED: [&str; 3] = ["--kube-api-qps=5000", "--kube-api-burst=5000", "--leader-elect=false"];
const LEFT_OUT: &str = "--without=controllers,kubelet,proxy";

fn main() -> ExitCode {
    bench_harness::main(subject, round)
}

fn subject() -> Subject {
    let setting = format!(
        "{PLAIN_PODS} pods (100m CPU, 500 MiB) and {APART_PODS} pods that must not share a node, waiting when the \
         scheduler starts, on simulated nodes of 32 CPUs whose leases are renewed every {} s. The rate is from the first \
         bound pod to the last, as a watcher of the API sees them. Upstream's scheduler has its limit on requests lifted \
         to 5,000 a second.",
        RENEW_EVERY.as_secs()
    );
    Subject::new("scheduler", "The scheduler", "kube-scheduler with kube-apiserver and etcd").setting(&setting).figures(
        [
            Figure::higher("plain_1000", "plain pods bound, 1,000 nodes", "1/s"),
            Figure::higher("apart_1000", "pods with anti-affinity bound, 1,000 nodes", "1/s"),
            Figure::higher("plain_5000", "plain pods bound, 5,000 nodes", "1/s").times(25.0),
            Figure::higher("apart_5000", "pods with anti-affinity bound, 5,000 nodes", "1/s").times(100.0),
        ],
    )
}

fn round(asked: &RoundArguments) -> Result<Round> {
    let lab = Lab::find()?;
    let side = asked.side;
    start(&lab, side)?;
    let access = Access::of_environment()?;
    make_namespace(&access)?;
    let meter = Meter::of_cgroup(&lab.cgroup(SERVER));
    let mut round = Round::default();
    let mut made = 0;
    for size in SIZES {
        nodes::make(&access, made..size)?;
        made = size;
        for (kind, count) in [("plain", PLAIN_PODS), ("apart", APART_PODS)] {
            let figure = format!("{kind}_{size}");
            if asked.wants(&figure) {
                let bound_s = bind(&lab, side, &access, size, &figure, count)
                    .with_context(|| format!("{figure}; there was said:\n{}", lab.log_tail(SERVER)))?;
                round.put(&figure, per_s(&bound_s));
                round.keep(&format!("{figure}_s"), bound_s);
            }
        }
    }
    round.usage = meter.finish()?;
    Ok(round)
}

/// The API server alone, with what cannot be left out.
fn start(lab: &Lab, side: Side) -> Result<()> {
    match side {
        Side::Ours => lab.start_program(SERVER, "coracle", &[LEFT_OUT, "--without=scheduler"])?,
        Side::Peer => {
            lab.start(SERVER)?;
            lab.stop_program(SERVER, "kube-scheduler")?;
        }
    }
    lab.wait(SERVER)
}

fn start_scheduler(lab: &Lab, side: Side) -> Result<()> {
    match side {
        Side::Ours => {
            lab.stop_program(SERVER, "coracle")?;
            lab.start_program(SERVER, "coracle", &[LEFT_OUT])?;
            lab.wait(SERVER)
        }
        Side::Peer => lab.start_program(SERVER, "kube-scheduler", &UNLIMITED),
    }
}

fn stop_scheduler(lab: &Lab, side: Side) -> Result<()> {
    match side {
        Side::Ours => {
            lab.stop_program(SERVER, "coracle")?;
            start(lab, side)
        }
        Side::Peer => lab.stop_program(SERVER, "kube-scheduler"),
    }
}

/// A namespace that takes pods: without controllers nobody else makes its service account.
fn make_namespace(access: &Access) -> Result<()> {
    let mut connection = access.connect()?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    connection.ensure("/api/v1/namespaces", &namespace)?;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    connection.ensure(&format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts"), &account)
}

/// Creates pods, then lets the scheduler bind them: when each was seen bound, in seconds from the first request.
fn bind(lab: &Lab, side: Side, access: &Access, nodes: usize, figure: &str, count: usize) -> Result<Vec<f64>> {
    let (group, apart) = (figure.replace('_', "-"), figure.starts_with("apart"));
    let create = |connection: &mut Connection, number: usize| {
        connection.must("POST", &pods(), Some(&pod(&group, number, apart))).map(drop)
    };
    let begun = Instant::now();
    crowd::each(access, count, create)?;
    start_scheduler(lab, side)?;
    let alive = Simulated::start(access, 0..nodes, RENEW_EVERY)?;
    let bound_s = await_bound(access, &group, count, begun)?;
    alive.stop()?;
    stop_scheduler(lab, side)?;
    if apart {
        check_apart(access, &group)?;
    }
    Ok(bound_s)
}

/// A scheduler that ignores what pods ask for is no faster, it does less.
fn check_apart(access: &Access, group: &str) -> Result<()> {
    let listed: Value = serde_json::from_slice(&access.connect()?.must("GET", &selected(group), None)?)?;
    match shared_node(listed["items"].as_array().context("a list has items")?) {
        None => Ok(()),
        Some(node) => bail!("two pods that must not share a node are on {node}"),
    }
}

fn shared_node(pods: &[Value]) -> Option<&str> {
    let mut taken = BTreeSet::new();
    pods.iter().filter_map(|pod| pod["spec"]["nodeName"].as_str()).find(|node| !taken.insert(*node))
}

fn pods() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/pods")
}

fn selected(group: &str) -> String {
    format!("{}?labelSelector=group%3D{group}", pods())
}

/// Pods that are bound before this looks have no moment.
fn await_bound(access: &Access, group: &str, count: usize, begun: Instant) -> Result<Vec<f64>> {
    let selected = selected(group);
    let listed: Value = serde_json::from_slice(&access.connect()?.must("GET", &selected, None)?)?;
    let items = listed["items"].as_array().context("a list has items")?;
    let mut seen: BTreeSet<String> = items.iter().filter(|pod| has_node(pod)).map(name).collect();
    let version = listed["metadata"]["resourceVersion"].as_str().context("a list has a version")?;
    let mut watch = access.watch_after(&format!("{selected}&watch=1"), version)?;
    let mut times = Vec::new();
    while seen.len() < count {
        let event = watch.event().with_context(|| format!("{} of {count} pods were bound", seen.len()))?;
        if event.kind == "DELETED" {
            bail!("a pod was deleted by somebody");
        }
        if has_node(&event.object) && seen.insert(name(&event.object)) {
            times.push(event.at.duration_since(begun).as_secs_f64());
        }
    }
    Ok(times)
}

fn has_node(pod: &Value) -> bool {
    pod["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty())
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

/// From the first to the last.
fn per_s(times: &[f64]) -> f64 {
    let (Some(first), Some(last)) = (times.first(), times.last()) else { return f64::NAN };
    (times.len() - 1) as f64 / (last - first)
}

fn pod(group: &str, number: usize, apart: bool) -> Value {
    let room = json!({"requests": {"cpu": "100m", "memory": "500Mi"}});
    let mut spec = json!({"containers": [{"name": "pause", "image": IMAGE, "resources": room}]});
    if apart {
        let others =
            json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"group": group}}});
        spec["affinity"] = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [others]}});
    }
    let metadata = json!({"name": format!("{group}-{number}"), "labels": {"group": group}});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_from_the_first_to_the_last() {
        assert_eq!(per_s(&[5.0, 5.5, 6.0]), 2.0);
        assert!(per_s(&[]).is_nan(), "nothing measured is no figure");
    }

    #[test]
    fn a_node_with_two_pods_is_found() {
        let on = |node: &str| json!({"spec": {"nodeName": node}});
        assert_eq!(shared_node(&[on("a"), on("b")]), None);
        assert_eq!(shared_node(&[on("a"), on("b"), on("a")]), Some("a"));
    }

    #[test]
    fn only_pods_that_keep_apart_say_so_and_they_mean_their_own_group() {
        assert!(pod("a", 1, false)["spec"].get("affinity").is_none());
        let term = &pod("a", 1, true)["spec"]["affinity"]["podAntiAffinity"];
        let selector = &term["requiredDuringSchedulingIgnoredDuringExecution"][0]["labelSelector"]["matchLabels"];
        assert_eq!(selector["group"], pod("a", 1, true)["metadata"]["labels"]["group"]);
    }
}
