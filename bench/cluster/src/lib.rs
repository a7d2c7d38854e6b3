//! What benchmarks of whole clusters share: a client of the API, the lab around them, simulated nodes, pods,
//! idleness.
//!
//! ```text
//! bench-scheduler, bench-pod, ... ─► lab    start a side, find its processes, run a part of oneself on a node
//!                                 ─► https  ask, watch; `crowd`: many requests at once
//!                                 ─► idle   what a node costs while nothing happens
//!                                 ─► nodes  Node objects that are kept alive with nobody behind them
//! ```
//!
//! Every side is driven by this client, whoever made it. Moments are taken when the bytes of an event arrive: no program
//! is started between the question and the answer, and nothing is asked twice where an event can be awaited.

pub mod crowd;
pub mod https;
pub mod idle;
pub mod lab;
pub mod nodes;
pub mod pods;

pub use https::{Access, Connection, Event, Watch};
pub use lab::{Lab, ms_between};
