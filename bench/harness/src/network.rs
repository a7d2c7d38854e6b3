//! A network for one process and its children: a loopback of their own, and nothing else.
//!
//! Servers that are measured over loopback can then have their usual ports, and nothing they send gets anywhere.

use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, unshare};

/// Moves this thread, and what it starts afterwards, into a network of its own. Call it before starting threads.
///
/// # Errors
/// Without root, or without `ip`.
pub fn own_network() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("making a network of its own, which needs root")?;
    let status = Command::new("ip").args(["link", "set", "lo", "up"]).status().context("starting ip")?;
    if !status.success() {
        bail!("the loopback of the new network cannot be used");
    }
    Ok(())
}
