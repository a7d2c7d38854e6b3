//! Reads: one key at 32 clients, and everything under a prefix at once.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bench_harness::{Figure, Round, load, percentile};
use bytes::Bytes;
use futures::future::try_join_all;

use crate::client::Etcd;
use crate::etcd::{RangeRequest, prefix_end};
use crate::puts;

const OBJECTS: usize = 10_000;
const LOADERS: usize = 100;
const CLIENTS: usize = 32;
const CONNECTIONS: usize = 4;
const LENGTH_S: u64 = 4;
const PREFIX: &str = "/bench/objects/";
const WHOLE_RANGES: usize = 20;

pub fn figures() -> Vec<Figure> {
    vec![
        Figure::higher("get_32_rate", "range of one key, 32 clients", "1/s").times(10.0),
        Figure::lower("get_32_p99_ms", "range of one key, 32 clients, p99", "ms").times(10.0),
        Figure::lower("range_10000_ms", "range of 10,000 keys (10 MB), p50", "ms").times(10.0),
    ]
}

pub async fn measure(address: SocketAddr, round: &mut Round) -> Result<()> {
    let connections = Etcd::connections(address, CONNECTIONS).await?;
    let loading = (0..LOADERS).map(|loader| {
        let mut etcd = connections[loader % CONNECTIONS].clone();
        async move {
            for object in (loader..OBJECTS).step_by(LOADERS) {
                etcd.put(key(object), puts::value()).await?;
            }
            Ok::<_, anyhow::Error>(())
        }
    });
    try_join_all(loading).await?;
    one_key(&connections, round).await?;
    everything(connections[0].clone(), round).await
}

fn key(object: usize) -> Bytes {
    format!("{PREFIX}{object:05}").into()
}

async fn one_key(connections: &[Etcd], round: &mut Round) -> Result<()> {
    let clients: Vec<_> = (0..CLIENTS).map(|client| (client, connections[client % CONNECTIONS].clone())).collect();
    let load = load::run(clients, Duration::from_secs(LENGTH_S), |number, (client, mut etcd)| async move {
        // spread over all objects, the same for both sides
        let object = (number * 7919 + client * 313) % OBJECTS;
        let request = RangeRequest { key: key(object), ..RangeRequest::default() };
        let answer = etcd.range(&request).await?;
        ensure!(answer.kvs.len() == 1, "one object was asked for, {} came", answer.kvs.len());
        Ok((client, etcd))
    });
    let load = load.await?;
    round.put("get_32_rate", load.rate);
    round.put("get_32_p99_ms", load.percentile_ms(99));
    Ok(())
}

async fn everything(mut etcd: Etcd, round: &mut Round) -> Result<()> {
    let (key, range_end) = (Bytes::from(PREFIX), prefix_end(PREFIX.as_bytes()));
    let request = RangeRequest { key, range_end, ..RangeRequest::default() };
    let mut took_ms = Vec::new();
    for _ in 0..WHOLE_RANGES {
        let begun = Instant::now();
        let answer = etcd.range(&request).await?;
        took_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        ensure!(answer.kvs.len() == OBJECTS, "{OBJECTS} objects were asked for, {} came", answer.kvs.len());
    }
    round.put("range_10000_ms", percentile(took_ms.clone(), 50).unwrap_or(f64::NAN));
    round.keep("range_10000_ms", took_ms);
    Ok(())
}
