//! Everything the kernel counts about a group, in one shape for both generations; `Usage` is the part that every status needs.
//!
//! What a kernel or a missing controller does not count is `None`, so that nobody takes a silence for a zero.

use std::{fs, path::PathBuf};

use super::{Hierarchies, Usage};

/// A v1 limit this high is how it says unlimited.
const UNLIMITED_FROM: u64 = 1 << 62;
/// v1 counts user and system time in hundredths of a second.
const TICK_NS: u64 = 10_000_000;

/// What a group uses and may use. Bytes, nanoseconds, microseconds where the name says so.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detail {
    pub usage: Usage,
    pub cpu_user_ns: Option<u64>,
    pub cpu_system_ns: Option<u64>,
    pub cpu_period_us: Option<u64>,
    /// `None` for unlimited.
    pub cpu_quota_us: Option<u64>,
    pub cpu_shares: Option<u64>,
    /// Periods with something to run in which a quota was enforced.
    pub periods: Option<u64>,
    /// Those of them in which the quota ran out.
    pub throttled_periods: Option<u64>,
    pub throttled_ns: Option<u64>,
    pub cache_bytes: Option<u64>,
    pub mapped_file_bytes: Option<u64>,
    pub active_file_bytes: Option<u64>,
    pub inactive_file_bytes: Option<u64>,
    pub kernel_bytes: Option<u64>,
    /// The most that was ever charged.
    pub memory_peak_bytes: Option<u64>,
    /// How often the limit was hit.
    pub memory_limit_hits: Option<u64>,
    pub swap_limit_bytes: Option<u64>,
    pub memory_reservation_bytes: Option<u64>,
    pub processes: u64,
    /// `None` for unlimited.
    pub tasks_max: Option<u64>,
    pub oom_kills: u64,
    pub devices: Vec<DeviceUse>,
    /// By resource (`cpu`, `memory`, `io`); only newer kernels count it.
    pub pressure: Vec<(&'static str, Pressure)>,
}

/// Traffic with a block device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceUse {
    /// `major:minor`.
    pub number: String,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}

/// For how long work waited for a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Some of it.
    pub waiting_us: u64,
    /// All of it.
    pub stalled_us: u64,
}

/// One of the kernel's files, by controller and name; `None` when it is not there.
struct Files<'a> {
    hierarchies: &'a Hierarchies,
    group: &'a str,
}

impl Files<'_> {
    fn path(&self, controller: &str, name: &str) -> Option<PathBuf> {
        self.hierarchies.folder(controller, self.group).map(|folder| folder.join(name))
    }

    fn text(&self, controller: &str, name: &str) -> Option<String> {
        fs::read_to_string(self.path(controller, name)?).ok()
    }

    fn number(&self, controller: &str, name: &str) -> Option<u64> {
        self.text(controller, name)?.trim().parse().ok().filter(|number| *number < UNLIMITED_FROM)
    }
}

