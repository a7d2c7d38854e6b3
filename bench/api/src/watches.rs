//! One namespace watched a thousand times: how late events come at a modest pace, and what delivering many costs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bench_harness::{Figure, Meter, Round, percentile};
use bytes::BytesMut;
use futures::future::try_join_all;
use http::Method;
use hyper::body::Incoming;
use tokio::task::JoinHandle;

use crate::account::WATCHED;
use crate::objects;
use crate::session::{Api, Target, next_data};

const CONNECTIONS: usize = 100;
const WATCHES_PER_CONNECTION: usize = 10;
const WATCHES: usize = CONNECTIONS * WATCHES_PER_CONNECTION;
const PACED_EVENTS: usize = 100;
const PACE_MS: u64 = 50;
const WRITERS: usize = 20;
const BURST_EVENTS: usize = 400;
const ENDED_MAX: usize = 100;

pub fn figures() -> Vec<Figure> {
    vec![
        Figure::lower("watch_lag_p99_ms", "update to seen by 1,000 watchers, 20 events/s, p99", "ms").times(20.0),
        Figure::higher("watch_rate", "events delivered to 1,000 watchers, in a burst", "1/s"),
        Figure::higher("watch_per_cpu_s", "events delivered per CPU-second of the servers", "1/s").times(15.0),
    ]
}

pub async fn measure(target: &Target, meter: &Meter, round: &mut Round) -> Result<()> {
    let mut writers = Api::connections(target, WRITERS).await?;
    for (number, writer) in writers.iter_mut().enumerate() {
        let object = objects::config_map(&name(number), 0, None);
        writer.must(Method::POST, &objects::path(WATCHED, "configmaps"), object).await?;
    }
    let watches = open(target).await?;

    let begun = Instant::now();
    let readers: Vec<_> = watches.into_iter().map(|watch| read(watch, PACED_EVENTS, begun)).collect();
    let mut pace = tokio::time::interval(Duration::from_millis(PACE_MS));
    for event in 0..PACED_EVENTS {
        pace.tick().await;
        update(&mut writers[event % WRITERS], event % WRITERS, begun).await?;
    }
    let (watches, lags_ms) = finished(readers).await?;
    round.put("watch_lag_p99_ms", percentile(lags_ms, 99).context("events were seen")?);

    let (begun, cpu_before_s) = (Instant::now(), meter.cpu_s()?);
    let readers: Vec<_> = watches.into_iter().map(|watch| read(watch, BURST_EVENTS, begun)).collect();
    let writing = writers.into_iter().enumerate().map(|(number, mut writer)| async move {
        for _ in 0..BURST_EVENTS / WRITERS {
            update(&mut writer, number, begun).await?;
        }
        Ok::<_, anyhow::Error>(())
    });
    try_join_all(writing).await?;
    let (watches, _) = finished(readers).await?;
    round.keep("watches_ended", vec![watches.iter().map(|watch| watch.ended).sum::<usize>() as f64]);
    let delivered = (BURST_EVENTS * WATCHES) as f64;
    round.put("watch_rate", delivered / begun.elapsed().as_secs_f64());
    round.put("watch_per_cpu_s", delivered / (meter.cpu_s()? - cpu_before_s));
    Ok(())
}

fn name(writer: usize) -> String {
    format!("watched-{writer}")
}

async fn update(api: &mut Api, writer: usize, begun: Instant) -> Result<()> {
    let path = format!("{}/{}", objects::path(WATCHED, "configmaps"), name(writer));
    let stamp = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
    api.must(Method::PUT, &path, objects::config_map(&name(writer), stamp, None)).await.map(drop)
}

struct Watch {
    api: Api,
    body: Incoming,
    /// The beginning of an event whose end has not come yet.
    begun: BytesMut,
    /// Of the last event that was seen.
    version: u64,
    /// How often the server ended it: one that finds a client too slow may, and the client goes on where it was.
    ended: usize,
}

impl Watch {
    async fn open(mut api: Api, version: u64) -> Result<Self> {
        let body = api.stream(&path_since(version)).await?;
        Ok(Self { api, body, begun: BytesMut::new(), version, ended: 0 })
    }

    /// Some more events, or parts of them.
    async fn more(&mut self) -> Result<()> {
        loop {
            match next_data(&mut self.body).await {
                Ok(Some(data)) => {
                    self.begun.extend_from_slice(&data);
                    return Ok(());
                }
                Ok(None) | Err(_) => {
                    self.ended += 1;
                    ensure!(self.ended <= ENDED_MAX, "a watch ended {} times", self.ended);
                    self.begun.clear();
                    self.body = self.api.stream(&path_since(self.version)).await?;
                }
            }
        }
    }
}

fn path_since(version: u64) -> String {
    format!("{}?watch=1&resourceVersion={version}", objects::path(WATCHED, "configmaps"))
}

/// All watches, from now on.
async fn open(target: &Target) -> Result<Vec<Watch>> {
    let path = objects::path(WATCHED, "configmaps");
    let connections = Api::connections(target, CONNECTIONS).await?;
    let listed = connections[0].clone().must(Method::GET, &path, "").await?;
    let version = objects::version_in(&listed)?;
    let mut watches = Vec::new();
    for api in connections {
        for _ in 0..WATCHES_PER_CONNECTION {
            watches.push(Watch::open(api.clone(), version).await?);
        }
    }
    Ok(watches)
}

type Reading = JoinHandle<Result<(Watch, Vec<f64>)>>;

/// Reads until `events` were seen; how late each came, in milliseconds.
fn read(mut watch: Watch, events: usize, begun: Instant) -> Reading {
    tokio::spawn(async move {
        let mut lags_ms = Vec::with_capacity(events);
        while lags_ms.len() < events {
            watch.more().await?;
            let now_ns = begun.elapsed().as_nanos() as f64;
            while let Some(end) = memchr::memchr(b'\n', &watch.begun) {
                let event = watch.begun.split_to(end + 1);
                ensure!(event.starts_with(b"{\"type\":\"MODIFIED\""), "{}", String::from_utf8_lossy(&event));
                watch.version = objects::version_in(&event)?;
                lags_ms.push((now_ns - objects::stamp_in(&event)? as f64) / 1e6);
            }
        }
        Ok((watch, lags_ms))
    })
}

async fn finished(readers: Vec<Reading>) -> Result<(Vec<Watch>, Vec<f64>)> {
    let (mut watches, mut lags_ms) = (Vec::new(), Vec::new());
    for read in try_join_all(readers).await? {
        let (watch, lags) = read?;
        watches.push(watch);
        lags_ms.extend(lags);
    }
    Ok((watches, lags_ms))
}
