//! `bench start`: from the exec of the first program to a ready API, and to a Ready node with names that answer; on a new
//! data folder, and the API once more on the existing one. Then, of ours alone, what a user does next.
//!
//! ```text
//! start ─▶ API ready ─▶ node Ready, DNS answers ─▶ kill -9, start ─▶ API ready ─▶ idle ─▶ pods ─▶ a deployment
//! ```
//!
//! The API is ready when `/readyz` answers 200 to the administrator. On a new data folder the kubeconfig's appearance is awaited
//! first, because nobody can be the administrator before. A port's being opened raises no event anywhere, so dialling is the one
//! thing done again and again. What comes after the second start is beside upstream in `bench idle` and `bench pod`; here it
//! makes one command tell all that a node of ours needs. Upstream's programs are started by the lab, each as soon as what it
//! stands on answers; its images are present, on our side none are needed.

mod resolver;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use bench_cluster::lab::{self, SERVER};
use bench_cluster::{Access, Lab, idle, ms_between, pods};
use bench_harness::{Figure, Meter, Part, Round, RoundArguments, Side, Subject, percentile};
use clap::{Parser, Subcommand};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

const START_MS_MAX: u64 = 180_000;
const DIAL_AGAIN_MS: u64 = 1;
/// Pods that come and go one after the other.
const PODS: usize = 20;
const REPLICAS: usize = 50;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Parts,
}

#[derive(Subcommand)]
enum Parts {
    #[command(flatten)]
    Shared(Part),
    /// On the node: ask the cluster's DNS until it answers, then print the moment
    Resolve(resolver::Arguments),
}

fn main() -> ExitCode {
    bench_harness::ended(match Arguments::parse().part {
        Parts::Shared(part) => bench_harness::run_part(&part, subject, round),
        Parts::Resolve(arguments) => resolver::run(&arguments),
    })
}

fn subject() -> Subject {
    let setting = "One node with everything. From the exec of the first program (ours has one) until /readyz answers the \
                   administrator, until the node is Ready and until the cluster's DNS answers on it; then all is killed \
                   and the API started again on the same data. Upstream's programs are started one after the other, each as \
                   soon as what it stands on answers, CoreDNS as a deployment whose image is present. Of ours alone, on that same \
                   data: a minute of idleness, pods one after the other, a deployment.";
    Subject::new("start", "Start", "upstream's programs together").setting(setting).figures([
        Figure::lower("api_ready_ms", "exec to API ready, new data folder", "ms").times(30.0).limit(100.0),
        Figure::lower("node_ready_ms", "exec to node Ready and DNS answering", "ms").times(30.0).limit(1000.0),
        Figure::lower("node_alone_ms", "exec to node Ready", "ms"),
        Figure::lower("api_restart_ms", "exec to API ready, existing data folder", "ms").limit(100.0),
        Figure::lower("idle_rss_mb", "idle memory (PSS)", "MB").limit(60.0).alone(),
        Figure::lower("idle_cpu_percent", "idle processor time, of one core", "%").limit(0.5).alone(),
        Figure::lower("pod_ready_ms_p50", "pod created to Ready, image present, p50", "ms").alone(),
        Figure::lower("pod_ready_ms_p99", "pod created to Ready, image present, p99", "ms").limit(100.0).alone(),
        Figure::lower("pod_gone_ms_p50", "pod deleted to gone, p50", "ms").alone(),
        Figure::lower("pods50_ready_ms", "deployment of 50 created to all Ready", "ms").alone(),
    ])
}

fn round(asked: &RoundArguments) -> Result<Round> {
    let lab = Lab::find()?;
    let meter = Meter::of_cgroup(&lab.cgroup(SERVER));
    let mut round = Round::default();
    measure(&lab, asked.side, &mut round).with_context(|| format!("there was said:\n{}", lab.log_tail(SERVER)))?;
    round.usage = meter.finish()?;
    Ok(round)
}

fn measure(lab: &Lab, side: Side, round: &mut Round) -> Result<()> {
    let place = Place::of(lab, side)?;
    first_start(lab, &place, round)?;
    lab.crash(SERVER)?;
    let access = Access::from_kubeconfig(&place.kubeconfig(), lab.api()?)?;
    let start = || place.api.iter().try_for_each(|program| lab.start_program(SERVER, program, &[]));
    let ready = meanwhile(start, || dial_until_ready(&access))?;
    round.put("api_restart_ms", ms_between(lab.executed_at(SERVER, place.api[0])?, ready));
    if side == Side::Ours { in_use(lab, &access, round) } else { Ok(()) }
}

/// Idle, pods one after the other, a deployment.
fn in_use(lab: &Lab, access: &Access, round: &mut Round) -> Result<()> {
    let idle = idle::minute(&lab.cgroup(SERVER))?;
    round.put("idle_rss_mb", idle.memory_mb);
    round.put("idle_cpu_percent", idle.cpu_percent);
    let spec = pods::staying();
    pods::await_admission(access)?;
    pods::one_by_one(access, "warm-up", 1, &spec)?;
    let times = pods::one_by_one(access, "single", PODS, &spec)?;
    let rank = |times: &[f64], rank| percentile(times.to_vec(), rank).context("nothing was measured");
    round.put("pod_ready_ms_p50", rank(&times.ready, 50)?);
    round.put("pod_ready_ms_p99", rank(&times.ready, 99)?);
    round.put("pod_gone_ms_p50", rank(&times.gone, 50)?);
    round.keep("pod_ready_ms", times.ready);
    round.keep("pod_gone_ms", times.gone);
    round.put("pods50_ready_ms", pods::deployment(access, "fifty", REPLICAS, &spec)?);
    Ok(())
}

