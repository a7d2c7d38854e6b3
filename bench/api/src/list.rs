//! Very many pods: what each costs in memory, how long a list of all takes, and what the server's memory does meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bench_harness::{Figure, Meter, Round, percentile};
use futures::future::try_join_all;
use http::Method;

use crate::account::MANY;
use crate::objects;
use crate::session::{Api, Target, next_data};

const PODS: usize = 25_000;
/// What the JSON of all must come to at least.
const LIST_BYTES_MIN: usize = 43_000_000;
const LOADERS: usize = 32;
const LISTS: usize = 5;
/// Between a burst and looking at memory, so that what was only in passing is given back.
const SETTLE_S: u64 = 5;
/// Growth below this is told as this: less cannot be told from noise.
const GROWTH_MB_MIN: f64 = 0.1;

pub fn figures() -> Vec<Figure> {
    vec![
        Figure::lower("pod_memory_kb", "memory per stored pod, all in (PSS)", "KB").times(20.0),
        Figure::lower("list_25000_ms", "LIST of 25,000 pods, p50", "ms").times(10.0),
        Figure::lower("list_25000_growth_mb", "most growth of memory in such a LIST", "MB").times(50.0),
    ]
}

pub async fn measure(target: &Target, pids: &[i32], meter: &Meter, round: &mut Round) -> Result<()> {
    tokio::time::sleep(Duration::from_secs(SETTLE_S)).await;
    let empty_mb = meter.memory_mb();
    fill(target).await?;
    tokio::time::sleep(Duration::from_secs(SETTLE_S)).await;
    round.put("pod_memory_kb", (meter.memory_mb() - empty_mb) * 1000.0 / PODS as f64);

    let mut api = Api::connect(target).await?;
    let path = objects::path(MANY, "pods");
    let mut took_ms = Vec::new();
    let mut growth_mb = Vec::new();
    for _ in 0..LISTS {
        let before_mb = forget_peaks(pids)?;
        let begun = Instant::now();
        let bytes = read_through(&mut api, &path).await?;
        took_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        ensure!(bytes >= LIST_BYTES_MIN, "the list has {bytes} bytes only");
        growth_mb.push((resident_mb(pids, "VmHWM:") - before_mb).max(GROWTH_MB_MIN));
    }
    round.put("list_25000_ms", percentile(took_ms.clone(), 50).context("lists were timed")?);
    // the most: what a server keeps after its first list is growth too
    round.put("list_25000_growth_mb", percentile(growth_mb.clone(), 100).context("lists were watched")?);
    round.keep("list_25000_ms", took_ms);
    round.keep("list_25000_growth_mb", growth_mb);
    all_are_there(&mut api, &path).await
}

async fn all_are_there(api: &mut Api, path: &str) -> Result<()> {
    let whole = api.must(Method::GET, path, "").await?;
    let count = memchr::memmem::find_iter(&whole, b"\"uid\":\"").count();
    ensure!(count == PODS, "{PODS} pods were asked for, {count} came");
    Ok(())
}

async fn fill(target: &Target) -> Result<()> {
    let connections = Api::connections(target, LOADERS).await?;
    let loading = connections.into_iter().enumerate().map(|(loader, mut api)| async move {
        for number in (loader..PODS).step_by(LOADERS) {
            let pod = objects::pod(&format!("shop-web-6c5cb8cf9d-{number:05}"));
            api.must(Method::POST, &objects::path(MANY, "pods"), pod).await?;
        }
        Ok::<_, anyhow::Error>(())
    });
    try_join_all(loading).await.map(drop)
}

/// Reads a whole answer without keeping it; how long it was.
async fn read_through(api: &mut Api, path: &str) -> Result<usize> {
    let mut body = api.stream(path).await?;
    let mut bytes = 0;
    while let Some(data) = next_data(&mut body).await? {
        bytes += data.len();
    }
    Ok(bytes)
}

/// Lets the kernel start anew with the high-water marks; how much is resident now, in megabytes.
fn forget_peaks(pids: &[i32]) -> Result<f64> {
    for pid in pids {
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").context("forgetting how much memory there was")?;
    }
    Ok(resident_mb(pids, "VmRSS:"))
}

fn resident_mb(pids: &[i32], key: &str) -> f64 {
    let of = |pid: &i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) * 1024.0 / 1e6
    };
    pids.iter().map(of).sum()
}
