//! The namespaces that every cluster has.

use meta::{GroupVersionKind, Object};

const NAMES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

pub fn wanted() -> Vec<Object> {
    let namespace = |name: &&str| {
        let mut namespace = Object::new(&GroupVersionKind::new("", "v1", "Namespace"));
        namespace.set_meta("name", *name);
        namespace
    };
    NAMES.iter().map(namespace).collect()
}
