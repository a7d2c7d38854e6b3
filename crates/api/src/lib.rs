//! The kinds of the API as tables, and everything that walks them: codecs, patches, defaults, documents.
//!
//! Two tables hold the facts: [`schema`] (every field of every type, generated data) and [`table`] (every kind: names, scope,
//! subresources, storage). What is special about a kind is its [`strategy`]. All else is derived by walking these.
//! Nothing here does I/O or knows the store.

pub mod codec;
pub mod columns;
pub mod convert;
pub mod kind;
pub mod kinds;
pub mod openapi;
pub mod ownership;
pub mod patch;
pub mod schema;
pub mod strategy;
pub mod table;
pub mod typed;

pub use columns::Column;
pub use kind::{Kind, Scope, Storage, Subresource};
pub use schema::{Schema, SchemaRef};
pub use strategy::Strategy;
pub use table::{Kinds, KindsTable, builtin};
