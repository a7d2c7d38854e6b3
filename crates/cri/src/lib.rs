//! The line between the node agent and any container runtime: CRI v1 as Rust.
//!
//! ```text
//! kubelet --- Arc<dyn Cri> ---+--- runtime           (in process: plain calls)
//!                             +--- RemoteCri ------- unix socket --- containerd, CRI-O, another Coracle
//! crictl, upstream's kubelet --- unix socket --- serve(impl Cri)
//! ```
//!
//! - [`v1`]: the messages, generated from `proto/cri.proto`.
//! - [`Cri`]: every call as an async method; [`Streaming`]: exec, attach and port-forward without an HTTP hop.
//! - [`RemoteCri`] and [`serve`]: both directions over gRPC.
//! - [`PodNetwork`]: what a runtime asks of the pod network, so that neither has to import the other.
//!
//! The list of calls stands once, in `calls.rs`. This crate does no work of its own: no retries, no caches, no defaults.

mod calls;
mod error;
#[allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::expect_used)]
#[rustfmt::skip]
mod generated;
pub mod network;
pub mod remote;
pub mod server;
pub mod service;
pub mod streaming;

/// The messages and enumerations of CRI v1.
pub mod v1 {
    pub use crate::generated::*;
}

pub use error::{Code, Error};
pub use network::{PodAddresses, PodNetwork, SandboxNetwork};
pub use remote::RemoteCri;
pub use server::serve;
pub use service::{Cri, CriStream, RuntimeConditionType};
pub use streaming::{Session, Streaming, TerminalSize};
