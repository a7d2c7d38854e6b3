//! S-14: the three classes of service, and what the kernel was told about each, read from the kernel's own files.

use anyhow::{Context, Result, ensure};

use crate::harness::Kube;

fn pod(name: &str, resources: &str, script: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{{name: app, image: 'busybox:1.36', command: [sh, -c, '{script}'], resources: {resources}}}]
---"
    )
}

/// Memory limit, CPU quota and period, and CPU shares or weight, in either version's files.
const LIMITS: &str = "cd /sys/fs/cgroup; if [ -e memory.max ]; then cat memory.max cpu.max cpu.weight; else \
    cat memory/memory.limit_in_bytes; echo $(cat cpu/cpu.cfs_quota_us) $(cat cpu/cpu.cfs_period_us); echo shares $(cat cpu/cpu.shares); fi";
const THROTTLED: &str =
    "cd /sys/fs/cgroup; cat cpu.stat cpu/cpu.stat 2>/dev/null | grep nr_throttled | cut -d ' ' -f 2";

pub fn story(kube: &Kube) -> Result<()> {
    let sleep = "sleep 3600";
    let busy = "while true; do :; done";
    kube.apply(
        &(pod("guaranteed", "{limits: {cpu: 200m, memory: 64Mi}}", sleep)
            + &pod("burstable", "{requests: {cpu: 100m, memory: 32Mi}, limits: {memory: 128Mi}}", sleep)
            + &pod("besteffort", "{}", sleep)
            + &pod("throttled", "{limits: {cpu: 50m, memory: 32Mi}}", busy)),
    )?;
    for (name, class) in [("guaranteed", "Guaranteed"), ("burstable", "Burstable"), ("besteffort", "BestEffort")] {
        kube.wait_ready(name, 60)?;
        let seen = kube.value(&format!("pod {name}"), ".status.qosClass")?;
        ensure!(seen == class, "{name} is {seen}");
    }
    limits(kube, "guaranteed", "67108864", "20000 100000", 204)?;
    limits(kube, "burstable", "134217728", "max", 102)?;
    limits(kube, "besteffort", "max", "max", 2)?;
    scores(kube)?;
    throttling(kube)
}

fn limits(kube: &Kube, name: &str, memory: &str, quota: &str, shares: u64) -> Result<()> {
    let seen = kube.sh(name, LIMITS)?;
    let lines: Vec<&str> = seen.lines().collect();
    ensure!(lines.len() == 3, "{name}: the kernel's files say {seen:?}");
    let unlimited = |text: &str| text.starts_with("max") || text.starts_with("-1") || text.len() > 15;
    let memory_is_right = if memory == "max" { unlimited(lines[0]) } else { lines[0] == memory };
    ensure!(memory_is_right, "{name}: memory is limited to {}, not {memory}", lines[0]);
    let quota_is_right = if quota == "max" { unlimited(lines[1]) } else { lines[1] == quota };
    ensure!(quota_is_right, "{name}: the quota is {}, not {quota}", lines[1]);
    match lines[2].strip_prefix("shares ") {
        Some(seen) => ensure!(seen == shares.to_string(), "{name}: {seen} shares, not {shares}"),
        None => {
            let weight: u64 = lines[2].trim().parse()?;
            ensure!(weights_of(shares).contains(&weight), "{name}: weight {weight} for {shares} shares");
        }
    }
    Ok(())
}

/// The weight that runtimes make of shares: the old straight line, and the curve that newer ones use.
fn weights_of(shares: u64) -> [u64; 2] {
    let straight = 1 + (shares - 2) * 9999 / 262_142;
    let log = (shares as f64).log2();
    let curve = 10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil();
    [straight, curve as u64]
}

/// A process's score cannot be set below its parent's without a capability that some machines lack, so the order is
/// asserted everywhere, and the numbers where they can be set.
fn scores(kube: &Kube) -> Result<()> {
    let score = |name: &str| -> Result<i64> { Ok(kube.sh(name, "cat /proc/1/oom_score_adj")?.trim().parse()?) };
    let (guaranteed, burstable, best) = (score("guaranteed")?, score("burstable")?, score("besteffort")?);
    ensure!(best == 1000, "BestEffort has score {best}");
    ensure!((3..=999).contains(&burstable), "Burstable has score {burstable}");
    ensure!(guaranteed == -997 || guaranteed == 0, "Guaranteed has score {guaranteed}");
    Ok(())
}

fn throttling(kube: &Kube) -> Result<()> {
    kube.wait_ready("throttled", 60)?;
    let wait = format!(
        "for i in $(seq 200); do n=$({THROTTLED}); [ ${{n:-0}} -gt 5 ] && echo yes && exit; sleep 0.1; done; exit 1"
    );
    kube.sh("throttled", &wait).context("the kernel does not throttle")?;
    let node = kube.value("pod throttled", ".spec.nodeName")?;
    let metrics = kube.ok(&format!("get --raw /api/v1/nodes/{node}/proxy/metrics/cadvisor"))?;
    let own = format!("namespace=\"{}\"", kube.namespace());
    let shown = metrics.lines().any(|line| {
        let series = line.starts_with("container_cpu_cfs_throttled_periods_total{");
        series && line.contains(&own) && line.contains("pod=\"throttled\"")
    });
    ensure!(shown, "container_cpu_cfs_throttled_periods_total is not among the node's metrics");
    Ok(())
}
