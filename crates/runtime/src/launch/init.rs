//! A container's first process, from the clone to `exec`.

use std::os::fd::{AsFd, OwnedFd};

use super::{
    Doing, Failure, mounts,
    plan::LaunchPlan,
    process::{self, Stdio},
    seccomp,
    status::{self, Message},
};
use crate::{cgroup::Hierarchies, syscalls};

/// Exit code of a process that could not become its program; nobody but the shim sees it.
const FAILED: i32 = 255;

/// Runs in the clone; never returns.
pub fn run(plan: &LaunchPlan, hierarchies: &Hierarchies, stdio: Stdio, status: OwnedFd) -> ! {
    let failure = match enter(plan, hierarchies) {
        Ok(filter) => match process::connect_stdio(stdio, status.as_fd()).and_then(bind_console) {
            Ok(terminal) => process::become_program(&plan.process, &filter, terminal, status.as_fd()),
            Err(failure) => failure,
        },
        Err(failure) => failure,
    };
    fail(&status, failure)
}

/// Says why and ends, without running anything that belongs to the process we were cloned from.
pub fn fail(status: &OwnedFd, failure: Failure) -> ! {
    // The shim also sees the socket close: that there was no word of success is message enough.
    let _ = status::send(status.as_fd(), &Message::Failed(failure.0), None);
    // SAFETY: ends the process at once, which is what is wanted: no destructors, no exit handlers.
    unsafe { libc::_exit(FAILED) }
}

/// What every process of a container starts with: no inherited signals, a session of its own, out of sight of others.
pub fn detach() -> Result<(), Failure> {
    syscalls::reset_signals();
    syscalls::prctl(libc::PR_SET_DUMPABLE, 0).doing("hide from the container")?;
    rustix::process::setsid().doing("setsid").map(drop)
}

fn enter(plan: &LaunchPlan, hierarchies: &Hierarchies) -> Result<seccomp::Filter, Failure> {
    detach()?;
    let filter = seccomp::compile(&plan.process.seccomp, plan.process.capabilities.granted)?;
    hierarchies.join_self(&plan.cgroup).doing("join cgroup")?;
    if hierarchies.is_unified() {
        syscalls::unshare(libc::CLONE_NEWCGROUP).doing("unshare cgroup namespace")?;
    }
    rustix::process::umask(rustix::fs::Mode::empty());
    mounts::enter_root(plan, hierarchies)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    Ok(filter)
}

/// Shows the terminal at `/dev/console`, where programs expect it.
fn bind_console(slave: Option<OwnedFd>) -> Result<Option<OwnedFd>, Failure> {
    if let Some(slave) = &slave {
        let name = rustix::termios::ttyname(slave, Vec::new()).doing("name terminal")?;
        let console = std::fs::OpenOptions::new().create(true).append(true).open("/dev/console");
        console.doing("create /dev/console")?;
        rustix::mount::mount_bind(name.as_c_str(), c"/dev/console").doing("bind /dev/console")?;
    }
    Ok(slave)
}
