//! `bench pod`: pods from the request to Ready, from delete to gone, to their own end, alone and many at once; and single
//! containers from create to exit.
//!
//! ```text
//! this program ─► API server ─► ... ─► node agent ─► runtime      as a watcher of the API sees it
//! `containers` ─────── CRI socket ───────────────► runtime      on the node, after the pods
//! ```
//!
//! Images are present: one pod of each kind runs first. Our runtime has no socket of its own when it runs in Coracle's
//! process, so that for the last figure this program serves the same runtime on one; the client is the same.

mod containers;
mod runtime_of_ours;

use std::process::ExitCode;

use anyhow::{Context, Result};
use bench_cluster::lab::{self, SERVER};
use bench_cluster::{Access, Lab, pods};
use bench_harness::{Figure, Meter, Part, Round, RoundArguments, Subject, percentile};
use clap::{Parser, Subcommand};
use serde_json::{Value, json};

/// Pods that come and go one after the other.
const ALONE: usize = 20;
const AT_ONCE: [usize; 2] = [50, 100];
pub const BUSYBOX: &str = "docker.io/library/busybox:1.36";

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Parts,
}

#[derive(Subcommand)]
enum Parts {
    #[command(flatten)]
    Shared(Part),
    /// On the node: containers, one after the other, over a CRI socket; prints what each took
    Containers(containers::Arguments),
    /// On the node: our runtime on a CRI socket
    Serve(runtime_of_ours::Arguments),
}

fn main() -> ExitCode {
    // shims are this same program: it must become one before a thread is started
    runtime::reexec();
    bench_harness::ended(match Arguments::parse().part {
        Parts::Shared(part) => bench_harness::run_part(&part, subject, round),
        Parts::Containers(arguments) => containers::run(&arguments),
        Parts::Serve(arguments) => runtime_of_ours::run(&arguments),
    })
}

fn subject() -> Subject {
    let setting = format!(
        "One node. {ALONE} pods one after the other, then 50 and 100 at once, of one container, image present; times are \
         from the first request to the event as a watcher of the API sees it. A container: CreateContainer to the \
         event of its end, over the runtime's CRI socket, in a sandbox that runs."
    );
    Subject::new("pod", "Pods", "kubelet with containerd and runc").setting(&setting).figures([
        Figure::lower("pod_ready_p50_ms", "pod created to Ready, p50", "ms"),
        Figure::lower("pod_ready_p99_ms", "pod created to Ready, p99", "ms").limit(100.0),
        Figure::lower("pod_gone_p50_ms", "pod deleted to gone, p50", "ms"),
        Figure::lower("pod_gone_p99_ms", "pod deleted to gone, p99", "ms"),
        Figure::lower("pod_done_p50_ms", "pod created to its own end, p50", "ms"),
        Figure::lower("pods50_ready_ms", "50 pods at once, all Ready", "ms"),
        Figure::lower("pods50_gone_ms", "50 pods at once, all gone", "ms"),
        Figure::lower("pods100_ready_ms", "100 pods at once, all Ready", "ms"),
        Figure::lower("pods100_gone_ms", "100 pods at once, all gone", "ms"),
        Figure::lower("container_p50_ms", "container create to exit, p50", "ms").times(8.0),
        Figure::lower("container_p99_ms", "container create to exit, p99", "ms"),
    ])
}

fn round(asked: &RoundArguments) -> Result<Round> {
    let lab = Lab::find()?;
    lab.start(SERVER)?;
    lab.wait(SERVER)?;
    let access = Access::of_environment()?;
    access
        .watch(&format!("/api/v1/nodes?watch=1&fieldSelector=metadata.name%3D{}", lab::name(SERVER)))?
        .wait_for(|event| pods::is_ready(&event.object))?;
    let meter = Meter::of_cgroup(&lab.cgroup(SERVER));
    let mut round = Round::default();
    drive(&access, &mut round).with_context(|| format!("there was said:\n{}", lab.log_tail(SERVER)))?;
    round.usage = meter.finish()?;
    let times = containers::measured(&lab, asked.side)?;
    put(&mut round, "container", &[50, 99], times)?;
    Ok(round)
}

/// Everything that goes through the API.
fn drive(access: &Access, round: &mut Round) -> Result<()> {
    let (staying, ending) = (pods::staying(), ending());
    pods::await_admission(access)?;
    pods::one_by_one(access, "warm-up", 1, &staying)?;
    pods::to_their_end(access, "warm-up-ending", 1, &ending)?;
    let times = pods::one_by_one(access, "single", ALONE, &staying)?;
    put(round, "pod_ready", &[50, 99], times.ready)?;
    put(round, "pod_gone", &[50, 99], times.gone)?;
    round.keep("pod_bound_ms", times.bound);
    put(round, "pod_done", &[50], pods::to_their_end(access, "ending", ALONE, &ending)?)?;
    for count in AT_ONCE {
        let (ready, gone) = pods::at_once(access, &format!("crowd-{count}"), count, &staying)?;
        round.put(&format!("pods{count}_ready_ms"), ready);
        round.put(&format!("pods{count}_gone_ms"), gone);
    }
    Ok(())
}

fn put(round: &mut Round, name: &str, ranks: &[usize], times: Vec<f64>) -> Result<()> {
    for rank in ranks {
        let value = percentile(times.clone(), *rank).context("nothing was measured")?;
        round.put(&format!("{name}_p{rank}_ms"), value);
    }
    round.keep(&format!("{name}_ms"), times);
    Ok(())
}

/// A pod that ends at once.
fn ending() -> Value {
    json!({"restartPolicy": "Never", "containers": [{"name": "true", "image": BUSYBOX, "command": ["/bin/true"]}]})
}
