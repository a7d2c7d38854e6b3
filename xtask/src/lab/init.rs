//! Process 1 of a lab: makes the hub, boots the nodes, starts the cluster, runs the command, reaps what is left to it.
//!
//! It dies with the tool (parent-death signal), unless the lab is to be kept and the command is done. When it dies, the
//! kernel ends everything in the lab.

use std::fs::File;
use std::io::{PipeWriter, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Args;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::Pid;

use super::state::{self, Plan};
use super::{COMMAND_ENDED, COMMAND_STARTED, cluster, hub, network};
use crate::process;
use crate::progress::step;

/// The number of the descriptor on which this process tells the tool how it goes.
pub const PIPE_VARIABLE: &str = "CORACLE_LAB_PIPE";

#[derive(Args)]
pub struct InitArguments {
    dir: PathBuf,
}

pub fn run_init(arguments: &InitArguments) -> Result<ExitCode> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("tying the lab to its tool")?;
    // stays open when this fails: the tool kills what is left as soon as it closes, and the reason is still to be told
    let mut tool = ManuallyDrop::new(inherited_pipe()?);
    let plan = Plan::read(&arguments.dir)?;
    let _registered = state::join(&plan.dir())?;
    make(&plan)?;
    let status = run_command(&plan, &mut tool)?;
    if plan.keep {
        prctl::set_pdeathsig(None).context("untying the lab from its tool")?;
        let_go_of_terminal()?;
    }
    tool.write_all(&[COMMAND_ENDED, status]).context("telling the tool the command's status")?;
    drop(ManuallyDrop::into_inner(tool));
    // not kept: the tool kills this process now; kept: somebody will, some day
    loop {
        match wait() {
            Err(Errno::ECHILD) => nix::unistd::pause(),
            _ended => {}
        }
    }
}

fn inherited_pipe() -> Result<PipeWriter> {
    let number: RawFd = std::env::var(PIPE_VARIABLE).context("this is for `cargo xtask lab` to start")?.parse()?;
    // SAFETY: the tool opened this descriptor for us and named it; nobody else here knows its number.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    fcntl(&owned, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).context("keeping the pipe to ourselves")?;
    Ok(PipeWriter::from(owned))
}

fn make(plan: &Plan) -> Result<()> {
    let scratch = plan.dir().join("hub");
    std::fs::create_dir_all(&scratch)?;
    hub::own_view(&scratch)?;
    hub::overlay_file(&scratch, "/etc/hosts", &hub::hosts(plan, "hub")?)?;
    // nothing in a lab asks the machine's own name servers
    hub::overlay_file(&scratch, "/etc/resolv.conf", "")?;
    hub::make_bin(plan)?;
    network::make_hub()?;
    step("starting the lab's registries", || hub::start_registries(plan))?;
    for node in plan.all_nodes()? {
        step(&format!("booting {}", node.name), || lab_node(plan, &["boot", &node.number.to_string()]))?;
    }
    if plan.bare { Ok(()) } else { cluster::start(plan) }
}

/// Runs one of the node actions in a process of its own: entering a node's namespaces is for good.
pub fn lab_node(plan: &Plan, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(&plan.xtask);
    command.arg("lab-node").args(arguments).env(state::DIR_VARIABLE, plan.dir());
    process::quiet(&mut command)
}

fn run_command(plan: &Plan, tool: &mut PipeWriter) -> Result<u8> {
    let (program, arguments) = plan.command.split_first().context("a lab has a command")?;
    let mut command = Command::new(program);
    command.args(arguments);
    hub::environment(plan, &mut command)?;
    tool.write_all(&[COMMAND_STARTED])?;
    let child = command.spawn().with_context(|| format!("starting {}", program.to_string_lossy()))?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    loop {
        match wait() {
            Ok(WaitStatus::Exited(ended, code)) if ended == pid => return Ok(u8::try_from(code).unwrap_or(u8::MAX)),
            Ok(WaitStatus::Signaled(ended, signal, _)) if ended == pid => return Ok(128 + signal as u8),
            Ok(_orphan) => {}
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("waiting for the command"),
        }
    }
}

fn let_go_of_terminal() -> Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    // a session of its own, so that the terminal's end is not this lab's
    nix::unistd::setsid().context("leaving the terminal").map(drop)
}
