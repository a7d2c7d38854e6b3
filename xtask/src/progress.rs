//! Saying what takes long: one line when a step starts, its time when it ends.
//!
//! A terminal sees the running step at once; a log file gets one finished line per step.

use std::io::{IsTerminal, Write, stderr};
use std::time::Instant;

use anyhow::Result;

/// Runs `work` as the step called `name` and prints how long it took. All on standard error: standard output belongs
/// to whatever the step runs.
pub fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let live = stderr().is_terminal();
    if live {
        eprint!("  {name} ...");
        // a terminal that cannot be flushed loses a progress line, nothing else
        let _ = stderr().flush();
    }
    let begun = Instant::now();
    let outcome = work();
    let took = begun.elapsed().as_secs_f64();
    let end = if outcome.is_ok() { "" } else { "  FAILED" };
    let start = if live { "\r" } else { "" };
    eprintln!("{start}  {name:<56} {took:>7.1} s{end}");
    outcome
}
