//! `cargo xtask lab`: a throwaway cluster on this machine, in namespaces of its own.
//!
//! ```text
//! tool (this program)                      keeps the terminal, waits, hands on the exit status
//!  ├─ janitor                              waits for the lab's lock to be free, then removes cgroups and files
//!  └─ lab-init: process 1 of the lab       own PID, mount, network namespace ("the hub"); dies with the tool
//!      ├─ docker-registry                  on the hub's address, serving the test images
//!      ├─ node-init: process 1 of node 1   own PID, mount, network, UTS, IPC namespace, own /run, /var/lib, ...
//!      │   └─ coracle up                   started by `lab-node start 1`, can be killed and started again;
//!      │                                   with `--upstream` or `--swap` upstream's programs, see `upstream`
//!      ├─ node-init: process 1 of node 2 ...
//!      └─ COMMAND                          in the hub: a client outside the cluster that reaches node addresses only
//! ```
//!
//! Nodes and hub are joined by a bridge inside the hub's namespace; no link leads out, and the nodes' default route ends
//! at a neighbour that does not exist (routing comes before address translation, so there must be one).
//!
//! Cleaning up does not depend on anybody living to do it: processes, mounts and links end with process 1 of the lab,
//! which the kernel kills when the tool dies. What a kernel keeps (cgroups, files) the janitor removes, and if that was
//! killed too, the next lab does (`reaper`). `state` names every path.

mod cgroups;
mod cluster;
pub mod containerd;
mod enter;
mod hub;
mod init;
mod network;
mod node_init;
mod reaper;
mod spawn;
mod state;
mod upstream;
mod vm;

use std::ffi::OsString;
use std::fs;
use std::io::{PipeReader, Read};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;
use nix::sched::CloneFlags;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::progress::step;
use crate::{images, paths, process};

pub use enter::{NodeArguments, run_on_node};
pub use init::{InitArguments, run_init};
pub use node_init::{NodeInitArguments, run_node_init};
pub use spawn::dying_with_parent;
pub use state::Node;
use state::{Plan, Registered};
use upstream::Cluster;
pub use upstream::{Part, Parts, swappable};
pub use vm::{DISK_MOUNT, Machine, run_vm_init};

/// What lab-init says on its pipe: the command has the terminal now.
const COMMAND_STARTED: u8 = b'c';
/// What lab-init says on its pipe: the command is done, its status follows.
const COMMAND_ENDED: u8 = b'e';
const NODES_MAX: usize = 100;

#[derive(Args, Clone)]
pub struct LabArguments {
    /// How many nodes; the first one is the server too
    #[arg(long, default_value_t = 1, value_name = "N")]
    nodes: usize,
    /// Leave the lab running when the command is done; says how to enter and how to end it
    #[arg(long)]
    keep: bool,
    /// Boot a Debian kernel with pure cgroup v2 under qemu and run the lab in there
    #[arg(long)]
    vm: bool,
    /// With --vm: keep the machine's disk in this file, made if it is missing
    #[arg(long, value_name = "FILE", requires = "vm")]
    disk: Option<PathBuf>,
    /// Nodes and registry only, no cluster on them
    #[arg(long)]
    bare: bool,
    /// Run this program as Coracle instead of building the one of this clone
    #[arg(long, value_name = "FILE")]
    pub coracle: Option<PathBuf>,
    /// What the lab's registry serves
    #[arg(long, value_enum, default_value_t = images::Set::Stories, value_name = "SET")]
    pub images: images::Set,
    /// Run upstream's own Kubernetes instead of Coracle: all of it, or only some parts and what they need
    #[arg(long, value_name = "PART,...", num_args = 0..=1, default_missing_value = "all", conflicts_with = "vm")]
    upstream: Option<Parts>,
    /// Put upstream's program in the place of a part of Coracle; can be repeated
    #[arg(long, value_name = "PART", value_parser = upstream::swappable, conflicts_with_all = ["vm", "upstream"])]
    swap: Vec<Part>,
    /// Run the command in a lab that is already running
    #[arg(long, value_name = "LAB", conflicts_with_all = ["vm", "keep", "bare"])]
    enter: Option<String>,
    /// End a lab that was left running
    #[arg(long, value_name = "LAB")]
    end: Option<String>,
    /// What runs the nodes' containers: Coracle itself, or containerd, named to it by its socket
    #[arg(long, value_enum, default_value_t, conflicts_with = "vm")]
    runtime: Runtime,
    /// The command and its arguments; a shell without
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What runs the containers of a lab's nodes.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Runtime {
    #[default]
    Coracle,
    Containerd,
}

