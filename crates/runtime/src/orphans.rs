//! Removing a cgroup whose last processes are on their way out.
//!
//! A killed process leaves its group only when the kernel is done with it. Usually that was long ago; when it was not, we wait
//! for the processes themselves, by descriptor, and not for long.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::process::{Pid, PidfdFlags};
use tokio::io::{Interest, unix::AsyncFd};

use crate::Runtime;

/// How long killed processes may take to go; one that hangs in the kernel takes for ever.
const PATIENCE: Duration = Duration::from_secs(5);

impl Runtime {
    /// Removes a group, killing what is still in it. A group that stays busy is left behind and said so.
    pub(crate) async fn remove_group(&self, group: &str) {
        let outcome = match self.hierarchies().remove(group) {
            Ok(false) => self.clear_and_remove(group).await,
            other => other,
        };
        match outcome {
            Ok(true) => {}
            Ok(false) => tracing::warn!(group, "cgroup is still busy and stays behind"),
            Err(error) => tracing::warn!(group, %error, "remove cgroup"),
        }
    }

    async fn clear_and_remove(&self, group: &str) -> io::Result<bool> {
        let ends: Vec<OwnedFd> = self.hierarchies().processes(group)?.into_iter().filter_map(end_of).collect();
        self.hierarchies().kill(group)?;
        let all = async {
            for end in ends {
                gone(end).await?;
            }
            Ok::<_, io::Error>(())
        };
        tokio::select! {
            result = all => result?,
            () = self.clock().sleep(PATIENCE) => {}
        }
        self.hierarchies().remove(group)
    }
}

/// Becomes readable when the process has ended; `None` when it has already.
fn end_of(pid: i32) -> Option<OwnedFd> {
    rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::NONBLOCK).ok()
}

async fn gone(end: OwnedFd) -> io::Result<()> {
    // SAFETY: an `OwnedFd` stays open and the same for as long as the `AsyncFd` has it.
    let watched = unsafe { AsyncFd::register_with_interest(end, Interest::READABLE) };
    watched.map_err(|error| error.into_parts().1)?.readable().await.map(drop)
}
