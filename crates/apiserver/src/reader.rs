//! Reading objects as the server itself: for checks that are part of handling a request that was authorized already.
//!
//! Authentication asks whether a token's service account still lives, the proxy asks where a pod runs. Neither is a request
//! of its own, so neither passes authorization again; both read from memory.

use async_trait::async_trait;
use base::Timestamp;
use meta::{GroupResource, LabelSelector, Object, ObjectKey, Status};

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
    async fn list(&self, resource: &GroupResource, namespace: &str, labels: &LabelSelector) -> Result<Vec<Object>, Status>;
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
            Ok(self.find(resource, key).map(|object| Stamp {
                uid: object.uid().to_string(),
                deletion_timestamp: object.deletion_timestamp(),
            }))
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
