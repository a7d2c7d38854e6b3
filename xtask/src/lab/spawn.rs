//! Starting a process in namespaces of its own, which the standard library has no word for.
//!
//! The kernel puts only *children* of a process into a new PID namespace, so this clones with the namespace flags at
//! once: the clone is process 1 of the new namespace, and what it executes stays process 1.

use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::{CloneFlags, clone};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// Enough for setting up and executing; pages that are not touched cost nothing.
const STACK_BYTES: usize = 1 << 20;
const EXEC_FAILED: isize = 127;

/// Starts `command` in new namespaces of the kinds in `flags`. The descriptors of `handed_on` stay open in it.
pub fn spawn(flags: CloneFlags, handed_on: &[&dyn AsFd], mut command: Command) -> Result<Pid> {
    for descriptor in handed_on {
        fcntl(descriptor.as_fd(), FcntlArg::F_SETFD(FdFlag::empty())).context("handing on a descriptor")?;
    }
    let mut stack = vec![0u8; STACK_BYTES];
    let child = Box::new(move || {
        let error = command.exec();
        eprintln!("xtask: starting {}: {error}", command.get_program().to_string_lossy());
        EXEC_FAILED
    });
    // SAFETY: without CLONE_VM the child has a copy of this memory, as after fork; this program has one thread, so no
    // lock can be held by a thread that the copy lacks.
    let pid = unsafe { clone(child, &mut stack, flags, Some(Signal::SIGCHLD as i32)) };
    for descriptor in handed_on {
        fcntl(descriptor.as_fd(), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).context("keeping a descriptor")?;
    }
    pid.context("cloning into new namespaces")
}

/// Makes `command` start a session of its own, out of reach of the terminal's signals.
pub fn in_own_session(command: &mut Command) -> &mut Command {
    // SAFETY: setsid is a bare system call and allowed between fork and exec.
    unsafe { command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(std::io::Error::from)) }
}

/// The same for a command that is handed over whole.
pub fn owned_in_own_session(mut command: Command) -> Command {
    in_own_session(&mut command);
    command
}

/// Makes `command` end when this program does, however that ends.
pub fn dying_with_parent(command: &mut Command) -> &mut Command {
    let bind = || prctl::set_pdeathsig(Signal::SIGKILL).map_err(std::io::Error::from);
    // SAFETY: prctl is a bare system call and allowed between fork and exec.
    unsafe { command.pre_exec(bind) }
}
