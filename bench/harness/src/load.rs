//! Many clients at once, each asking again as soon as it is answered: how often, and how long each waited. (Feature `load`.)

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::try_join_all;

use crate::percentile;

/// What comes before the measurement, until every client has been served and caches are warm.
const WARM_UP_MS: u64 = 1000;

const WARMING_UP: u8 = 0;
const MEASURING: u8 = 1;
const ENDED: u8 = 2;

/// What many clients saw.
pub struct Load {
    /// Answers per second.
    pub rate: f64,
    /// Answers of the warm-up and the measurement together, for what is counted from before to after.
    pub total: usize,
    latencies_ms: Vec<f64>,
}

impl Load {
    pub fn percentile_ms(&self, rank: usize) -> f64 {
        percentile(self.latencies_ms.clone(), rank).unwrap_or(f64::NAN)
    }
}

/// Lets each of `clients` ask, one question after the other, for `length` after a warm-up.
///
/// # Errors
/// The first error of any client: then nothing was measured.
pub async fn run<C, F>(
    clients: Vec<C>,
    length: Duration,
    ask: impl Fn(usize, C) -> F + Send + Sync + Clone + 'static,
) -> Result<Load>
where
    C: Send + 'static,
    F: Future<Output = Result<C>> + Send + 'static,
{
    let phase = Arc::new(AtomicU8::new(WARMING_UP));
    let asking = clients.into_iter().map(|client| {
        let (ask, phase) = (ask.clone(), phase.clone());
        tokio::spawn(one_client(client, ask, phase))
    });
    let asking: Vec<_> = asking.collect();
    tokio::time::sleep(Duration::from_millis(WARM_UP_MS)).await;
    phase.store(MEASURING, Ordering::Relaxed);
    let begun = Instant::now();
    tokio::time::sleep(length).await;
    phase.store(ENDED, Ordering::Relaxed);
    let took = begun.elapsed();
    let all: Vec<(usize, Vec<f64>)> = try_join_all(asking).await?.into_iter().collect::<Result<_>>()?;
    let total = all.iter().map(|(asked, _)| asked).sum();
    let latencies_ms: Vec<f64> = all.into_iter().flat_map(|(_, latencies_ms)| latencies_ms).collect();
    Ok(Load { rate: latencies_ms.len() as f64 / took.as_secs_f64(), total, latencies_ms })
}

/// Asks until the end; how often, and how long each answer of the measurement took.
async fn one_client<C, F>(mut client: C, ask: impl Fn(usize, C) -> F, phase: Arc<AtomicU8>) -> Result<(usize, Vec<f64>)>
where
    F: Future<Output = Result<C>>,
{
    let mut latencies_ms = Vec::new();
    let mut number = 0;
    while phase.load(Ordering::Relaxed) != ENDED {
        let asked = Instant::now();
        client = ask(number, client).await?;
        number += 1;
        let took = asked.elapsed();
        if phase.load(Ordering::Relaxed) == MEASURING {
            latencies_ms.push(took.as_secs_f64() * 1e3);
        }
    }
    Ok((number, latencies_ms))
}
