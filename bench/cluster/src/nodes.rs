//! Simulated nodes: Node objects with room for pods and nobody behind them, kept alive like real ones.
//!
//! ```text
//! make             ─► create Node, take off what admission tainted it with, report Ready, create Lease
//! Simulated::start ─► one thread: renew every lease in turn, spread evenly over the interval, until dropped
//! ```
//!
//! To the control plane such a node is one whose agent starts no pods: pods are bound to it and stay Pending. Who
//! compares two sides gives both the same nodes with the same interval, since the renewals are load by themselves.

use std::ops::Range;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::crowd;
use crate::https::{Access, Connection};

/// How often upstream's node agent renews its lease.
pub const AGENT_RENEWS_EVERY: Duration = Duration::from_secs(10);
/// After how long without renewal a node is taken for dead.
const LEASE_S: u64 = 40;
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
const NODES: &str = "/api/v1/nodes";

/// What every node has room for, as in upstream's own scheduler benchmark.
const ROOM: [(&str, &str); 3] = [("cpu", "32"), ("memory", "256Gi"), ("pods", "110")];

/// Nodes that are alive until this is dropped; the objects stay.
pub struct Simulated {
    stop: Option<Sender<()>>,
    heart: Option<JoinHandle<Result<()>>>,
}

impl Simulated {
    /// Renews the lease of each of the nodes with the numbers of `range` every `interval`.
    pub fn start(access: &Access, range: Range<usize>, interval: Duration) -> Result<Self> {
        if interval > Duration::from_secs(LEASE_S) {
            bail!("nodes that report every {interval:?} are dead after {LEASE_S} s");
        }
        let (stop, stopped) = channel();
        let (access, names) = (access.clone(), range.map(name).collect::<Vec<_>>());
        let heart = std::thread::spawn(move || beat(&access, &names, interval, &stopped));
        Ok(Self { stop: Some(stop), heart: Some(heart) })
    }

    /// Lets the nodes die.
    ///
    /// # Errors
    /// They died before: a lease could not be renewed.
    pub fn stop(mut self) -> Result<()> {
        drop(self.stop.take());
        let Some(heart) = self.heart.take() else { return Ok(()) };
        heart.join().map_err(|_panic| anyhow!("keeping nodes alive failed"))?
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(heart) = self.heart.take() {
            // who wants to know asks `stop`
            let _ = heart.join();
        }
    }
}

/// Makes nodes with the numbers of `range`, which are Ready and have not long to live.
pub fn make(access: &Access, range: Range<usize>) -> Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-node-lease"}});
    access.connect()?.ensure("/api/v1/namespaces", &namespace)?;
    crowd::each(access, range.len(), |connection, number| make_one(connection, &name(range.start + number)))
}

/// What a simulated node is called.
pub fn name(number: usize) -> String {
    format!("simulated-{number}")
}

fn make_one(connection: &mut Connection, name: &str) -> Result<()> {
    connection.must("POST", NODES, Some(&node(name)))?;
    let path = format!("{NODES}/{name}");
    connection.must("PATCH", &format!("{path}/status"), Some(&json!({"status": status()})))?;
    // admission taints a new node until a controller sees it Ready; where no controllers run, that is for ever
    connection.must("PATCH", &path, Some(&json!({"spec": {"taints": null}})))?;
    connection.must("POST", LEASES, Some(&lease(name)))?;
    Ok(())
}

fn node(name: &str) -> Value {
    let labels = json!({"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"});
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "status": status()})
}

fn status() -> Value {
    let room: serde_json::Map<String, Value> = ROOM.iter().map(|(what, much)| ((*what).into(), json!(much))).collect();
    let now = now();
    let condition = |kind: &str, state: &str, reason: &str| {
        json!({"type": kind, "status": state, "reason": reason, "message": "simulated",
               "lastHeartbeatTime": now, "lastTransitionTime": now})
    };
    json!({
        "capacity": room, "allocatable": room,
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID"),
            condition("Ready", "True", "KubeletReady"),
        ]
    })
}

fn lease(name: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "namespace": "kube-node-lease"},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_S, "renewTime": precise_now()}
    })
}

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn precise_now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// Renews one lease after the other, each at its own place in the interval.
fn beat(access: &Access, names: &[String], interval: Duration, stopped: &Receiver<()>) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let mut connection = access.connect()?;
    let step = interval.div_f64(names.len() as f64);
    let mut due = Instant::now() + step;
    for name in names.iter().cycle() {
        // an interval of a few nanoseconds is beyond any clock: whoever is late goes on at once
        match stopped.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
        let renewed = json!({"spec": {"renewTime": precise_now()}});
        connection
            .must("PATCH", &format!("{LEASES}/{name}"), Some(&renewed))
            .with_context(|| format!("keeping {name} alive"))?;
        due += step;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_room_and_is_ready_from_the_beginning() {
        let node = node("simulated-7");
        assert_eq!(node["status"]["allocatable"]["pods"], "110");
        let ready = node["status"]["conditions"].as_array().unwrap().iter().find(|one| one["type"] == "Ready").unwrap();
        assert_eq!(ready["status"], "True");
        assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "simulated-7");
    }

    #[test]
    fn times_are_written_as_the_api_reads_them() {
        let (plain, precise) = (now(), precise_now());
        assert!(plain.len() == 20 && plain.ends_with('Z'), "{plain}");
        assert!(precise.len() == 27 && precise.as_bytes()[19] == b'.', "{precise}");
    }
}