impl Runtime {
    pub fn name(self) -> &'static str {
        match self {
            Runtime::Coracle => "coracle",
            Runtime::Containerd => "containerd",
        }
    }
}

impl LabArguments {
    /// A lab that runs `command` on `nodes` nodes, for other tasks to start.
    pub fn running(command: Vec<OsString>, nodes: usize) -> Self {
        let coracle = std::env::var_os("CORACLE_BINARY").map(PathBuf::from);
        let (runtime, upstream, swap) = (Runtime::default(), None, Vec::new());
        Self {
            nodes,
            keep: false,
            vm: false,
            disk: None,
            bare: false,
            coracle,
            images: images::Set::Stories,
            upstream,
            swap,
            enter: None,
            end: None,
            runtime,
            command,
        }
    }

    /// The nodes run these parts of upstream's Kubernetes instead of Coracle.
    pub fn on_upstream(mut self, parts: Parts) -> Self {
        self.upstream = Some(parts);
        self
    }

    /// Upstream's programs take the places of these parts of Coracle.
    pub fn swapped(mut self, parts: Vec<Part>) -> Self {
        self.swap = parts;
        self
    }

    /// Nodes are booted and run nothing; `lab-node start` runs `coracle` on them.
    pub fn unstarted(mut self, coracle: PathBuf) -> Self {
        (self.bare, self.coracle) = (true, Some(coracle));
        self
    }

    fn cluster(&self) -> Cluster {
        match &self.upstream {
            Some(parts) => Cluster::Upstream { parts: parts.clone() },
            None => Cluster::Coracle { swapped: self.swap.clone() },
        }
    }

    pub fn kept(mut self, keep: bool) -> Self {
        self.keep = keep;
        self
    }

    pub fn on(mut self, runtime: Runtime) -> Self {
        self.runtime = runtime;
        self
    }

    pub fn in_vm(mut self, vm: bool) -> Self {
        self.vm = vm;
        self
    }
}

pub fn run(arguments: &LabArguments) -> Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        bail!("a lab needs root, for its namespaces: run it as `sudo --preserve-env=PATH,HOME cargo xtask lab`");
    }
    if !(1..=NODES_MAX).contains(&arguments.nodes) {
        bail!("--nodes must be between 1 and {NODES_MAX}");
    }
    if let Some(id) = &arguments.end {
        return end(id);
    }
    if let Some(id) = &arguments.enter {
        return enter::run_in_lab(id, &arguments.command);
    }
    reaper::reap_dead_labs()?;
    if arguments.vm {
        return vm::run(arguments, &coracle(arguments)?);
    }
    let (plan, built) = prepare(arguments)?;
    supervise(&plan, &built)
}

/// The nodes of the lab that this process runs in.
pub fn nodes_here() -> Result<Vec<Node>> {
    let dir = std::env::var_os(state::DIR_VARIABLE).context("this runs in a lab: start one with `cargo xtask lab`")?;
    Plan::read(std::path::Path::new(&dir))?.all_nodes()
}

/// Everything that needs the machine's own network and compilers: done before the first namespace is made.
fn prepare(arguments: &LabArguments) -> Result<(Plan, Vec<images::Built>)> {
    let coracle = coracle(arguments)?;
    let kubectl = crate::upstream::kubectl()?;
    let cluster = arguments.cluster();
    let programs = cluster.programs()?;
    let uses_containerd = arguments.runtime == Runtime::Containerd || cluster.has(Part::Kubelet);
    let containerd = uses_containerd.then(containerd::programs).transpose()?;
    let built = images::build(arguments.images)?;
    let plan = Plan {
        keep: arguments.keep,
        bare: arguments.bare,
        cluster,
        programs,
        containerd,
        ..Plan::new(arguments.nodes, coracle, kubectl, shell_or(&arguments.command))?
    };
    Ok((plan, built))
}

/// The program that the nodes run.
fn coracle(arguments: &LabArguments) -> Result<PathBuf> {
    match &arguments.coracle {
        Some(path) => path.canonicalize().with_context(|| format!("--coracle {}", path.display())),
        None if arguments.bare || arguments.upstream.is_some() => Ok(PathBuf::new()),
        None => build_coracle(),
    }
}

