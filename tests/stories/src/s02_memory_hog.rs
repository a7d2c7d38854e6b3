//! S-02: a process that takes more memory than its limit is killed by the kernel, and everybody says so.
//!
//! The process that takes the memory is the container's first one, so that its end is the container's end on both
//! cgroup versions. `stress` takes it in a child: there the reason is asserted, and the code is what `stress` makes of
//! its child's death where the kernel kills that one alone.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::Kube;

const MANIFEST: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: hog}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: hog
    image: busybox:1.36
    command: [dd, if=/dev/zero, of=/dev/null, bs=150M, count=1]
    resources: {limits: {memory: 50Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: stress}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
  - name: stress
    image: polinux/stress
    command: [stress]
    args: ["--vm", "1", "--vm-bytes", "150M", "--vm-hang", "1"]
    resources: {requests: {memory: 20Mi}, limits: {memory: 50Mi}}
"#;

pub fn story(kube: &Kube) -> Result<()> {
    kube.apply(MANIFEST)?;
    let mut waits = ["10s", "20s", "40s"]
        .map(|wait| format!("back-off {wait} restarting failed container=hog pod=hog_{}", kube.namespace()))
        .into_iter()
        .peekable();
    // one watch for all of them: none can slip through between two
    let outcome = kube.until("pod hog", 150, |pod| {
        waits.next_if(|said| is_waiting(pod, said));
        waits.peek().is_none()
    });
    let pod = outcome.with_context(|| format!("still to come: {:?}", waits.collect::<Vec<_>>()))?;
    let ended = &container(&pod)["lastState"]["terminated"];
    ensure!(ended["reason"] == "OOMKilled" && ended["exitCode"] == 137, "it ended with {ended}");
    let described = kube.ok("describe pod hog")?;
    for line in
        ["Last State:     Terminated", "Reason:       OOMKilled", "Exit Code:    137", "Reason:       CrashLoopBackOff"]
    {
        ensure!(described.contains(line), "describe does not say {line:?}:\n{described}");
    }
    let restarts = kube.value("pod hog", ".status.containerStatuses[0].restartCount")?;
    ensure!(restarts.parse::<u32>()? >= 2, "restarted {restarts} times");

    let stress = kube.until("pod stress", 60, |pod| pod["status"]["phase"] == "Failed")?;
    let reason = &container(&stress)["state"]["terminated"]["reason"];
    ensure!(reason == "OOMKilled", "stress ended with {reason}");
    Ok(())
}

fn container(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

fn is_waiting(pod: &Value, said: &str) -> bool {
    let waiting = &container(pod)["state"]["waiting"];
    waiting["reason"] == "CrashLoopBackOff"
        && waiting["message"].as_str().is_some_and(|message| message.starts_with(said))
}
