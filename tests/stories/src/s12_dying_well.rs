//! S-12: SIGTERM, the grace period, SIGKILL; and nobody is sent to a pod that is going.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::{Follow, Kube};

fn pod(name: &str, grace_s: u32, script: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: {grace_s}
  containers:
  - name: app
    image: busybox:1.36
    command: [sh, -c, '{script}']
---"
    )
}

const POLITE: &str = "trap \"echo got TERM; exit 0\" TERM; echo ready; while true; do sleep 0.1; done";
const STUBBORN: &str = "trap \"echo ignoring TERM\" TERM; echo ready; while true; do sleep 0.1; done";

pub fn story(kube: &Kube) -> Result<()> {
    let service = "
apiVersion: v1
kind: Service
metadata: {name: serving}
spec: {selector: {app: serving}, ports: [{port: 80}]}
---";
    let manifest = [
        pod("polite", 60, POLITE),
        pod("stubborn", 3, STUBBORN),
        pod("now", 600, STUBBORN),
        pod("forced", 600, STUBBORN),
        // process 1 without a handler of its own does not even hear SIGTERM
        pod("plain", 2, "exec sleep 3600"),
        pod("serving", 60, "trap \"sleep 3; exit 0\" TERM; while true; do sleep 0.1; done"),
        service.to_owned(),
    ];
    kube.apply(&manifest.concat())?;
    for name in ["polite", "stubborn", "now", "forced", "plain", "serving"] {
        kube.wait_ready(name, 60)?;
    }
    let said = Follow::start(kube.command("logs polite --follow"))?;
    ends(kube, "polite", "", 0)?;
    said.until(10, |line| line == "got TERM").context("the polite one's log")?;
    ends(kube, "stubborn", "", 137)?;
    ends(kube, "plain", "", 137)?;
    ends(kube, "now", "--now", 137)?;
    forced(kube)?;
    leaves_its_service_first(kube)
}

/// Deletes the pod and sees it end with `code` before it is gone.
fn ends(kube: &Kube, name: &str, flags: &str, code: i64) -> Result<()> {
    let terminated = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"].as_i64();
    let last = std::thread::scope(|scope| {
        let seen = scope.spawn(|| kube.until(&format!("pod {name}"), 60, |pod| terminated(pod).is_some()));
        kube.ok(&format!("delete pod {name} --wait=false {flags}"))?;
        seen.join().map_err(|_| anyhow::anyhow!("the watch panicked"))?
    });
    let last = last.with_context(|| format!("{name} was not seen to end"))?;
    ensure!(terminated(&last) == Some(code), "{name} ended with {:?}, not {code}", terminated(&last));
    kube.wait(&format!("pod/{name}"), "delete", 60)
}

fn forced(kube: &Kube) -> Result<()> {
    let done = kube.run(&["delete", "pod", "forced", "--force", "--grace-period=0", "--timeout=20s"])?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    ensure!(
        done.status.success() && said.contains("Immediate deletion does not wait for confirmation"),
        "delete --force says {said}"
    );
    let gone = kube.refused("get pod forced")?;
    ensure!(gone.contains("Error from server (NotFound): pods \"forced\" not found"), "get says {gone}");
    Ok(())
}

fn leaves_its_service_first(kube: &Kube) -> Result<()> {
    let slices = "endpointslices -l kubernetes.io/service-name=serving";
    kube.until(slices, 30, |slice| slice["endpoints"][0]["conditions"]["ready"] == true)?;
    kube.ok("delete pod serving --wait=false")?;
    let slice = kube.until(slices, 30, |slice| slice["endpoints"][0]["conditions"]["ready"] == false)?;
    let conditions = &slice["endpoints"][0]["conditions"];
    ensure!(
        conditions["terminating"] == true && conditions["serving"] == true,
        "a pod that is going is shown as {conditions}"
    );
    kube.wait("pod/serving", "delete", 60)?;
    kube.until(slices, 30, |slice| slice["endpoints"].as_array().is_none_or(Vec::is_empty)).map(drop)
}
