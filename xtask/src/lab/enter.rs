//! Acting on one node from inside a lab: `lab-node exec 1 -- ps`, `lab-node lose 2`, `lab-node cut 2`, ...
//!
//! Entering a node's namespaces is for good, so each action is a process of its own. This is also how lab-init itself
//! boots nodes and starts Coracle on them.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::state::{self, CORACLE, Node, Plan};
use super::{cgroups, cluster, containerd, hub, network, node_init, reaper, spawn, upstream};
use crate::process;

const BOOT_MS_MAX: u64 = 10_000;
/// Upstream's API server lets watches go on for a minute.
const STOP_MS_MAX: u64 = 90_000;
const LOOK_AGAIN_MS: u64 = 10;
/// How many fields of a `stat` file stand between the state and the number of threads.
const STAT_THREADS_AFTER_STATE: usize = 16;

#[derive(Args)]
pub struct NodeArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Make a node's namespaces and plug it in; a new number adds a node
    Boot { node: usize },
    /// Start what a node runs, or one program such as `coracle` or `kubelet`; extra flags may follow
    Start {
        node: usize,
        program: Option<String>,
        #[arg(last = true)]
        flags: Vec<OsString>,
    },
    /// Wait until the API that a node serves is ready
    Wait { node: usize },
    /// Ask what a node runs, or one program, to end, and wait for it
    Stop { node: usize, program: Option<String> },
    /// `kill -9` of all that a node runs, or of one program, except what is made to outlive it: shims and the resolver
    Crash { node: usize, program: Option<String> },
    /// A node dies: everything on it is gone, its disk is not
    Lose { node: usize },
    /// Pull a node's network cable
    Cut { node: usize },
    /// Plug a node's network cable in again
    Heal { node: usize },
    /// Run a command on a node
    Exec {
        node: usize,
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Print what Coracle, or another program, said on a node
    Log {
        node: usize,
        #[arg(default_value = CORACLE)]
        program: String,
    },
    /// Wait for the lab's end and clean up after it
    #[command(hide = true)]
    Janitor,
}

pub fn run_on_node(arguments: &NodeArguments) -> Result<ExitCode> {
    let dir = std::env::var_os(state::DIR_VARIABLE).map(PathBuf::from);
    let dir = dir.context("`lab-node` acts on the lab it runs in: start one with `cargo xtask lab`")?;
    if matches!(arguments.action, Action::Janitor) {
        state::wait_until_unlocked(&dir)?;
        return reaper::reap_dead_labs().map(|()| ExitCode::SUCCESS);
    }
    let plan = Plan::read(&dir)?;
    let done = |outcome: Result<()>| outcome.map(|()| ExitCode::SUCCESS);
    match &arguments.action {
        Action::Boot { node } => done(boot(&plan, &plan.node(*node)?)),
        Action::Start { node, program, flags } => done(start(&plan, &plan.node(*node)?, program.as_deref(), flags)),
        Action::Wait { node } => done(cluster::wait_for_api(&plan, &plan.node(*node)?)),
        Action::Stop { node, program } => done(stop(&plan, &plan.node(*node)?, program.as_deref())),
        Action::Crash { node, program } => done(crash(&plan, &plan.node(*node)?, program.as_deref())),
        Action::Lose { node } => done(lose(&plan.node(*node)?)),
        Action::Cut { node } => done(network::set_cable(&plan.node(*node)?, false)),
        Action::Heal { node } => done(network::set_cable(&plan.node(*node)?, true)),
        Action::Exec { node, command } => exec(&plan, &plan.node(*node)?, command),
        Action::Log { node, program } => done(print_log(&plan.node(*node)?, program)),
        Action::Janitor => Ok(ExitCode::SUCCESS),
    }
}

fn boot(plan: &Plan, node: &Node) -> Result<()> {
    if node.init_pid().is_ok_and(is_alive) {
        bail!("{} is running", node.name);
    }
    fs::create_dir_all(&node.run)?;
    fs::create_dir_all(&node.data)?;
    cgroups::create(&node.host_cgroup())?;
    let ready = node.run.join(node_init::READY_FILE);
    if ready.exists() {
        fs::remove_file(&ready)?;
    }
    let flags = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    let log = File::create(node.run.join("init.log"))?;
    let mut command = Command::new(&plan.xtask);
    command.arg("__node-init").arg(plan.dir()).arg(node.number.to_string());
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let init = spawn::spawn(flags, &[], spawn::owned_in_own_session(command))?;
    fs::write(node.run.join("init.pid"), init.to_string())?;
    wait_for(BOOT_MS_MAX, || ready.exists()).with_context(|| {
        format!("{} did not boot:\n{}", node.name, fs::read_to_string(node.run.join("init.log")).unwrap_or_default())
    })?;
    network::connect(node, init.as_raw())
}

