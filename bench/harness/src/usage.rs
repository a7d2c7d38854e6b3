//! What a side cost: processor seconds and the most memory, of processes named one by one or of a whole control group.
//!
//! Memory is the proportional set size (pages that processes share count once), looked at several times a second by a
//! thread of the measuring process. Where processes are named one by one, the kernel's own high-water mark is kept too.

use std::collections::BTreeMap;
use std::fs;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize};

/// How far apart looks at memory are. Each costs the watched processes a walk over their pages, the same on both sides.
const LOOK_MS: u64 = 500;

/// What the processes of one side used in a round. Megabytes are 10^6 bytes.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default)]
pub struct Usage {
    pub cpu_s: f64,
    /// The most that was seen at once (PSS).
    pub memory_peak_mb: f64,
    /// The sum of the processes' own high-water marks (RSS); zero for control groups.
    pub resident_peak_mb: f64,
}

enum Watched {
    Pids(Vec<i32>),
    /// Contained in the path of every control group that counts.
    Group(String),
}

impl Watched {
    fn pids(&self) -> Vec<i32> {
        match self {
            Watched::Pids(pids) => pids.clone(),
            Watched::Group(part) => pids_in_cgroup(part),
        }
    }
}

/// Measures from its making to [`Meter::finish`]; may be asked in between.
pub struct Meter {
    stop: Sender<()>,
    thread: JoinHandle<Seen>,
    watched: Watched,
    before: BTreeMap<i32, u64>,
}

impl Meter {
    pub fn of_pids(pids: impl IntoIterator<Item = i32>) -> Self {
        let pids: Vec<i32> = pids.into_iter().collect();
        Self::start(Watched::Pids(pids.clone()), Watched::Pids(pids))
    }

    /// Of every process in a control group whose path contains `part`, those that come and go included.
    pub fn of_cgroup(part: &str) -> Self {
        Self::start(Watched::Group(part.into()), Watched::Group(part.into()))
    }

    fn start(watched: Watched, looked_at: Watched) -> Self {
        let before = ticks(&watched.pids());
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            seen.look(&looked_at);
            while stopped.recv_timeout(Duration::from_millis(LOOK_MS)) == Err(RecvTimeoutError::Timeout) {
                seen.look(&looked_at);
            }
            seen.look(&looked_at);
            seen
        });
        Self { stop, thread, watched, before }
    }

    /// Processor seconds since the meter was made. A process that has ended counts through its parent.
    pub fn cpu_s(&self) -> Result<f64> {
        let used = used(&self.before, &ticks(&self.watched.pids()));
        Ok(used as f64 / ticks_per_s()?)
    }

    /// Memory right now (PSS), in megabytes.
    pub fn memory_mb(&self) -> f64 {
        pss_mb(&self.watched.pids())
    }

    pub fn finish(self) -> Result<Usage> {
        let resident_peak_mb = match &self.watched {
            Watched::Pids(pids) => pids.iter().map(|pid| resident_peak_kib(*pid)).sum::<u64>() as f64 * 1024.0 / 1e6,
            Watched::Group(_) => 0.0,
        };
        // gone already when its thread failed, which joining tells
        let _ = self.stop.send(());
        let seen = self.thread.join().map_err(|_panic| anyhow::anyhow!("watching memory failed"))?;
        Ok(Usage {
            cpu_s: used(&self.before, &seen.ticks) as f64 / ticks_per_s()?,
            memory_peak_mb: seen.memory_peak_mb,
            resident_peak_mb,
        })
    }
}

#[derive(Default)]
struct Seen {
    memory_peak_mb: f64,
    /// The last that was seen of each process, ended ones too.
    ticks: BTreeMap<i32, u64>,
}

impl Seen {
    fn look(&mut self, watched: &Watched) {
        let pids = watched.pids();
        self.memory_peak_mb = self.memory_peak_mb.max(pss_mb(&pids));
        self.ticks.extend(ticks(&pids));
    }
}

fn used(before: &BTreeMap<i32, u64>, after: &BTreeMap<i32, u64>) -> u64 {
    after.iter().map(|(pid, ticks)| ticks.saturating_sub(before.get(pid).copied().unwrap_or(0))).sum()
}

fn ticks(pids: &[i32]) -> BTreeMap<i32, u64> {
    let of = |pid: &i32| Some((*pid, used_ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)));
    pids.iter().filter_map(of).collect()
}

fn ticks_per_s() -> Result<f64> {
    Ok(sysconf(SysconfVar::CLK_TCK)?.context("the kernel has no clock ticks")? as f64)
}

/// User and system time of a process and of its children that ended.
fn used_ticks(stat: &str) -> u64 {
    // the name, in parentheses, may hold anything; the fourteenth field is the twelfth after it
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum()
}

fn pss_mb(pids: &[i32]) -> f64 {
    // one that ended in the meantime needs nothing
    let rollup = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    pids.iter().map(|pid| kib(&rollup(pid), "Pss:")).sum::<u64>() as f64 * 1024.0 / 1e6
}

fn resident_peak_kib(pid: i32) -> u64 {
    kib(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default(), "VmHWM:")
}

/// The number behind `key` at the start of a line, in KiB.
fn kib(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// Every process that is in a control group whose path contains `part`.
pub fn pids_in_cgroup(part: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_in = |pid: &i32| {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        groups.lines().any(|line| line.contains(part))
    };
    pids.filter(is_in).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 100 0 0 0 7 5 2 1 20 0 9 0 1000 0 0";
        assert_eq!(used_ticks(stat), 15);
        assert_eq!(used_ticks(""), 0);
    }

    #[test]
    fn memory_is_told_from_its_parts() {
        let rollup = "0-1 ---p [rollup]\nRss:  900 kB\nPss:     512 kB\nPss_Anon:  99 kB\n";
        assert_eq!(kib(rollup, "Pss:"), 512);
        assert_eq!(kib("", "Pss:"), 0);
    }

    #[test]
    fn a_process_that_came_later_counts_whole() {
        let (before, after) = (BTreeMap::from([(1, 10)]), BTreeMap::from([(1, 15), (2, 7)]));
        assert_eq!(used(&before, &after), 12);
    }

    #[test]
    fn this_very_process_uses_memory_and_is_seen() {
        let meter = Meter::of_pids([i32::try_from(std::process::id()).unwrap()]);
        assert!(meter.memory_mb() > 0.1);
        let usage = meter.finish().unwrap();
        assert!(usage.memory_peak_mb > 0.1 && usage.resident_peak_mb > 0.1, "{usage:?}");
    }
}
