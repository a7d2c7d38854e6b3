//! S-22: everything of ours is killed in a burst of writes. What was acknowledged is there afterwards; containers never
//! stopped; Services and DNS went on answering.
//!
//! While the control plane is dead nobody can ask it, so witnesses inside the cluster write down what they see, and are
//! read afterwards: one asks the Service by its address, one by its name, one for the addresses of a headless name.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use crate::harness::{Follow, Kube, lab_node, on_node};

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
---
apiVersion: v1
kind: Service
metadata: {name: pods}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80}]}
"#;
/// Is deleted in the moment of the kill and takes its time to end: nobody may have to wait for it afterwards.
const STRAGGLER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: straggler}
spec:
  containers: [{name: app, image: "busybox:1.36", command: [sh, -c, "trap '' TERM; while true; do sleep 1; done"]}]
"#;
/// More writes than are done when the first hundred are acknowledged.
const WRITES: usize = 3000;
const KILLED_AFTER: usize = 100;

pub fn story(kube: &Kube) -> Result<()> {
    kube.apply(MANIFEST)?;
    kube.wait("deployment/web", "condition=Available", 90)?;
    let address = kube.value("service web", ".spec.clusterIP")?;
    let witnesses = [
        ("by-address", format!("wget -T 3 -qO /dev/null http://{address}")),
        ("by-name", "wget -T 3 -qO /dev/null http://web".to_owned()),
        ("headless", format!("nslookup pods.{}.svc.cluster.local >/dev/null", kube.namespace())),
    ];
    for (name, ask) in &witnesses {
        kube.apply(&witness(name, ask))?;
    }
    for (name, _) in &witnesses {
        kube.wait_ready(name, 60)?;
        let seen = Follow::start(kube.command_of(&["logs", name, "--follow"]))?;
        seen.until(30, |line| line == "ok").with_context(|| format!("the witness {name}"))?;
    }
    let before = containers(kube)?;
    kube.apply(STRAGGLER)?;
    kube.wait_ready("straggler", 60)?;

    let acknowledged = burst_and_kill(kube)?;
    // what answers now is the kernel alone; told if it did not. Without the program `nft` there is less to tell
    let kernel = on_node(1, "nft list ruleset 2>&1; ip route; true")?;
    lab_node("start 1")?;
    lab_node("wait 1").context("the API is not back")?;

    let there: BTreeSet<String> = kube.ok("get configmaps -o name")?.lines().map(str::to_owned).collect();
    let lost: Vec<&String> = acknowledged.iter().filter(|name| !there.contains(*name)).collect();
    ensure!(lost.is_empty(), "{} of {} acknowledged writes are lost: {lost:?}", lost.len(), acknowledged.len());

    kube.wait("node --all", "condition=Ready", 60)?;
    kube.wait("deployment/web", "condition=Available", 60)?;
    ensure!(containers(kube)? == before, "containers were started again");
    kube.apply(&witness("newcomer", "true"))?;
    kube.wait_ready("newcomer", 15).context("while the straggler ends")?;
    let mut complaints = String::new();
    for (name, _) in &witnesses {
        let log = kube.ok(&format!("logs {name} --timestamps"))?;
        ensure!(log.lines().count() > 10, "the witness {name} wrote {} lines", log.lines().count());
        // what fails before the first success is the witness' own start
        let since = log.split_once(" ok\n").map_or("", |(_, since)| since);
        if since.contains("FAILED") {
            complaints += &format!("{name} was not answered throughout:\n{log}");
        }
    }
    ensure!(complaints.is_empty(), "{complaints}just after the kill the kernel had:\n{kernel}");
    Ok(())
}

/// Asks again and again, and says how it went and when.
fn witness(name: &str, ask: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: app
    image: busybox:1.36
    command: [sh, -c, 'while true; do {ask} && echo ok || echo FAILED; sleep 0.2; done']
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
    kube.ok("delete pod straggler --force --grace-period=0 --wait=false")?;
    lab_node("crash 1")?;
    // until the writer notices: all that it was told before
    while let Ok(line) = writer.line(20) {
        acknowledged.insert(line);
    }
    std::fs::remove_file(&file).context("removing the burst")?;
    ensure!(acknowledged.len() < WRITES, "the burst was over before the kill");
    Ok(acknowledged)
}
