//! cgroup v2.

use std::{fs, io, path::Path};

use super::{Limits, Usage, keyed, number};

/// The controllers a pod needs, enabled on the way down where the kernel has them.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "io", "memory", "pids", "hugetlb"];

/// Makes every folder down to `group`, handing controllers on to all but the last.
pub fn create(root: &Path, group: &str) -> io::Result<()> {
    let mut folder = root.to_owned();
    for part in group.split('/').filter(|part| !part.is_empty()) {
        delegate(&folder)?;
        folder.push(part);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn delegate(folder: &Path) -> io::Result<()> {
    let available = fs::read_to_string(folder.join("cgroup.controllers"))?;
    let enabled = fs::read_to_string(folder.join("cgroup.subtree_control"))?;
    let has = |list: &str, name: &str| list.split_whitespace().any(|known| known == name);
    for name in CONTROLLERS.into_iter().filter(|name| has(&available, name) && !has(&enabled, name)) {
        fs::write(folder.join("cgroup.subtree_control"), format!("+{name}"))?;
    }
    Ok(())
}

pub fn update(folder: &Path, limits: &Limits) -> io::Result<()> {
    let set = |file: &str, value: String| write_present(&folder.join(file), &value);
    let max = |value: i64| if value < 0 { "max".to_owned() } else { value.to_string() };
    if let Some(shares) = limits.cpu_shares {
        set("cpu.weight", Limits::cpu_weight(shares).to_string())?;
    }
    if limits.cpu_quota_us.is_some() || limits.cpu_period_us.is_some() {
        let quota = limits
            .cpu_quota_us
            .map_or("max".to_owned(), |quota| if quota <= 0 { "max".into() } else { quota.to_string() });
        set("cpu.max", format!("{quota} {}", limits.cpu_period_us.unwrap_or(100_000)))?;
    }
    if let Some(bytes) = limits.memory_bytes {
        set("memory.max", max(bytes))?;
    }
    if let Some(both) = limits.memory_swap_bytes {
        let memory = limits.memory_bytes.unwrap_or(0).max(0);
        set("memory.swap.max", max(if both < 0 { both } else { (both - memory).max(0) }))?;
    }
    if let Some(pids) = limits.pids {
        set("pids.max", pids.to_string())?;
    }
    if !limits.cpuset_cpus.is_empty() {
        set("cpuset.cpus", limits.cpuset_cpus.clone())?;
    }
    if !limits.cpuset_mems.is_empty() {
        set("cpuset.mems", limits.cpuset_mems.clone())?;
    }
    for (size, bytes) in &limits.hugepages {
        set(&format!("hugetlb.{size}.max"), bytes.to_string())?;
    }
    for (file, value) in &limits.unified {
        if file.contains('/') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{file} is not a cgroup file")));
        }
        set(file, value.clone())?;
    }
    Ok(())
}

/// Writes a control file; one the kernel does not have is a controller this host lacks.
fn write_present(path: &Path, value: &str) -> io::Result<()> {
    match fs::write(path, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io::Error::new(error.kind(), format!("write {value} to {}: {error}", path.display()))),
        Ok(()) => Ok(()),
    }
}

pub fn usage(folder: &Path) -> io::Result<Usage> {
    let memory = |key: &str| keyed(&folder.join("memory.stat"), key).ok().flatten().unwrap_or(0);
    let charged = number(&folder.join("memory.current")).unwrap_or(0);
    Ok(Usage {
        cpu_ns: keyed(&folder.join("cpu.stat"), "usage_usec")?.unwrap_or(0).saturating_mul(1000),
        memory_bytes: charged,
        working_set_bytes: charged.saturating_sub(memory("inactive_file")),
        rss_bytes: memory("anon"),
        memory_limit_bytes: number(&folder.join("memory.max")),
        swap_bytes: number(&folder.join("memory.swap.current")).unwrap_or(0),
        page_faults: memory("pgfault"),
        major_page_faults: memory("pgmajfault"),
        tasks: number(&folder.join("pids.current")).unwrap_or(0),
    })
}