/// What differs between the sides.
struct Place {
    /// Where the administrator's kubeconfig appears.
    folder: PathBuf,
    kubeconfig: &'static str,
    /// The programs that serve the API. The first one is executed before all others.
    api: &'static [&'static str],
    dns: &'static str,
}

impl Place {
    fn of(lab: &Lab, side: Side) -> Result<Self> {
        if side == Side::Peer {
            let kubeconfig = PathBuf::from(std::env::var_os("KUBECONFIG").context("KUBECONFIG is not set")?);
            let folder = kubeconfig.parent().context("the kubeconfig is in a folder")?.to_path_buf();
            return Ok(Self {
                folder,
                kubeconfig: "kubeconfig",
                api: &["etcd", "kube-apiserver"],
                dns: "10.96.0.10:53",
            });
        }
        let folder = lab.data(SERVER);
        // made here only so that its content can be awaited; it is empty
        fs::DirBuilder::new().mode(0o711).create(&folder).context("the data folder is not new")?;
        Ok(Self { folder, kubeconfig: "admin.kubeconfig", api: &["coracle"], dns: "10.43.0.10:53" })
    }

    fn kubeconfig(&self) -> PathBuf {
        self.folder.join(self.kubeconfig)
    }
}

/// On a new data folder: API ready, node Ready, DNS answering.
fn first_start(lab: &Lab, place: &Place, round: &mut Round) -> Result<()> {
    let folder = Inotify::init(InitFlags::empty())?;
    folder.add_watch(&place.folder, AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CLOSE_WRITE)?;
    let names = Names::start(lab, place.dns)?;
    let api = lab.api()?;
    let path = format!("/api/v1/nodes?watch=1&fieldSelector=metadata.name%3D{}", lab::name(SERVER));
    let (ready, (node, names)) = meanwhile(
        || lab.start(SERVER),
        || {
            await_file(&folder, Path::new(place.kubeconfig))?;
            let access = Access::from_kubeconfig(&place.kubeconfig(), api)?;
            let ready = dial_until_ready(&access)?;
            let node = access.watch(&path)?.wait_for(|event| pods::is_ready(&event.object))?;
            Ok((ready, (node, names.answered()?)))
        },
    )?;
    let since = |moment| Ok::<f64, anyhow::Error>(ms_between(lab.executed_at(SERVER, place.api[0])?, moment));
    round.put("api_ready_ms", since(ready)?);
    round.put("node_alone_ms", since(node)?);
    round.put("node_ready_ms", since(node.max(names))?);
    round.keep("dns_ms", vec![since(names)?]);
    Ok(())
}

/// Starts while `waiting` is on its way already, so that the starter's own end is not in any figure.
fn meanwhile<T: Send>(start: impl FnOnce() -> Result<()>, waiting: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let waiting = scope.spawn(waiting);
        start()?;
        waiting.join().map_err(|_panic| anyhow!("waiting failed"))?
    })
}

/// Dials and asks until `/readyz` answers 200; the moment of that answer.
fn dial_until_ready(access: &Access) -> Result<Instant> {
    let begun = Instant::now();
    let mut said = String::new();
    while begun.elapsed() < Duration::from_millis(START_MS_MAX) {
        match access.connect().and_then(|mut connection| connection.ask("GET", "/readyz", None)) {
            Ok((200, _)) => return Ok(Instant::now()),
            Ok((status, answer)) => said = format!("{status}: {}", String::from_utf8_lossy(&answer)),
            Err(error) => said = format!("{error:#}"),
        }
        thread::sleep(Duration::from_millis(DIAL_AGAIN_MS));
    }
    bail!("the API is not ready within {START_MS_MAX} ms; last: {said}")
}

fn await_file(folder: &Inotify, name: &Path) -> Result<()> {
    let deadline = Instant::now() + Duration::from_millis(START_MS_MAX);
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        let left = PollTimeout::try_from(i32::try_from(left)?)?;
        if poll(&mut [PollFd::new(folder.as_fd(), PollFlags::POLLIN)], left)? == 0 {
            bail!("no {} within {START_MS_MAX} ms", name.display());
        }
        let events = folder.read_events()?;
        if events.iter().any(|event| event.name.as_deref().is_some_and(|found| found == name)) {
            return Ok(());
        }
    }
}

/// The resolver on the node, asking all the while.
struct Names {
    resolver: Child,
    said: BufReader<ChildStdout>,
}

impl Names {
    /// Returns when it is asking.
    fn start(lab: &Lab, server: &str) -> Result<Self> {
        let mut resolver = lab.self_on_node(SERVER, &["resolve", "--server", server])?;
        let mut said = BufReader::new(resolver.stdout.take().context("the resolver has an output")?);
        said.read_line(&mut String::new()).context("waiting for the resolver")?;
        Ok(Self { resolver, said })
    }

    /// Waits for the first good answer.
    fn answered(mut self) -> Result<Instant> {
        let mut line = String::new();
        self.said.read_line(&mut line).context("waiting for the cluster's DNS")?;
        let moment = lab::moment(&line).context("the cluster's DNS does not answer")?;
        self.resolver.wait().context("waiting for the resolver")?;
        Ok(moment)
    }
}
