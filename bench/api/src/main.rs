//! `cargo xtask bench api`: our control plane beside upstream's API server with etcd, driven by one client.
//!
//! ```text
//! round ─▶ kube-apiserver ─▶ etcd                       (peer)  ┐  loopback, TLS, HTTP/2, a service account's token,
//!       ─▶ coracle server --without scheduler,controllers (ours) ┴─ RBAC, no audit; JSON both ways
//!            ◀── get, create, update, watch, list and memory
//! ```
//!
//! Each round starts one side on an empty data folder (`sides`), makes an account that may do everything through RBAC
//! (`account`), and lets the same client ask (`session`). Writes are answered after they are synced to the same disk on
//! both sides. The client runs on the same processors as the servers it measures, on both sides alike.

mod account;
mod list;
mod objects;
mod requests;
mod session;
mod sides;
mod watches;

use std::process::ExitCode;

use anyhow::{Context, Result};
use bench_harness::{Meter, Round, RoundArguments, Subject};

use session::Target;
use sides::Running;

/// As the product: the client should cost little.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn subject() -> Subject {
    Subject::new("api", "The API", "kube-apiserver with etcd")
        .setting(
            "HTTP/2 over TLS on loopback, JSON, a service account's token checked by RBAC, no audit; writes are answered after they are \
             synced to disk. Ours is `coracle server` without scheduler and controllers.",
        )
        .figures(requests::figures())
        .figures(watches::figures())
        .figures(list::figures())
}

fn main() -> ExitCode {
    bench_harness::main(subject, round)
}

fn round(asked: &RoundArguments) -> Result<Round> {
    bench_harness::own_network()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let mut running = Running::start(asked)?;
    let ready = running.wait_until_ready(&runtime);
    let mut round = Round::default();
    let meter = Meter::of_pids(running.pids());
    let measured = ready.and_then(|admin| runtime.block_on(measure(asked, &admin, &running, &meter, &mut round)));
    measured.with_context(|| format!("the servers said:\n{}", running.said()))?;
    round.usage = meter.finish()?;
    // connections end before the servers do
    drop(runtime);
    running.stop()?;
    Ok(round)
}

async fn measure(
    asked: &RoundArguments,
    admin: &Target,
    running: &Running,
    meter: &Meter,
    round: &mut Round,
) -> Result<()> {
    let target = account::make(admin).await?;
    if ["get", "create", "update"].iter().any(|group| asked.wants(group)) {
        requests::measure(asked, &target, meter, round).await?;
    }
    if asked.wants("watch") {
        watches::measure(&target, meter, round).await?;
    }
    if asked.wants("list") || asked.wants("pod") {
        list::measure(&target, &running.pids(), meter, round).await?;
    }
    Ok(())
}
