//! Pods that say nothing about it stay for five minutes on a node that is not ready or cannot be reached.

use async_trait::async_trait;
use meta::{Object, Status};
use serde_json::{Value, json};

use super::{Operation, Plugin, Review};
use crate::registry::Registry;

const TOLERATION_SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub struct DefaultTolerations;

#[async_trait]
impl Plugin for DefaultTolerations {
    async fn admit(&self, _: &Registry, review: &Review<'_>, object: &mut Object) -> Result<(), Status> {
        if review.is("", "pods", "") && review.operation != Operation::Delete {
            tolerate(object);
        }
        Ok(())
    }
}

fn tolerate(pod: &mut Object) {
    let mut all = pod.list_at(&["spec", "tolerations"]).to_vec();
    let before = all.len();
    for taint in TAINTS {
        if !all.iter().any(|toleration| concerns(toleration, taint)) {
            all.push(json!({"key": taint, "operator": "Exists", "effect": "NoExecute",
                            "tolerationSeconds": TOLERATION_SECONDS}));
        }
    }
    if all.len() > before {
        pod.set(&["spec", "tolerations"], all);
    }
}

/// Whether the pod says something about the taint already; an empty key or effect stands for all.
fn concerns(toleration: &Value, taint: &str) -> bool {
    let text = |field: &str| toleration.get(field).and_then(Value::as_str).unwrap_or_default();
    (text("key") == taint || text("key").is_empty()) && matches!(text("effect"), "NoExecute" | "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(tolerations: Value) -> Vec<String> {
        let mut pod = Object::default();
        pod.set(&["spec", "tolerations"], tolerations);
        tolerate(&mut pod);
        let all = pod.list_at(&["spec", "tolerations"]).iter();
        all.map(|toleration| toleration["key"].as_str().unwrap_or("*").to_string()).collect()
    }

    #[test]
    fn adds_only_what_the_pod_does_not_say() {
        assert_eq!(keys(json!([])), TAINTS);
        assert_eq!(keys(json!([{"operator": "Exists"}])), ["*"]);
        assert_eq!(keys(json!([{"key": TAINTS[0], "effect": "NoSchedule"}])), [TAINTS[0], TAINTS[0], TAINTS[1]]);
        assert_eq!(keys(json!([{"key": TAINTS[1], "effect": "NoExecute"}])), [TAINTS[1], TAINTS[0]]);
    }
}
