//! What a start spends its time on: each part is told at debug level with its length when it is over.
//!
//! `CORACLE_LOG=coracle::start=debug coracle up` shows nothing but these lines. Parts may overlap and hold one another.

use std::time::Instant;

/// The target of these lines, for the log filter.
pub const TARGET: &str = "coracle::start";

/// Tells how long `work` took.
pub fn blocking<T>(part: &'static str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let outcome = work();
    tell(part, begun);
    outcome
}

/// Tells how long it took until `work` was done, waiting included.
pub async fn of<F: Future>(part: &'static str, work: F) -> F::Output {
    let begun = Instant::now();
    let outcome = work.await;
    tell(part, begun);
    outcome
}

fn tell(part: &'static str, begun: Instant) {
    let took_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    tracing::debug!(target: TARGET, part, took_us, "done");
}
