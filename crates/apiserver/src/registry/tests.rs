//! The verbs over the real store and cache, kind-independent behaviour first.

mod every_kind;
mod fixture;
mod lists;
mod pods;
mod secrets;
mod services;
mod writes;
