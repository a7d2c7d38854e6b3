//! S-22: everything of ours is killed in a burst of writes. What was acknowledged is there afterwards; containers never
//! stopped; Services went on answering.
//!
//! While the control plane is dead nobody can ask it, so the witness inside the cluster writes down what it sees, and is
//! read afterwards. Names are asked for again from the moment that the node is back.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use crate::harness::{Follow, Kube, lab_node};

const MANIFEST: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: nginx, image: "nginx:1.27"}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
"#;
/// More writes than are done when the first hundred are acknowledged.
const WRITES: usize = 3000;
const KILLED_AFTER: usize = 100;

pub fn story(kube: &Kube) -> Result<()> {
    kube.apply(MANIFEST)?;
    kube.wait("deployment/web", "condition=Available", 90)?;
    let address = kube.value("service web", ".spec.clusterIP")?;
    kube.apply(&witness(&address))?;
    kube.wait_ready("witness", 60)?;
    let seen = Follow::start(kube.command("logs witness --follow"))?;
    seen.until(30, |line| line == "ok").context("the witness reaches the Service")?;
    drop(seen);
    let before = containers(kube)?;

    let acknowledged = burst_and_kill(kube)?;
    lab_node("start 1")?;
    lab_node("wait 1").context("the API is not back")?;

    let there: BTreeSet<String> = kube.ok("get configmaps -o name")?.lines().map(str::to_owned).collect();
    let lost: Vec<&String> = acknowledged.iter().filter(|name| !there.contains(*name)).collect();
    ensure!(lost.is_empty(), "{} of {} acknowledged writes are lost: {lost:?}", lost.len(), acknowledged.len());

    kube.wait("node --all", "condition=Ready", 60)?;
    kube.wait("deployment/web", "condition=Available", 60)?;
    ensure!(containers(kube)? == before, "containers were started again");
    let log = kube.ok("logs witness")?;
    ensure!(log.lines().count() > 10, "the witness wrote {} lines", log.lines().count());
    ensure!(!log.contains("FAILED"), "the Service did not answer throughout:\n{log}");
    let by_name = "for i in $(seq 100); do wget -T 1 -qO /dev/null http://web && exit; sleep 0.1; done; exit 1";
    kube.sh("witness", by_name).context("the Service's name does not resolve afterwards").map(drop)
}

fn witness(address: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: witness}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: app
    image: busybox:1.36
    command: [sh, -c, 'while true; do wget -T 3 -qO /dev/null http://{address} && echo ok || echo FAILED; sleep 0.2; done']
"
    )
}

/// Identity, start and restarts of every container here.
fn containers(kube: &Kube) -> Result<String> {
    let path = ".items[*].status.containerStatuses[*]['containerID','restartCount','state']";
    kube.value("pods --sort-by=.metadata.name", path)
}

/// Writes as fast as one client can, and kills the server amid; returns what was acknowledged.
fn burst_and_kill(kube: &Kube) -> Result<BTreeSet<String>> {
    let file = std::env::temp_dir().join(format!("burst-{}.yaml", std::process::id()));
    let documents: String = (0..WRITES)
        .map(|number| format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: burst-{number}}}}}\n---\n"))
        .collect();
    std::fs::write(&file, documents).context("writing the burst down")?;
    let writer = Follow::start(kube.command_of(&["create", "-o", "name", "-f", &file.to_string_lossy()]))?;
    let mut acknowledged = BTreeSet::new();
    for _ in 0..KILLED_AFTER {
        acknowledged.insert(writer.line(60).context("the burst")?);
    }
    lab_node("crash 1")?;
    // until the writer notices: all that it was told before
    while let Ok(line) = writer.line(20) {
        acknowledged.insert(line);
    }
    std::fs::remove_file(&file).context("removing the burst")?;
    ensure!(acknowledged.len() < WRITES, "the burst was over before the kill");
    Ok(acknowledged)
}
