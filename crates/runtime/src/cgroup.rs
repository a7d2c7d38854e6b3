//! Control groups, old and new: made, limited, measured and removed for one container or pod at a time.
//!
//! ```text
//! Hierarchies::detect  reads /proc/self/mountinfo once
//!   Unified  one tree (v2); a process is cloned straight into its group
//!   Legacy   one tree per controller (v1, also "hybrid" hosts whose v2 tree has no controllers); a process writes itself into each
//! ```
//!
//! Groups are named by a path from each hierarchy's root, as the node agent names them (`/kubepods/burstable/pod1/abc`). What a
//! host's kernel lacks (a controller, swap accounting) is left out. This module never waits: a group that still has processes
//! is not removed, and the caller learns so.

mod detail;
mod device;
mod legacy;
mod limits;
mod unified;

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

pub use detail::{Detail, DeviceUse};
pub use device::DeviceRule;
pub use limits::Limits;

/// The host's cgroup trees.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Hierarchies {
    /// One tree, mounted here.
    Unified(PathBuf),
    /// (controller, where its tree is mounted).
    Legacy(Vec<(String, PathBuf)>),
}

/// The controllers we use where they are trees of their own.
const LEGACY_CONTROLLERS: [&str; 9] =
    ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb"];

/// Use of a group, in bytes and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time ever used.
    pub cpu_ns: u64,
    /// Memory charged, page cache included.
    pub memory_bytes: u64,
    /// Memory that cannot be reclaimed easily: charged minus inactive file pages.
    pub working_set_bytes: u64,
    /// Anonymous memory.
    pub rss_bytes: u64,
    /// The limit; `None` for unlimited.
    pub memory_limit_bytes: Option<u64>,
    /// Swap used.
    pub swap_bytes: u64,
    /// Page faults ever.
    pub page_faults: u64,
    /// Those that read from disk.
    pub major_page_faults: u64,
    /// Processes and threads now.
    pub tasks: u64,
}

