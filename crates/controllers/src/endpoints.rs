//! Endpoints: the older, one-object form of what EndpointSlices say, for those who still read it.

use std::collections::BTreeMap;

use client::{Client, Deletion, Lister, Next, Outcome, Queue, Typed};
use k8s_openapi::api::core::v1::{Endpoints, Service};
use meta::{Object, ObjectKey, Status};
use serde_json::{Value, json};

use crate::endpoint_slice::pod_changed;
use crate::service_pods::{self, Port, address, hostname, is_headless, selector};
use crate::views::{self, PodView, Whole};
use crate::{Context, WORKERS};

const NAME: &str = "endpoint-controller";
const MANAGED_BY_LABEL: &str = "endpoints.kubernetes.io/managed-by";
const MANAGED_BY: &str = "endpoint-controller";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

#[derive(Clone)]
struct AllEndpoints {
    client: Client,
    services: Lister<Service>,
    pods: Lister<PodView>,
    endpoints: Lister<Whole<Endpoints>>,
}

pub fn start(cx: &Context) {
    let (client, _) = cx.identity(NAME);
    let queue: Queue<ObjectKey> = Queue::default();
    let (services, pods) = (cx.informers.typed::<Service>(), views::pods(&cx.informers));
    let endpoints = views::whole::<Endpoints>(&cx.informers);
    let controller =
        AllEndpoints { client, services: services.lister(), pods: pods.lister(), endpoints: endpoints.lister() };
    let wake = queue.clone();
    services.subscribe(move |change| wake.add(change.key().clone()));
    let (wake, all) = (queue.clone(), controller.services.clone());
    pods.subscribe(move |change| pod_changed(change, &all, &wake));
    let wake = queue.clone();
    endpoints.subscribe(move |change| wake.add(change.key().clone()));
    cx.run_workers(NAME, WORKERS, &queue, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    });
}

impl AllEndpoints {
    async fn sync(&self, key: &ObjectKey) -> Result<Next, Status> {
        let current = self.endpoints.get(key);
        let Some(service) = self.services.get(key) else {
            // Endpoints that somebody else made need no service.
            return self.remove(key, current.is_some_and(|it| is_ours(&it.view))).await;
        };
        let Some(selector) = selector(&service) else { return Ok(Next::Wait) };
        let publish = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false);
        let pods = self.pods.in_namespace(&key.namespace);
        let behind = pods.iter().filter(|pod| {
            selector.matches_labels(|label| pod.meta.label(label))
                && !pod.is_terminal()
                && (publish || pod.meta.deleting.is_none())
        });
        let behind: Vec<&PodView> = behind.map(|pod| &**pod).collect();
        let (subsets, labels) = (subsets(&service, &behind, publish), labels(&service));
        let Some(current) = current else {
            let mut made = Object::new(&Endpoints::gvk());
            made.set_meta("name", &*key.name);
            made.set_meta("namespace", &*key.namespace);
            made.set_meta("labels", labels);
            made.set(&["subsets"], subsets);
            return crate::created(self.client.create_object(&Endpoints::gvr(), made).await);
        };
        let object = current.object()?;
        if object.list_at(&["subsets"]) != subsets || object.get(&["metadata", "labels"]) != Some(&labels) {
            let mut object = object;
            object.set_meta("labels", labels);
            object.set(&["subsets"], subsets);
            self.client.update_object(&Endpoints::gvr(), "", object).await?;
        }
        Ok(Next::Wait)
    }

    async fn remove(&self, key: &ObjectKey, exists: bool) -> Result<Next, Status> {
        if exists {
            self.client.delete::<Endpoints>(key, Deletion::default()).await.unless_gone()?;
        }
        Ok(Next::Wait)
    }
}

fn is_ours(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(MANAGED_BY_LABEL)).is_some_and(|value| value == MANAGED_BY)
}

fn labels(service: &Service) -> Value {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS_LABEL);
    if is_headless(service) {
        labels.insert(HEADLESS_LABEL.into(), String::new());
    }
    labels.insert(MANAGED_BY_LABEL.into(), MANAGED_BY.into());
    json!(labels)
}

/// Pods with the same ports make a subset, in a steady order.
fn subsets(service: &Service, pods: &[&PodView], publish: bool) -> Vec<Value> {
    let v6 =
        service.spec.iter().flat_map(|spec| spec.ip_families.iter().flatten()).next().is_some_and(|it| it == "IPv6");
    let mut groups: BTreeMap<Vec<Port>, (Vec<Value>, Vec<Value>)> = BTreeMap::new();
    for pod in pods {
        let Some(ip) = address(pod, v6) else { continue };
        let key = &pod.meta.key;
        let mut entry = json!({"ip": ip, "targetRef": {"kind": "Pod", "namespace": &*key.namespace, "name": &*key.name,
            "uid": pod.meta.uid}});
        if !pod.node.is_empty() {
            entry["nodeName"] = pod.node.as_str().into();
        }
        if let Some(hostname) = hostname(service, pod) {
            entry["hostname"] = hostname.into();
        }
        let (ready, not_ready) = groups.entry(service_pods::ports(service, pod)).or_default();
        if pod.ready || publish { ready.push(entry) } else { not_ready.push(entry) }
    }
    groups.into_iter().filter(|(ports, _)| !ports.is_empty() || is_headless(service)).map(subset).collect()
}

fn subset((ports, (mut ready, mut not_ready)): (Vec<Port>, (Vec<Value>, Vec<Value>))) -> Value {
    let by_ip = |a: &Value, b: &Value| a["ip"].as_str().cmp(&b["ip"].as_str());
    ready.sort_by(by_ip);
    not_ready.sort_by(by_ip);
    let mut subset = json!({});
    if !ready.is_empty() {
        subset["addresses"] = ready.into();
    }
    if !not_ready.is_empty() {
        subset["notReadyAddresses"] = not_ready.into();
    }
    let ports = ports.into_iter().map(|port| {
        let mut value = json!({"port": port.number, "protocol": port.protocol});
        if !port.name.is_empty() {
            value["name"] = port.name.into();
        }
        if let Some(app) = port.app_protocol {
            value["appProtocol"] = app.into();
        }
        value
    });
    let ports: Vec<Value> = ports.collect();
    if !ports.is_empty() {
        subset["ports"] = ports.into();
    }
    subset
}
