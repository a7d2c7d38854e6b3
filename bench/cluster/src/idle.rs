//! What a node costs while nothing happens: memory, processor time, wake-ups.
//!
//! Everything of a side counts: all processes in the node's control groups, its system pods included.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use bench_harness::{Meter, pids_in_cgroup};

const MINUTE: Duration = Duration::from_secs(60);
/// What a start leaves to be done in the background is not idleness.
const SETTLE: Duration = Duration::from_secs(20);

/// Of one minute.
pub struct Idle {
    /// The proportional set size at its end, in megabytes.
    pub memory_mb: f64,
    /// Of one core.
    pub cpu_percent: f64,
    /// Per second.
    pub wakeups: f64,
}

/// Lets the node of a control group settle, then watches it for a minute.
pub fn minute(group: &str) -> Result<Idle> {
    thread::sleep(SETTLE);
    let meter = Meter::of_cgroup(group);
    let (begun, woken) = (Instant::now(), wakeups(group));
    thread::sleep(MINUTE);
    let (length_s, woken) = (begun.elapsed().as_secs_f64(), wakeups(group).saturating_sub(woken));
    let cpu_percent = meter.cpu_s()? / length_s * 100.0;
    Ok(Idle { memory_mb: meter.memory_mb(), cpu_percent, wakeups: woken as f64 / length_s })
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
