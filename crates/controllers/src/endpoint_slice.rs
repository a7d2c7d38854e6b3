//! EndpointSlice: the addresses of the pods behind each service, in slices that proxies and DNS watch.

mod plan;

use std::collections::BTreeMap;

use client::{Change, Client, Deletion, Index, Lister, Next, Outcome, Queue, Typed};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use meta::{Object, ObjectKey, Status};
use serde_json::{Map, Value, json};

use crate::claim::controller_reference;
use crate::service_pods::{self, address, hostname, is_headless, matters, selector, services_of};
use crate::views::{self, PodView, Whole};
use crate::{Context, WORKERS};
use plan::{Action, Group, Slice};

const NAME: &str = "endpointslice-controller";
const MANAGED_BY: &str = "endpointslice-controller.k8s.io";
const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
const BY_SERVICE: &str = "service";

fn service_of(key: &ObjectKey, slice: &Whole<EndpointSlice>) -> Vec<String> {
    let labels = slice.view.metadata.labels.as_ref();
    let label = |name: &str| labels.and_then(|labels| labels.get(name));
    if label(MANAGED_BY_LABEL).map(String::as_str) != Some(MANAGED_BY) {
        return Vec::new();
    }
    label(SERVICE_LABEL).map(|name| format!("{}/{name}", key.namespace)).into_iter().collect()
}

#[derive(Clone)]
struct EndpointSlices {
    client: Client,
    services: Lister<Service>,
    pods: Lister<PodView>,
    nodes: Lister<views::Meta>,
    slices: Lister<Whole<EndpointSlice>>,
}

pub fn start(cx: &Context) {
    let (client, _) = cx.identity(NAME);
    let queue: Queue<ObjectKey> = Queue::default();
    let services = cx.informers.typed::<Service>();
    let pods = views::pods(&cx.informers);
    let nodes = cx.informers.of::<views::Meta>(client::Watched::all_of::<Node>(), &[]);
    let by_service = Index { name: BY_SERVICE, values: service_of };
    let slices = cx.informers.of::<Whole<EndpointSlice>>(client::Watched::all_of::<EndpointSlice>(), &[by_service]);
    let controller = EndpointSlices {
        client,
        services: services.lister(),
        pods: pods.lister(),
        nodes: nodes.lister(),
        slices: slices.lister(),
    };
    let wake = queue.clone();
    services.subscribe(move |change| wake.add(change.key().clone()));
    let (wake, all) = (queue.clone(), controller.services.clone());
    pods.subscribe(move |change| pod_changed(change, &all, &wake));
    let wake = queue.clone();
    slices.subscribe(move |change| {
        let service = service_of(change.key(), change.latest());
        wake.add_all(service.iter().filter_map(|key| key.split_once('/')).map(|(ns, name)| ObjectKey::new(ns, name)));
    });
    cx.run_workers(NAME, WORKERS, &queue, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    });
}

/// Wakes the services a pod was or is behind.
pub fn pod_changed(change: &Change<PodView>, services: &Lister<Service>, queue: &Queue<ObjectKey>) {
    let (old, new) = change.sides();
    if let (Some(old), Some(new)) = (old, new)
        && !matters(old, new)
    {
        return;
    }
    for pod in [old, new].into_iter().flatten() {
        queue.add_all(services_of(&pod.meta, services));
    }
}

