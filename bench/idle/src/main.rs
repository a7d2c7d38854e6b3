//! `bench idle`: what a cluster of one node costs while nothing happens: memory, processor time, wake-ups, over a minute.
//!
//! Everything of a side counts: all processes in the node's control groups, its system pods included.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bench_cluster::lab::{self, SERVER};
use bench_cluster::{Access, Lab, pods};
use bench_harness::{Figure, Meter, Round, RoundArguments, Subject, pids_in_cgroup};

const MINUTE: Duration = Duration::from_secs(60);
/// What a start leaves to be done in the background is not idleness.
const SETTLE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    bench_harness::main(subject, round)
}

fn subject() -> Subject {
    let setting = "One node with control plane, node agent, proxy and DNS, no pods of users; a minute, beginning 20 s \
                   after the node was Ready. All processes of the side summed; memory is PSS.";
    Subject::new("idle", "Idle", "upstream's programs together").setting(setting).figures([
        Figure::lower("idle_memory_mb", "memory", "MB").times(12.0),
        Figure::lower("idle_cpu_percent", "processor time, of one core", "%").times(15.0),
        Figure::lower("idle_wakeups", "wake-ups", "1/s"),
    ])
}

fn round(_asked: &RoundArguments) -> Result<Round> {
    let lab = Lab::find()?;
    lab.start(SERVER)?;
    lab.wait(SERVER)?;
    Access::of_environment()?
        .watch(&format!("/api/v1/nodes?watch=1&fieldSelector=metadata.name%3D{}", lab::name(SERVER)))?
        .wait_for(|event| pods::is_ready(&event.object))
        .with_context(|| format!("there was said:\n{}", lab.log_tail(SERVER)))?;
    thread::sleep(SETTLE);
    let group = lab.cgroup(SERVER);
    let meter = Meter::of_cgroup(&group);
    let (begun, woken) = (Instant::now(), wakeups(&group));
    thread::sleep(MINUTE);
    let (length_s, woken) = (begun.elapsed().as_secs_f64(), wakeups(&group).saturating_sub(woken));
    let mut round = Round::default();
    round.put("idle_cpu_percent", meter.cpu_s()? / length_s * 100.0);
    round.put("idle_memory_mb", meter.memory_mb());
    round.put("idle_wakeups", woken as f64 / length_s);
    round.usage = meter.finish()?;
    Ok(round)
}

/// How often the threads of all processes in a group were put to sleep by themselves, and so woken again.
fn wakeups(group: &str) -> u64 {
    let threads = pids_in_cgroup(group).into_iter().flat_map(|pid| {
        let entries = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().filter_map(Result::ok);
        entries.map(|entry| std::fs::read_to_string(entry.path().join("status")).unwrap_or_default())
    });
    threads.map(|status| voluntary_switches(&status)).sum()
}

fn voluntary_switches(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_voluntary_switches_count() {
        assert_eq!(
            voluntary_switches("Threads:\t9\nvoluntary_ctxt_switches:\t42\nnonvoluntary_ctxt_switches:\t7\n"),
            42
        );
        assert_eq!(voluntary_switches(""), 0);
    }
}
