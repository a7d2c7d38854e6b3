//! `bench scheduler`: pods bound per second, end to end: each counts when the API tells a watcher that it has a node,
//! which it does after the binding is durable.
//!
//! ```text
//! simulated nodes (1,000, later 5,000) ─► plain pods ─► pods that keep apart ─► the next size
//! ```
//!
//! As in upstream's own scheduler benchmark, pods are created while the scheduler runs; the clock runs from the first
//! bound pod to the last one. On the peer's side the scheduler's own limit on requests (50 a second unless told otherwise)
//! is lifted, as upstream's benchmark does. Nothing else of a cluster runs: no controllers, no node agent.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bench_cluster::lab::SERVER;
use bench_cluster::nodes::Simulated;
use bench_cluster::{Access, Connection, Lab, crowd};
use bench_harness::{Figure, Meter, Round, RoundArguments, Side, Subject};
use serde_json::{Value, json};

const NAMESPACE: &str = "bench-scheduler";
const SIZES: [usize; 2] = [1000, 5000];
const PLAIN_PODS: usize = 5000;
const APART_PODS: usize = 1000;
/// Often enough to be alive, and seldom enough not to be what is measured.
const RENEW_EVERY: Duration = Duration::from_secs(30);
/// The scheduler takes in new nodes before there are pods for them.
const SETTLE: Duration = Duration::from_secs(2);
const IMAGE: &str = "registry.k8s.io/pause:3.10";
/// As upstream's scheduler benchmark lifts it.
const UNLIMITED: [&str; 2] = ["--kube-api-qps=5000", "--kube-api-burst=5000"];
const LEFT_OUT: &str = "--without=controllers,kubelet,proxy";

fn main() -> ExitCode {
    bench_harness::main(subject, round)
}

fn subject() -> Subject {
    let setting = format!(
        "{PLAIN_PODS} pods (100m CPU, 500 MiB) and {APART_PODS} pods that must not share a node, created over {} \
         connections while the scheduler runs, on simulated nodes of 32 CPUs whose leases are renewed every {} s. The \
         rate is from the first bound pod to the last, as a watcher sees them. Upstream's scheduler has its limit on \
         requests lifted to 5,000 a second.",
        crowd::CONNECTIONS,
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
    start(&lab, asked.side)?;
    let access = Access::of_environment()?;
    make_namespace(&access)?;
    let meter = Meter::of_cgroup(&lab.cgroup(SERVER));
    let mut round = Round::default();
    let (mut nodes, mut made) = (Vec::new(), 0);
    for size in SIZES {
        nodes.push(Simulated::start(&access, made..size, RENEW_EVERY)?);
        made = size;
        thread::sleep(SETTLE);
        for (kind, count) in [("plain", PLAIN_PODS), ("apart", APART_PODS)] {
            let figure = format!("{kind}_{size}");
            if asked.wants(&figure) {
                let bound = bind(&access, &figure.replace('_', "-"), count, kind == "apart")
                    .with_context(|| format!("{figure}; there was said:\n{}", lab.log_tail(SERVER)))?;
                round.put(&figure, bound.per_s());
                round.keep(&format!("{figure}_s"), bound.since_begun_s);
                round.keep(&format!("{figure}_created_s"), vec![bound.created_s]);
            }
        }
    }
    round.usage = meter.finish()?;
    nodes.into_iter().try_for_each(Simulated::stop)?;
    Ok(round)
}

/// The API server and the scheduler, and on our side what cannot be left out.
fn start(lab: &Lab, side: Side) -> Result<()> {
    match side {
        Side::Ours => lab.start_program(SERVER, "coracle", &[LEFT_OUT])?,
        Side::Peer => {
            lab.start(SERVER)?;
            lab.stop_program(SERVER, "kube-scheduler")?;
            lab.start_program(SERVER, "kube-scheduler", &UNLIMITED)?;
        }
    }
    lab.wait(SERVER)
}

/// A namespace that takes pods: without controllers nobody else makes its service account.
fn make_namespace(access: &Access) -> Result<()> {
    let mut connection = access.connect()?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    connection.ensure("/api/v1/namespaces", &namespace)?;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    connection.ensure(&format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts"), &account)
}

/// When pods were bound.
struct Bound {
    /// From the first request to create one; in the order in which they were bound.
    since_begun_s: Vec<f64>,
    /// When the last one was created: where it is near the last bound one, creating them is what was measured.
    created_s: f64,
}

impl Bound {
    fn per_s(&self) -> f64 {
        let (Some(first), Some(last)) = (self.since_begun_s.first(), self.since_begun_s.last()) else { return 0.0 };
        (self.since_begun_s.len() - 1) as f64 / (last - first)
    }
}

/// Creates pods and watches until each has a node.
fn bind(access: &Access, group: &str, count: usize, apart: bool) -> Result<Bound> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let mut watch = access.watch(&format!("{path}?watch=1&labelSelector=group%3D{group}"))?;
    let begun = Instant::now();
    let create = |connection: &mut Connection, number: usize| {
        connection.must("POST", &path, Some(&pod(group, number, apart))).map(drop)
    };
    thread::scope(|scope| {
        let creating = scope.spawn(|| crowd::each(access, count, create).map(|()| begun.elapsed().as_secs_f64()));
        let (mut seen, mut times) = (BTreeSet::new(), Vec::new());
        while times.len() < count {
            let event = match watch.event() {
                Ok(event) => event,
                Err(error) if creating.is_finished() => {
                    // why the pods could not be made tells more than that nothing came of them
                    creating.join().map_err(|_panic| anyhow::anyhow!("creating pods failed"))??;
                    return Err(error).with_context(|| format!("{} of {count} pods were bound", times.len()));
                }
                Err(error) => return Err(error),
            };
            if event.kind == "DELETED" {
                bail!("a pod was deleted by somebody");
            }
            let has_node = event.object["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
            if has_node && seen.insert(event.object["metadata"]["name"].to_string()) {
                times.push(event.at.duration_since(begun).as_secs_f64());
            }
        }
        let created_s = creating.join().map_err(|_panic| anyhow::anyhow!("creating pods failed"))??;
        Ok(Bound { since_begun_s: times, created_s })
    })
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
        let of = |times: &[f64]| Bound { since_begun_s: times.to_vec(), created_s: 0.0 }.per_s();
        assert_eq!(of(&[5.0, 5.5, 6.0]), 2.0);
        assert_eq!(of(&[]), 0.0);
    }

    #[test]
    fn only_pods_that_keep_apart_say_so_and_they_mean_their_own_group() {
        assert!(pod("a", 1, false)["spec"].get("affinity").is_none());
        let term = &pod("a", 1, true)["spec"]["affinity"]["podAntiAffinity"];
        let selector = &term["requiredDuringSchedulingIgnoredDuringExecution"][0]["labelSelector"]["matchLabels"];
        assert_eq!(selector["group"], pod("a", 1, true)["metadata"]["labels"]["group"]);
    }
}
