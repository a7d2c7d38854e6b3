//! `cargo xtask lab --vm`: the same lab inside a machine of its own, with Debian's cloud kernel and cgroup v2 alone.
//!
//! Most users' machines have cgroup v2 and nothing else; the machine that runs the tests may not. qemu emulates one in
//! software: its root file system is this machine's (virtiofs, read-only, with a layer of memory on top), so that the
//! same programs are at the same paths; its disk is an ext4 image, written through; it has no network card at all.
//! In there, `guest` is process 1 and runs `xtask lab` with the same arguments.
//!
//! Console output comes over the first serial line, the exit status over the second.

mod guest;
mod initramfs;
mod kernel;
mod machine;

use std::ffi::OsString;
use std::path::Path;
use std::process::{ExitCode, Stdio};

use anyhow::Result;

use super::LabArguments;
use crate::{images, paths, upstream};

pub use guest::run_vm_init;
pub use machine::Machine;

/// How many times slower than a plain machine emulation is taken to be, for deadlines.
const SLOWNESS: u64 = 8;
const SHARE_TAG: &str = "root";
/// Names the plan's file on the kernel's command line.
const PLAN_PARAMETER: &str = "coracle.plan=";
/// Where the machine's own disk is mounted; labs keep their data on it too.
pub const DISK_MOUNT: &str = "/mnt";

/// Boots the machine, runs the lab in it, and ends with the status of the lab's command.
pub fn run(arguments: &LabArguments, coracle: &Path) -> Result<ExitCode> {
    // what is dear to make is made outside
    images::build(arguments.images)?;
    upstream::kubectl()?;
    let mut command: Vec<OsString> = vec![paths::own_program()?.into(), "lab".into()];
    command.push(format!("--nodes={}", arguments.nodes).into());
    command.push(format!("--images={}", arguments.images).into());
    if arguments.bare {
        command.push("--bare".into());
    } else {
        command.extend(["--coracle".into(), coracle.into()]);
    }
    command.push("--".into());
    command.extend(super::shell_or(&arguments.command));
    let machine = Machine::start(command, arguments.disk.as_deref(), Stdio::inherit())?;
    machine.status().map(ExitCode::from)
}
