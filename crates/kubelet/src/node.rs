//! The node object: made at the start, kept true, with a lease as its heartbeat.

pub mod conditions;
pub mod lease;
pub mod machine;
pub mod registration;
pub mod status;
pub mod thresholds;

/// What the node says it runs: the Kubernetes release whose behaviour this is.
pub const KUBELET_VERSION: &str = "v1.37.1+coracle";
