//! C-01: containerd is killed. What runs goes on and is not restarted, the node says what is the matter once it has been so for
//! a while, and when containerd is back all that happened meanwhile is known and new pods start.

use anyhow::{Context, Result, ensure};

use crate::harness::{Kube, lab_node};

const MANIFEST: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: keeper}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: app
    image: busybox:1.36
    command: [sh, -c, "while true; do echo tick >> /tmp/ticks; sleep 1; done"]
---
apiVersion: v1
kind: Pod
metadata: {name: brief}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers: [{name: app, image: "busybox:1.36", command: [sh, -c, "until test -e /tmp/go; do sleep 1; done; sleep 5; exit 3"]}]
"#;
const LATE: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: late}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: app, image: "busybox:1.36", command: [sleep, "3600"]}]
"#;
/// A runtime may be silent this long before its node is not ready.
const SILENCE_S: u64 = 30;

pub fn story(kube: &Kube) -> Result<()> {
    kube.apply(MANIFEST)?;
    kube.wait_ready("keeper", 60)?;
    kube.wait_ready("brief", 60)?;
    let container = kube.value("pod keeper", ".status.containerStatuses[0].containerID")?;
    ensure!(container.starts_with("containerd://"), "the container is {container}");
    let before = ticks(kube)?;
    kube.sh("brief", "touch /tmp/go")?;

    lab_node("crash 1 containerd")?;
    let refused = kube.refused("exec keeper -- true")?;
    ensure!(refused.contains("Unavailable"), "without a runtime, exec says: {refused}");
    kube.until("node node1", 90, |node| ready(node, "False", "container runtime is down"))
        .context("the node does not say that its runtime is down")?;

    lab_node("start 1 containerd")?;
    kube.until("node node1", 60, |node| ready(node, "True", "kubelet is posting ready status"))?;
    let ended = kube.until("pod brief", 60, |pod| pod["status"]["phase"] == "Failed")?;
    let end = &ended["status"]["containerStatuses"][0]["state"]["terminated"];
    // containerd asks its shims how containers ended while it was away, and says 255 where none is left to ask
    let unknown = end["exitCode"] == 255 && end["reason"] == "Unknown";
    ensure!(end["exitCode"] == 3 || unknown, "it ended with code 3, and is said to have ended as {end}");
    let keeper = kube.get("pod keeper")?;
    let now = &keeper["status"]["containerStatuses"][0];
    ensure!(now["containerID"] == container.as_str() && now["restartCount"] == 0, "it did not run on: {now}");
    let ran_on = ticks(kube)?.saturating_sub(before);
    // the silence counts from the runtime's last word, some seconds before its death
    ensure!(ran_on > SILENCE_S / 2, "it ran for {ran_on} s of about {SILENCE_S}");
    kube.apply(LATE)?;
    kube.wait_ready("late", 60)
}

/// A container's seconds.
fn ticks(kube: &Kube) -> Result<u64> {
    kube.sh("keeper", "wc -l < /tmp/ticks")?.trim().parse().context("counting ticks")
}

fn ready(node: &serde_json::Value, status: &str, message: &str) -> bool {
    let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|condition| {
        condition["type"] == "Ready" && condition["status"] == status && condition["message"] == message
    })
}
