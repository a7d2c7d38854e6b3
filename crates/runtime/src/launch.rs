//! From a [`LaunchPlan`] to a running process: the part of the runtime that is a container's first moments.
//!
//! ```text
//! shim (single thread) --clone3--> init::run: cgroup, mounts, pivot_root, then process::become: user, capabilities, seccomp, exec
//!        ^                            |
//!        +---- status socket ---------+   terminal's master, who it runs as, or why it failed; closed by a successful exec
//! ```
//!
//! - `plan`: what to do, decided before by `spec` from CRI's configuration and written to the container's folder.
//! - `init`: a container's first process; `join`: one more process in a container that runs (exec).
//! - `process`: what both have in common from "inside the container" to `exec`.
//! - `mounts`, `capability`, `seccomp`, `user`: the pieces.
//!
//! Why not `libcontainer`: see `docs/decisions/2026-11-21-own-container-init.md`. Nothing here allocates threads or touches
//! tokio, since it runs in a clone of the shim that is not going to return.

pub mod capability;
pub mod init;
pub mod join;
mod mounts;
pub mod plan;
pub mod process;
pub mod seccomp;
pub mod status;
mod syscall_names;
pub mod user;

use std::{fmt, io};

pub use plan::LaunchPlan;

/// Why a process could not be started, in the words upstream's users know where there are such words.
#[derive(Debug)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Adds what was being done to an error of the kernel.
pub trait Doing<T> {
    /// `what: error`.
    fn doing(self, what: impl fmt::Display) -> Result<T, Failure>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure(format!("{what}: {}", os_message(&error))))
    }
}

impl<T> Doing<T> for rustix::io::Result<T> {
    fn doing(self, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(io::Error::from).doing(what)
    }
}

/// The kernel's message in lower case and without Rust's "(os error N)", as Go programs and hence upstream print it.
pub fn os_message(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}
