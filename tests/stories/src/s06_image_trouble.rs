//! S-06: images that are not there, that ask who is there, and how often one is pulled.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::Kube;

fn pod(name: &str, image: &str, more: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  {more}
  containers: [{{name: app, image: '{image}', command: [sleep, '3600']}}]
---"
    )
}

fn waiting(pod: &Value) -> &str {
    pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].as_str().unwrap_or_default()
}

pub fn story(kube: &Kube) -> Result<()> {
    kube.apply(&(pod("mistyped", "busybox:1.63", "") + &pod("refused", "private.lab/library/busybox:1.36", "")))?;
    a_mistyped_tag(kube).context("a mistyped tag")?;
    a_private_registry(kube).context("a private registry")?;
    pull_policies(kube).context("pull policies")
}

fn a_mistyped_tag(kube: &Kube) -> Result<()> {
    kube.until("pod mistyped", 60, |pod| waiting(pod) == "ErrImagePull")?;
    kube.event("mistyped", "Pulling", "Pulling image \"busybox:1.63\"", 30)?;
    let said = kube.event("mistyped", "Failed", "Failed to pull image \"busybox:1.63\"", 30)?;
    ensure!(
        said.contains("manifest unknown") || said.contains("not found"),
        "the registry's words are missing: {said}"
    );
    kube.event("mistyped", "Failed", "Error: ErrImagePull", 30)?;
    let pod = kube.until("pod mistyped", 60, |pod| waiting(pod) == "ImagePullBackOff")?;
    let message = pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap_or_default();
    ensure!(message.starts_with("Back-off pulling image \"busybox:1.63\""), "it says {message}");
    kube.event("mistyped", "BackOff", "Back-off pulling image \"busybox:1.63\"", 30)?;
    let row = kube.ok("get pod mistyped --no-headers")?;
    ensure!(row.contains("ImagePullBackOff") || row.contains("ErrImagePull"), "kubectl get pod shows {row}");
    kube.ok("set image pod/mistyped app=busybox:1.36")?;
    kube.wait_ready("mistyped", 120).context("after the tag was mended")
}

fn a_private_registry(kube: &Kube) -> Result<()> {
    kube.until("pod refused", 60, |pod| matches!(waiting(pod), "ErrImagePull" | "ImagePullBackOff"))?;
    let said = kube.event("refused", "Failed", "Failed to pull image", 30)?.to_lowercase();
    ensure!(said.contains("unauthorized") || said.contains("authorization failed"), "it says {said}");
    kube.ok("create secret docker-registry key --docker-server=private.lab --docker-username=captain --docker-password=lighthouse")?;
    kube.apply(&pod("admitted", "private.lab/library/busybox:1.36", "imagePullSecrets: [{name: key}]"))?;
    kube.wait_ready("admitted", 60)?;
    kube.event("admitted", "Pulled", "Successfully pulled image \"private.lab/library/busybox:1.36\"", 30).map(drop)
}

fn pull_policies(kube: &Kube) -> Result<()> {
    let with_policy = |name: &str, image: &str, policy: &str| {
        pod(name, image, "").replace("command:", &format!("imagePullPolicy: {policy}, command:"))
    };
    kube.apply(
        &(with_policy("never", "redis:0.1", "Never")
            + &with_policy("always", "busybox:1.36", "Always")
            + &with_policy("present", "busybox:1.36", "IfNotPresent")),
    )?;
    kube.until("pod never", 60, |pod| waiting(pod) == "ErrImageNeverPull")?;
    kube.event(
        "never",
        "ErrImageNeverPull",
        "Container image \"redis:0.1\" is not present with pull policy of Never",
        30,
    )?;
    kube.event("present", "Pulled", "Container image \"busybox:1.36\" already present on machine", 60)?;
    kube.event("always", "Pulled", "Successfully pulled image \"busybox:1.36\"", 60).map(drop)
}
