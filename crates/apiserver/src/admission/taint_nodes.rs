//! A new node is tainted as not ready, so that nothing is scheduled to it before its agent said that it is.

use async_trait::async_trait;
use meta::{Object, Status};
use serde_json::{Value, json};

use super::{Plugin, Review};
use crate::registry::Registry;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub struct TaintNodes;

#[async_trait]
impl Plugin for TaintNodes {
    async fn admit(&self, _: &Registry, review: &Review<'_>, object: &mut Object) -> Result<(), Status> {
        if review.creates("", "nodes") {
            taint(object);
        }
        Ok(())
    }
}

fn taint(node: &mut Object) {
    let mut taints = node.list_at(&["spec", "taints"]).to_vec();
    let is_there = |taint: &Value| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule";
    if !taints.iter().any(is_there) {
        taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
        node.set(&["spec", "taints"], taints);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_once() {
        let mut node = Object::default();
        taint(&mut node);
        taint(&mut node);
        assert_eq!(node.list_at(&["spec", "taints"]), [json!({"key": NOT_READY, "effect": "NoSchedule"})]);
    }
}
