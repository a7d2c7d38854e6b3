//! S-08: a pod that fits nowhere says why, in the scheduler's full sentence, and is scheduled when there is room.

use anyhow::{Context, Result, ensure};

use crate::harness::Kube;

fn pod(name: &str, spec: &str, container: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  {spec}
  containers: [{{name: app, image: 'busybox:1.36', command: [sleep, '3600']{container}}}]
---"
    )
}

pub fn story(kube: &Kube) -> Result<()> {
    let node = kube.value("nodes", ".items[0].metadata.name")?;
    kube.apply(
        &(pod("big", "", ", resources: {requests: {cpu: '1000'}}")
            + &pod("choosy", "nodeSelector: {disk: ssd}", "")
            + &pod("claimant", "volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]", "")
            + &pod("first", "", ", ports: [{containerPort: 80, hostPort: 18080}]")),
    )?;
    is_told(kube, "big", "0/1 nodes are available: 1 Insufficient cpu.")?;
    is_told(kube, "choosy", "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.")?;
    is_told(kube, "claimant", "persistentvolumeclaim \"data\" not found")?;
    kube.wait_ready("first", 60)?;
    kube.apply(&pod("second", "", ", ports: [{containerPort: 80, hostPort: 18080}]"))?;
    is_told(kube, "second", "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.")?;
    let row = kube.ok("get pod second --no-headers")?;
    ensure!(row.contains("0/1") && row.contains("Pending"), "kubectl get pod shows {row}");

    kube.ok("delete pod first --wait=false")?;
    is_scheduled(kube, "second").context("when the port is free")?;
    kube.ok(&format!("label node {node} disk=ssd"))?;
    is_scheduled(kube, "choosy").context("when the node has the label")?;
    kube.ok(&format!("label node {node} disk-"))?;
    a_taint(kube, &node)
}

fn a_taint(kube: &Kube, node: &str) -> Result<()> {
    kube.ok(&format!("taint node {node} story=closed:NoSchedule"))?;
    kube.apply(&(pod("kept-out", "", "") + &pod("let-in", "tolerations: [{key: story, operator: Exists}]", "")))?;
    let told = is_told(kube, "kept-out", "0/1 nodes are available: 1 node(s) had untolerated taint(s).");
    let let_in = is_scheduled(kube, "let-in");
    // whatever came of it: the node is not this story's alone
    kube.ok(&format!("taint node {node} story-"))?;
    told?;
    let_in?;
    is_scheduled(kube, "kept-out").context("when the taint is gone")
}

fn is_told(kube: &Kube, name: &str, words: &str) -> Result<()> {
    kube.event(name, "FailedScheduling", words, 30)?;
    let pod = kube.get(&format!("pod {name}"))?;
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let scheduled =
        conditions.iter().find(|condition| condition["type"] == "PodScheduled").context("no PodScheduled condition")?;
    ensure!(scheduled["status"] == "False" && scheduled["reason"] == "Unschedulable", "the condition says {scheduled}");
    ensure!(
        scheduled["message"].as_str().is_some_and(|message| message.contains(words)),
        "the condition says {scheduled}"
    );
    Ok(())
}

fn is_scheduled(kube: &Kube, name: &str) -> Result<()> {
    kube.wait(&format!("pod/{name}"), "condition=PodScheduled", 5)
}