fn start(plan: &Plan, node: &Node, program: Option<&str>, flags: &[OsString]) -> Result<()> {
    match program {
        Some(CORACLE) => start_coracle(plan, node, flags),
        Some(containerd::NAME) => start_containerd(plan, node),
        Some(name) => upstream::start_program(plan, node, name.parse()?, flags),
        None if plan.cluster.is_plain_coracle() => start_coracle(plan, node, flags),
        None if flags.is_empty() => cluster::start_node(plan, node),
        None => bail!("{} runs several programs: name the one that these flags are for", node.name),
    }
}

fn start_containerd(plan: &Plan, node: &Node) -> Result<()> {
    let programs = plan.containerd.as_ref().context("this lab was made without containerd")?;
    let network = upstream::pod_network(plan);
    launch(node, containerd::NAME, containerd::command(programs)?, || {
        containerd::configure(programs, network.as_ref())?;
        upstream::prepare_for_pods(plan, node)
    })
}

fn start_coracle(plan: &Plan, node: &Node, flags: &[OsString]) -> Result<()> {
    cluster::start_runtime(plan, node)?;
    let mut command = Command::new(&plan.coracle);
    command.args(cluster::coracle_arguments(plan, node)).args(flags);
    command.env("RUST_BACKTRACE", "1").env("NO_COLOR", "1");
    launch(node, CORACLE, command, || Ok(()))
}

/// Starts `command` on a node as its `name`, with a log and a process number; `prepare` runs on the node before. Enters the
/// node, which is for good.
pub fn launch(node: &Node, name: &str, mut command: Command, prepare: impl FnOnce() -> Result<()>) -> Result<()> {
    if state::read_pid(&node.pid_file(name)).is_ok_and(is_alive) {
        bail!("{name} runs on {} already", node.name);
    }
    let log = File::options().create(true).append(true).open(node.log(name))?;
    let pid_file = File::create(node.pid_file(name))?;
    let moment_file = File::create(node.executed_file(name))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.env_remove("KUBECONFIG");
    for proxy in hub::PROXY_VARIABLES {
        command.env_remove(proxy);
    }
    enter(node)?;
    prepare()?;
    let moment = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let child = spawn::in_own_session(&mut command).spawn().with_context(|| format!("starting {name}"))?;
    use std::io::Write;
    write!(&moment_file, "{}", moment.as_nanos()).with_context(|| format!("writing when {name} was executed"))?;
    write!(&pid_file, "{}", child.id()).with_context(|| format!("writing {name}'s process number"))
}

/// What a node runs, the last started first; or the one program that is named.
fn running(plan: &Plan, node: &Node, program: Option<&str>) -> Vec<String> {
    match program {
        Some(name) => vec![name.to_owned()],
        None => cluster::programs(plan, node).into_iter().rev().map(str::to_owned).collect(),
    }
}

fn stop(plan: &Plan, node: &Node, program: Option<&str>) -> Result<()> {
    for name in running(plan, node, program) {
        let pid = state::read_pid(&node.pid_file(&name))?;
        kill(Pid::from_raw(pid), Signal::SIGTERM).with_context(|| format!("{name} does not run on {}", node.name))?;
        wait_for(STOP_MS_MAX, || !is_alive(pid)).with_context(|| {
            format!("{name} on {} does not end:\n{}", node.name, process::last_lines(&node.log_text(&name), 40))
        })?;
    }
    Ok(())
}

fn crash(plan: &Plan, node: &Node, program: Option<&str>) -> Result<()> {
    for name in running(plan, node, program) {
        let main = state::read_pid(&node.pid_file(&name))?;
        let all = if name == CORACLE { processes_of(&plan.coracle, node.init_pid()?)? } else { vec![main] };
        for pid in all {
            // one that ended in the meantime is as dead as we want it
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        wait_for(STOP_MS_MAX, || !is_alive(main)).context("killed, yet alive")?;
    }
    Ok(())
}

/// Every process in the node that runs `program`, except those that belong to the containers: shims and the resolver of names.
fn processes_of(program: &Path, node_init: i32) -> Result<Vec<i32>> {
    let namespace = |pid: i32, path: &str| fs::read_link(format!("/proc/{pid}/{path}")).ok();
    let node = namespace(node_init, "ns/net").context("the node's process 1 is gone")?;
    let entries = fs::read_dir("/proc")?.filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    Ok(pids
        .filter(|pid| namespace(*pid, "ns/net").as_ref() == Some(&node))
        .filter(|pid| namespace(*pid, "exe").as_deref() == Some(program))
        .filter(|pid| !outlives(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()))
        .collect())
}

fn outlives(command_line: &[u8]) -> bool {
    let mut words = command_line.split(|byte| *byte == 0).take(2);
    words.any(|word| ["shim", "resolver"].iter().any(|name| String::from_utf8_lossy(word).contains(name)))
}

fn lose(node: &Node) -> Result<()> {
    let init = node.init_pid()?;
    kill(Pid::from_raw(init), Signal::SIGKILL).with_context(|| format!("{} is gone already", node.name))?;
    wait_for(STOP_MS_MAX, || !is_alive(init)).context("killed, yet alive")
}

fn exec(plan: &Plan, node: &Node, command: &[OsString]) -> Result<ExitCode> {
    let (program, arguments) = command.split_first().context("no command")?;
    let mut child = Command::new(program);
    child.args(arguments);
    hub::environment(plan, &mut child)?;
    enter(node)?;
    let status = child.status().with_context(|| format!("starting {}", program.to_string_lossy()))?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)))
}

