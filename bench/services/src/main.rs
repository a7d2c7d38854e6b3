//! `bench services`: how soon services are programmed, on a node that does nothing else.
//!
//! ```text
//! hub      backends; this program                     node 1   Coracle's API server with the objects, no proxy
//! node 2   the proxy that is measured, watching node 1; `on_node` connects to service addresses and changes endpoints
//! ```
//!
//! The objects exist first. The full load is measured from the proxy's exec to a connection that reaches the last
//! service's backend; on our side the exec is that of the whole node agent, of which the proxy is a part. A change is
//! measured from the API's answer to the patch of one EndpointSlice to a connection that reaches the new backend.

mod on_node;
mod world;

use std::io::Read;
use std::process::{Child, ExitCode};

use anyhow::{Context, Result, bail};
use bench_cluster::lab::{self, SERVER};
use bench_cluster::{Access, Lab, ms_between};
use bench_harness::{Figure, Meter, Part, Round, RoundArguments, Side, Subject};
use clap::{Parser, Subcommand};
use serde_json::Value;

use world::World;

/// Where the proxy runs.
const NODE: usize = 2;
const SIZES: [(usize, &str); 2] = [(1_000, "services_1k_ms"), (10_000, "services_10k_ms")];
const LEFT_OUT: &str = "--without=proxy";

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Parts,
}

#[derive(Subcommand)]
enum Parts {
    #[command(flatten)]
    Shared(Part),
    /// On the node: connect until somebody answers, then print the moment
    Probe(on_node::ProbeArguments),
    /// On the node: change endpoints, connect many times; prints the figures
    Change(on_node::ChangeArguments),
}

fn main() -> ExitCode {
    bench_harness::ended(match Arguments::parse().part {
        Parts::Shared(part) => bench_harness::run_part(&part, subject, round),
        Parts::Probe(arguments) => on_node::probe(&arguments),
        Parts::Change(arguments) => on_node::change(&arguments),
    })
}

fn subject() -> Subject {
    let setting = format!(
        "Services with an EndpointSlice of two endpoints each, in Coracle's API server on one node; the proxy runs on \
         another node that does nothing else. Full load: from exec (ours: of the whole node agent) to a connection that \
         reaches the last service's backend. A change: from the API's answer to a connection that reaches the new \
         backend, {} times, with a rest between.",
        on_node::CHANGES
    );
    Subject::new("services", "Services", "kube-proxy in nftables mode").setting(&setting).figures([
        Figure::lower("services_1k_ms", "1,000 services programmed", "ms"),
        Figure::lower("services_10k_ms", "10,000 services programmed", "ms").times(80.0),
        Figure::lower("change_p50_ms", "one endpoint changed among 10,000 services, p50", "ms").limit(3.0),
        Figure::lower("change_p99_ms", "one endpoint changed among 10,000 services, p99", "ms"),
        Figure::lower("first_packet_p50_us", "connection through a service among 10,000, p50", "us").times(1.0),
        Figure::lower("first_packet_p99_us", "connection through a service among 10,000, p99", "us").times(1.0),
    ])
}

fn round(asked: &RoundArguments) -> Result<Round> {
    let lab = Lab::find()?;
    lab.start_program(SERVER, "coracle", &[LEFT_OUT])?;
    lab.wait(SERVER)?;
    let access = Access::of_environment()?;
    let mut world = World::new(&access)?;
    let proxy = Proxy { lab: &lab, side: asked.side };
    if asked.side == Side::Peer {
        world.add_node(&lab::name(NODE), &lab.address(NODE)?.to_string())?;
    }
    let mut round = Round::default();
    for (number, (size, figure)) in SIZES.into_iter().enumerate() {
        world.grow(size)?;
        if number > 0 {
            proxy.stop()?;
        }
        let took = proxy.start_and_reach(&world.last()?).with_context(|| format!("{size} services"))?;
        round.put(figure, took);
    }
    let meter = Meter::of_pids([proxy.pid()?]);
    let changed = lab.self_on_node(NODE, &["change", "--services", &world.len().to_string()])?.wait_with_output()?;
    if !changed.status.success() {
        bail!("changing endpoints failed; there was said:\n{}{}", lab.log_tail(SERVER), lab.log_tail(NODE));
    }
    let figures: Value = serde_json::from_slice(&changed.stdout).context("understanding the part on the node")?;
    for (name, value) in figures.as_object().into_iter().flatten() {
        round.put(name, value.as_f64().with_context(|| format!("{name} is no number"))?);
    }
    round.usage = meter.finish()?;
    Ok(round)
}

/// The proxy of one side.
struct Proxy<'a> {
    lab: &'a Lab,
    side: Side,
}

impl Proxy<'_> {
    fn program(&self) -> &'static str {
        match self.side {
            Side::Ours => "coracle",
            Side::Peer => "kube-proxy",
        }
    }

    fn pid(&self) -> Result<i32> {
        self.lab.pid(NODE, self.program())
    }

    /// Milliseconds from its exec to a connection with what is behind `address`.
    fn start_and_reach(&self, address: &str) -> Result<f64> {
        let mut probe = self.lab.self_on_node(NODE, &["probe", "--address", address])?;
        await_first_word(&mut probe)?;
        self.lab.start_program(NODE, self.program(), &[])?;
        let reached = probe.wait_with_output()?;
        if !reached.status.success() {
            bail!("{address} is not reached; there was said:\n{}", self.lab.log_tail(NODE));
        }
        let reached = lab::moment(&String::from_utf8_lossy(&reached.stdout))?;
        Ok(ms_between(self.lab.executed_at(NODE, self.program())?, reached))
    }

    /// Ends it and takes away what it told the kernel, so that the next start has everything to do.
    fn stop(&self) -> Result<()> {
        self.lab.stop_program(NODE, self.program())?;
        let status = self.lab.on_node(NODE, "nft").args(["flush", "ruleset"]).status()?;
        if !status.success() {
            bail!("the rules of the node cannot be taken away");
        }
        Ok(())
    }
}

/// The probe says one byte when it begins; its answer comes after that.
fn await_first_word(probe: &mut Child) -> Result<()> {
    let said = probe.stdout.as_mut().context("the probe has an output")?;
    said.read_exact(&mut [0]).context("waiting for the probe to begin")
}
