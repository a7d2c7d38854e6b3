//! S-03: three replicas behind a Service heal from the loss of a pod and of a process, and the Service answers
//! throughout.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use crate::harness::{Follow, Kube};

const MANIFEST: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: nginx
        image: nginx:1.27
        command: [sh, -c, "cd /usr/share/nginx/html && hostname > index.html && touch ready && exec nginx -g 'daemon off;'"]
        ports: [{containerPort: 80}]
        readinessProbe:
          httpGet: {path: /ready, port: 80}
          periodSeconds: 1
          timeoutSeconds: 5
          failureThreshold: 1
        lifecycle: {preStop: {exec: {command: [sleep, "2"]}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: client, image: "busybox:1.36", command: [sleep, "3600"]}]
"#;
/// One attempt and two more, a second apart as clients do: connections to a process that just died are refused until
/// the node has heard of its end, but the Service as a whole goes on.
const ASK: &str =
    "for try in 1 2 3; do wget -T 5 -qO- http://$where && break; [ $try = 3 ] && echo FAILED; sleep 1; done";

pub fn story(kube: &Kube) -> Result<()> {
    kube.apply(MANIFEST)?;
    kube.wait("deployment/web", "condition=Available", 90)?;
    kube.wait_ready("client", 60)?;
    let pods = pods(kube)?;
    ensure!(pods.len() == 3, "pods: {pods:?}");
    let address = kube.value("service web", ".spec.clusterIP")?;
    answers_from_all(kube, &address, &pods).context("on its address")?;
    answers_from_all(kube, "web", &pods).context("by its short name")?;
    answers_from_all(kube, &format!("web.{}.svc.cluster.local", kube.namespace()), &pods)
        .context("by its full name")?;

    let script = format!("where=web; while true; do {ASK}; sleep 0.1; done");
    let steady = Follow::start(kube.command_of(&["exec", "client", "--", "sh", "-c", &script]))?;
    steady.line(20).context("the steady client")?;
    a_deleted_pod_is_replaced(kube, &pods)?;
    a_killed_process_is_restarted(kube)?;
    let answers = steady.so_far();
    ensure!(answers.len() > 20, "the steady client got {} answers only", answers.len());
    ensure!(!answers.iter().any(|answer| answer == "FAILED"), "the Service did not answer throughout: {answers:?}");
    drop(steady);
    a_pod_that_is_not_ready_gets_nothing(kube, &address)
}

fn pods(kube: &Kube) -> Result<BTreeSet<String>> {
    let names = kube.value("pods -l app=web", ".items[*].metadata.name")?;
    Ok(names.split_whitespace().map(str::to_owned).collect())
}

/// Asks often enough that a fair spread leaves nobody out (three of them: 1 in 10^10 by bad luck).
fn ask(kube: &Kube, address: &str) -> Result<BTreeSet<String>> {
    let script = format!("where={address}; for i in $(seq 60); do {ASK}; done");
    Ok(kube.sh("client", &script)?.lines().map(str::to_owned).collect())
}

fn answers_from_all(kube: &Kube, address: &str, pods: &BTreeSet<String>) -> Result<()> {
    // rules and names follow a ready pod with a little delay
    let script = format!("for i in $(seq 100); do wget -T 1 -qO- http://{address} && exit; sleep 0.1; done; exit 1");
    kube.sh("client", &script).context("no answer at all")?;
    let answered = ask(kube, address)?;
    ensure!(&answered == pods, "answers came from {answered:?} instead of {pods:?}");
    Ok(())
}

fn a_deleted_pod_is_replaced(kube: &Kube, pods: &BTreeSet<String>) -> Result<()> {
    let gone = pods.first().context("there is a pod")?;
    kube.ok(&format!("delete pod {gone} --wait=false"))?;
    kube.wait(&format!("pod/{gone}"), "delete", 60)?;
    kube.wait("deployment/web", "jsonpath={.status.availableReplicas}=3", 60)?;
    let now = self::pods(kube)?;
    ensure!(now.len() == 3 && !now.contains(gone), "pods after the deletion of {gone}: {now:?}");
    Ok(())
}

fn a_killed_process_is_restarted(kube: &Kube) -> Result<()> {
    let pod = pods(kube)?.pop_last().context("there is a pod")?;
    let uid = kube.value(&format!("pod {pod}"), ".metadata.uid")?;
    // Whether it worked is seen below: the shell may die with process 1 before it can say so.
    let _ = kube.sh(&pod, "kill -QUIT 1");
    let restarted = kube.until(&format!("pod {pod}"), 60, |pod| {
        let container = &pod["status"]["containerStatuses"][0];
        container["restartCount"] == 1 && container["ready"] == true
    })?;
    ensure!(restarted["metadata"]["uid"] == uid.as_str(), "the pod was replaced instead of restarted in place");
    Ok(())
}

fn a_pod_that_is_not_ready_gets_nothing(kube: &Kube, address: &str) -> Result<()> {
    let pod = pods(kube)?.pop_first().context("there is a pod")?;
    kube.sh(&pod, "rm /usr/share/nginx/html/ready")?;
    kube.wait(&format!("pod/{pod}"), "condition=Ready=false", 30)?;
    let ready = |slice: &serde_json::Value, wanted: bool| {
        let endpoints = slice["endpoints"].as_array().cloned().unwrap_or_default();
        endpoints
            .iter()
            .any(|endpoint| endpoint["targetRef"]["name"] == pod.as_str() && endpoint["conditions"]["ready"] == wanted)
    };
    let slices = "endpointslices -l kubernetes.io/service-name=web";
    kube.until(slices, 30, |slice| ready(slice, false))?;
    // the node learns of it a moment later
    let settle = format!(
        "for i in $(seq 50); do s=; for j in 1 2 3 4 5 6 7 8 9 10; do s=$s$(wget -T 2 -qO- http://{address}); done; echo $s | grep -q {pod} || exit 0; done; exit 1"
    );
    kube.sh("client", &settle).context("the pod that is not ready goes on being asked")?;
    let answered = ask(kube, address)?;
    ensure!(answered.len() == 2 && !answered.contains(&pod), "{pod} is not ready, yet answers came from {answered:?}");
    kube.sh(&pod, "touch /usr/share/nginx/html/ready")?;
    kube.wait_ready(&pod, 30)?;
    kube.until(slices, 30, |slice| ready(slice, true)).map(drop)
}
