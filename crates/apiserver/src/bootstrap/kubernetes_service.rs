//! The `kubernetes` Service, by which pods reach the API, and the Endpoints and EndpointSlice behind it.
//!
//! The Service has the first address of the service range. Where it leads is known only once the server listens, so the
//! endpoints are written by [`publish`].

use std::net::SocketAddr;

use client::Verb;
use client::door::PatchKind;
use meta::{GroupVersionKind, Object, Status};
use serde_json::{Value, json};

use super::{context, create, target};
use crate::registry::Registry;

const NAME: &str = "kubernetes";
const NAMESPACE: &str = "default";
const PORT_NAME: &str = "https";
const SERVICE_PORT: u16 = 443;

/// Makes the Service.
pub async fn reconcile(registry: &Registry) -> Result<(), Status> {
    let Some(address) = registry.allocators().first_address() else { return Ok(()) };
    let mut service = named(&GroupVersionKind::new("", "v1", "Service"));
    service.set_meta("labels", json!({"component": "apiserver", "provider": "kubernetes"}));
    service.set(
        &["spec"],
        json!({
            "type": "ClusterIP",
            "clusterIP": address.to_string(),
            "sessionAffinity": "None",
            "ports": [{"name": PORT_NAME, "protocol": "TCP", "port": SERVICE_PORT, "targetPort": 6443}],
        }),
    );
    create(registry, service).await
}

/// Points the Service at where this server can be reached.
pub async fn publish(registry: &Registry, at: SocketAddr) -> Result<(), Status> {
    let ip = at.ip().to_string();
    let mut endpoints = named(&GroupVersionKind::new("", "v1", "Endpoints"));
    // The slice is made here too; nobody has to mirror it.
    endpoints.set_meta("labels", json!({"endpointslice.kubernetes.io/skip-mirror": "true"}));
    let port = json!({"name": PORT_NAME, "port": at.port(), "protocol": "TCP"});
    endpoints.set(&["subsets"], json!([{"addresses": [{"ip": ip}], "ports": [port]}]));
    let mut slice = named(&GroupVersionKind::new("discovery.k8s.io", "v1", "EndpointSlice"));
    slice.set_meta("labels", json!({"kubernetes.io/service-name": NAME}));
    slice.set(&["addressType"], if at.is_ipv4() { "IPv4" } else { "IPv6" });
    slice.set(&["endpoints"], json!([{"addresses": [ip], "conditions": {"ready": true}}]));
    slice.set(&["ports"], json!([port]));
    let port = json!({"spec": {"ports": [{"name": PORT_NAME, "protocol": "TCP", "port": SERVICE_PORT, "targetPort": at.port()}]}});
    let service = named(&GroupVersionKind::new("", "v1", "Service"));
    if registry.exists(&target(registry, &service)?) {
        merge(registry, &service, port).await?;
    }
    for object in [endpoints, slice] {
        if registry.exists(&target(registry, &object)?) {
            merge(registry, &object, Value::Object(object.0.clone())).await?;
        } else {
            create(registry, object).await?;
        }
    }
    Ok(())
}

async fn merge(registry: &Registry, object: &Object, patch: Value) -> Result<(), Status> {
    let target = target(registry, object)?;
    let patch = patch.to_string().into();
    registry.patch(&context(Verb::Patch), &target, PatchKind::Merge, patch).await.map(drop)
}

fn named(gvk: &GroupVersionKind) -> Object {
    let mut object = Object::new(gvk);
    object.set_meta("name", NAME);
    object.set_meta("namespace", NAMESPACE);
    object
}
