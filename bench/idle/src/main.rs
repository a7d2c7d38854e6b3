//! `bench idle`: what a cluster of one node costs while nothing happens: memory, processor time, wake-ups, over a minute.

use std::process::ExitCode;

use anyhow::{Context, Result};
use bench_cluster::lab::{self, SERVER};
use bench_cluster::{Access, Lab, idle, pods};
use bench_harness::{Figure, Meter, Round, RoundArguments, Subject};

fn main() -> ExitCode {
    bench_harness::main(subject, round)
}

fn subject() -> Subject {
    let setting = "One node with control plane, node agent, proxy and DNS, no pods of users; a minute, beginning 20 s \
                   after the node was Ready. All processes of the side summed; memory is PSS.";
    Subject::new("idle", "Idle", "upstream's programs together").setting(setting).figures([
        Figure::lower("idle_memory_mb", "memory", "MB").times(12.0),
        Figure::lower("idle_cpu_percent", "processor time, of one core", "%").times(15.0),
        Figure::lower("idle_wakeups", "wake-ups", "1/s"),
    ])
}

fn round(_asked: &RoundArguments) -> Result<Round> {
    let lab = Lab::find()?;
    lab.start(SERVER)?;
    lab.wait(SERVER)?;
    Access::of_environment()?
        .watch(&format!("/api/v1/nodes?watch=1&fieldSelector=metadata.name%3D{}", lab::name(SERVER)))?
        .wait_for(|event| pods::is_ready(&event.object))
        .with_context(|| format!("there was said:\n{}", lab.log_tail(SERVER)))?;
    let group = lab.cgroup(SERVER);
    let meter = Meter::of_cgroup(&group);
    let idle = idle::minute(&group)?;
    let mut round = Round::default();
    round.put("idle_cpu_percent", idle.cpu_percent);
    round.put("idle_memory_mb", idle.memory_mb);
    round.put("idle_wakeups", idle.wakeups);
    round.usage = meter.finish()?;
    Ok(round)
}
