//! Hostile images: whatever their layers try, the node outside the container is untouched, the disk is not filled, and
//! the node goes on working.
//!
//! A layer may be refused (the pod says so and waits) or contained (the pod runs, and what was meant to escape is
//! inside): both are right, as runtimes differ. What is never right is a trace on the node.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::{Kube, lab_node};

/// What must be refused: there is nothing sensible to run.
const REFUSED: [&str; 4] = ["climbing", "stealing", "bomb", "garbage"];
/// What may run, contained.
const CONTAINED: [&str; 3] = ["absolute", "through-link", "device"];
/// More than a lab's images take together; far less than the bomb claims to be.
const GROWTH_KIB_MAX: u64 = 1 << 20;

fn pod(name: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{{name: app, image: 'hostile/{name}:1', command: [sleep, '3600']}}]
---"
    )
}

pub fn story(kube: &Kube) -> Result<()> {
    let before = used_kib()?;
    let all: String = REFUSED.iter().chain(&CONTAINED).map(|name| pod(name)).collect();
    kube.apply(&all)?;
    for name in REFUSED {
        is_refused(kube, name).with_context(|| format!("hostile/{name}"))?;
    }
    for name in CONTAINED {
        let settled = |pod: &Value| is_running(pod) || is_waiting(pod);
        kube.until(&format!("pod {name}"), 60, settled).with_context(|| format!("hostile/{name}"))?;
    }
    let traces = lab_node("exec 1 -- find /tmp /etc /var/tmp /root / -maxdepth 1 -name *escaped*")?;
    ensure!(traces.is_empty(), "on the node there is {traces}");
    let grown = used_kib()?.saturating_sub(before);
    ensure!(grown < GROWTH_KIB_MAX, "the node's disk grew by {grown} KiB");
    if is_running(&kube.get("pod device")?) {
        let read = kube.sh("device", "head -c 1 /escaped-disk 2>&1 || true")?;
        ensure!(
            read.contains("denied") || read.contains("not permitted") || read.contains("No such"),
            "a device from an image opens: {read:?}"
        );
    }
    kube.ok_of(&["run", "after", "--image=busybox:1.36", "--restart=Never", "--", "true"])?;
    kube.wait("pod/after", "jsonpath={.status.phase}=Succeeded", 60).context("an honest pod afterwards")
}

fn is_refused(kube: &Kube, name: &str) -> Result<()> {
    let pod = kube.until(&format!("pod {name}"), 60, |pod| is_running(pod) || is_waiting(pod))?;
    ensure!(is_waiting(&pod), "it runs");
    kube.event(name, "Failed", "", 30).map(drop)
}

fn is_running(pod: &Value) -> bool {
    pod["status"]["containerStatuses"][0]["state"]["running"].is_object()
}

fn is_waiting(pod: &Value) -> bool {
    let reason = pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].as_str();
    matches!(reason, Some("ErrImagePull" | "ImagePullBackOff" | "CreateContainerError" | "InvalidImageName"))
}

fn used_kib() -> Result<u64> {
    let printed = lab_node("exec 1 -- df -k --output=used /var/lib")?;
    printed.split_whitespace().last().and_then(|used| used.parse().ok()).with_context(|| format!("df says {printed}"))
}
