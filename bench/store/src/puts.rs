//! Durable puts, at one, 32 and 1,000 clients.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use bench_harness::{Figure, Meter, Round, load};
use bytes::Bytes;

use crate::client::Etcd;

pub const VALUE_BYTES: usize = 1024;
/// Keys that all clients of a level write to, so that the store does not grow with its speed.
const KEYS: usize = 10_000;
const LENGTH_S: u64 = 6;

/// Clients, and the connections that they share.
const LEVELS: [(usize, usize); 3] = [(1, 1), (32, 4), (MOST, 20)];
const MOST: usize = 1000;

pub fn figures() -> Vec<Figure> {
    let mut figures = Vec::new();
    for (clients, _) in LEVELS {
        let s = if clients == 1 { "" } else { "s" };
        let rate =
            Figure::higher(&format!("puts_{clients}_rate"), &format!("durable puts, {clients} client{s}"), "1/s");
        let p99 =
            Figure::lower(&format!("puts_{clients}_p99_ms"), &format!("durable puts, {clients} client{s}, p99"), "ms");
        figures.extend([rate.times(10.0), p99.times(10.0)]);
    }
    let cost = "durable puts per CPU-second of the server, 1000 clients";
    figures.push(Figure::higher("puts_1000_per_cpu_s", cost, "1/s"));
    figures
}

pub async fn measure(address: SocketAddr, meter: &Meter, round: &mut Round) -> Result<()> {
    for (count, connections) in LEVELS {
        let connections = Etcd::connections(address, connections).await?;
        let clients: Vec<_> = (0..count).map(|n| (n, connections[n % connections.len()].clone())).collect();
        let value = value();
        let cpu_before_s = meter.cpu_s()?;
        let load = load::run(clients, Duration::from_secs(LENGTH_S), move |number, (client, mut etcd)| {
            let (key, value) = (key(count, client, number), value.clone());
            async move {
                etcd.put(key, value).await?;
                Ok((client, etcd))
            }
        });
        let load = load.await?;
        if count == MOST {
            round.put("puts_1000_per_cpu_s", load.total as f64 / (meter.cpu_s()? - cpu_before_s));
        }
        round.put(&format!("puts_{count}_rate"), load.rate);
        round.put(&format!("puts_{count}_p99_ms"), load.percentile_ms(99));
    }
    Ok(())
}

pub fn value() -> Bytes {
    Bytes::from(vec![b'v'; VALUE_BYTES])
}

/// The key of a client's put: its own share of the level's keys, one after the other.
pub fn key(clients: usize, client: usize, number: usize) -> Bytes {
    format!("/bench/puts-{clients}/{client}/{}", number % (KEYS / clients)).into()
}