/// The number after `key` among lines of `key number`.
fn keyed(text: Option<&String>, key: &str) -> Option<u64> {
    text?.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

impl Hierarchies {
    /// All that is counted about a group.
    pub fn detail(&self, group: &str) -> std::io::Result<Detail> {
        let files = Files { hierarchies: self, group };
        let mut detail = if self.is_unified() { unified(&files) } else { legacy(&files) };
        detail.usage = self.usage(group)?;
        detail.processes = self.processes(group)?.len() as u64;
        detail.oom_kills = self.oom_kills(group);
        Ok(detail)
    }
}

fn unified(files: &Files<'_>) -> Detail {
    let cpu = files.text("cpu", "cpu.stat");
    let memory = files.text("memory", "memory.stat");
    let events = files.text("memory", "memory.events");
    let limit = files.text("cpu", "cpu.max").unwrap_or_default();
    let (quota, period) = limit.trim().split_once(' ').unwrap_or_default();
    let nanoseconds = |key: &str| keyed(cpu.as_ref(), key).map(|us| us.saturating_mul(1000));
    let bytes = |key: &str| keyed(memory.as_ref(), key);
    Detail {
        cpu_user_ns: nanoseconds("user_usec"),
        cpu_system_ns: nanoseconds("system_usec"),
        cpu_period_us: period.parse().ok(),
        cpu_quota_us: quota.parse().ok(),
        cpu_shares: files.number("cpu", "cpu.weight").map(shares),
        periods: keyed(cpu.as_ref(), "nr_periods"),
        throttled_periods: keyed(cpu.as_ref(), "nr_throttled"),
        throttled_ns: nanoseconds("throttled_usec"),
        cache_bytes: bytes("file"),
        mapped_file_bytes: bytes("file_mapped"),
        active_file_bytes: bytes("active_file"),
        inactive_file_bytes: bytes("inactive_file"),
        kernel_bytes: bytes("kernel"),
        memory_peak_bytes: files.number("memory", "memory.peak"),
        memory_limit_hits: keyed(events.as_ref(), "max"),
        swap_limit_bytes: files.number("memory", "memory.swap.max"),
        memory_reservation_bytes: files.number("memory", "memory.low"),
        tasks_max: files.number("pids", "pids.max"),
        devices: files.text("io", "io.stat").map(|text| unified_devices(&text)).unwrap_or_default(),
        pressure: ["cpu", "memory", "io"]
            .into_iter()
            .filter_map(|resource| Some((resource, pressure(&files.text("", &format!("{resource}.pressure"))?))))
            .collect(),
        ..Detail::default()
    }
}

fn legacy(files: &Files<'_>) -> Detail {
    let cpu = files.text("cpu", "cpu.stat");
    let times = files.text("cpuacct", "cpuacct.stat");
    let memory = files.text("memory", "memory.stat");
    let ticks = |key: &str| keyed(times.as_ref(), key).map(|ticks| ticks.saturating_mul(TICK_NS));
    let bytes = |key: &str| keyed(memory.as_ref(), key);
    let io = |kind: &str| files.text("blkio", &format!("blkio.throttle.{kind}_recursive")).unwrap_or_default();
    Detail {
        cpu_user_ns: ticks("user"),
        cpu_system_ns: ticks("system"),
        cpu_period_us: files.number("cpu", "cpu.cfs_period_us"),
        cpu_quota_us: files.number("cpu", "cpu.cfs_quota_us"),
        cpu_shares: files.number("cpu", "cpu.shares"),
        periods: keyed(cpu.as_ref(), "nr_periods"),
        throttled_periods: keyed(cpu.as_ref(), "nr_throttled"),
        throttled_ns: keyed(cpu.as_ref(), "throttled_time"),
        cache_bytes: bytes("total_cache"),
        mapped_file_bytes: bytes("total_mapped_file"),
        active_file_bytes: bytes("total_active_file"),
        inactive_file_bytes: bytes("total_inactive_file"),
        kernel_bytes: files.number("memory", "memory.kmem.usage_in_bytes"),
        memory_peak_bytes: files.number("memory", "memory.max_usage_in_bytes"),
        memory_limit_hits: files.number("memory", "memory.failcnt"),
        swap_limit_bytes: files.number("memory", "memory.memsw.limit_in_bytes"),
        memory_reservation_bytes: files.number("memory", "memory.soft_limit_in_bytes"),
        tasks_max: files.number("pids", "pids.max"),
        devices: legacy_devices(&io("io_service_bytes"), &io("io_serviced")),
        ..Detail::default()
    }
}

/// v1's shares for v2's weight: the inverse of [`super::Limits::cpu_weight`], found by halving since that only grows.
fn shares(weight: u64) -> u64 {
    let (mut low, mut high) = (2, 262_144);
    while low < high {
        let middle = (low + high) / 2;
        if super::Limits::cpu_weight(middle) < weight { low = middle + 1 } else { high = middle }
    }
    low
}

/// Lines of `8:0 rbytes=1 wbytes=2 rios=3 wios=4 ...`.
fn unified_devices(text: &str) -> Vec<DeviceUse> {
    let device = |line: &str| {
        let (number, counters) = line.split_once(' ')?;
        let value = |key: &str| {
            let word = counters.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            word.and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        let (read_bytes, written_bytes) = (value("rbytes"), value("wbytes"));
        let (reads, writes) = (value("rios"), value("wios"));
        Some(DeviceUse { number: number.to_owned(), read_bytes, written_bytes, reads, writes })
    };
    text.lines().filter_map(device).collect()
}

/// Lines of `8:0 Read 1`, and others that sum up.
fn legacy_devices(bytes: &str, operations: &str) -> Vec<DeviceUse> {
    let mut devices: Vec<DeviceUse> = Vec::new();
    for (text, counts_bytes) in [(bytes, true), (operations, false)] {
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let &[number, what, count] = words.as_slice() else { continue };
            let at = devices.iter().position(|known| known.number == number).unwrap_or_else(|| {
                devices.push(DeviceUse { number: number.to_owned(), ..DeviceUse::default() });
                devices.len() - 1
            });
            let place = match (what, counts_bytes) {
                ("Read", true) => &mut devices[at].read_bytes,
                ("Write", true) => &mut devices[at].written_bytes,
                ("Read", false) => &mut devices[at].reads,
                ("Write", false) => &mut devices[at].writes,
                _ => continue,
            };
            *place = count.parse().unwrap_or(0);
        }
    }
    devices
}

/// Lines of `some avg10=0.00 ... total=12` and `full ...`.
fn pressure(text: &str) -> Pressure {
    let total = |kind: &str| {
        let line = text.lines().find(|line| line.starts_with(kind));
        line.and_then(|line| line.rsplit_once("total=")?.1.trim().parse().ok()).unwrap_or(0)
    };
    Pressure { waiting_us: total("some "), stalled_us: total("full ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hierarchy of plain files: reading does not care who wrote them.
    fn group(hierarchies: &Hierarchies, files: &[(&str, &str, &str)]) -> Detail {
        for (controller, name, text) in files {
            let folder = hierarchies.folder(controller, "/pod").unwrap();
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(name), text).unwrap();
        }
        hierarchies.detail("/pod").unwrap()
    }

    #[test]
    fn both_generations_tell_of_throttling_limits_and_traffic() {
        let place = tempfile::tempdir().unwrap();
        let new = group(
            &Hierarchies::Unified(place.path().join("v2")),
            &[
                (
                    "",
                    "cpu.stat",
                    "usage_usec 3000000\nuser_usec 2000000\nsystem_usec 1000000\nnr_periods 40\nnr_throttled 7\nthrottled_usec 1500000\n",
                ),
                ("", "cpu.max", "5000 100000\n"),
                ("", "cpu.weight", "20\n"),
                (
                    "",
                    "memory.stat",
                    "anon 10\nfile 4096\nkernel 12\nfile_mapped 2048\ninactive_file 30\nactive_file 31\n",
                ),
                ("", "memory.current", "8192\n"),
                ("", "memory.max", "33554432\n"),
                ("", "memory.swap.max", "max\n"),
                ("", "memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n"),
                ("", "cgroup.procs", "4711\n4712\n"),
                ("", "pids.max", "max\n"),
                ("", "io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n"),
                (
                    "",
                    "cpu.pressure",
                    "some avg10=0.00 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n",
                ),
            ],
        );
        let trees =
            ["cpu", "cpuacct", "memory", "pids", "blkio"].map(|name| (name.to_owned(), place.path().join(name)));
        let old = group(
            &Hierarchies::Legacy(trees.to_vec()),
            &[
                ("cpu", "cpu.stat", "nr_periods 40\nnr_throttled 7\nthrottled_time 1500000000\n"),
                ("cpu", "cpu.cfs_period_us", "100000\n"),
                ("cpu", "cpu.cfs_quota_us", "5000\n"),
                ("cpu", "cpu.shares", "51\n"),
                ("cpu", "cgroup.procs", "4711\n4712\n"),
                ("cpuacct", "cpuacct.usage", "3000000000\n"),
                ("cpuacct", "cpuacct.stat", "user 200\nsystem 100\n"),
                (
                    "memory",
                    "memory.stat",
                    "cache 1\ntotal_cache 4096\ntotal_rss 10\ntotal_mapped_file 2048\ntotal_inactive_file 30\ntotal_active_file 31\n",
                ),
                ("memory", "memory.usage_in_bytes", "8192\n"),
                ("memory", "memory.limit_in_bytes", "33554432\n"),
                ("memory", "memory.memsw.limit_in_bytes", "9223372036854771712\n"),
                ("memory", "memory.failcnt", "3\n"),
                ("memory", "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
                ("memory", "memory.kmem.usage_in_bytes", "12\n"),
                ("pids", "pids.max", "max\n"),
                (
                    "blkio",
                    "blkio.throttle.io_service_bytes_recursive",
                    "8:0 Read 1\n8:0 Write 2\n8:0 Total 3\nTotal 3\n",
                ),
                ("blkio", "blkio.throttle.io_serviced_recursive", "8:0 Read 3\n8:0 Write 4\nTotal 7\n"),
            ],
        );
        assert_eq!(new.pressure, [("cpu", Pressure { waiting_us: 12, stalled_us: 5 })]);
        assert_eq!(old.pressure, []);
        // The same in all else, but that weights are coarser than shares.
        assert_eq!(old.cpu_shares, Some(51));
        let shares = new.cpu_shares.unwrap();
        assert_eq!(super::super::Limits::cpu_weight(shares), 20);
        let same = Detail { pressure: Vec::new(), cpu_shares: old.cpu_shares, ..new };
        assert_eq!(same, old);
        assert_eq!((old.throttled_periods, old.throttled_ns), (Some(7), Some(1_500_000_000)));
        assert_eq!((old.cpu_quota_us, old.swap_limit_bytes, old.tasks_max), (Some(5000), None, None));
        let traffic = DeviceUse { number: "8:0".into(), read_bytes: 1, written_bytes: 2, reads: 3, writes: 4 };
        assert_eq!((old.devices, old.processes, old.oom_kills), (vec![traffic], 2, 1));
    }

    #[test]
    fn an_unlimited_group_has_no_quota_and_shares_survive_the_way_through_weights() {
        let place = tempfile::tempdir().unwrap();
        let tree = Hierarchies::Unified(place.path().to_owned());
        let detail = group(&tree, &[("", "cpu.stat", "usage_usec 1\n"), ("", "cpu.max", "max 100000\n")]);
        assert_eq!((detail.cpu_quota_us, detail.cpu_period_us, detail.throttled_ns), (None, Some(100_000), None));
        for (weight, expected) in [(1, 2), (100, 1024), (10_000, 262_144)] {
            let found = shares(weight);
            assert_eq!(super::super::Limits::cpu_weight(found), weight);
            assert!(found.abs_diff(expected) <= expected / 50, "{weight}: {found}");
        }
    }
}
