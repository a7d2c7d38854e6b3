//! S-07: a pod whose configuration is missing waits and says what it misses; once it is there, the pod starts with
//! nobody's help. What is optional is not waited for.

use anyhow::{Context, Result, ensure};

use crate::harness::Kube;

fn pod(name: &str, env: &str) -> String {
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
    command: [sh, -c, 'echo \"mode is <$MODE>\"; sleep 3600']
    {env}
---"
    )
}

fn from(kind: &str, name: &str, extra: &str) -> String {
    format!("env: [{{name: MODE, valueFrom: {{{kind}KeyRef: {{name: {name}, key: mode{extra}}}}}}}]")
}

pub fn story(kube: &Kube) -> Result<()> {
    kube.ok("create configmap no-key --from-literal=other=1")?;
    let manifest = [
        pod("map", &from("configMap", "absent", "")),
        pod("key", &from("configMap", "no-key", "")),
        pod("secret", &from("secret", "absent", "")),
        pod("all", "envFrom: [{secretRef: {name: absent-too}}]"),
        pod("optional", &from("configMap", "absent", ", optional: true")),
    ];
    kube.apply(&manifest.concat())?;
    let key = format!("couldn't find key mode in ConfigMap {}/no-key", kube.namespace());
    for (name, message) in [
        ("map", "configmap \"absent\" not found"),
        ("key", &key),
        ("secret", "secret \"absent\" not found"),
        ("all", "secret \"absent-too\" not found"),
    ] {
        misses(kube, name, message).with_context(|| format!("pod {name}"))?;
    }
    kube.wait_ready("optional", 60)?;
    ensure!(kube.ok("logs optional")? == "mode is <>\n", "an optional value is not empty");

    kube.ok("create configmap absent --from-literal=mode=fast")?;
    kube.ok("create secret generic absent --from-literal=mode=quiet")?;
    kube.ok("create secret generic absent-too --from-literal=MODE=all")?;
    kube.ok_of(&["patch", "configmap", "no-key", "--patch", r#"{"data":{"mode":"late"}}"#])?;
    for (name, mode) in [("map", "fast"), ("key", "late"), ("secret", "quiet"), ("all", "all")] {
        kube.wait_ready(name, 120)?;
        let log = kube.ok(&format!("logs {name}"))?;
        ensure!(log == format!("mode is <{mode}>\n"), "pod {name} says {log:?}");
    }
    Ok(())
}

fn misses(kube: &Kube, name: &str, message: &str) -> Result<()> {
    let pod = kube.until(&format!("pod {name}"), 60, |pod| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    })?;
    let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    ensure!(waiting["message"] == message, "it says {}", waiting["message"]);
    kube.event(name, "Failed", &format!("Error: {message}"), 30)?;
    let row = kube.ok(&format!("get pod {name} --no-headers"))?;
    ensure!(row.contains("CreateContainerConfigError"), "kubectl get pod shows {row}");
    Ok(())
}
