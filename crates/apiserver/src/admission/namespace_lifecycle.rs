//! Nothing is made in a namespace that does not exist or is going; three namespaces never go.

use async_trait::async_trait;
use meta::{Object, ObjectKey, Status, StatusCause};

use super::{Operation, Plugin, Review};
use crate::registry::Registry;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub struct NamespaceLifecycle;

#[async_trait]
impl Plugin for NamespaceLifecycle {
    async fn admit(&self, registry: &Registry, review: &Review<'_>, object: &mut Object) -> Result<(), Status> {
        if !review.row.namespaced() {
            return Ok(());
        }
        let name = &review.target.namespace;
        let Some(namespace) = find(registry, name).await? else {
            return Err(Status::not_found(&meta::GroupResource::new("", "namespaces"), name));
        };
        if review.operation == Operation::Create && namespace.header.deletion_timestamp.is_some() {
            let why = format!("unable to create new content in namespace {name} because it is being terminated");
            return Err(review.forbidden(Some(object), why).with_cause(StatusCause {
                reason: "NamespaceTerminating".into(),
                message: format!("namespace {name} is being terminated"),
                field: "metadata.namespace".into(),
            }));
        }
        Ok(())
    }

    async fn validate(&self, _: &Registry, review: &Review<'_>, _: Option<&Object>) -> Result<(), Status> {
        let deletes = review.operation == Operation::Delete && review.is("", "namespaces", "");
        if deletes && IMMORTAL.contains(&review.target.name.as_str()) {
            return Err(review.forbidden(None, "this namespace may not be deleted"));
        }
        Ok(())
    }
}

/// The namespace from memory; only when it is missing there is the store asked how far memory has to be.
async fn find(registry: &Registry, name: &str) -> Result<Option<std::sync::Arc<crate::stored::Stored>>, Status> {
    let key = ObjectKey::cluster(name);
    match registry.cached("namespaces", &key) {
        Some(found) => Ok(Some(found)),
        None => registry.current("namespaces", &key).await,
    }
}
