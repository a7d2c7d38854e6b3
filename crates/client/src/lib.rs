//! How every component reaches the API: one [`Client`] over a [`Door`], informers and listers, the work queue and the
//! controller engine, and the event recorder.
//!
//! A component never knows whether it runs inside the server or across the network. In process the door enters the server's
//! chain right after authentication and hands out shared encoded objects; over HTTPS the same objects arrive as JSON, or as
//! protobuf where all that is kept are known fields.
//! Whoever needs fields decodes a typed view, which lives as long as the handler that asked for it; caches keep projections.
//!
//! ```text
//! component -> Client -> Door -> (API server's chain)
//!     ^                             |
//!     |  Queue <- Informer <- watch |
//! ```

pub mod client;
pub mod controller;
pub mod door;
pub mod events;
pub mod https;
pub mod informer;
pub mod kubeconfig;
pub mod lister;
pub mod outcome;
pub mod queue;
pub mod resource;
mod source;

pub use client::{Client, Deletion, ListQuery, Patch, Propagation, TypedList};
pub use controller::{Next, run_workers};
pub use door::{
    Body, DeleteOptions, Door, Encoded, EventStream, List, Options, PatchKind, Request, Response, Verb, WatchEvent,
};
pub use informer::{Change, Informer, Informers, Projection, Watched};
pub use lister::{Index, Lister};
pub use outcome::Outcome;
pub use queue::Queue;
pub use resource::Typed;
