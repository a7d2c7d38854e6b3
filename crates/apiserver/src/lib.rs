//! The API server: the only door to the store.
//!
//! ```text
//! socket ─► http ─► chain: request info ─► authn ─► audit ─► impersonation ─► flow ─► authz ─┐
//! component ─► door ──────────────────────────────► audit ────────────────► flow ─► authz ─┤
//!                                                                                          ▼
//!     negotiate, encode ◄── Outcome ◄── registry: defaults ─► admission ─► validation ─► store
//! ```
//!
//! Two halves meet at [`registry`]: in front of it everything that is HTTP (who asks, may they, in which encoding), behind
//! it everything that is objects (the verbs, written once for all kinds). The registry never sees a media type of the wire;
//! the front never sees the store.

pub mod admission;
pub mod allocators;
pub mod audit;
pub mod authn;
pub mod authz;
pub mod bootstrap;
pub mod chain;
pub mod context;
pub mod decode;
pub mod discovery;
pub mod door;
pub mod encode;
pub mod endpoints;
pub mod flow;
pub mod health;
pub mod http;
pub mod metrics;
pub mod negotiate;
pub mod openapi;
pub mod options;
pub mod proxy;
pub mod reader;
pub mod registry;
pub mod request_info;
pub mod resources;
pub mod reviews;
pub mod server;
pub mod stored;
pub mod subresources;
pub mod transformer;
pub mod version;
pub mod watch_cache;

pub use server::{ApiServer, Config};
