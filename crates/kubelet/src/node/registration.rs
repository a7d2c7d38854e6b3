//! Making the node object, or taking the one there is over.

use std::collections::BTreeMap;
use std::time::Duration;

use base::{Backoff, BackoffPolicy, Clock};
use client::{Client, Patch};
use k8s_openapi::api::core::v1::Node;
use meta::{GroupVersionKind, GroupVersionResource, Object, ObjectKey, Quantity, Status};
use serde_json::{Value, json};

use super::machine::Machine;
use crate::config::Config;

const RETRY: BackoffPolicy = BackoffPolicy::doubling(Duration::from_millis(100), Duration::from_secs(7));

/// Registers the node, trying for as long as it takes. Returns it as the API has it.
pub async fn register(
    client: &Client,
    clock: &Clock,
    config: &Config,
    machine: &Machine,
    capacity: &BTreeMap<String, Quantity>,
) -> Node {
    let mut backoff = Backoff::new(RETRY);
    loop {
        match once(client, config, machine, capacity).await {
            Ok(node) => return node,
            Err(status) => {
                tracing::warn!(error = %status, "the node is not registered yet, will retry");
                clock.sleep(backoff.next(clock.instant())).await;
            }
        }
    }
}

async fn once(
    client: &Client,
    config: &Config,
    machine: &Machine,
    capacity: &BTreeMap<String, Quantity>,
) -> Result<Node, Status> {
    let nodes = GroupVersionResource::new("", "v1", "nodes");
    let key = ObjectKey::cluster(&config.node_name);
    if client.find::<Node>(&key).await?.is_none() {
        let made = client.create_object(&nodes, object(config, machine, capacity)).await;
        match made {
            Ok(made) => return made.typed(),
            Err(status) if status.is_already_exists() => {}
            Err(status) => return Err(status),
        }
    }
    // Labels of the node are its own business only as far as they say what it is.
    let patch = json!({"metadata": {"labels": labels(config, machine)}});
    client.patch_object(&nodes, &key, "", Patch::Merge(patch)).await?.typed()
}

fn labels(config: &Config, machine: &Machine) -> Value {
    let own = [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", machine.architecture.as_str()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", machine.architecture.as_str()),
    ];
    let given = config.node_labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    own.into_iter()
        .chain(given)
        .map(|(key, value)| (key.to_string(), Value::from(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn object(config: &Config, machine: &Machine, capacity: &BTreeMap<String, Quantity>) -> Object {
    let mut node = Object::new(&GroupVersionKind::new("", "v1", "Node"));
    node.set_meta("name", config.node_name.as_str());
    node.set_meta("labels", labels(config, machine));
    if let Some(first) = config.pod_cidrs.first() {
        node.set(&["spec", "podCIDR"], first.as_str());
        node.set(&["spec", "podCIDRs"], json!(config.pod_cidrs));
    }
    let text: BTreeMap<&str, String> =
        capacity.iter().map(|(name, amount)| (name.as_str(), amount.to_string())).collect();
    node.set(&["status", "capacity"], json!(text));
    node.set(&["status", "allocatable"], json!(text));
    node
}
