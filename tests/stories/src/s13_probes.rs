//! S-13: startup, liveness and readiness, by command, HTTP and TCP: what each failure leads to and when.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::Kube;

const MANIFEST: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: startup}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: app
    image: busybox:1.36
    command: [sleep, "3600"]
    startupProbe: {exec: {command: [cat, /tmp/started]}, periodSeconds: 1, failureThreshold: 300}
    livenessProbe: {exec: {command: [cat, /tmp/alive]}, periodSeconds: 1, failureThreshold: 2}
---
apiVersion: v1
kind: Pod
metadata: {name: liveness}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: nginx:1.27
    livenessProbe: {httpGet: {path: /index.html, port: 80}, periodSeconds: 1, failureThreshold: 3}
---
apiVersion: v1
kind: Pod
metadata: {name: readiness, labels: {app: readiness}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: app
    image: busybox:1.36
    command: [sleep, "3600"]
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, successThreshold: 2, failureThreshold: 2}
---
apiVersion: v1
kind: Service
metadata: {name: readiness}
spec: {selector: {app: readiness}, ports: [{port: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: grpc}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: app
    image: nginx:1.27
    livenessProbe: {grpc: {port: 80}, periodSeconds: 1, failureThreshold: 1}
"#;

pub fn story(kube: &Kube) -> Result<()> {
    kube.apply(MANIFEST)?;
    startup(kube).context("startup")?;
    liveness(kube).context("liveness")?;
    readiness(kube).context("readiness")?;
    let message = kube.event("grpc", "Unhealthy", "Liveness probe failed: ", 60)?;
    ensure!(!message.contains("HTTP probe"), "a gRPC probe says {message}");
    kube.until("pod grpc", 60, |pod| container(pod)["restartCount"].as_i64() >= Some(1)).map(drop)
}

/// While the startup probe fails, nothing else is asked; once it succeeded, liveness counts.
fn startup(kube: &Kube) -> Result<()> {
    kube.until("pod startup", 60, |pod| container(pod)["state"]["running"].is_object())?;
    kube.event("startup", "Unhealthy", "Startup probe failed: cat: can't open '/tmp/started'", 30)?;
    let pod = kube.get("pod startup")?;
    ensure!(container(&pod)["started"] == false && container(&pod)["ready"] == false, "{}", container(&pod));
    kube.sh("startup", "touch /tmp/alive; touch /tmp/started")?;
    kube.until("pod startup", 30, |pod| container(pod)["started"] == true)?;
    let pod = kube.get("pod startup")?;
    ensure!(container(&pod)["restartCount"] == 0, "restarted although only the startup probe failed");
    kube.sh("startup", "rm /tmp/alive")?;
    kube.event("startup", "Killing", "Container app failed liveness probe, will be restarted", 30)?;
    kube.until("pod startup", 30, |pod| container(pod)["restartCount"] == 1 && container(pod)["started"] == false)
        .map(drop)
}

fn liveness(kube: &Kube) -> Result<()> {
    kube.wait_ready("liveness", 60)?;
    kube.sh("liveness", "rm /usr/share/nginx/html/index.html")?;
    kube.event("liveness", "Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 404", 30)?;
    kube.event("liveness", "Killing", "Container app failed liveness probe, will be restarted", 30)?;
    // the container starts from its image again, so the page is back
    kube.until("pod liveness", 60, |pod| container(pod)["restartCount"] == 1 && container(pod)["ready"] == true)?;
    let events = kube.get("events --field-selector involvedObject.name=liveness,reason=Unhealthy")?;
    let failures: i64 =
        events["items"].as_array().into_iter().flatten().filter_map(|event| event["count"].as_i64()).sum();
    ensure!(failures == 3, "the third failure restarts, but {failures} were counted: {}", events["items"]);
    Ok(())
}

fn readiness(kube: &Kube) -> Result<()> {
    let slices = "endpointslices -l kubernetes.io/service-name=readiness";
    let ready = |slice: &Value, wanted: bool| slice["endpoints"][0]["conditions"]["ready"] == wanted;
    kube.until("pod readiness", 60, |pod| container(pod)["state"]["running"].is_object())?;
    kube.event("readiness", "Unhealthy", "Readiness probe failed: dial tcp ", 30)?;
    for _ in 0..2 {
        kube.sh("readiness", "httpd -p 8080")?;
        kube.wait_ready("readiness", 30)?;
        kube.until(slices, 30, |slice| ready(slice, true))?;
        kube.sh("readiness", "kill $(pidof httpd)")?;
        kube.wait("pod/readiness", "condition=Ready=false", 30)?;
        kube.until(slices, 30, |slice| ready(slice, false))?;
    }
    let pod = kube.get("pod readiness")?;
    ensure!(container(&pod)["restartCount"] == 0, "a readiness probe restarted its container");
    Ok(())
}

fn container(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}
