//! One more process in a running container: exec.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
};

use super::{
    Doing, Failure,
    init::{detach, fail},
    plan::ProcessPlan,
    process::{self, Stdio},
    seccomp,
};
use crate::{cgroup::Hierarchies, syscalls};

/// The namespaces of a container that differ from its pod's, held open so that a reused process id cannot deceive us.
pub struct Namespaces {
    mount: File,
    cgroup: File,
    /// To be entered by the shim before the clone.
    pub pid: File,
}

impl Namespaces {
    /// Opens those of process `pid`.
    pub fn of(pid: i32) -> std::io::Result<Self> {
        let open = |kind: &str| File::open(format!("/proc/{pid}/ns/{kind}"));
        Ok(Namespaces { mount: open("mnt")?, cgroup: open("cgroup")?, pid: open("pid")? })
    }
}

/// Runs in the clone; never returns.
pub fn run(
    plan: &ProcessPlan,
    namespaces: &Namespaces,
    hierarchies: &Hierarchies,
    cgroup: &str,
    stdio: Stdio,
    status: OwnedFd,
) -> ! {
    let failure = match enter(plan, namespaces, hierarchies, cgroup) {
        Ok(filter) => match process::connect_stdio(stdio, status.as_fd()) {
            Ok(terminal) => process::become_program(plan, &filter, terminal, status.as_fd()),
            Err(failure) => failure,
        },
        Err(failure) => failure,
    };
    fail(&status, failure)
}

fn enter(
    plan: &ProcessPlan,
    namespaces: &Namespaces,
    hierarchies: &Hierarchies,
    cgroup: &str,
) -> Result<seccomp::Filter, Failure> {
    detach()?;
    let filter = seccomp::compile(&plan.seccomp, plan.capabilities.granted)?;
    hierarchies.join_self(cgroup).doing("join cgroup")?;
    syscalls::setns(namespaces.cgroup.as_fd(), libc::CLONE_NEWCGROUP).doing("enter cgroup namespace")?;
    syscalls::setns(namespaces.mount.as_fd(), libc::CLONE_NEWNS).doing("enter mount namespace")?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    Ok(filter)
}
