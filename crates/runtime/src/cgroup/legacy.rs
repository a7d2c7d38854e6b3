//! cgroup v1: a tree per controller.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Limits, Usage, keyed, number};

/// A limit this high is how v1 says unlimited.
const UNLIMITED_FROM: u64 = 1 << 62;

/// Those above are nearly always there: a pod's group is made once, its containers' many times.
pub fn create(trees: &[(String, PathBuf)], group: &str) -> io::Result<()> {
    for (name, root) in trees {
        let folder = root.join(group.trim_start_matches('/'));
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(&folder)?,
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if name == "cpuset" {
            inherit_cpuset(root, &folder, "cpuset.cpus")?;
            inherit_cpuset(root, &folder, "cpuset.mems")?;
        }
    }
    Ok(())
}

/// A new cpuset is empty and takes no process until it is told what the one above has. Answers what it has.
fn inherit_cpuset(root: &Path, folder: &Path, file: &str) -> io::Result<String> {
    let own = fs::read_to_string(folder.join(file))?.trim().to_owned();
    let above = folder.parent().filter(|_| own.is_empty() && folder != root);
    let Some(above) = above else { return Ok(own) };
    let inherited = inherit_cpuset(root, above, file)?;
    fs::write(folder.join(file), &inherited)?;
    Ok(inherited)
}

pub fn update(folder: impl Fn(&str) -> Option<PathBuf>, limits: &Limits) -> io::Result<()> {
    let set = |controller: &str, file: &str, value: String| match folder(controller) {
        Some(folder) => write(&folder.join(file), &value),
        None => Ok(()),
    };
    if let Some(shares) = limits.cpu_shares {
        set("cpu", "cpu.shares", shares.max(2).to_string())?;
    }
    if let Some(period) = limits.cpu_period_us.filter(|period| *period > 0) {
        set("cpu", "cpu.cfs_period_us", period.to_string())?;
    }
    if let Some(quota) = limits.cpu_quota_us.filter(|quota| *quota != 0) {
        set("cpu", "cpu.cfs_quota_us", quota.to_string())?;
    }
    if !limits.cpuset_cpus.is_empty() {
        set("cpuset", "cpuset.cpus", limits.cpuset_cpus.clone())?;
    }
    if !limits.cpuset_mems.is_empty() {
        set("cpuset", "cpuset.mems", limits.cpuset_mems.clone())?;
    }
    if let Some(folder) = folder("memory") {
        set_memory(&folder, limits)?;
    }
    if let Some(pids) = limits.pids {
        set("pids", "pids.max", pids.to_string())?;
    }
    for (size, bytes) in &limits.hugepages {
        set("hugetlb", &format!("hugetlb.{size}.limit_in_bytes"), bytes.to_string())?;
    }
    Ok(())
}

/// Memory may never exceed memory plus swap, so growing sets the sum first and shrinking sets it last.
fn set_memory(folder: &Path, limits: &Limits) -> io::Result<()> {
    let swap_file = folder.join("memory.memsw.limit_in_bytes");
    let both = limits.memory_swap_bytes.filter(|_| swap_file.exists());
    let Some(bytes) = limits.memory_bytes else { return Ok(()) };
    let file = folder.join("memory.limit_in_bytes");
    match both {
        Some(both) if write(&swap_file, &both.to_string()).is_ok() => write(&file, &bytes.to_string()),
        Some(both) => {
            write(&file, &bytes.to_string())?;
            write(&swap_file, &both.to_string())
        }
        None => write(&file, &bytes.to_string()),
    }
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    fs::write(path, value)
        .map_err(|error| io::Error::new(error.kind(), format!("write {value} to {}: {error}", path.display())))
}

pub fn usage(folder: impl Fn(&str) -> Option<PathBuf>) -> io::Result<Usage> {
    let file = |controller: &str, name: &str| folder(controller).and_then(|folder| number(&folder.join(name)));
    let memory_stat = folder("memory").map(|folder| folder.join("memory.stat"));
    let memory = |key: &str| memory_stat.as_ref().and_then(|path| keyed(path, key).ok().flatten()).unwrap_or(0);
    let charged = file("memory", "memory.usage_in_bytes").unwrap_or(0);
    Ok(Usage {
        cpu_ns: file("cpuacct", "cpuacct.usage")
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such cgroup"))?,
        memory_bytes: charged,
        working_set_bytes: charged.saturating_sub(memory("total_inactive_file")),
        rss_bytes: memory("total_rss"),
        memory_limit_bytes: file("memory", "memory.limit_in_bytes").filter(|limit| *limit < UNLIMITED_FROM),
        swap_bytes: memory("total_swap"),
        page_faults: memory("total_pgfault"),
        major_page_faults: memory("total_pgmajfault"),
        tasks: file("pids", "pids.current").unwrap_or(0),
    })
}
