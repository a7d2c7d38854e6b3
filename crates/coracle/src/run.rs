//! The commands that keep running: `up`, `server`, `agent`.
//!
//! ```text
//! lock the data folder ─▶ control plane ─▶ node (in process) ─▶ ready ─▶ wait for a signal ─▶ wind down
//! ```
//!
//! On a signal everything of ours stops in an orderly way; containers and the resolver run on, so that a new Coracle finds them; `down` is the
//! command that ends them too.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use base::{Clock, Tasks, phase};
use client::{Client, Informers};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use pki::CertRequest;
use tokio::signal::unix::{SignalKind, signal};

use crate::agent::Joining;
use crate::arguments::{AgentArguments, ServerArguments, UpArguments};
use crate::cluster_info;
use crate::control_plane::{self, ControlPlane};
use crate::identity;
use crate::instance::{Instance, READY_WORD, ReadyPipe};
use crate::node::{self, Clients, Ground, Node};
use crate::parts::Part;
use crate::settings::{Cluster, Machine, admin_kubeconfig};
use crate::token;

/// Names the pipe that a detached child reports on.
const READY_VARIABLE: &str = "CORACLE_READY_FD";
/// How much of the log of a cluster that did not start is shown.
const SHOWN_LINES_MAX: usize = 10;

/// How many tasks a thread runs before it looks whether anything has come in. Where tasks take long (a slow machine, all of
/// them busy), tokio's own 61 would let a new connection wait until its client gives up.
const TASKS_BETWEEN_LOOKS: u32 = 7;

pub fn block_on<F: Future<Output = Result<()>>>(work: F) -> Result<()> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().event_interval(TASKS_BETWEEN_LOOKS).global_queue_interval(TASKS_BETWEEN_LOOKS);
    let runtime = builder.build().context("cannot start threads")?;
    runtime.block_on(work)
}

pub fn up(arguments: &UpArguments) -> Result<()> {
    let (cluster, machine) = (Cluster::new(&arguments.control_plane)?, Machine::new(&arguments.node, Part::ALL)?);
    token::checked(arguments.node.token.as_deref())?;
    be_root("up")?;
    if arguments.detach {
        return detach(&machine);
    }
    let _instance = Instance::take(&machine.data_dir)?;
    let mut ready = inherited_pipe()?;
    block_on(async move {
        let (clock, tasks) = (Clock::system(), Tasks::root());
        let plane = control_plane::start(&cluster, &machine, &clock, &tasks).await?;
        let outcome = async {
            let ground = open_ground(&plane, &cluster, &machine, &clock, &tasks);
            phase::of("cluster information", cluster_info::publish(&plane, &cluster, &machine)).await?;
            token::provide(&plane, arguments.node.token.as_deref()).await?;
            join_in_process(ground.await??, &plane, &cluster, &machine, &clock, &tasks).await
        };
        let mut node = outcome.await?;
        let readiness = phase::of("node ready", node.ready());
        tokio::select! {
            outcome = readiness => outcome?,
            () = stop_signal() => return wind_down(&tasks).await,
        }
        ready.tell();
        tracing::info!(kubeconfig = %admin_kubeconfig(&machine.data_dir).display(), "the cluster is ready");
        stop_signal().await;
        wind_down(&tasks).await
    })
}

pub fn server(arguments: &ServerArguments) -> Result<()> {
    let cluster = Cluster::new(&arguments.control_plane)?;
    let machine = Machine::new(&arguments.node, Part::OF_CONTROL_PLANE)?;
    token::checked(arguments.node.token.as_deref())?;
    let _instance = Instance::take(&machine.data_dir)?;
    block_on(async move {
        let (clock, tasks) = (Clock::system(), Tasks::root());
        let plane = control_plane::start(&cluster, &machine, &clock, &tasks).await?;
        cluster_info::publish(&plane, &cluster, &machine).await?;
        token::provide(&plane, arguments.node.token.as_deref()).await?;
        tracing::info!(address = %plane.api.address(), "the API is served");
        stop_signal().await;
        wind_down(&tasks).await
    })
}

pub fn agent(arguments: &AgentArguments) -> Result<()> {
    let (clock, tasks) = (Clock::system(), Tasks::root());
    let joining = Joining::new(arguments, &clock, &tasks)?;
    be_root("agent")?;
    let _instance = Instance::take(&joining.machine().data_dir)?;
    block_on(async move {
        let joined = tokio::select! {
            joined = joining.join() => joined?,
            () = stop_signal() => return wind_down(&tasks).await,
        };
        tracing::info!(node = joining.machine().name, port = joined.port(), "this machine is a node of the cluster");
        stop_signal().await;
        wind_down(&tasks).await
    })
}

