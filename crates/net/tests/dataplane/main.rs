//! Pods, services and nodes on the real kernel: every test makes its own network namespaces and talks through them.
//!
//! Namespaces have no names; they live as long as the open file in [`lab::Namespace`] and take everything in them along, so nothing
//! can be left behind, not even by a test that is killed. They have no way out.

// A bench has no caller to hand an error to; clippy's exception for tests covers test functions only.
#![allow(clippy::unwrap_used)]

mod lab;
mod loops;
mod nodes;
mod pods;
mod services;
