//! S-05: a container that ends at once is started again with growing pauses, its last words can be read, and mending the
//! configuration it read is enough.

use anyhow::{Result, ensure};

use crate::harness::Kube;

const MANIFEST: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {mode: bad}
---
apiVersion: v1
kind: Pod
metadata: {name: crash}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: app
    image: busybox:1.36
    command: [sh, -c, "echo starting with $MODE; test $MODE = good || exit 1; sleep 3600"]
    env: [{name: MODE, valueFrom: {configMapKeyRef: {name: settings, key: mode}}}]
"#;

pub fn story(kube: &Kube) -> Result<()> {
    kube.apply(MANIFEST)?;
    let waiting = |pod: &serde_json::Value, restarts: u64| {
        let container = &pod["status"]["containerStatuses"][0];
        container["restartCount"].as_u64() >= Some(restarts)
            && container["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    };
    let pod = kube.until("pod crash", 60, |pod| waiting(pod, 1))?;
    let container = &pod["status"]["containerStatuses"][0];
    ensure!(container["lastState"]["terminated"]["exitCode"] == 1, "last state: {}", container["lastState"]);
    ensure!(container["lastState"]["terminated"]["reason"] == "Error", "last state: {}", container["lastState"]);
    let message = container["state"]["waiting"]["message"].as_str().unwrap_or_default();
    ensure!(
        message.starts_with("back-off ") && message.contains("restarting failed container=app pod=crash_"),
        "it says: {message}"
    );
    let row = kube.ok("get pod crash --no-headers")?;
    ensure!(row.contains("0/1") && row.contains("CrashLoopBackOff"), "kubectl get pod shows {row}");
    kube.event("crash", "BackOff", "Back-off restarting failed container app in pod crash_", 30)?;

    kube.until("pod crash", 60, |pod| waiting(pod, 2))?;
    for words in ["logs crash --previous", "logs crash"] {
        let log = kube.ok(words)?;
        ensure!(log == "starting with bad\n", "{words} shows {log:?}");
    }

    kube.ok_of(&["patch", "configmap", "settings", "--patch", r#"{"data":{"mode":"good"}}"#])?;
    kube.wait_ready("crash", 90)?;
    let log = kube.ok("logs crash")?;
    ensure!(log == "starting with good\n", "after the repair, logs shows {log:?}");
    let log = kube.ok("logs crash --previous")?;
    ensure!(log == "starting with bad\n", "after the repair, logs --previous shows {log:?}");
    Ok(())
}
