//! The shim: one small process per pod that holds the pod's namespaces and parents its containers, so that they outlive Coracle.
//!
//! ```text
//! coracle (any number of lives) <--- <sandbox>/shim.sock ---> shim --clone3--> containers, exec'd processes, the pause process
//!                                                               |
//!                                                               +-- CRI logs, <container>/start.json, exit.json
//! ```
//!
//! - It *is* in the pod's network, IPC and UTS namespaces: its children inherit them, and port-forward is a plain connect.
//! - It is the reaper of everything below it and notes each container's end on disk before it tells anybody.
//! - It is our own program again, started with [`ARGUMENT`], with one thread (which `clone3` needs) and no tokio thread pool.
//! - It decides nothing: what to run is in the container's `plan.json`, when to stop is for Coracle to say.
//!
//! `protocol` is the wire, `client` Coracle's end of it, `server` the shim's; `process` starts things, `output` carries and logs
//! what they print.

pub mod client;
mod descriptor;
pub mod log;
mod output;
mod process;
pub mod protocol;
mod server;
mod session;
mod signal;

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{cgroup::Hierarchies, launch::Doing, syscalls};

/// The first argument of our own program when it is to be a shim; the second is the sandbox's folder.
pub const ARGUMENT: &str = "runtime-shim";

/// What the shim prints once it can be connected to.
pub const READY: &str = "ready";

/// The socket's name in the sandbox's folder.
pub const SOCKET: &str = "shim.sock";

/// The plan's name in the sandbox's folder.
pub const PLAN: &str = "shim.json";

/// What a sandbox is made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SandboxPlan {
    /// The host's cgroups.
    pub hierarchies: Hierarchies,
    /// A network namespace of its own; otherwise the host's.
    pub own_network: bool,
    /// An IPC namespace of its own.
    pub own_ipc: bool,
    /// A UTS namespace of its own, with this host name.
    pub hostname: Option<String>,
    /// A process id namespace for all containers, held by a process that reaps.
    pub shared_processes: bool,
    /// Namespaced kernel settings.
    pub sysctls: BTreeMap<String, String>,
    /// The cgroup of the process that reaps.
    pub cgroup: String,
    /// How readily the kernel kills the shim and that process.
    pub oom_score_adj: i32,
}

/// Runs the shim for the sandbox in `folder`; returns its exit code.
pub fn main(folder: &Path) -> i32 {
    match run(folder) {
        Ok(()) => 0,
        Err(why) => {
            println!("{why}");
            1
        }
    }
}

fn run(folder: &Path) -> Result<(), String> {
    let plan = prepare(folder).map_err(|failure| failure.0)?;
    let pause = match plan.shared_processes {
        true => Some(process::start_pause(&plan.hierarchies, &plan.cgroup).map_err(|error| format!("pause: {error}"))?),
        false => None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("start event loop: {error}"))?;
    let served = tokio::task::LocalSet::new().block_on(&runtime, server::serve(plan.hierarchies, pause));
    served.map_err(|error| format!("serve {SOCKET}: {error}"))
}

/// Leaves Coracle's session and makes the pod's namespaces.
fn prepare(folder: &Path) -> Result<SandboxPlan, crate::launch::Failure> {
    // Already a session's leader when started by hand; being one is all that counts.
    let _ = rustix::process::setsid();
    // For people who list processes; executed by descriptor it would go by a number.
    let _ = rustix::thread::set_name(c"coracle-shim");
    syscalls::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).doing("become subreaper")?;
    std::env::set_current_dir(folder).doing("enter sandbox folder")?;
    let plan = fs::read(PLAN).doing("read sandbox plan")?;
    let plan: SandboxPlan = serde_json::from_slice(&plan).map_err(io::Error::from).doing("read sandbox plan")?;
    // Not being allowed to is clamped: the runtime has said so once.
    let _ = fs::write("/proc/self/oom_score_adj", plan.oom_score_adj.to_string());
    let mut flags = 0;
    for (wanted, flag) in [
        (plan.own_network, libc::CLONE_NEWNET),
        (plan.own_ipc, libc::CLONE_NEWIPC),
        (plan.hostname.is_some(), libc::CLONE_NEWUTS),
    ] {
        flags |= if wanted { flag } else { 0 };
    }
    syscalls::unshare(flags).doing("make pod namespaces")?;
    if plan.own_network {
        syscalls::loopback_up().doing("bring loopback up")?;
    }
    if let Some(hostname) = &plan.hostname {
        rustix::system::sethostname(hostname.as_bytes()).doing("set host name")?;
    }
    for (name, value) in &plan.sysctls {
        let path = PathBuf::from("/proc/sys").join(name.replace('.', "/"));
        fs::write(&path, value).doing(format!("set sysctl {name} to {value:?}"))?;
    }
    Ok(plan)
}

/// Starts a shim for the sandbox in `folder`, from `program`, and waits until it can be connected to.
///
/// The error is what the shim had to say. The child is returned so that its end can be waited for; a shim started by an
/// earlier life of Coracle has init for a parent instead.
pub async fn spawn(program: &OwnedFd, folder: &Path) -> Result<tokio::process::Child, String> {
    use std::os::fd::AsRawFd;
    use tokio::io::AsyncReadExt;
    let errors = fs::OpenOptions::new().create(true).append(true).open(folder.join("shim.log"));
    let errors = errors.map_err(|error| format!("open shim.log: {error}"))?;
    let mut child = tokio::process::Command::new(format!("/proc/self/fd/{}", program.as_fd().as_raw_fd()))
        .arg0("coracle-shim")
        .arg(ARGUMENT)
        .arg(folder)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(errors)
        .spawn()
        .map_err(|error| format!("start shim: {error}"))?;
    let mut said = String::new();
    if let Some(stdout) = child.stdout.take() {
        stdout
            .take(MESSAGE_BYTES_MAX)
            .read_to_string(&mut said)
            .await
            .map_err(|error| format!("wait for shim: {error}"))?;
    }
    if said.trim() == READY {
        return Ok(child);
    }
    child.wait().await.map_err(|error| format!("wait for shim: {error}"))?;
    Err(if said.is_empty() { "the shim ended without a word".into() } else { said.trim().to_owned() })
}

/// The longest word a shim has for its failure.
const MESSAGE_BYTES_MAX: u64 = 16 * 1024;
