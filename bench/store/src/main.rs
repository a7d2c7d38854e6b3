//! `cargo xtask bench store`: the embedded engine beside etcd, both behind etcd's v3 gRPC API, driven by one client.
//!
//! ```text
//! round ─▶ etcd                     (peer)   ┐
//!       ─▶ bench-store serve        (ours)   ┴─ loopback, no TLS on both ◀── puts, ranges, watches
//!       ─▶ store::Embedded in here  (ours, `inside`: what the engine does without any protocol; no ratio)
//! ```
//!
//! `serve` is the engine behind a front (`front`) that is as thin as it goes: only what the client here asks for. Both
//! servers answer a put after it is synced to the same disk. The client runs on the same processors as the server it
//! measures, on both sides alike.

mod client;
mod etcd;
mod front;
mod grpc;
mod inside;
mod puts;
mod ranges;
mod watches;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use bench_harness::{Meter, Part, Round, RoundArguments, Side, Started, Subject};
use clap::{Parser, Subcommand};

/// As the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ADDRESS: &str = "127.0.0.1:2379";
/// etcd's own default is 2 GiB, and Kubernetes' guides raise it to this.
const ETCD_QUOTA_BYTES: &str = "8589934592";

#[derive(Parser)]
#[command(about = "The store beside etcd; `cargo xtask bench store` runs it")]
struct Arguments {
    #[command(subcommand)]
    part: StorePart,
}

#[derive(Subcommand)]
enum StorePart {
    #[command(flatten)]
    Shared(Part),
    /// The embedded engine behind etcd's API
    Serve {
        #[arg(long)]
        dir: PathBuf,
        #[arg(long)]
        listen: SocketAddr,
    },
}

fn subject() -> Subject {
    Subject::new("store", "The store", "etcd")
        .setting(
            "Values of 1 KiB through etcd's v3 gRPC API over loopback without TLS; a put is answered after it is synced to disk. \
             Ours is the embedded engine behind a thin front. \"In process\" is the engine called directly.",
        )
        .figures(puts::figures())
        .figures(ranges::figures())
        .figures(watches::figures())
        .figures(inside::figures())
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().part {
        StorePart::Shared(part) => bench_harness::run_part(&part, subject, round),
        StorePart::Serve { dir, listen } => runtime().and_then(|runtime| runtime.block_on(front::serve(&dir, listen))),
    };
    bench_harness::ended(outcome)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")
}

fn round(asked: &RoundArguments) -> Result<Round> {
    bench_harness::own_network()?;
    let mut round = Round::default();
    {
        let mut server = start(asked)?;
        server.wait_until(|| std::net::TcpStream::connect(ADDRESS).is_ok())?;
        let meter = Meter::of_pids([server.pid()]);
        let measured = runtime()?.block_on(measure(asked, &meter, &mut round));
        measured.with_context(|| format!("the server said:\n{}", server.said()))?;
        round.usage = meter.finish()?;
        server.stop()?;
    }
    if asked.side == Side::Ours && asked.wants("inside") {
        runtime()?.block_on(inside::measure(&asked.scratch().join("inside"), &mut round))?;
    }
    Ok(round)
}

fn start(asked: &RoundArguments) -> Result<Started> {
    let dir = asked.scratch().join("data");
    match asked.side {
        Side::Ours => Started::start("serve", &std::env::current_exe()?, |command| {
            command.args(["serve", "--listen", ADDRESS, "--dir"]).arg(dir)
        }),
        Side::Peer => Started::start("etcd", asked.program("etcd")?, |command| {
            let url = format!("http://{ADDRESS}");
            command.arg("--data-dir").arg(dir).args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
            command.args(["--quota-backend-bytes", ETCD_QUOTA_BYTES, "--log-level", "error"])
        }),
    }
}

async fn measure(asked: &RoundArguments, meter: &Meter, round: &mut Round) -> Result<()> {
    let address: SocketAddr = ADDRESS.parse()?;
    if asked.wants("puts") {
        puts::measure(address, meter, round).await?;
    }
    if asked.wants("get") || asked.wants("range") {
        ranges::measure(address, round).await?;
    }
    if asked.wants("watch") {
        watches::measure(address, meter, round).await?;
    }
    Ok(())
}
