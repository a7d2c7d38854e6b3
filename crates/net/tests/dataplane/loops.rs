//! The loops that follow the API, against a door that plays it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{Clock, Tasks};
use bytes::Bytes;
use client::door::{Media, WatchEvent};
use client::{Client, Door, Encoded, EventStream, Informers, List, Request, Response};
use futures::StreamExt;
use meta::{ObjectKey, Status};
use net::pod::Network;
use net::{node, proxy, route};
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc};

use crate::lab::{CLUSTER, Namespace, Node, SERVICES};

/// Objects by resource, and the events to come.
struct Play {
    lists: HashMap<&'static str, Vec<Value>>,
    events: HashMap<&'static str, Mutex<mpsc::UnboundedReceiver<WatchEvent>>>,
}

fn encoded(object: &Value, revision: u64) -> Encoded {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    let key = ObjectKey::new(&text("namespace"), &text("name"));
    Encoded { key, revision, media: Media::Json, bytes: Bytes::from(object.to_string()) }
}

#[async_trait::async_trait]
impl Door for Play {
    async fn send(&self, request: Request) -> Result<Response, Status> {
        let items = self.lists.get(&*request.resource.resource).into_iter().flatten();
        let items = items.map(|item| encoded(item, 1)).collect();
        Ok(Response::List(List { items, revision: 1, ..List::default() }))
    }

    async fn watch(&self, request: Request) -> Result<EventStream, Status> {
        match self.events.get(&*request.resource.resource) {
            None => Ok(futures::stream::pending().boxed()),
            Some(events) => {
                let next = events.lock().await.recv().await;
                Ok(futures::stream::iter(next).boxed())
            }
        }
    }
}

fn slice(address: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": "web-1", "namespace": "default", "labels": { "kubernetes.io/service-name": "web" } },
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        "endpoints": [{ "addresses": [address], "conditions": { "ready": true }, "nodeName": "n1" }],
    })
}

fn objects(pod: &str) -> HashMap<&'static str, Vec<Value>> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": "default" },
        "spec": {
            "type": "NodePort", "clusterIP": "10.43.0.7", "clusterIPs": ["10.43.0.7"],
            "ports": [{ "name": "http", "port": 80, "targetPort": 8080, "nodePort": 30080, "protocol": "TCP" }],
        },
    });
    let node = |name: &str, address: &str, range: &str| {
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": name },
            "spec": { "podCIDR": range, "podCIDRs": [range] },
            "status": { "addresses": [{ "type": "InternalIP", "address": address }] },
        })
    };
    let nodes = vec![node("n1", "192.0.2.1", "10.42.1.0/24"), node("n2", "192.0.2.100", "10.42.2.0/24")];
    HashMap::from([("services", vec![service]), ("endpointslices", vec![slice(pod)]), ("nodes", nodes)])
}

/// Asks again until the answer is as expected, or for too long.
fn eventually(what: &str, check: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !check() {
        assert!(Instant::now() < deadline, "{what} did not come about");
        std::thread::yield_now();
    }
}

fn start(node: Namespace, network: Network, play: Play) -> (std::thread::JoinHandle<()>, Tasks, Arc<Namespace>) {
    let (tasks, namespace) = (Tasks::root(), Arc::new(node));
    let (branch, inside) = (tasks.clone(), namespace.clone());
    let cidrs = |text: &str| vec![text.parse().unwrap()];
    let thread = std::thread::spawn(move || {
        inside.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let informers = Informers::new(Client::new(Arc::new(play)), Clock::system(), branch.clone());
                let routing = route::Config {
                    prefix: "lab".into(),
                    node_address: "192.0.2.1".parse().unwrap(),
                    cluster_cidrs: cidrs(CLUSTER),
                    service_cidrs: cidrs(SERVICES),
                    own_addresses: vec![],
                    overlay: route::Overlay::Auto,
                    vxlan_id: 7,
                    vxlan_port: 4789,
                };
                branch.spawn("node", node::run(informers.clone(), "n1".into(), network, routing));
                let config = proxy::Config {
                    prefix: "lab".into(),
                    node: "n1".into(),
                    pod_cidrs: cidrs(CLUSTER),
                    service_cidrs: cidrs(SERVICES),
                    own_addresses: vec![],
                    node_port_addresses: vec![],
                };
                branch.spawn("proxy", proxy::run(informers, config));
                branch.cancelled().await;
                branch.shutdown().await;
            });
        });
    });
    (thread, tasks, namespace)
}

#[test]
fn services_and_routes_follow_the_api() {
    let (mut node, outside) = Node::alone();
    let (a, a_ip) = node.pod("a");
    let (b, b_ip) = node.pod("b");
    a.serve("0.0.0.0:8080", "a");
    b.serve("0.0.0.0:8080", "b");
    let (send, events) = mpsc::unbounded_channel();
    let events = HashMap::from([("endpointslices", Mutex::new(events))]);
    let Node { namespace, pods, .. } = node;
    let (thread, tasks, namespace) = start(namespace, Network::new(pods), Play { lists: objects(&a_ip), events });
    eventually("the node port", || outside.ask_name("192.0.2.1:30080") == "a");
    assert_eq!(a.ask_name("10.43.0.7:80"), "a");
    let to_peer = || namespace.routes().iter().any(|route| route.destination.to_string() == "10.42.2.0/24");
    eventually("the route to the other node", to_peer);
    send.send(WatchEvent::Modified(encoded(&slice(&b_ip), 2))).unwrap();
    eventually("the new backend", || outside.ask_name("192.0.2.1:30080") == "b");
    send.send(WatchEvent::Deleted(encoded(&slice(&b_ip), 3))).unwrap();
    eventually("the refusal", || outside.ask_name("192.0.2.1:30080") == "ConnectionRefused");
    tasks.cancel();
    thread.join().unwrap();
    assert!(namespace.tables().contains(&"lab-services".to_owned()), "the kernel goes on alone");
}
