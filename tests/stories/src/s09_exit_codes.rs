//! S-09: how a process ends is what the cluster shows, and the restart policy decides what follows.
//!
//! Process 1 of a PID namespace cannot kill itself, so the pods whose process dies of a signal share one namespace with
//! their sandbox: there the shell is not process 1.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::Kube;

/// Name, what runs (a manifest writes a dollar twice), exit code, reason.
const ENDS: [(&str, &str, i64, &str); 7] = [
    ("zero", "exit 0", 0, "Completed"),
    ("one", "exit 1", 1, "Error"),
    ("not-executable", "/etc/passwd", 126, "Error"),
    ("not-found", "no-such-program", 127, "Error"),
    ("killed", "kill -KILL $$$$", 137, "Error"),
    ("fault", "kill -SEGV $$$$", 139, "Error"),
    ("terminated", "kill -TERM $$$$", 143, "Error"),
];

fn pod(name: &str, script: &str, policy: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: {policy}
  shareProcessNamespace: true
  terminationGracePeriodSeconds: 0
  containers: [{{name: app, image: 'busybox:1.36', command: [sh, -c, '{script}']}}]
---"
    )
}

pub fn story(kube: &Kube) -> Result<()> {
    let mut manifest: String = ENDS.iter().map(|(name, script, ..)| pod(name, script, "Never")).collect();
    manifest += &pod("on-failure-zero", "exit 0", "OnFailure");
    manifest += &pod("on-failure-one", "exit 1", "OnFailure");
    manifest += &pod("always-zero", "exit 0", "Always");
    kube.apply(&manifest)?;
    for (name, _, code, reason) in ENDS {
        ends(kube, name, code, reason).with_context(|| format!("pod {name}"))?;
    }
    let done = kube.until("pod on-failure-zero", 60, |pod| pod["status"]["phase"] == "Succeeded")?;
    ensure!(container(&done)["restartCount"] == 0, "it ended well, yet was restarted: {}", container(&done));
    kube.until("pod on-failure-one", 60, |pod| {
        container(pod)["restartCount"].as_i64() >= Some(1) && container(pod)["lastState"]["terminated"]["exitCode"] == 1
    })?;
    let again =
        kube.until("pod always-zero", 60, |pod| container(pod)["state"]["waiting"]["reason"] == "CrashLoopBackOff")?;
    ensure!(container(&again)["lastState"]["terminated"]["reason"] == "Completed", "{}", container(&again));
    ensure!(again["status"]["phase"] == "Running", "a pod that is restarted is {}", again["status"]["phase"]);
    Ok(())
}

fn ends(kube: &Kube, name: &str, code: i64, reason: &str) -> Result<()> {
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    let pod = kube.until(&format!("pod {name}"), 60, |pod| pod["status"]["phase"] == phase)?;
    let ended = &container(&pod)["state"]["terminated"];
    ensure!(ended["exitCode"] == code && ended["reason"] == reason, "it ended with {ended}");
    ensure!(container(&pod)["restartCount"] == 0, "it was restarted");
    let row = kube.ok(&format!("get pod {name} --no-headers"))?;
    ensure!(row.split_whitespace().nth(2) == Some(reason), "kubectl get pod shows {row}");
    let described = kube.ok(&format!("describe pod {name}"))?;
    ensure!(described.contains(&format!("Exit Code:    {code}\n")), "describe does not show the code:\n{described}");
    Ok(())
}

fn container(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}
