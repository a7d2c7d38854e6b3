//! A node agent touches only what is its own: its node, its lease, the status of its pods, tokens for its pods.
//!
//! Authorization limits which objects an agent may name; this plugin limits what it may write into them.

mod certificate_requests;

use std::collections::BTreeMap;

use async_trait::async_trait;
use meta::{Object, ObjectKey, Status};
use serde_json::Value;

use super::{Operation, Plugin, Review};
use crate::registry::Registry;

const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// Labels below `kubernetes.io` and `k8s.io` that an agent may set on its node.
const LABELS_ALLOWED: [&str; 12] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.kubernetes.io/region",
    "failure-domain.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];
const LABEL_ZONE: &str = "topology.kubernetes.io/zone";
const LABEL_NAMESPACES_ALLOWED: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
const LABEL_NAMESPACE_RESTRICTED: &str = "node-restriction.kubernetes.io";

pub struct NodeRestriction;

#[async_trait]
impl Plugin for NodeRestriction {
    async fn admit(&self, registry: &Registry, review: &Review<'_>, object: &mut Object) -> Result<(), Status> {
        check(review, Some(object))?;
        match review.cx.user.node_name() {
            Some(node)
                if (&*review.row.group, &*review.row.plural) == ("certificates.k8s.io", "podcertificaterequests") =>
            {
                certificate_requests::check(registry, review, node, object).await
            }
            _ => Ok(()),
        }
    }

    async fn validate(&self, _: &Registry, review: &Review<'_>, object: Option<&Object>) -> Result<(), Status> {
        if review.operation == Operation::Delete { check(review, object) } else { Ok(()) }
    }
}

