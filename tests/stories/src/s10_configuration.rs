//! S-10: configuration in all its forms, what changes under a running container and what does not.

use anyhow::{Context, Result, ensure};

use crate::harness::Kube;

const MANIFEST: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {mode: slow, also: slow, COLOR: blue}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {password: "pa ss"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app, tier: back}, annotations: {note: "say \"hi\""}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: app
        image: busybox:1.36
        command: [sleep, "3600"]
        resources: {limits: {memory: 64Mi}}
        envFrom: [{configMapRef: {name: settings}, prefix: CM_}]
        env:
        - {name: MODE, valueFrom: {configMapKeyRef: {name: settings, key: mode}}}
        - {name: PASSWORD, valueFrom: {secretKeyRef: {name: keys, key: password}}}
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: ADDRESS, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory}}}
        - {name: COMBINED, value: "$(MODE)-$(NO_SUCH)-$$(MODE)"}
        volumeMounts:
        - {name: settings, mountPath: /settings}
        - {name: settings, mountPath: /one/mode, subPath: mode}
        - {name: keys, mountPath: /keys}
        - {name: all, mountPath: /all}
      volumes:
      - {name: settings, configMap: {name: settings}}
      - {name: keys, secret: {secretName: keys, defaultMode: 0400}}
      - name: all
        projected:
          sources:
          - configMap: {name: settings, items: [{key: mode, path: deep/mode}]}
          - secret: {name: keys}
          - downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}, {path: note, fieldRef: {fieldPath: "metadata.annotations['note']"}}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: fixed}
immutable: true
data: {mode: fixed}
"#;
/// Both files change in one step or not at all: prints `torn` if it ever sees them differ, `changed` when both are new.
const OBSERVE: &str = "cd /settings; for i in $(seq 100000); do \
    d=$(readlink ..data); a=$(cat $d/mode); b=$(cat $d/also); [ \"$a\" = \"$b\" ] || { echo torn; exit; }; \
    [ \"$a\" = quick ] && { echo changed; exit; }; sleep 0.01; done; echo never";

pub fn story(kube: &Kube) -> Result<()> {
    kube.apply(MANIFEST)?;
    kube.wait("deployment/app", "condition=Available", 60)?;
    let pod = kube.value("pods -l app=app", ".items[0].metadata.name")?;
    as_environment(kube, &pod)?;
    as_files(kube, &pod)?;
    changes_in_place(kube, &pod)?;
    kube.ok("rollout restart deployment/app")?;
    kube.ok("rollout status deployment/app --timeout=60s")?;
    let mode = kube.sh("deployment/app", "echo $MODE; cat /one/mode")?;
    ensure!(mode == "quick\nquick", "after the restart: {mode:?}");
    immutable_refuses(kube)
}

fn as_environment(kube: &Kube, pod: &str) -> Result<()> {
    let address = kube.value(&format!("pod {pod}"), ".status.podIP")?;
    let script = "echo \"$MODE|$PASSWORD|$POD|$ADDRESS|$MEMORY|$COMBINED|$CM_COLOR\"";
    let seen = kube.sh(pod, script)?;
    let expected = format!("slow|pa ss|{pod}|{address}|67108864|slow-$(NO_SUCH)-$(MODE)|blue\n");
    ensure!(seen == expected, "the environment is {seen:?} instead of {expected:?}");
    Ok(())
}

fn as_files(kube: &Kube, pod: &str) -> Result<()> {
    for (file, expected) in [
        ("/settings/mode", "slow"),
        ("/one/mode", "slow"),
        ("/keys/password", "pa ss"),
        ("/all/deep/mode", "slow"),
        ("/all/password", "pa ss"),
        ("/all/note", "say \"hi\""),
    ] {
        let seen = kube.sh(pod, &format!("cat {file}"))?;
        ensure!(seen == expected, "{file} holds {seen:?} instead of {expected:?}");
    }
    let labels = kube.sh(pod, "cat /all/labels")?;
    ensure!(labels.contains("app=\"app\"\n") && labels.contains("tier=\"back\""), "labels: {labels}");
    let mode = kube.sh(pod, "stat -Lc %a /keys/password; touch /settings/x 2>&1 || true")?;
    ensure!(mode.starts_with("400\n") && mode.contains("Read-only file system"), "{mode}");
    Ok(())
}

fn changes_in_place(kube: &Kube, pod: &str) -> Result<()> {
    kube.ok_of(&["patch", "configmap", "settings", "--patch", r#"{"data":{"mode":"quick","also":"quick"}}"#])?;
    let seen = kube.sh(pod, OBSERVE).context("watching the files change")?;
    ensure!(seen == "changed\n", "the files are {seen}");
    let rest = kube.sh(pod, "echo $MODE; cat /one/mode")?;
    ensure!(rest == "slow\nslow", "environment and subPath changed under a running container: {rest:?}");
    Ok(())
}

fn immutable_refuses(kube: &Kube) -> Result<()> {
    let done = kube.run(&["patch", "configmap", "fixed", "--patch", r#"{"data":{"mode":"other"}}"#])?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    let expected = "The ConfigMap \"fixed\" is invalid: data: Forbidden: field is immutable when `immutable` is set";
    ensure!(!done.status.success() && said.contains(expected), "it says {said}");
    Ok(())
}
