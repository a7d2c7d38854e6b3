//! What a call is about: a kind, a subresource of it, and which object.

use std::sync::Arc;

use api::Kind;
use meta::{GroupResource, ObjectKey, Status};

/// Empty text stands for "none" in `subresource`, `namespace` and `name`.
#[derive(Clone, Debug)]
pub struct Target {
    /// The row in the requested version.
    pub kind: Arc<Kind>,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
}

impl Target {
    /// One object.
    pub fn object(kind: &Arc<Kind>, key: &ObjectKey) -> Self {
        Target {
            kind: kind.clone(),
            subresource: String::new(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
        }
    }

    /// All objects of a kind, in one namespace or (when empty) in all of them.
    pub fn collection(kind: &Arc<Kind>, namespace: &str) -> Self {
        Target { kind: kind.clone(), subresource: String::new(), namespace: namespace.to_string(), name: String::new() }
    }

    pub fn with_subresource(mut self, subresource: &str) -> Self {
        self.subresource = subresource.to_string();
        self
    }

    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(&self.namespace, &self.name)
    }

    pub fn group_resource(&self) -> GroupResource {
        self.kind.group_resource()
    }

    pub fn not_found(&self) -> Status {
        Status::not_found(&self.group_resource(), &self.name)
    }

    /// What a verb answers that the kind or subresource does not have.
    pub fn method_not_allowed(&self, verb: &str) -> Status {
        Status::method_not_allowed(format!(
            "{verb} is not supported on resources of kind \"{}\"",
            self.group_resource()
        ))
    }
}