fn check(review: &Review<'_>, object: Option<&Object>) -> Result<(), Status> {
    if !review.cx.user.is_in("system:nodes") {
        return Ok(());
    }
    let Some(node) = review.cx.user.node_name() else {
        let why = format!("could not determine node from user {:?}", review.cx.user.name);
        return Err(review.forbidden(object, why));
    };
    let result = match (&*review.row.group, &*review.row.plural, review.target.subresource.as_str()) {
        ("", "pods", "") => pod(review, node, object),
        ("", "pods", "status") => pod_status(review, node, object),
        ("", "pods", other) if other != "eviction" => {
            Err(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"))
        }
        ("", "nodes", _) => own_node(review, node, object),
        ("", "persistentvolumeclaims", sub) if sub != "status" => Err("may only update PVC status".into()),
        ("coordination.k8s.io", "leases", _) => lease(review, node, object),
        ("storage.k8s.io", "csinodes", _) => {
            own_name(review, node, object, "can only access CSINode with the same name as the requesting node")
        }
        ("resource.k8s.io", "resourceslices", _) => slice(review, node, object),
        _ => Ok(()),
    };
    result.map_err(|why| review.forbidden(object, why))
}

fn pod(review: &Review<'_>, node: &str, object: Option<&Object>) -> Result<(), String> {
    match (review.operation, object, review.old) {
        (Operation::Create, Some(pod), _) => mirror_pod(node, pod),
        (Operation::Delete, _, Some(old)) if old.str_at(&["spec", "nodeName"]) == node => Ok(()),
        (Operation::Delete, _, _) => {
            Err(format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
        }
        _ => Err(format!("unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods")),
    }
}

fn mirror_pod(node: &str, pod: &Object) -> Result<(), String> {
    if pod.annotation(MIRROR_ANNOTATION).is_none() {
        return Err(format!(
            "pod does not have {MIRROR_ANNOTATION:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if pod.str_at(&["spec", "nodeName"]) != node {
        return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let owners = pod.owner_references();
    let [owner] = owners.as_slice() else {
        return Err(format!("node {node:?} can only create pods with a single owner reference set to itself"));
    };
    if (owner.api_version.as_str(), owner.kind.as_str(), owner.name.as_str()) != ("v1", "Node", node) {
        return Err(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if owner.controller != Some(true) {
        return Err(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
    }
    if owner.block_owner_deletion == Some(true) {
        return Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    match referenced(pod) {
        Some(resource) => Err(format!("node {node:?} can not create pods that reference {resource}")),
        None => Ok(()),
    }
}

/// The first API object besides itself that a pod names; a mirror pod may name none.
fn referenced(pod: &Object) -> Option<&'static str> {
    if !pod.str_at(&["spec", "serviceAccountName"]).is_empty() {
        return Some("serviceaccounts");
    }
    if !pod.list_at(&["spec", "imagePullSecrets"]).is_empty() {
        return Some("secrets");
    }
    let kinds =
        [("secret", "secrets"), ("configMap", "configmaps"), ("persistentVolumeClaim", "persistentvolumeclaims")];
    let of_volume = |volume: &Value| kinds.iter().find(|(field, _)| volume.get(field).is_some()).map(|(_, kind)| *kind);
    if let Some(kind) = pod.list_at(&["spec", "volumes"]).iter().find_map(of_volume) {
        return Some(kind);
    }
    let text = Value::Object(pod.0.clone()).to_string();
    [
        ("\"secretKeyRef\"", "secrets"),
        ("\"secretRef\"", "secrets"),
        ("\"configMapKeyRef\"", "configmaps"),
        ("\"configMapRef\"", "configmaps"),
    ]
    .into_iter()
    .find(|(field, _)| text.contains(field))
    .map(|(_, kind)| kind)
}

fn pod_status(review: &Review<'_>, node: &str, object: Option<&Object>) -> Result<(), String> {
    let (Some(old), Some(new)) = (review.old, object) else { return Ok(()) };
    if old.str_at(&["spec", "nodeName"]) != node {
        return Err(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"));
    }
    if labels(old) != labels(new) {
        return Err(format!("node {node:?} cannot update labels through pod status"));
    }
    Ok(())
}

fn own_node(review: &Review<'_>, node: &str, object: Option<&Object>) -> Result<(), String> {
    let name = match object {
        Some(object) if review.operation == Operation::Create => object.name(),
        _ => &review.target.name,
    };
    if name != node {
        return Err(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    match (object, review.old) {
        (Some(new), None) => {
            let wrong = restricted(labels(new).into_keys());
            if wrong.is_empty() {
                return Ok(());
            }
            Err(format!("node {node:?} is not allowed to set the following labels: {}", wrong.join(", ")))
        }
        (Some(new), Some(old)) => node_update(node, new, old),
        _ => Ok(()),
    }
}

fn node_update(node: &str, new: &Object, old: &Object) -> Result<(), String> {
    if new.list_at(&["spec", "taints"]) != old.list_at(&["spec", "taints"]) {
        return Err(format!("node {node:?} is not allowed to modify taints"));
    }
    if new.owner_references() != old.owner_references() {
        return Err(format!("node {node:?} is not allowed to modify ownerReferences"));
    }
    let (before, after) = (labels(old), labels(new));
    let keys = before.keys().chain(after.keys()).filter(|key| before.get(*key) != after.get(*key));
    let wrong = restricted(keys.copied());
    if wrong.is_empty() { Ok(()) } else { Err(format!("is not allowed to modify labels: {}", wrong.join(", "))) }
}

/// Those of the labels that an agent may not set, each once and in order.
fn restricted<'a>(keys: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let below = |namespace: &str, parent: &str| {
        namespace == parent || namespace.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'))
    };
    let mut wrong: Vec<&str> = keys
        .filter(|key| {
            let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
            if below(namespace, LABEL_NAMESPACE_RESTRICTED) {
                return true;
            }
            let kubernetes = below(namespace, "kubernetes.io") || below(namespace, "k8s.io");
            let allowed = LABELS_ALLOWED.contains(key)
                || *key == LABEL_ZONE
                || LABEL_NAMESPACES_ALLOWED.iter().any(|parent| below(namespace, parent));
            kubernetes && !allowed
        })
        .collect();
    wrong.sort_unstable();
    wrong.dedup();
    wrong
}

fn lease(review: &Review<'_>, node: &str, object: Option<&Object>) -> Result<(), String> {
    if review.target.namespace != LEASE_NAMESPACE {
        return Err(format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace"));
    }
    own_name(review, node, object, "can only access node lease with the same name as the requesting node")
}

fn own_name(review: &Review<'_>, node: &str, object: Option<&Object>, why: &str) -> Result<(), String> {
    let name = match object {
        Some(object) if review.operation == Operation::Create => object.name(),
        _ => &review.target.name,
    };
    if name == node { Ok(()) } else { Err(why.to_string()) }
}

fn slice(review: &Review<'_>, node: &str, object: Option<&Object>) -> Result<(), String> {
    let own = |object: Option<&Object>| object.is_some_and(|object| object.str_at(&["spec", "nodeName"]) == node);
    match review.operation {
        Operation::Create if !own(object) => {
            Err("can only create ResourceSlice with the same NodeName as the requesting node".into())
        }
        Operation::Delete if !own(review.old) => {
            Err("can only delete ResourceSlice with the same NodeName as the requesting node".into())
        }
        _ => Ok(()),
    }
}

fn labels(object: &Object) -> BTreeMap<&str, &str> {
    object.labels().collect()
}

/// Whether an agent may have a token for an account: only for a pod that runs on its node.
pub async fn check_token(registry: &Registry, review: &Review<'_>, request: &Object) -> Result<(), Status> {
    let Some(node) = review.cx.user.node_name() else { return Ok(()) };
    let text = |field: &str| request.str_at(&["spec", "boundObjectRef", field]);
    let refused = |why: String| Err(review.forbidden(None, why));
    if text("kind") != "Pod" || text("name").is_empty() {
        return refused("node requested token not bound to a pod".into());
    }
    if text("uid").is_empty() {
        return refused("node requested token with a pod binding without a uid".into());
    }
    let key = ObjectKey::new(&review.target.namespace, text("name"));
    let Some(pod) = registry.current("pods", &key).await? else {
        return refused(format!("pods {:?} not found", text("name")));
    };
    if *pod.header.uid != *text("uid") {
        return refused(format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            text("uid")
        ));
    }
    if pod.stored_object()?.str_at(&["spec", "nodeName"]) != node {
        return refused("node requested token bound to a pod scheduled on a different node".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    #[test]
    fn an_agent_may_set_only_its_own_labels() {
        let keys = [
            "kubernetes.io/hostname",
            "a/b",
            "x.node-restriction.kubernetes.io/y",
            "k8s.io/z",
            "node.kubernetes.io/q",
            "plain",
            "topology.kubernetes.io/zone",
        ];
        assert_eq!(restricted(keys.into_iter()), ["k8s.io/z", "x.node-restriction.kubernetes.io/y"]);
    }

    #[test]
    fn an_agent_may_not_change_taints_or_labels_of_others() {
        let old = object(json!({"metadata": {"labels": {"k8s.io/a": "1"}}}));
        let tainted = object(json!({"metadata": {"labels": {"k8s.io/a": "1"}}, "spec": {"taints": [{"key": "a"}]}}));
        assert_eq!(node_update("n", &tainted, &old).unwrap_err(), "node \"n\" is not allowed to modify taints");
        let relabelled = object(json!({}));
        assert_eq!(node_update("n", &relabelled, &old).unwrap_err(), "is not allowed to modify labels: k8s.io/a");
    }

    #[test]
    fn an_agent_makes_only_mirror_pods_of_its_own() {
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "1", "controller": true});
        let good = object(json!({"metadata": {"annotations": {MIRROR_ANNOTATION: "x"}, "ownerReferences": [owner]},
            "spec": {"nodeName": "n"}}));
        assert_eq!(mirror_pod("n", &good), Ok(()));
        assert!(mirror_pod("m", &good).unwrap_err().contains("spec.nodeName set to itself"));
        let mut with_secret = good.clone();
        with_secret.set(&["spec", "volumes"], json!([{"name": "v", "secret": {"secretName": "s"}}]));
        assert_eq!(mirror_pod("n", &with_secret).unwrap_err(), "node \"n\" can not create pods that reference secrets");
    }
}
