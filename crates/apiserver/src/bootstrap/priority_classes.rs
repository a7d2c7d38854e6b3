//! The priority classes of the system.

use meta::{GroupVersionKind, Object};

const CLASSES: [(&str, i64, &str); 2] = [
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
];

pub fn wanted() -> Vec<Object> {
    let class = |(name, value, description): &(&str, i64, &str)| {
        let mut class = Object::new(&GroupVersionKind::new("scheduling.k8s.io", "v1", "PriorityClass"));
        class.set_meta("name", *name);
        class.set(&["value"], *value);
        class.set(&["description"], *description);
        class
    };
    CLASSES.iter().map(class).collect()
}
