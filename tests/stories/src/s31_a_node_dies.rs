//! S-31: a node dies. It is NotReady after its grace period and tainted; what tolerated that for a while is replaced
//! elsewhere; a pod that nobody owns is gone for good.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::{Kube, lab_node};

/// Tolerates a dead node for two seconds instead of five minutes.
const TOLERATIONS: &str = "tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 2}
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 2}";

fn manifest() -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 4
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
      {TOLERATIONS}
      containers: [{{name: nginx, image: 'nginx:1.27'}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: naked}}
spec:
      nodeSelector: {{kubernetes.io/hostname: node2}}
      terminationGracePeriodSeconds: 1
      {TOLERATIONS}
      containers: [{{name: nginx, image: 'nginx:1.27'}}]
"
    )
}

pub fn story(kube: &Kube) -> Result<()> {
    kube.apply(&manifest())?;
    kube.wait("deployment/web", "condition=Available", 90)?;
    kube.wait("deployment/web", "jsonpath={.status.availableReplicas}=4", 60)?;
    kube.wait_ready("naked", 60)?;
    let there = on_node(kube, "node2")?;
    ensure!(!there.is_empty(), "no replica runs on node2: nothing would be seen");

    lab_node("lose 2")?;
    let told = dies_and_is_replaced(kube);
    // the lab is whole again for whoever comes next
    lab_node("boot 2")?;
    lab_node("start 2")?;
    told?;
    kube.wait("node/node2", "condition=Ready", 90).context("the node that came back")?;
    kube.wait("pod/naked", "delete", 90).context("the naked pod")?;
    ensure!(kube.refused("get pod naked")?.contains("NotFound"), "the naked pod came back");
    let node = kube.get("node node2")?;
    ensure!(!has_taint(&node, "NoExecute"), "the node that came back is still tainted: {}", node["spec"]["taints"]);
    Ok(())
}

fn dies_and_is_replaced(kube: &Kube) -> Result<()> {
    kube.wait("node/node2", "condition=Ready=Unknown", 90).context("NotReady after the grace period")?;
    let node = kube.until("node node2", 30, |node| has_taint(node, "NoExecute"))?;
    ensure!(has_taint(&node, "NoSchedule"), "taints: {}", node["spec"]["taints"]);
    let row = kube.ok("get node node2 --no-headers")?;
    ensure!(row.contains("NotReady"), "kubectl get node shows {row}");
    kube.until("pod naked", 60, |pod| pod["metadata"]["deletionTimestamp"].is_string())
        .context("the naked pod's eviction")?;
    kube.until("deployment web", 90, |web| web["status"]["availableReplicas"] == 4).context("replacements")?;
    let living = kube.get("pods -l app=web")?;
    let elsewhere = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null() && pod["spec"]["nodeName"] == "node1";
    let count = living["items"].as_array().into_iter().flatten().filter(elsewhere).count();
    ensure!(count == 4, "{count} replicas live on node1");
    Ok(())
}

fn has_taint(node: &Value, effect: &str) -> bool {
    let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    taints.iter().any(|taint| taint["key"] == "node.kubernetes.io/unreachable" && taint["effect"] == effect)
}

fn on_node(kube: &Kube, node: &str) -> Result<Vec<String>> {
    let what = format!("pods -l app=web --field-selector spec.nodeName={node}");
    let names = kube.value(&what, ".items[*].metadata.name")?;
    Ok(names.split_whitespace().map(str::to_owned).collect())
}
