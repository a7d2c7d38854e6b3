//! One round from an empty data folder to fifty pods.
//!
//! ```text
//! start ─▶ API ready ─▶ node Ready, DNS answers ─▶ stop, start ─▶ API ready ─▶ (idle minute) ─▶ pods one by one ─▶ deployment
//! ```
//!
//! The API is ready when `/readyz` answers 200 to the administrator. On a new data folder the kubeconfig's appearance
//! is awaited first, because nobody can be the administrator before. A port's being opened raises no event anywhere, so
//! dialling is the one thing done again and again.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::{Value, json};

use crate::RoundArguments;
use crate::https::Access;
use crate::idle;
use crate::lab::{self, Lab, NODE_NAME, ms_between};
use crate::workload;

const START_MS_MAX: u16 = 60_000;
const DIAL_AGAIN_MS: u64 = 1;
/// What a start leaves to be done in the background is not idleness.
const SETTLE_S: u64 = 10;

pub fn run(arguments: &RoundArguments) -> Result<()> {
    let lab = Lab::find()?;
    let figures = measure(&lab, arguments).with_context(|| format!("Coracle said:\n{}", tail(&lab.log())))?;
    std::fs::write(&arguments.out, figures.to_string()).context("writing the figures")
}

fn measure(lab: &Lab, arguments: &RoundArguments) -> Result<Value> {
    let mut figures = json!({});
    first_start(lab, &mut figures)?;
    figures["stop_ms"] = json!(timed(|| lab.stop())?);
    let access = restart(lab, &mut figures)?;
    if arguments.idle_s > 0 {
        thread::sleep(Duration::from_secs(SETTLE_S));
        figures["idle_cpu_percent"] = json!(idle::cpu_percent(lab, Duration::from_secs(arguments.idle_s))?);
        figures["idle_pss_mb"] = json!(idle::pss_mb(lab)?);
    }
    workload::warm_up(&access)?;
    let times = workload::one_by_one(&access, "single", arguments.pods)?;
    figures["pod_bound_ms"] = json!(times.bound);
    figures["pod_ready_ms"] = json!(times.ready);
    figures["pod_gone_ms"] = json!(times.gone);
    let (half, all) = workload::deployment(&access, arguments.replicas)?;
    figures["half_of_pods_ready_ms"] = json!(half);
    figures["all_of_pods_ready_ms"] = json!(all);
    figures["with_pods_pss_mb"] = json!(idle::pss_mb(lab)?);
    Ok(figures)
}

/// On a new data folder: API ready, node Ready, DNS answering.
fn first_start(lab: &Lab, figures: &mut Value) -> Result<()> {
    // made here only so that its content can be awaited; it is empty
    std::fs::DirBuilder::new().mode(0o711).create(&lab.data).context("the data folder is not new")?;
    let folder = Inotify::init(InitFlags::empty())?;
    folder.add_watch(&lab.data, AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CLOSE_WRITE)?;
    let mut names = Names::start(lab)?;
    let (access, ready) = started(lab, || {
        await_kubeconfig(&folder)?;
        let access = Access::from_kubeconfig(&lab.kubeconfig(), lab.api)?;
        let ready = dial_until_ready(&access)?;
        Ok((access, ready))
    })?;
    let node = access
        .watch(&format!("/api/v1/nodes?watch=1&fieldSelector=metadata.name%3D{NODE_NAME}"))?
        .wait_for(|event| workload::is_ready(&event.object))?;
    let names = names.answered()?;
    let executed = lab.executed_at()?;
    figures["api_ready_ms"] = json!(ms_between(executed, ready));
    figures["node_ready_ms"] = json!(ms_between(executed, node.max(names)));
    figures["node_alone_ready_ms"] = json!(ms_between(executed, node));
    figures["dns_ms"] = json!(ms_between(executed, names));
    Ok(())
}

/// On the data folder of the first start.
fn restart(lab: &Lab, figures: &mut Value) -> Result<Access> {
    let access = Access::from_kubeconfig(&lab.kubeconfig(), lab.api)?;
    let ready = started(lab, || dial_until_ready(&access))?;
    figures["api_restart_ms"] = json!(ms_between(lab.executed_at()?, ready));
    Ok(access)
}

/// Starts Coracle while `waiting` is on its way already, so that the starter's own end is not in any figure.
fn started<T: Send>(lab: &Lab, waiting: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let waiting = scope.spawn(waiting);
        lab.start()?;
        waiting.join().map_err(|_panic| anyhow::anyhow!("waiting for the API failed"))?
    })
}

/// Dials and asks until `/readyz` answers 200; the moment of that answer.
fn dial_until_ready(access: &Access) -> Result<Instant> {
    let begun = Instant::now();
    let mut said = String::new();
    while begun.elapsed() < Duration::from_millis(START_MS_MAX.into()) {
        match access.connect().and_then(|mut connection| connection.ask("GET", "/readyz", None)) {
            Ok((200, _)) => return Ok(Instant::now()),
            Ok((status, answer)) => said = format!("{status}: {}", String::from_utf8_lossy(&answer)),
            Err(error) => said = format!("{error:#}"),
        }
        thread::sleep(Duration::from_millis(DIAL_AGAIN_MS));
    }
    bail!("the API is not ready within {START_MS_MAX} ms; last: {said}")
}

fn await_kubeconfig(folder: &Inotify) -> Result<()> {
    let deadline = Instant::now() + Duration::from_millis(START_MS_MAX.into());
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        let left = PollTimeout::try_from(i32::try_from(left)?)?;
        if poll(&mut [PollFd::new(folder.as_fd(), PollFlags::POLLIN)], left)? == 0 {
            bail!("no admin.kubeconfig within {START_MS_MAX} ms");
        }
        let events = folder.read_events()?;
        if events.iter().any(|event| event.name.as_deref().is_some_and(|name| name == "admin.kubeconfig")) {
            return Ok(());
        }
    }
}

/// The resolver on the node, asking all the while.
struct Names {
    resolver: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Names {
    /// Returns when it is asking.
    fn start(lab: &Lab) -> Result<Self> {
        let mut resolver = lab.on_node(&["resolve"])?;
        let mut said = BufReader::new(resolver.stdout.take().context("the resolver has an output")?);
        said.read_line(&mut String::new()).context("waiting for the resolver")?;
        Ok(Self { resolver, said })
    }

    /// Waits for the first good answer.
    fn answered(&mut self) -> Result<Instant> {
        let mut line = String::new();
        self.said.read_line(&mut line).context("waiting for the cluster's DNS")?;
        let moment = lab::moment(&line).context("the cluster's DNS does not answer")?;
        self.resolver.wait().context("waiting for the resolver")?;
        Ok(moment)
    }
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begun = Instant::now();
    work()?;
    Ok(ms_between(begun, Instant::now()))
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
