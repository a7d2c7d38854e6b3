//! Subresources that are actions: something is posted, and something happens to the object.
//!
//! | path | does |
//! |---|---|
//! | `pods/binding`, `bindings` | puts a pod on a node, once |
//! | `pods/eviction` | deletes a pod if its disruption budget allows |
//! | `serviceaccounts/token` | makes a token |
//! | `namespaces/finalize` | takes finalizers off a namespace |
//!
//! `status`, `scale`, `approval`, `ephemeralcontainers` and `resize` are views of the object and go the way of updates.

pub mod binding;
pub mod eviction;
pub mod finalize;
pub mod token;

use meta::{Object, Status};

use crate::context::Context;
use crate::registry::{Outcome, Registry, Target};

/// What a post to one of these answers; none for anything else.
pub async fn create(
    registry: &Registry,
    cx: &Context,
    target: &Target,
    body: &Object,
) -> Option<Result<Outcome, Status>> {
    match (&*target.kind.group, &*target.kind.plural, target.subresource.as_str()) {
        ("", "pods", "binding") | ("", "bindings", "") => Some(binding::create(registry, cx, target, body).await),
        ("", "pods", "eviction") => Some(eviction::create(registry, cx, target, body).await),
        ("", "serviceaccounts", "token") => Some(token::create(registry, cx, target, body).await),
        _ => None,
    }
}

/// The target of an action on the object that a body or path names.
fn named(target: &Target, body: &Object) -> Result<Target, Status> {
    let mut named = target.clone();
    if named.name.is_empty() {
        named.name = body.name().to_string();
    }
    if !body.name().is_empty() && body.name() != named.name {
        return Err(Status::bad_request(format!("name in URL does not match name in {} object", body.kind())));
    }
    let (own, url) = (body.namespace(), &named.namespace);
    if !own.is_empty() && own != url {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(named)
}
