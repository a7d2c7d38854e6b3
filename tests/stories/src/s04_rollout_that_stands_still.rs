//! S-04: a rollout that does not fail where it seems to. The new version needs a variable that nobody set: it is not
//! ready and says why, the old pods serve every request, and undoing or mending it ends the matter.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::harness::{Kube, Tally};

const MANIFEST: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: payment}
spec:
  replicas: 3
  selector: {matchLabels: {app: payment}}
  template:
    metadata: {labels: {app: payment}}
    spec:
      terminationGracePeriodSeconds: 10
      containers:
      - name: payment
        image: payment-service:1.0
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: payment}
spec:
  selector: {app: payment}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: client, image: "busybox:1.36", command: [sleep, "3600"]}]
"#;
const HAMMER: &str = "while true; do wget -T 5 -qO- http://payment/pay || echo FAILED; done";

pub fn story(kube: &Kube) -> Result<()> {
    kube.apply(MANIFEST)?;
    rolls_out(kube).context("version 1.0")?;
    kube.wait_ready("client", 60)?;
    let answers = "for i in $(seq 100); do wget -T 1 -qO- http://payment && exit; sleep 0.1; done; exit 1";
    kube.sh("client", answers).context("the Service does not answer")?;
    let hammer = Tally::start(kube.command_of(&["exec", "client", "--", "sh", "-c", HAMMER]))?;

    kube.ok("set image deployment/payment payment=payment-service:1.1")?;
    stands_still_and_tells_why(kube)?;
    let served = answered(&hammer, "1.0")?;
    ensure!(
        served.keys().all(|answer| answer.starts_with("payment-service 1.0 ")),
        "not served by 1.0 alone: {served:?}"
    );

    let history = kube.ok("rollout history deployment/payment")?;
    ensure!(revisions(&history) == ["1", "2"], "history:\n{history}");
    kube.ok("rollout undo deployment/payment")?;
    rolls_out(kube).context("the undoing")?;
    only_version(kube, "1.0")?;
    let history = kube.ok("rollout history deployment/payment")?;
    ensure!(revisions(&history) == ["2", "3"], "history after the undoing:\n{history}");

    kube.ok("set env deployment/payment DB_DSN=db.example")?;
    rolls_out(kube).context("the variable")?;
    kube.ok("set image deployment/payment payment=payment-service:1.1")?;
    rolls_out(kube).context("1.1 with its variable")?;
    only_version(kube, "1.1")?;
    answered(&hammer, "1.1")?;
    kube.ok("rollout undo deployment/payment --to-revision=3")?;
    rolls_out(kube).context("undoing to revision 3")?;
    only_version(kube, "1.0")?;

    answered(&hammer, "1.0").map(drop)
}

/// What the client heard since it was last asked: no failure, and something from this version.
fn answered(hammer: &Tally, version: &str) -> Result<BTreeMap<String, u64>> {
    let wanted = format!("payment-service {version} ");
    let served = hammer.since(20, |answer| answer.starts_with(&wanted)).context("the hammering client")?;
    ensure!(!served.contains_key("FAILED"), "requests failed while versions changed: {served:?}");
    Ok(served)
}

fn rolls_out(kube: &Kube) -> Result<()> {
    let said = kube.ok("rollout status deployment/payment --timeout=120s")?;
    ensure!(said.contains("deployment \"payment\" successfully rolled out"), "rollout status says {said}");
    Ok(())
}

fn stands_still_and_tells_why(kube: &Kube) -> Result<()> {
    let said = kube.refused("rollout status deployment/payment --timeout=15s")?;
    ensure!(said.contains("timed out waiting for the condition"), "rollout status says {said}");
    let pods = kube.get("pods -l app=payment")?;
    let new = pods["items"].as_array().and_then(|pods| {
        pods.iter().find(|pod| pod["spec"]["containers"][0]["image"] == "payment-service:1.1")?["metadata"]["name"]
            .as_str()
    });
    let new = new.context("there is no pod of version 1.1")?;
    kube.event(new, "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503", 30)?;
    let described = kube.ok(&format!("describe pod {new}"))?;
    ensure!(
        described.contains("Readiness probe failed: HTTP probe failed with statuscode: 503"),
        "describe:\n{described}"
    );
    let log = kube.ok(&format!("logs {new}"))?;
    ensure!(log.contains("DB_DSN is empty"), "logs do not tell the cause: {log}");
    let old = kube.value("deployment payment", ".status.availableReplicas")?;
    ensure!(old == "3", "{old} old pods are available");
    Ok(())
}

fn only_version(kube: &Kube, version: &str) -> Result<()> {
    let image = kube.value("deployment payment", ".spec.template.spec.containers[0].image")?;
    ensure!(image == format!("payment-service:{version}"), "the deployment asks for {image}");
    let selector = kube.value("deployment payment", ".status.readyReplicas")?;
    ensure!(selector == "3", "{selector} replicas are ready");
    Ok(())
}

/// The first column of `rollout history`.
fn revisions(history: &str) -> Vec<&str> {
    let first = history.lines().filter_map(|line| line.split_whitespace().next());
    first.filter(|word| word.bytes().all(|byte| byte.is_ascii_digit())).collect()
}
