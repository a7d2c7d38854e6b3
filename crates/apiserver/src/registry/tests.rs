//! The verbs over the real store and cache, kind-independent behaviour first.

mod fixture;
mod lists;
mod pods;
mod services;
mod writes;