impl Hierarchies {
    /// Finds out how this host does cgroups.
    pub fn detect() -> io::Result<Self> {
        Self::parse(&fs::read_to_string("/proc/self/mountinfo")?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no cgroup controllers are mounted"))
    }

    fn parse(mountinfo: &str) -> Option<Self> {
        let mut unified = None;
        let mut legacy: Vec<(String, PathBuf)> = Vec::new();
        for line in mountinfo.lines() {
            let Some((mount, source)) = line.split_once(" - ") else { continue };
            let Some(target) = mount.split(' ').nth(4) else { continue };
            let mut source = source.split(' ');
            match (source.next(), source.nth(1)) {
                (Some("cgroup2"), _) => unified = unified.or(Some(PathBuf::from(target))),
                (Some("cgroup"), Some(options)) => {
                    for name in options.split(',').filter(|option| LEGACY_CONTROLLERS.contains(option)) {
                        if !legacy.iter().any(|(known, _)| known == name) {
                            legacy.push((name.to_owned(), target.into()));
                        }
                    }
                }
                _ => {}
            }
        }
        if legacy.is_empty() { unified.map(Hierarchies::Unified) } else { Some(Hierarchies::Legacy(legacy)) }
    }

    /// Whether this host has the one new tree.
    pub fn is_unified(&self) -> bool {
        matches!(self, Hierarchies::Unified(_))
    }

    /// The group's folder in each tree, by controller (`""` for the unified one); each distinct folder once.
    pub fn folders(&self, group: &str) -> Vec<(&str, PathBuf)> {
        let below = |root: &Path| root.join(group.trim_start_matches('/'));
        match self {
            Hierarchies::Unified(root) => vec![("", below(root))],
            Hierarchies::Legacy(trees) => {
                let mut folders: Vec<(&str, PathBuf)> = Vec::new();
                for (name, root) in trees {
                    let folder = below(root);
                    if !folders.iter().any(|(_, known)| *known == folder) {
                        folders.push((name, folder));
                    }
                }
                folders
            }
        }
    }

    fn folder(&self, controller: &str, group: &str) -> Option<PathBuf> {
        let below = |root: &Path| root.join(group.trim_start_matches('/'));
        match self {
            Hierarchies::Unified(root) => Some(below(root)),
            Hierarchies::Legacy(trees) => {
                trees.iter().find(|(name, _)| name == controller).map(|(_, root)| below(root))
            }
        }
    }

    /// Makes the group and those above it, and sets `limits`. Fine when it exists.
    pub fn create(&self, group: &str, limits: &Limits) -> io::Result<()> {
        match self {
            Hierarchies::Unified(root) => unified::create(root, group)?,
            Hierarchies::Legacy(trees) => legacy::create(trees, group)?,
        }
        self.update(group, limits)
    }

    /// Sets what `limits` names and leaves the rest.
    pub fn update(&self, group: &str, limits: &Limits) -> io::Result<()> {
        match self {
            Hierarchies::Unified(root) => unified::update(&root.join(group.trim_start_matches('/')), limits),
            Hierarchies::Legacy(_) => legacy::update(|controller| self.folder(controller, group), limits),
        }
    }

    /// Restricts device access to `rules`.
    pub fn allow_devices(&self, group: &str, rules: &[DeviceRule]) -> io::Result<()> {
        match (self, self.folder("devices", group)) {
            (Hierarchies::Unified(_), Some(folder)) => device::attach_program(&folder, rules),
            (Hierarchies::Legacy(_), Some(folder)) => device::write_lists(&folder, rules),
            (_, None) => Ok(()),
        }
    }

    /// For v2: the folder to clone a process into.
    pub fn open_for_clone(&self, group: &str) -> io::Result<Option<OwnedFd>> {
        match self {
            Hierarchies::Unified(root) => Ok(Some(fs::File::open(root.join(group.trim_start_matches('/')))?.into())),
            Hierarchies::Legacy(_) => Ok(None),
        }
    }

    /// For v1: moves the calling process, which has one thread, into the group. (A clone has done so already on v2.)
    ///
    /// Through `tasks`, not `cgroup.procs`: a thread that moves itself needs no lock on all the system's processes, for which
    /// the kernel waits until every processor has been idle or switched, ten milliseconds and more.
    pub fn join_self(&self, group: &str) -> io::Result<()> {
        if self.is_unified() {
            return Ok(());
        }
        self.folders(group).iter().try_for_each(|(_, folder)| fs::write(folder.join("tasks"), "0"))
    }

    /// The processes in the group and those that its own processes have made below it.
    pub fn processes(&self, group: &str) -> io::Result<Vec<i32>> {
        let mut processes = Vec::new();
        for (_, folder) in self.folders(group) {
            for folder in with_those_below(&folder)? {
                match fs::read_to_string(folder.join("cgroup.procs")) {
                    Err(error) if is_gone(&error) => {}
                    other => processes.extend(other?.lines().filter_map(|line| line.parse::<i32>().ok())),
                }
            }
        }
        processes.sort_unstable();
        processes.dedup();
        Ok(processes)
    }

    /// Kills every process in the group, children that are being born included.
    pub fn kill(&self, group: &str) -> io::Result<()> {
        if let Hierarchies::Unified(root) = self {
            match fs::write(root.join(group.trim_start_matches('/')).join("cgroup.kill"), "1") {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => return other,
            }
        }
        // A process can fork between listing and killing; each round leaves fewer that can.
        for _ in 0..KILL_ROUNDS_MAX {
            let processes = self.processes(group)?;
            if processes.is_empty() {
                break;
            }
            for pid in processes {
                match crate::syscalls::kill(pid, libc::SIGKILL) {
                    Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Removes the group and those below it from every tree; `Ok(false)` when processes still hold one.
    pub fn remove(&self, group: &str) -> io::Result<bool> {
        for (_, folder) in self.folders(group) {
            for folder in with_those_below(&folder)? {
                match fs::remove_dir(&folder) {
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Ok(false),
                    Err(error) if !is_gone(&error) => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(true)
    }

    /// What the group uses.
    pub fn usage(&self, group: &str) -> io::Result<Usage> {
        match self {
            Hierarchies::Unified(root) => unified::usage(&root.join(group.trim_start_matches('/'))),
            Hierarchies::Legacy(_) => legacy::usage(|controller| self.folder(controller, group)),
        }
    }

    /// How many processes of the group the kernel has killed for want of memory; 0 when it cannot be known.
    pub fn oom_kills(&self, group: &str) -> u64 {
        let file = if self.is_unified() { "memory.events" } else { "memory.oom_control" };
        self.folder("memory", group)
            .and_then(|folder| keyed(&folder.join(file), "oom_kill").ok().flatten())
            .unwrap_or(0)
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// A group's folder and all below it, the deepest first.
fn with_those_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![folder.to_owned()];
    let mut next = 0;
    while next < found.len() {
        match fs::read_dir(&found[next]) {
            Err(error) if is_gone(&error) => {}
            other => {
                for entry in other? {
                    let entry = entry?;
                    if entry.file_type()?.is_dir() {
                        found.push(entry.path());
                    }
                }
            }
        }
        next += 1;
    }
    found.reverse();
    Ok(found)
}

/// How often [`Hierarchies::kill`] looks again for processes born meanwhile.
const KILL_ROUNDS_MAX: usize = 32;

/// The number after `key` in a file of `key number` lines.
fn keyed(path: &Path, key: &str) -> io::Result<Option<u64>> {
    let text = fs::read_to_string(path)?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    Ok(value.and_then(|value| value.trim().parse().ok()))
}

/// A file that holds one number; `max` and absence are `None`.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_unified_from_legacy_and_hybrid_hosts() {
        let v2 = "30 25 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";
        let v1 = "31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                  32 25 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                  33 25 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd";
        assert_eq!(Hierarchies::parse(v2), Some(Hierarchies::Unified("/sys/fs/cgroup".into())));
        let hybrid = Hierarchies::parse(&format!("{v1}\n{v2}")).unwrap();
        assert!(!hybrid.is_unified());
        let folders: Vec<_> = hybrid.folders("/a/b").into_iter().map(|(_, folder)| folder).collect();
        let expected = ["/sys/fs/cgroup/cpu,cpuacct/a/b", "/sys/fs/cgroup/memory/a/b"].map(PathBuf::from);
        assert_eq!(folders, expected);
        assert_eq!(Hierarchies::parse(""), None);
    }
}
