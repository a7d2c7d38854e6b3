//! What our processes on the node cost: memory (PSS, so that shared pages count once) and processor time.
//!
//! Ours is everything in the node's control groups except process 1, which is the lab's. Containers' own processes are
//! not told apart: with a program like `pause` in them they hardly count.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

use crate::lab::Lab;

/// Proportional set size of everything of ours, in megabytes (10^6 bytes).
pub fn pss_mb(lab: &Lab) -> Result<f64> {
    let mut kib = 0;
    for pid in processes(lab)? {
        // one that ended in the meantime needs nothing
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        kib += pss_kib(&rollup);
    }
    Ok((kib * 1024) as f64 / 1e6)
}

/// Per cent of one processor that everything of ours uses over `length`.
pub fn cpu_percent(lab: &Lab, length: Duration) -> Result<f64> {
    let (begun, before) = (Instant::now(), ticks(lab)?);
    thread::sleep(length);
    let used = ticks(lab)?.saturating_sub(before);
    let ticks_per_s = sysconf(SysconfVar::CLK_TCK)?.context("the kernel has no clock ticks")?;
    Ok(used as f64 / ticks_per_s as f64 / begun.elapsed().as_secs_f64() * 100.0)
}

fn ticks(lab: &Lab) -> Result<u64> {
    let stats = processes(lab)?.into_iter().map(|pid| fs::read_to_string(format!("/proc/{pid}/stat")));
    Ok(stats.map(|stat| used_ticks(&stat.unwrap_or_default())).sum())
}

/// User and system time, of ended children too.
fn used_ticks(stat: &str) -> u64 {
    // the name, in parentheses, may hold anything; the fourteenth field is the twelfth after it
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum()
}

fn pss_kib(rollup: &str) -> u64 {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse().ok()).unwrap_or(0)
}

fn processes(lab: &Lab) -> Result<Vec<i32>> {
    let init = lab.init_pid()?;
    let entries = fs::read_dir("/proc").context("listing processes")?.filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_ours = |pid: &i32| {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        *pid != init && groups.lines().any(|line| line.contains(&lab.cgroup))
    };
    Ok(pids.filter(is_ours).collect())
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
    fn proportional_memory_is_told_from_its_parts() {
        assert_eq!(pss_kib("0-1 ---p [rollup]\nRss:  900 kB\nPss:     512 kB\nPss_Anon:  99 kB\n"), 512);
        assert_eq!(pss_kib(""), 0);
    }
}
