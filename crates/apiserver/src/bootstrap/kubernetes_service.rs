//! The `kubernetes` Service, by which pods reach the API, and the Endpoints and EndpointSlice behind it.
//!
//! The Service has the first address of the service range. Where it leads is known only once the server listens, so the
//! endpoints are written by [`publish`]. From then on whichever of the three is deleted is made again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{Backoff, BackoffPolicy};
use meta::{GroupVersionKind, Object, ObjectKey, Status};
use serde_json::json;

use super::{create, merge, put, target};
use crate::registry::Registry;

const NAME: &str = "kubernetes";
const NAMESPACE: &str = "default";
const PORT_NAME: &str = "https";
const SERVICE_PORT: u16 = 443;

/// How long after a failure it is tried again.
const RETRY: BackoffPolicy = BackoffPolicy::doubling(Duration::from_secs(1), Duration::from_secs(60));

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

/// Points the Service at where this server can be reached, and keeps it so.
pub async fn publish(registry: &Arc<Registry>, at: SocketAddr) -> Result<(), Status> {
    write(registry, at).await?;
    if registry.allocators().first_address().is_none() {
        return Ok(());
    }
    let kept = registry.clone();
    registry.tasks().spawn("kubernetes service", async move { keep(&kept, at).await });
    Ok(())
}

/// Resolves when one of those that are kept is deleted.
pub(crate) async fn one_goes(registry: &Registry, at: SocketAddr) {
    let key = ObjectKey::new(NAMESPACE, NAME);
    tokio::select! {
        () = registry.goes("services/specs", &key) => {}
        // what is never made would be gone at once, again and again
        () = registry.goes("services/endpoints", &key), if has_endpoints(at) => {}
        () = registry.goes("endpointslices", &key) => {}
    }
}

async fn keep(registry: &Registry, at: SocketAddr) {
    let mut backoff = Backoff::new(RETRY);
    loop {
        one_goes(registry, at).await;
        let made = async {
            reconcile(registry).await?;
            write(registry, at).await
        };
        match made.await {
            Ok(()) => backoff.reset(),
            Err(error) => {
                tracing::warn!(%error, "the kubernetes service cannot be made again");
                registry.clock().sleep(backoff.next(registry.clock().instant())).await;
            }
        }
    }
}

/// Endpoints cannot be on loopback: a server that is only reached from its own machine has the slice alone.
fn has_endpoints(at: SocketAddr) -> bool {
    !at.ip().is_loopback()
}

async fn write(registry: &Registry, at: SocketAddr) -> Result<(), Status> {
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
    let endpoints = Some(endpoints).filter(|_| has_endpoints(at));
    let objects = endpoints.into_iter().chain([slice]).map(|object| put(registry, object));
    futures::future::try_join_all(objects).await.map(drop)
}

fn named(gvk: &GroupVersionKind) -> Object {
    let mut object = Object::new(gvk);
    object.set_meta("name", NAME);
    object.set_meta("namespace", NAMESPACE);
    object
}
