//! What every cluster has: namespaces, default roles, priority classes, the service range, the `kubernetes` Service and the authority of clients. Made
//! with ordinary writes under the server's own identity and set right at every start.
//!
//! ```text
//! wanted objects (from code and `data/`) ─► missing?  ─► create
//!                                       └─► changed? ─► merge what is missing, unless the object says not to
//! ```

pub mod client_authority;
pub mod kubernetes_service;
pub mod namespaces;
pub mod priority_classes;
pub mod rbac;
pub mod service_ranges;

use client::Verb;
use client::door::PatchKind;
use futures::future::try_join;
use meta::{Object, Status};
use serde_json::Value;

use crate::context::{Context, Identity};
use crate::registry::{Registry, Target};

/// Who writes these.
const USER: &str = "system:apiserver";

/// Makes everything, in two steps: what is in a namespace comes after the namespaces. Objects of one step do not depend on each
/// other and share commits.
pub async fn run(registry: &Registry) -> Result<(), Status> {
    let mut unconditional = namespaces::wanted();
    unconditional.extend(priority_classes::wanted());
    unconditional.extend(service_ranges::wanted(registry));
    let (namespaced, cluster): (Vec<Object>, Vec<Object>) =
        rbac::wanted().into_iter().partition(|object| !object.namespace().is_empty());
    try_join(create_all(registry, unconditional), rbac::reconcile(registry, cluster)).await?;
    try_join(rbac::reconcile(registry, namespaced), kubernetes_service::reconcile(registry)).await?;
    Ok(())
}

pub(super) fn context(verb: Verb) -> Context {
    let mut cx = Context::of(Identity::new(USER, &["system:masters"]), verb);
    cx.options.field_manager = "coracle".into();
    cx
}

/// The target of an object that names its kind.
pub(super) fn target(registry: &Registry, object: &Object) -> Result<Target, Status> {
    let gvk = object.gvk().ok_or_else(|| Status::internal("an object of the server's own has no kind"))?;
    let kinds = registry.kinds();
    let kind = kinds.by_gvk(&gvk).ok_or_else(|| Status::internal(format!("{gvk} is not served")))?;
    Ok(Target::object(kind, &object.key()))
}

/// Creates those that do not exist; what exists stays as it is.
async fn create_all(registry: &Registry, objects: Vec<Object>) -> Result<(), Status> {
    let creates = objects.into_iter().map(|object| create(registry, object));
    futures::future::try_join_all(creates).await.map(drop)
}

pub(super) async fn create(registry: &Registry, object: Object) -> Result<(), Status> {
    let one = target(registry, &object)?;
    if registry.exists(&one) {
        return Ok(());
    }
    let collection = Target { name: String::new(), ..one };
    match registry.create(&context(Verb::Create), &collection, object).await {
        Err(error) if !error.is_already_exists() => Err(error),
        _ => Ok(()),
    }
}

/// Makes an object, or merges it into the one that exists.
pub(super) async fn put(registry: &Registry, object: Object) -> Result<(), Status> {
    if registry.exists(&target(registry, &object)?) {
        return merge(registry, &object, Value::Object(object.0.clone())).await;
    }
    create(registry, object).await
}

/// Merges `patch` into an object that exists.
pub(super) async fn merge(registry: &Registry, object: &Object, patch: Value) -> Result<(), Status> {
    let target = target(registry, object)?;
    let patch = patch.to_string().into();
    registry.patch(&context(Verb::Patch), &target, PatchKind::Merge, patch).await.map(drop)
}
