//! The parts that run on the proxy's node, because service addresses mean something only there.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bench_cluster::{Access, lab, ms_between};
use bench_harness::percentile;
use clap::Args;
use serde_json::json;

use crate::world::{self, PORT, REAL, WORD};

/// Endpoints that are changed, one after the other.
pub const CHANGES: usize = 20;
/// Between changes: kube-proxy takes a rest of a second after each time it has programmed, and that is not what is measured.
const REST: Duration = Duration::from_millis(1200);
const CONNECTIONS: usize = 3000;
/// How long a packet that nobody answers is waited for before another is sent.
const SILENCE: Duration = Duration::from_millis(2);
const REACH_S_MAX: u64 = 300;

#[derive(Args)]
pub struct ProbeArguments {
    #[arg(long)]
    address: SocketAddr,
}

/// Says one byte when it begins, and the moment when somebody has answered.
pub fn probe(arguments: &ProbeArguments) -> Result<()> {
    let mut out = std::io::stdout();
    out.write_all(b".")?;
    out.flush()?;
    reach(arguments.address)?;
    println!("{}", lab::written_now()?);
    Ok(())
}

/// Tries with a new connection each time, since the kernel remembers where it sent the packets of an old one.
fn reach(address: SocketAddr) -> Result<Instant> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(REACH_S_MAX) {
        if let Ok(answered) = connect(address, SILENCE) {
            return Ok(answered);
        }
    }
    bail!("nobody answers at {address} within {REACH_S_MAX} s")
}

/// Connects and hears the backend's word; the moment at which the connection stood.
fn connect(address: SocketAddr, patience: Duration) -> Result<Instant> {
    let mut connection = TcpStream::connect_timeout(&address, patience)?;
    let stood = Instant::now();
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut word = [0];
    connection.read_exact(&mut word)?;
    if word != [WORD] {
        bail!("somebody else answered");
    }
    Ok(stood)
}

#[derive(Args)]
pub struct ChangeArguments {
    /// How many services there are
    #[arg(long)]
    services: usize,
}

/// Gives services spread over all of them a backend, one after the other; then connects to one that has one.
pub fn change(arguments: &ChangeArguments) -> Result<()> {
    let mut connection = Access::of_environment()?.connect().context("reaching the API")?;
    let step = (arguments.services - REAL) / CHANGES;
    let mut changed_ms = Vec::new();
    for number in (0..CHANGES).map(|number| number * step) {
        thread::sleep(REST);
        let address = SocketAddr::from((world::address(&mut connection, number)?, PORT));
        world::make_real(&mut connection, number).with_context(|| format!("changing service {number}"))?;
        let committed = Instant::now();
        changed_ms.push(ms_between(committed, reach(address)?));
    }
    // not the last one: the kernel still knows connections with it from before there was a proxy, and leaves them as they are
    let real = SocketAddr::from((world::address(&mut connection, arguments.services - 2)?, PORT));
    let mut connected_us = Vec::new();
    for _ in 0..CONNECTIONS {
        let begun = Instant::now();
        let stood = connect(real, Duration::from_secs(5)).with_context(|| format!("connecting to {real}"))?;
        connected_us.push(ms_between(begun, stood) * 1e3);
    }
    let rank = |figures: &Vec<f64>, rank| percentile(figures.clone(), rank).context("nothing was measured");
    let figures = json!({
        "change_p50_ms": rank(&changed_ms, 50)?, "change_p99_ms": rank(&changed_ms, 99)?,
        "first_packet_p50_us": rank(&connected_us, 50)?, "first_packet_p99_us": rank(&connected_us, 99)?,
    });
    println!("{figures}");
    Ok(())
}