fn print_log(node: &Node, program: &str) -> Result<()> {
    let log = File::open(node.log(program));
    let mut log = log.with_context(|| format!("{program} was never started on {}", node.name))?;
    std::io::copy(&mut log, &mut std::io::stdout()).context("printing the log").map(drop)
}

/// Makes this process a member of the node: its groups, and every namespace it has for itself. Children are members
/// of its process namespace too.
fn enter(node: &Node) -> Result<()> {
    cgroups::join(&node.host_cgroup())?;
    let flags = [
        ("net", CloneFlags::CLONE_NEWNET),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("pid", CloneFlags::CLONE_NEWPID),
        ("mnt", CloneFlags::CLONE_NEWNS),
    ];
    enter_namespaces(node.init_pid()?, &flags).with_context(|| format!("entering {}", node.name))
}

fn enter_namespaces(pid: i32, flags: &[(&str, CloneFlags)]) -> Result<()> {
    let opened = flags.iter().map(|(name, flag)| Ok((File::open(format!("/proc/{pid}/ns/{name}"))?, *flag)));
    // all first: after the mount namespace, /proc is another
    for (namespace, flag) in opened.collect::<std::io::Result<Vec<_>>>()? {
        setns(namespace.as_fd(), flag)?;
    }
    Ok(())
}

/// Runs a command in a kept lab, from outside it.
pub fn run_in_lab(id: &str, command: &[OsString]) -> Result<ExitCode> {
    let dir = state::dir_of(id)?;
    let plan = Plan::read(&dir)?;
    let init = state::read_pid(&dir.join("host-pid"))?;
    let command = super::shell_or(command);
    let mut child = Command::new(&command[0]);
    child.args(&command[1..]);
    hub::environment(&plan, &mut child)?;
    let flags = [
        ("net", CloneFlags::CLONE_NEWNET),
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("pid", CloneFlags::CLONE_NEWPID),
        ("mnt", CloneFlags::CLONE_NEWNS),
    ];
    enter_namespaces(init, &flags).with_context(|| format!("entering lab {id}"))?;
    let status = child.status().with_context(|| format!("starting {}", command[0].to_string_lossy()))?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)))
}

/// Whether a process, or any thread of it, goes on.
pub fn is_alive(pid: i32) -> bool {
    goes_on(&fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default())
}

/// What a process' `stat` file says. A zombie is dead, though its number is not free yet; but a process shows as one from the
/// end of its first thread on, while others may still hold its files, locks and ports.
fn goes_on(stat: &str) -> bool {
    let Some((_, fields)) = stat.rsplit_once(')') else { return false };
    let mut fields = fields.split_whitespace();
    let is_zombie = fields.next().is_none_or(|state| ["Z", "X"].contains(&state));
    !is_zombie || fields.nth(STAT_THREADS_AFTER_STATE).is_some_and(|threads| !["0", "1"].contains(&threads))
}

/// Looks again and again until `condition` holds; an error after `ms_max`, stretched on a slow machine.
pub fn wait_for(ms_max: u64, mut condition: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_millis(ms_max * state::slowness());
    while !condition() {
        if Instant::now() > deadline {
            bail!("not within {} s", ms_max * state::slowness() / 1000);
        }
        thread::sleep(Duration::from_millis(LOOK_AGAIN_MS));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shims_and_resolvers_are_told_from_servers() {
        assert!(outlives(b"coracle-shim\0--id\0x\0"));
        assert!(outlives(b"/x/coracle\0shim\0x\0"));
        assert!(outlives(b"coracle-resolver\0dns-resolver\0/x/resolver.sock\0"));
        assert!(!outlives(b"/x/coracle\0up\0--data-dir\0/shim\0"));
    }

    #[test]
    fn this_process_is_alive_and_an_ended_one_is_not() {
        assert!(is_alive(i32::try_from(std::process::id()).unwrap()));
        let mut child = Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        wait_for(5_000, || !is_alive(pid)).unwrap();
        child.wait().unwrap();
        assert!(!is_alive(pid));
    }

    #[test]
    fn a_process_whose_first_thread_alone_has_ended_goes_on() {
        let stat = |state, threads| {
            format!(
                "7 (a) b) {state} 1 7 7 0 -1 4228364 93 0 0 0 5 1 0 0 20 0 {threads} 0 814 0 0 18446744073709551615"
            )
        };
        let alive = [goes_on(&stat("R", 1)), goes_on(&stat("Z", 3)), goes_on(&stat("Z", 1)), goes_on("")];
        assert_eq!(alive, [true, true, false, false]);
    }
}
