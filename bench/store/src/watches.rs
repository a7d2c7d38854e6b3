//! One prefix watched a thousand times: how late events come at a modest pace, and what delivering many costs.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bench_harness::{Figure, Meter, Round, percentile};
use bytes::Bytes;
use futures::future::try_join_all;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::client::Etcd;
use crate::etcd::{WatchCreateRequest, WatchResponse, prefix_end};
use crate::grpc::Reader;
use crate::puts;

const CONNECTIONS: usize = 100;
const WATCHES_PER_CONNECTION: usize = 10;
const WATCHES: usize = CONNECTIONS * WATCHES_PER_CONNECTION;
const PREFIX: &str = "/bench/watched/";
const PACED_EVENTS: usize = 100;
const PACE_MS: u64 = 50;
const BURST_EVENTS: usize = 500;
const BURST_WRITERS: usize = 20;
/// Since when times in values count; a value carries nanoseconds in its first bytes.
const STAMP_BYTES: usize = 8;

pub fn figures() -> Vec<Figure> {
    vec![
        Figure::lower("watch_lag_p99_ms", "put to seen by 1,000 watches, 20 events/s, p99", "ms").times(20.0),
        Figure::higher("watch_rate", "events delivered to 1,000 watches, in a burst", "1/s"),
        Figure::higher("watch_per_cpu_s", "events delivered per CPU-second of the server", "1/s").times(15.0),
    ]
}

pub async fn measure(address: SocketAddr, meter: &Meter, round: &mut Round) -> Result<()> {
    let begun = Instant::now();
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        streams.push(open(address).await?);
    }
    let mut writer = Etcd::connect(address).await?;
    let readers: Vec<_> = streams.drain(..).map(|stream| read(stream, PACED_EVENTS, begun)).collect();
    let mut pace = tokio::time::interval(Duration::from_millis(PACE_MS));
    for event in 0..PACED_EVENTS {
        pace.tick().await;
        writer.put(key(event), stamped(begun)).await?;
    }
    let (streams, lags_ms) = finished(readers).await?;
    round.put("watch_lag_p99_ms", percentile(lags_ms, 99).unwrap_or(f64::NAN));
    burst(address, streams, meter, round).await
}

/// As many puts as fit, until every watch has seen all of them.
async fn burst(address: SocketAddr, streams: Vec<Stream>, meter: &Meter, round: &mut Round) -> Result<()> {
    let writers = Etcd::connections(address, BURST_WRITERS).await?;
    let (begun, cpu_before_s) = (Instant::now(), meter.cpu_s()?);
    let readers: Vec<_> = streams.into_iter().map(|stream| read(stream, BURST_EVENTS, begun)).collect();
    let writing = writers.into_iter().enumerate().map(|(writer, mut etcd)| async move {
        for event in (writer..BURST_EVENTS).step_by(BURST_WRITERS) {
            etcd.put(key(event), stamped(begun)).await?;
        }
        Ok::<_, anyhow::Error>(())
    });
    try_join_all(writing).await?;
    finished(readers).await?;
    let delivered = (BURST_EVENTS * WATCHES) as f64;
    round.put("watch_rate", delivered / begun.elapsed().as_secs_f64());
    round.put("watch_per_cpu_s", delivered / (meter.cpu_s()? - cpu_before_s));
    Ok(())
}

fn key(event: usize) -> Bytes {
    format!("{PREFIX}{event}").into()
}

fn stamped(begun: Instant) -> Bytes {
    let mut value = puts::value().to_vec();
    let stamp = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
    value[..STAMP_BYTES].copy_from_slice(&stamp.to_le_bytes());
    value.into()
}

/// One connection's watches, all of them created.
struct Stream {
    /// Kept: closing it would end the watches.
    _requests: mpsc::Sender<Bytes>,
    reader: Reader,
}

async fn open(address: SocketAddr) -> Result<Stream> {
    let create = |watch| WatchCreateRequest {
        key: PREFIX.into(),
        range_end: prefix_end(PREFIX.as_bytes()),
        start_revision: 0,
        watch_id: watch,
    };
    let wanted = (1..=WATCHES_PER_CONNECTION as i64).map(create).collect();
    let (requests, mut reader) = Etcd::connect(address).await?.watch(wanted).await?;
    for _ in 0..WATCHES_PER_CONNECTION {
        let created: WatchResponse = reader.next().await?.context("the stream of watches ended")?;
        ensure!(created.created, "a watch was not created: {created:?}");
    }
    Ok(Stream { _requests: requests, reader })
}

type Reading = JoinHandle<Result<(Stream, Vec<f64>)>>;

/// Reads until each watch of the stream has seen `events`; how late each came, in milliseconds.
fn read(mut stream: Stream, events: usize, begun: Instant) -> Reading {
    tokio::spawn(async move {
        let due = events * WATCHES_PER_CONNECTION;
        let mut lags_ms = Vec::with_capacity(due);
        while lags_ms.len() < due {
            let response: WatchResponse = stream.reader.next().await?.context("the stream of watches ended")?;
            ensure!(!response.canceled, "a watch was ended by the server");
            let now_ns = begun.elapsed().as_nanos() as f64;
            for event in response.events {
                let value = event.kv.context("an event without a key")?.value;
                let stamp = value.get(..STAMP_BYTES).context("a value without a stamp")?;
                let sent_ns = u64::from_le_bytes(stamp.try_into()?) as f64;
                lags_ms.push((now_ns - sent_ns) / 1e6);
            }
        }
        Ok((stream, lags_ms))
    })
}

async fn finished(readers: Vec<Reading>) -> Result<(Vec<Stream>, Vec<f64>)> {
    let (mut streams, mut lags_ms) = (Vec::new(), Vec::new());
    for read in try_join_all(readers).await? {
        let (stream, lags) = read?;
        streams.push(stream);
        lags_ms.extend(lags);
    }
    Ok((streams, lags_ms))
}
