//! Reading objects as the server itself: for checks that are part of handling a request that was authorized already.
//!
//! Authentication asks whether a token's service account still lives, the proxy asks where a pod runs. Neither is a request
//! of its own, so neither passes authorization again; both read from memory.

use std::sync::{Arc, OnceLock};

use api::Kind;
use async_trait::async_trait;
use base::Timestamp;
use client::Verb;
use meta::{GroupResource, LabelSelector, Object, ObjectKey, Status};

use crate::authz::PRIVILEGED_GROUP;
use crate::context::{Context, Identity};
use crate::registry::{Answer, Outcome, Registry, Target};

/// What liveness checks need of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub uid: String,
    pub deletion_timestamp: Option<Timestamp>,
}

/// The objects as the server's cache has them.
#[async_trait]
pub trait Reader: Send + Sync + 'static {
    /// The object in its stored version.
    async fn get(&self, resource: &GroupResource, key: &ObjectKey) -> Result<Object, Status>;

    /// Uid and deletion time alone, without decoding the object; none when it does not exist.
    async fn stamp(&self, resource: &GroupResource, key: &ObjectKey) -> Result<Option<Stamp>, Status>;

    /// All objects of a namespace that the selector picks.
    async fn list(
        &self,
        resource: &GroupResource,
        namespace: &str,
        labels: &LabelSelector,
    ) -> Result<Vec<Object>, Status>;
}

/// A reader over the registry, which is made after those who read through it.
#[derive(Default)]
pub struct RegistryReader {
    registry: OnceLock<Arc<Registry>>,
}

impl RegistryReader {
    /// Tells the registry, once. Until then every read says that the server is starting.
    pub fn bind(&self, registry: Arc<Registry>) {
        // A second registry would be a second server: the first one stays.
        let _ = self.registry.set(registry);
    }

    fn reach(&self, verb: Verb, resource: &GroupResource) -> Result<(&Registry, Arc<Kind>, Context), Status> {
        let registry = self.registry.get().ok_or_else(|| Status::unavailable("the server is starting"))?;
        let kinds = registry.kinds();
        let kind = kinds.by_group_resource(resource).next().cloned().ok_or_else(Status::no_such_resource)?;
        let mut cx = Context::of(server_identity(), verb);
        // From the cache as it is: nobody waits for the store here.
        cx.options.resource_version = "0".into();
        Ok((registry, kind, cx))
    }

    async fn stored(&self, resource: &GroupResource, key: &ObjectKey) -> Result<Answer, Status> {
        let (registry, kind, cx) = self.reach(Verb::Get, resource)?;
        match registry.get(&cx, &Target::object(&kind, key)).await? {
            Outcome::Object { answer, .. } => Ok(answer),
            Outcome::Success { .. } => Err(Status::not_found(resource, &key.name)),
        }
    }
}

/// Under which name the server reads its own objects.
pub fn server_identity() -> Identity {
    Identity::new("system:apiserver", &[PRIVILEGED_GROUP])
}

fn tree(answer: &Answer) -> Result<Object, Status> {
    match answer {
        Answer::Stored(stored) => stored.stored_object(),
        Answer::Made(object) => Ok(object.clone()),
    }
}

#[async_trait]
impl Reader for RegistryReader {
    async fn get(&self, resource: &GroupResource, key: &ObjectKey) -> Result<Object, Status> {
        tree(&self.stored(resource, key).await?)
    }

    async fn stamp(&self, resource: &GroupResource, key: &ObjectKey) -> Result<Option<Stamp>, Status> {
        match self.stored(resource, key).await {
            Ok(Answer::Stored(stored)) => Ok(Some(Stamp {
                uid: stored.header.uid.to_string(),
                deletion_timestamp: stored.header.deletion_timestamp,
            })),
            Ok(Answer::Made(object)) => {
                Ok(Some(Stamp { uid: object.uid().to_string(), deletion_timestamp: object.deletion_timestamp() }))
            }
            Err(status) if status.is_not_found() => Ok(None),
            Err(status) => Err(status),
        }
    }

    async fn list(
        &self,
        resource: &GroupResource,
        namespace: &str,
        labels: &LabelSelector,
    ) -> Result<Vec<Object>, Status> {
        let (registry, kind, mut cx) = self.reach(Verb::List, resource)?;
        cx.options.label_selector = labels.to_string();
        let page = registry.list(&cx, &Target::collection(&kind, namespace)).await?;
        page.items.iter().map(|stored| stored.stored_object()).collect()
    }
}

#[cfg(test)]
pub mod fake {
    //! A reader over a handful of objects.

    use super::*;

    /// Objects with the resource they are of.
    #[derive(Default)]
    pub struct FakeReader(pub Vec<(GroupResource, Object)>);

    impl FakeReader {
        pub fn with(mut self, group: &str, resource: &str, object: serde_json::Value) -> Self {
            self.0.push((GroupResource::new(group, resource), Object::from_value(object).unwrap()));
            self
        }

        fn find(&self, resource: &GroupResource, key: &ObjectKey) -> Option<&Object> {
            self.0.iter().find(|(of, object)| of == resource && object.key() == *key).map(|(_, object)| object)
        }
    }

    #[async_trait]
    impl Reader for FakeReader {
        async fn get(&self, resource: &GroupResource, key: &ObjectKey) -> Result<Object, Status> {
            self.find(resource, key).cloned().ok_or_else(|| Status::not_found(resource, &key.name))
        }

        async fn stamp(&self, resource: &GroupResource, key: &ObjectKey) -> Result<Option<Stamp>, Status> {
            Ok(self
                .find(resource, key)
                .map(|object| Stamp { uid: object.uid().to_string(), deletion_timestamp: object.deletion_timestamp() }))
        }

        async fn list(
            &self,
            resource: &GroupResource,
            namespace: &str,
            labels: &LabelSelector,
        ) -> Result<Vec<Object>, Status> {
            let wanted = |(of, object): &&(GroupResource, Object)| {
                of == resource && object.namespace() == namespace && labels.matches(object)
            };
            Ok(self.0.iter().filter(wanted).map(|(_, object)| object.clone()).collect())
        }
    }
}
