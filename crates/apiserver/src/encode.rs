//! From what the registry hands out to the bytes of an answer.
//!
//! ```text
//! Stored ─► serving form (shared, made once) ─► list / watch frame ─► slices of the body
//!       └─► tree ─► table row / metadata / YAML / indented JSON (made per request, for people)
//! ```
//!
//! The hot path, JSON and protobuf of plain objects, copies no object: frames and lists are small prefixes between shared
//! slices.

pub mod answer;
pub mod list;
pub mod metadata;
pub mod pretty;
pub mod protobuf;
pub mod status;
pub mod table;
pub mod watch;
pub mod watch_stream;
pub mod yaml;