impl EndpointSlices {
    async fn sync(&self, key: &ObjectKey) -> Result<Next, Status> {
        let Some(service) = self.services.get(key) else { return Ok(Next::Wait) };
        let Some(selector) = selector(&service) else { return Ok(Next::Wait) };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Wait);
        }
        let pods = self.pods.in_namespace(&key.namespace);
        let behind =
            pods.iter().filter(|pod| selector.matches_labels(|label| pod.meta.label(label)) && !pod.is_terminal());
        let mut wanted: BTreeMap<Group, Vec<Value>> = BTreeMap::new();
        let families = families(&service);
        for pod in behind {
            for &(name, v6) in &families {
                if let Some(ip) = address(pod, v6) {
                    let ports = service_pods::ports(&service, pod);
                    wanted.entry((name, ports)).or_default().push(self.endpoint(&service, pod, ip));
                }
            }
        }
        for (name, _) in families {
            if !wanted.keys().any(|(known, _)| *known == name) {
                wanted.insert((name, Vec::new()), Vec::new());
            }
        }
        let existing = self.slices.by_index(BY_SERVICE, &key.to_string());
        let labels = labels(&service);
        let existing = existing.iter().map(|slice| as_slice(slice, &labels)).collect::<Result<Vec<_>, _>>()?;
        for action in plan::plan(wanted, existing) {
            self.apply(&service, &labels, action).await?;
        }
        Ok(Next::Wait)
    }

    fn endpoint(&self, service: &Service, pod: &PodView, ip: &str) -> Value {
        let publish = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false);
        let terminating = pod.meta.deleting.is_some();
        let mut endpoint = json!({
            "addresses": [ip],
            "conditions": {"ready": publish || (pod.ready && !terminating), "serving": pod.ready, "terminating": terminating},
            "targetRef": {"kind": "Pod", "namespace": &*pod.meta.key.namespace, "name": &*pod.meta.key.name, "uid": pod.meta.uid},
        });
        if !pod.node.is_empty() {
            endpoint["nodeName"] = pod.node.as_str().into();
            if let Some(node) = self.nodes.get(&ObjectKey::cluster(&pod.node))
                && let Some(zone) = node.label(ZONE_LABEL)
            {
                endpoint["zone"] = zone.into();
            }
        }
        if let Some(hostname) = hostname(service, pod) {
            endpoint["hostname"] = hostname.into();
        }
        endpoint
    }

    async fn apply(&self, service: &Service, labels: &Value, action: Action) -> Result<(), Status> {
        let (gvr, key) = (EndpointSlice::gvr(), service.key());
        match action {
            Action::Create { address_type, ports, endpoints } => {
                let mut slice = Object::new(&EndpointSlice::gvk());
                slice.set_meta("generateName", format!("{}-", key.name));
                slice.set_meta("namespace", &*key.namespace);
                slice.set_meta("labels", labels.clone());
                slice.set_meta("ownerReferences", json!([owner(service)]));
                slice.set(&["addressType"], address_type);
                slice.set(&["ports"], ports);
                slice.set(&["endpoints"], endpoints);
                self.client.create_object(&gvr, slice).await.map(drop)
            }
            Action::Update { name, ports, endpoints } => {
                let known = self.slices.get(&ObjectKey::new(&key.namespace, &name));
                let known = known.ok_or_else(|| Status::not_found(&gvr.group_resource(), &name))?;
                let mut slice = known.object()?;
                slice.set_meta("labels", labels.clone());
                slice.set_meta("ownerReferences", json!([owner(service)]));
                if let Some(ports) = ports {
                    slice.set(&["ports"], ports);
                }
                slice.set(&["endpoints"], endpoints);
                self.client.update_object(&gvr, "", slice).await.map(drop)
            }
            Action::Delete { name } => {
                let key = ObjectKey::new(&key.namespace, &name);
                self.client.delete::<EndpointSlice>(&key, Deletion::default()).await.unless_gone().map(drop)
            }
        }
    }
}

fn owner(service: &Service) -> Value {
    let uid = service.metadata.uid.as_deref().unwrap_or_default();
    controller_reference(&Service::gvk(), &service.key().name, uid)
}

/// The service's own labels, and those by which slices are found.
fn labels(service: &Service) -> Value {
    let mut labels: Map<String, Value> =
        service.metadata.labels.iter().flatten().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    labels.remove(HEADLESS_LABEL);
    if is_headless(service) {
        labels.insert(HEADLESS_LABEL.into(), "".into());
    }
    labels.insert(SERVICE_LABEL.into(), service.metadata.name.clone().unwrap_or_default().into());
    labels.insert(MANAGED_BY_LABEL.into(), MANAGED_BY.into());
    Value::Object(labels)
}

/// The address families a service has slices of, each with whether it is IPv6.
fn families(service: &Service) -> Vec<(&'static str, bool)> {
    let named = service.spec.iter().flat_map(|spec| spec.ip_families.iter().flatten());
    let families: Vec<_> =
        named.map(|family| if family == "IPv6" { ("IPv6", true) } else { ("IPv4", false) }).collect();
    if families.is_empty() { vec![("IPv4", false)] } else { families }
}

fn as_slice(slice: &Whole<EndpointSlice>, labels: &Value) -> Result<Slice, Status> {
    let object = slice.object()?;
    Ok(Slice {
        name: object.name().to_string(),
        address_type: object.str_at(&["addressType"]).to_string(),
        ports: object.get(&["ports"]).cloned().unwrap_or_else(|| json!([])),
        endpoints: object.list_at(&["endpoints"]).to_vec(),
        labelled: object.get(&["metadata", "labels"]) == Some(labels),
    })
}