/// Builds the binary of this clone, next to this very program.
pub fn build_coracle() -> Result<PathBuf> {
    let target = paths::target()?;
    step("building coracle", || {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(paths::root()).args(["build", "--package", "coracle", "--target-dir"]).arg(&target);
        process::quiet(&mut command)
    })?;
    Ok(target.join("debug/coracle"))
}

fn shell_or(command: &[OsString]) -> Vec<OsString> {
    if command.is_empty() {
        return vec![std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into())];
    }
    command.to_vec()
}

/// Starts lab-init and its janitor, then follows the lab to its end.
fn supervise(plan: &Plan, built: &[images::Built]) -> Result<ExitCode> {
    let registered = state::register(plan)?;
    let mut janitor = start_janitor(plan)?;
    images::fill_registry(&plan.registry_storage(), built)?;
    let (mut reader, writer) = std::io::pipe().context("making lab-init's pipe")?;
    let mut command = Command::new(&plan.xtask);
    command.arg("__lab-init").arg(plan.dir());
    command.env(init::PIPE_VARIABLE, writer.as_raw_fd().to_string());
    let flags =
        CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC;
    let lab_init = spawn::spawn(flags, &[&writer], command).context("starting process 1 of the lab")?;
    drop(writer);
    let status = follow(&mut reader)?;
    if let (Some(status), true) = (status, plan.keep) {
        fs::write(plan.dir().join("host-pid"), lab_init.to_string())?;
        tell_how_to_enter(plan);
        return Ok(ExitCode::from(status));
    }
    // the command is done or lab-init died: either way nothing in there has a purpose any more
    kill_and_wait(lab_init);
    clean_up(plan, registered, &mut janitor)?;
    status.map(ExitCode::from).with_context(|| "the lab ended before its command did; what it said is above")
}

/// Reads what lab-init says until the command's status is known, or nothing when lab-init died first.
fn follow(reader: &mut PipeReader) -> Result<Option<u8>> {
    let mut byte = [0u8];
    while reader.read(&mut byte).context("listening to the lab")? == 1 {
        match byte[0] {
            // SAFETY: ignoring a signal installs no handler code.
            COMMAND_STARTED => drop(unsafe { signal(Signal::SIGINT, SigHandler::SigIgn) }),
            COMMAND_ENDED => {
                reader.read_exact(&mut byte).context("reading the command's status")?;
                return Ok(Some(byte[0]));
            }
            other => bail!("lab-init said {other}, which means nothing"),
        }
    }
    Ok(None)
}

/// A process of its own session that outlives this one, in case this one is killed.
fn start_janitor(plan: &Plan) -> Result<Child> {
    let mut command = Command::new(&plan.xtask);
    command.arg("lab-node").arg("janitor").env(state::DIR_VARIABLE, plan.dir());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    spawn::in_own_session(&mut command).spawn().context("starting the lab's janitor")
}

fn clean_up(plan: &Plan, registered: Registered, janitor: &mut Child) -> Result<()> {
    // the janitor waits for this lock
    drop(registered);
    janitor.wait().context("waiting for the lab's janitor")?;
    if plan.dir().exists() {
        reaper::reap_dead_labs()?;
    }
    Ok(())
}

fn kill_and_wait(lab_init: Pid) {
    // it may be gone already, which is what is wanted
    let _ = nix::sys::signal::kill(lab_init, Signal::SIGKILL);
    while !matches!(waitpid(lab_init, None), Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(_)) {}
}

fn tell_how_to_enter(plan: &Plan) {
    eprintln!("\nThe lab is still running. To look around:");
    eprintln!("  cargo xtask lab --enter {} -- kubectl get pods --all-namespaces", plan.id);
    eprintln!("  cargo xtask lab --enter {}                  # a shell in it", plan.id);
    eprintln!("To end it:\n  cargo xtask lab --end {}", plan.id);
}

fn end(id: &str) -> Result<ExitCode> {
    let dir = state::dir_of(id)?;
    let pid: i32 = fs::read_to_string(dir.join("host-pid"))
        .with_context(|| format!("lab {id} was not started with --keep"))?
        .trim()
        .parse()?;
    // gone already is as good
    let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
    state::wait_until_unlocked(&dir)?;
    reaper::reap_dead_labs()?;
    Ok(ExitCode::SUCCESS)
}
