//! The node's heartbeat: a lease of 40 s, renewed every 10 s.

use std::sync::Arc;
use std::time::Duration;

use client::Patch;
use k8s_openapi::api::coordination::v1::Lease;
use meta::{GroupVersionKind, GroupVersionResource, Object, ObjectKey, Status, time};
use serde_json::json;

use crate::agent::Agent;

const DURATION_SECONDS: i64 = 40;
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// A renewal that failed is tried again this soon.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const NAMESPACE: &str = "kube-node-lease";

/// Renews the lease for ever.
pub async fn run(agent: Arc<Agent>, node_uid: String) {
    loop {
        let wait = match renew(&agent, &node_uid).await {
            Ok(()) => RENEW_EVERY,
            Err(status) => {
                tracing::warn!(error = %status, "the node's lease was not renewed, will retry");
                RETRY_AFTER
            }
        };
        agent.clock.sleep(wait).await;
    }
}

async fn renew(agent: &Agent, node_uid: &str) -> Result<(), Status> {
    let name = agent.config.node_name.as_str();
    let key = ObjectKey::new(NAMESPACE, name);
    let now = time::rfc3339_micro(agent.clock.now());
    let spec = json!({"holderIdentity": name, "leaseDurationSeconds": DURATION_SECONDS, "renewTime": now});
    match agent.client.patch::<Lease>(&key, "", Patch::Merge(json!({"spec": spec}))).await {
        Err(status) if status.is_not_found() => {
            let mut lease = Object::new(&GroupVersionKind::new("coordination.k8s.io", "v1", "Lease"));
            lease.set_meta("name", name);
            lease.set_meta("namespace", NAMESPACE);
            lease.set_meta(
                "ownerReferences",
                json!([{"apiVersion": "v1", "kind": "Node", "name": name, "uid": node_uid}]),
            );
            lease.set(&["spec"], spec);
            let leases = GroupVersionResource::new("coordination.k8s.io", "v1", "leases");
            agent.client.create_object(&leases, lease).await.map(drop)
        }
        outcome => outcome.map(drop),
    }
}
