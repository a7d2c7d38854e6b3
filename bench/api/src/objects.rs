//! The objects that are written: ConfigMaps of a kibibyte, and pods as workloads have them.

use anyhow::{Context, Result};
use bytes::Bytes;
use serde_json::json;

/// What a ConfigMap carries.
const PAYLOAD_BYTES: usize = 1024;

pub fn path(namespace: &str, resource: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/{resource}")
}

/// A ConfigMap; `stamp` is found again in its JSON by [`stamp_in`].
pub fn config_map(name: &str, stamp: u64, resource_version: Option<&str>) -> Bytes {
    let mut metadata = json!({"name": name});
    if let Some(version) = resource_version {
        metadata["resourceVersion"] = json!(version);
    }
    let data = json!({"payload": "p".repeat(PAYLOAD_BYTES), "stamp": stamp.to_string()});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}).to_string().into()
}

/// A pod as a Deployment's replicas are, with names, limits, probes and a mounted ConfigMap.
pub fn pod(name: &str) -> Bytes {
    let probe = json!({"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app": "shop", "pod-template-hash": "6c5cb8cf9d", "tier": "frontend"}
        },
        "spec": {
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "web", "image": "registry.example.com/shop/web:1.42.0",
                "ports": [{"name": "http", "containerPort": 8080}],
                "env": [{"name": "MODE", "value": "production"}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                "readinessProbe": probe,
                "volumeMounts": [{"name": "config", "mountPath": "/etc/shop"}]
            }],
            "volumes": [{"name": "config", "configMap": {"name": "shop"}}]
        }
    });
    pod.to_string().into()
}

/// The stamp of a ConfigMap, found in its JSON.
pub fn stamp_in(text: &[u8]) -> Result<u64> {
    number_after(text, b"\"stamp\":\"")
}

/// The resource version of the first object in a JSON text.
pub fn version_in(text: &[u8]) -> Result<u64> {
    number_after(text, b"\"resourceVersion\":\"")
}

fn number_after(text: &[u8], key: &[u8]) -> Result<u64> {
    let at = memchr::memmem::find(text, key).with_context(|| format!("no {}", String::from_utf8_lossy(key)))?;
    let digits = text[at + key.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    Ok(digits.fold(0, |number: u64, digit| number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_and_versions_are_found_in_what_is_sent() {
        let text = config_map("a", 1234, Some("77"));
        assert_eq!((stamp_in(&text).unwrap(), version_in(&text).unwrap()), (1234, 77));
        assert!(version_in(&config_map("a", 1, None)).is_err());
    }
}
