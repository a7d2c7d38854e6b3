//! The floor of the house: time, chance, tasks, back-off, connections and log set-up.
//!
//! Every other crate reaches the clock, randomness and `spawn` through here, so that a whole cluster can be driven on
//! virtual time and a failing run can be replayed. Nothing in this crate knows Kubernetes and nothing opens a file or
//! a socket except the log subscriber.

pub mod backoff;
pub mod chance;
pub mod clock;
pub mod connection;
pub mod frame;
pub mod logging;
pub mod phase;
pub mod tasks;

pub use backoff::{Backoff, BackoffPolicy};
pub use clock::{Clock, Timestamp};
pub use tasks::Tasks;
