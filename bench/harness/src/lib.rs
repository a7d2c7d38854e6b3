//! What every benchmark shares: what a figure is, a round of one side, what both cost, what many rounds come to.
//!
//! ```text
//! cargo xtask bench SUBJECT                       alternates: ours, peer, ours, peer, ...
//!   └─ bench-SUBJECT round --side ours --out FILE  a fresh start of one side, everything measured once, all ended again
//!        │  (in a network of its own, or in a lab; see the table in xtask/src/bench/subjects.rs)
//!        └─ FILE: Round { figures, samples, usage }
//! target/bench/SUBJECT.json: Outcome               rounds of both sides; `Outcome::compare` makes medians and ratios of them
//! cargo xtask bench --report                       reads those, writes docs/performance.md and README's five figures
//! ```
//!
//! # A benchmark in twenty lines
//!
//! A subject is a crate `bench/SUBJECT` (package `bench-SUBJECT`) whose `main` hands over two functions, and a row in xtask's
//! table. The same code measures both sides: only starting them differs.
//!
//! ```no_run
//! use bench_harness::{Figure, Meter, Part, Round, RoundArguments, Side, Started, Subject};
//!
//! fn subject() -> Subject {
//!     Subject::new("store", "The store", "etcd").figures([
//!         Figure::higher("puts_1", "durable puts, 1 client", "1/s").times(10.0),
//!         Figure::lower("puts_1_p99", "the slowest of a hundred of them", "ms").times(10.0),
//!     ])
//! }
//!
//! fn round(asked: &RoundArguments) -> anyhow::Result<Round> {
//!     bench_harness::own_network()?;                       // loopback only, nobody else's ports
//!     let server = match asked.side {
//!         Side::Ours => Started::start("coracle", asked.coracle()?, |command| command.arg("server"))?,
//!         Side::Peer => Started::start("etcd", asked.program("etcd")?, |command| command)?,
//!     };
//!     let mut round = Round::default();
//!     let meter = Meter::of_pids([server.pid()]);          // counts from here
//!     if asked.wants("puts") {
//!         round.put("puts_1", 1000.0);
//!         round.put("puts_1_p99", 0.5);
//!     }
//!     round.usage = meter.finish()?;
//!     Ok(round)
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     bench_harness::main(subject, round)                  // or match on `Part` yourself, for parts of your own
//! }
//! ```
//!
//! # Rules
//!
//! - Nothing fails on time. A round that cannot be finished, or lacks a declared figure, is an error.
//! - A ratio says how many times better ours is, whichever way better points; its minimum is the worst of the rounds.
//! - Figures marked [`Figure::alone`] are measured on our side only and have no ratio.

mod compare;
#[cfg(feature = "load")]
pub mod load;
mod network;
mod part;
mod round;
mod started;
mod subject;
mod usage;

pub use compare::{Compared, Machine, Outcome, Pair, percentile, raw, rounded};
pub use network::own_network;
pub use part::{Part, RoundArguments, ended, main, run_part};
pub use round::{Round, Side};
pub use started::Started;
pub use subject::{Better, Figure, Subject};
pub use usage::{Meter, Usage, pids_in_cgroup};