/// Nodes make namespaces, links and control groups.
fn be_root(command: &str) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("a node runs containers, which needs root: run `sudo coracle {command}`");
    }
    Ok(())
}

/// Opens what the node stands on while others work.
fn open_ground(
    plane: &ControlPlane,
    cluster: &Cluster,
    machine: &Machine,
    clock: &Clock,
    tasks: &Tasks,
) -> tokio::task::JoinHandle<Result<Ground>> {
    let (membership, machine) = (cluster_info::membership(plane, cluster), machine.clone());
    let (clock, tasks) = (clock.clone(), tasks.clone());
    tokio::spawn(async move { Ground::open(&machine, &membership, &clock, &tasks).await })
}

/// The node of the control plane's own machine.
async fn join_in_process(
    ground: Ground,
    plane: &ControlPlane,
    cluster: &Cluster,
    machine: &Machine,
    clock: &Clock,
    tasks: &Tasks,
) -> Result<Node> {
    let wanted = CertRequest::server(
        &format!("system:node:{}", machine.name),
        &[&machine.name, "localhost"],
        &[machine.address, [127, 0, 0, 1].into()],
    );
    let serving = plane.authorities.live("kubelet-server", wanted, tasks)?;
    let membership = cluster_info::membership(plane, cluster);
    let client = |identity| Client::new(plane.api.door(identity));
    let informers = |identity| Informers::new(client(identity), clock.clone(), tasks.child());
    let clients = Clients {
        agent: client(identity::node(&machine.name)),
        proxy: informers(identity::proxy()),
        dns: informers(identity::dns()),
    };
    node::start(ground, machine, &membership, clients, serving, clock, tasks).await
}

async fn stop_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

async fn wind_down(tasks: &Tasks) -> Result<()> {
    tracing::info!("stopping; containers run on");
    tasks.shutdown().await;
    Ok(())
}

/// Starts this very command again without `--detach`, in the background, and waits for its word.
fn detach(machine: &Machine) -> Result<()> {
    // Looked at here too, because here is who can say so.
    drop(Instance::take(&machine.data_dir)?);
    let log = machine.data_dir.join("coracle.log");
    let said_before = std::fs::metadata(&log).map_or(0, |log| log.len());
    let output = OpenOptions::new().create(true).append(true).open(&log).context("cannot write the log")?;
    let (mut reading, writing) = std::io::pipe()?;
    fcntl(&writing, FcntlArg::F_SETFD(FdFlag::empty())).context("cannot hand on a pipe")?;
    let own = std::env::current_exe().context("cannot find this program")?;
    let arguments = std::env::args_os().skip(1).filter(|argument| argument != "--detach");
    let mut command = std::process::Command::new(own);
    command.args(arguments).env(READY_VARIABLE, writing.as_raw_fd().to_string());
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
    let mut child = command.spawn().context("cannot start the cluster")?;
    drop(writing);
    // Not to the end of the pipe: the word may come before everybody has let go of it.
    let mut word = [0; READY_WORD.len()];
    if reading.read_exact(&mut word).is_err() || word != READY_WORD {
        // It lets go of the pipe before it says why.
        child.wait().context("cannot wait for the cluster's end")?;
        bail!("the cluster did not start; this is the end of {}:\n{}", log.display(), last_lines(&log, said_before));
    }
    println!("The cluster is ready (process {}).", child.id());
    println!("  export KUBECONFIG={}", admin_kubeconfig(&machine.data_dir).display());
    println!("  kubectl get pods --all-namespaces");
    Ok(())
}

fn inherited_pipe() -> Result<ReadyPipe> {
    let number = std::env::var(READY_VARIABLE).ok().and_then(|text| text.parse::<i32>().ok());
    // SAFETY: the variable is set by `detach` alone, for a descriptor that this process inherits and nobody else uses.
    #[allow(unsafe_code)]
    let pipe = number.map(|number| unsafe { OwnedFd::from_raw_fd(number) });
    // Shims outlive this process; with the pipe they would keep whoever waits for the word waiting.
    if let Some(pipe) = &pipe {
        fcntl(pipe, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).context("cannot keep the pipe to ourselves")?;
    }
    Ok(ReadyPipe(pipe))
}

/// What the process that failed had to say, in a log that may hold what others said before.
fn last_lines(log: &Path, said_before: u64) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(text.get(usize::try_from(said_before).unwrap_or(0)..).unwrap_or_default());
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES_MAX)..].join("\n")
}
