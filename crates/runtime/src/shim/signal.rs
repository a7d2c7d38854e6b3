//! A signal for a container's first process, kept until the process can hear it.
//!
//! The kernel drops a signal for the first process of a process id namespace that has no handler for it: that is how a program
//! without one outlives SIGTERM, here as everywhere. But a program that has just been started has no handler *yet*, and on a
//! busy machine a pod can be told to end before its program got to its first lines; the signal would be lost, and the pod would
//! take its whole grace period to go. So a young process without a handler is given time to install one, and gets the signal
//! then, once. For an older one, and for one that ignores or blocks the signal, nothing is kept.

use std::{fs, io, rc::Rc, time::Duration};

use tokio::task::spawn_local;

use super::server::{Running, now_ns};
use crate::{launch::plan::PidNamespace, syscalls};

/// How old a process is when it has the handlers that it will ever have.
const YOUNG: Duration = Duration::from_secs(10);

/// How long until the process is looked at again; the kernel tells nobody that a handler was installed. Doubles up to the
/// second, so that a process that never installs one costs little.
const LOOK_AGAIN_FIRST: Duration = Duration::from_millis(2);
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(100);

/// Sends `signal`, now or as soon as it would be heard.
pub fn send(target: &Rc<Running>, signal: i32) -> io::Result<()> {
    if !must_wait(target, signal) {
        return now(target, signal);
    }
    let target = target.clone();
    spawn_local(async move {
        let mut wait = LOOK_AGAIN_FIRST;
        while must_wait(&target, signal) {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LOOK_AGAIN_MAX);
        }
        if target.exited.borrow().is_none()
            && let Err(error) = now(&target, signal)
        {
            eprintln!("signal {signal} for {}: {error}", target.plan.id);
        }
    });
    Ok(())
}

/// A process that has just ended has what was wanted.
fn now(target: &Running, signal: i32) -> io::Result<()> {
    match syscalls::kill(target.started.pid, signal) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other,
    }
}

/// Whether the signal would be dropped now and may be heard later.
fn must_wait(target: &Running, signal: i32) -> bool {
    let is_first = target.plan.pid_namespace == PidNamespace::Own;
    let age_ns = now_ns().saturating_sub(target.started.at_ns);
    let is_young = u64::try_from(age_ns).is_ok_and(|age_ns| Duration::from_nanos(age_ns) < YOUNG);
    is_first && is_young && target.exited.borrow().is_none() && {
        // One that has just ended hears nothing any more, and waiting for it would be in vain.
        let status = fs::read_to_string(format!("/proc/{}/status", target.started.pid)).unwrap_or_default();
        is_dropped(&status, signal)
    }
}

/// Whether a first process with this `/proc/<pid>/status` never gets to see the signal: neither handled, nor ignored on purpose,
/// nor blocked (it would wait for the process), nor one that nobody can refuse.
fn is_dropped(status: &str, signal: i32) -> bool {
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
    };
    let is_dead = status.lines().any(|line| line.starts_with("State:") && line.contains(['Z', 'X']));
    let (Some(blocked), Some(ignored), Some(caught)) = (mask("SigBlk"), mask("SigIgn"), mask("SigCgt")) else {
        return false;
    };
    let bit = u32::try_from(signal - 1).ok().and_then(|shift| 1_u64.checked_shl(shift)).unwrap_or(0);
    let is_final = matches!(signal, libc::SIGKILL | libc::SIGSTOP);
    !is_dead && !is_final && (blocked | ignored | caught) & bit == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_signal_that_nobody_set_up_is_dropped() {
        let status = |state: &str, blocked: &str, ignored: &str, caught: &str| {
            format!("Name:\tx\nState:\t{state} (x)\nSigBlk:\t{blocked}\nSigIgn:\t{ignored}\nSigCgt:\t{caught}\n")
        };
        let (none, term) = ("0000000000000000", "0000000000004000");
        for (text, signal, dropped) in [
            (status("R", none, none, none), libc::SIGTERM, true),
            (status("S", none, none, term), libc::SIGTERM, false),
            (status("S", none, term, none), libc::SIGTERM, false),
            (status("S", term, none, none), libc::SIGTERM, false),
            (status("S", none, none, term), libc::SIGQUIT, true),
            (status("R", none, none, none), libc::SIGKILL, false),
            (status("Z", none, none, none), libc::SIGTERM, false),
            (String::new(), libc::SIGTERM, false),
        ] {
            assert_eq!(is_dropped(&text, signal), dropped, "{signal} {text}");
        }
    }
}
