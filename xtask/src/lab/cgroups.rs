//! The control groups of a lab, in every hierarchy this machine has: v2 alone, v1 alone, or both at once.
//!
//! A lab has one group per hierarchy with one below it per node; the node's own processes sit in `host` below that, its
//! pods' groups beside it. So everything a lab uses can be measured, and removed, as one.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long processes that were killed may take to leave a group.
const LEAVE_MS_MAX: u64 = 10_000;
const LOOK_AGAIN_MS: u64 = 20;

struct Hierarchy {
    mount: PathBuf,
    unified: bool,
}

/// Makes `path` in every hierarchy, with everything on the way usable for groups below it.
pub fn create(path: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let mut dir = hierarchy.mount.clone();
        for part in path.split('/') {
            if hierarchy.unified {
                enable_controllers(&dir);
            }
            dir.push(part);
            if !dir.exists() {
                fs::create_dir(&dir).with_context(|| format!("making the group {}", dir.display()))?;
            }
            fill_cpuset(&dir)?;
        }
    }
    Ok(())
}

/// Moves this process into `path` of every hierarchy.
pub fn join(path: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let procs = hierarchy.mount.join(path).join("cgroup.procs");
        fs::write(&procs, "0").with_context(|| format!("joining {}", procs.display()))?;
    }
    Ok(())
}

/// Ends what is left in `path` and removes it, with all below it.
pub fn remove(path: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_millis(LEAVE_MS_MAX);
    for hierarchy in hierarchies()? {
        remove_tree(&hierarchy.mount.join(path), deadline)?;
    }
    Ok(())
}

/// Groups at the top of any hierarchy whose names start with `prefix`.
pub fn with_prefix(prefix: &str) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for hierarchy in hierarchies()? {
        let entries = fs::read_dir(&hierarchy.mount).into_iter().flatten().filter_map(Result::ok);
        names.extend(
            entries
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .filter(|name| name.starts_with(prefix)),
        );
    }
    names.sort();
    names.dedup();
    Ok(names)
}

fn remove_tree(dir: &Path, deadline: Instant) -> Result<()> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    for entry in entries.filter_map(Result::ok).filter(|entry| entry.path().is_dir()) {
        remove_tree(&entry.path(), deadline)?;
    }
    loop {
        kill_members(dir);
        match fs::remove_dir(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                if Instant::now() > deadline {
                    return Err(error).with_context(|| format!("removing the group {}", dir.display()));
                }
                thread::sleep(Duration::from_millis(LOOK_AGAIN_MS));
            }
            _ => return Ok(()),
        }
    }
}

fn kill_members(dir: &Path) {
    let members = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    for pid in members.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0) {
        // it may just have ended by itself
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

fn hierarchies() -> Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
    Ok(parse(&mounts))
}

/// `36 35 98:0 /root /mount/point options - fstype source superoptions`
fn parse(mounts: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let unified = match right.split(' ').next() {
            Some("cgroup2") => true,
            Some("cgroup") => false,
            _ => continue,
        };
        let Some(mount) = left.split(' ').nth(4).map(PathBuf::from) else { continue };
        let seen = found.iter().any(|hierarchy| hierarchy.mount == mount);
        if mount.starts_with("/sys/fs/cgroup") && !seen {
            found.push(Hierarchy { mount, unified });
        }
    }
    found
}

fn enable_controllers(dir: &Path) {
    let available = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    for controller in available.split_whitespace() {
        // one at a time: a controller that cannot be had must not keep the others away
        let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// On v1 a group takes no process until its processors and memory nodes are named.
fn fill_cpuset(dir: &Path) -> Result<()> {
    let Some(parent) = dir.parent() else { return Ok(()) };
    if dir.join("cgroup.controllers").exists() {
        return Ok(());
    }
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = dir.join(file);
        if own.exists() && fs::read_to_string(&own)?.trim().is_empty() {
            fs::write(&own, fs::read_to_string(parent.join(file))?)
                .with_context(|| format!("filling {}", own.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_kinds_are_found_once() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime shared:3 - cgroup cgroup rw,cpu\n\
                      32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      33 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      34 30 0:27 / /var/elsewhere/cpu rw - cgroup cgroup rw,cpu\n";
        let found = parse(mounts);
        let shown: Vec<_> = found.iter().map(|found| (found.mount.to_str().unwrap(), found.unified)).collect();
        assert_eq!(shown, [("/sys/fs/cgroup/cpu", false), ("/sys/fs/cgroup/unified", true)]);
    }
}
