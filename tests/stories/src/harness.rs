//! Telling a story: who runs when, what is asked of `kubectl`, and how to wait for what must come true.
//!
//! Data flow: `runner` picks stories and gives each a namespace -> the story speaks through `kube` -> `watch` waits for
//! conditions on the watch stream of `kubectl get --watch`, so nothing here polls. When a story fails, `runner` prints
//! what a person would look at first.

mod http;
mod kube;
mod runner;
mod watch;

pub use http::{Forward, Request, get};
pub use kube::{Kube, lab_node, on_node};
pub use runner::{Story, run_all};
pub use watch::{Follow, Tally};
