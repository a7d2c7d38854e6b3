//! Removing what dead labs left: cgroups and files. Processes, mounts, links and nftables rules ended with the lab's
//! first process, because they live in its namespaces.
//!
//! A lab counts as dead when nobody holds its lock. What has no folder under `/run` any more (a reboot emptied it)
//! counts as dead too.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{cgroups, state};

/// Removes every dead lab; living ones are left alone.
pub fn reap_dead_labs() -> Result<()> {
    let _nobody_registers = state::exclusive()?;
    let groups = cgroups::with_prefix(state::CGROUP_PREFIX)?;
    let mut ids: BTreeSet<String> =
        groups.iter().filter_map(|name| name.strip_prefix(state::CGROUP_PREFIX)).map(str::to_owned).collect();
    ids.extend(state::labs(state::RUN_DIR));
    ids.extend(state::labs(state::DATA_DIR));
    for id in ids {
        let dir = Path::new(state::RUN_DIR).join(&id);
        if !dir.exists() || state::is_dead(&dir) {
            remove(&id, &dir).with_context(|| format!("removing what lab {id} left"))?;
        }
    }
    // others may have labs in there
    let _ = fs::remove_dir(state::DATA_DIR);
    Ok(())
}

fn remove(id: &str, dir: &Path) -> Result<()> {
    cgroups::remove(&format!("{}{id}", state::CGROUP_PREFIX))?;
    for path in [Path::new(state::DATA_DIR).join(id), dir.to_path_buf()] {
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}
