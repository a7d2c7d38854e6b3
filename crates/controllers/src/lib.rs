//! The controllers: loops that make the cluster what its objects say.
//!
//! Each module is one controller of upstream's controller manager: informers feed a queue of keys, `sync(key)` reads listers,
//! a pure `plan` decides, a thin `apply` writes through the client, status last. None of them keeps state that a restart
//! would lose, none polls, and none knows another: they meet in the objects.
//!
//! Informers are shared and read with the identity of the controller manager; writes are made by each controller with the
//! identity upstream gives it (`system:serviceaccount:kube-system:deployment-controller`, ...), so RBAC bounds each one.

mod bootstrap_signer;
pub mod certificates;
mod claim;
mod deployment;
mod endpoint_slice;
mod endpoints;
mod expectations;
mod garbage;
pub mod graph;
mod namespace;
pub mod node_ipam;
mod node_lifecycle;
mod pod_gc;
mod pods;
mod replicaset;
mod root_ca;
mod service_account;
mod service_pods;
pub mod views;

use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::sync::Arc;

use base::{Clock, Tasks};
use client::events::Recorder;
use client::{Client, Informers, Next, Queue};
use meta::Status;
use tokio::sync::OnceCell;

/// How many keys of one controller are synced at a time, as upstream's defaults.
const WORKERS: usize = 5;

/// What a controller is given.
#[derive(Clone)]
pub struct Context {
    pub informers: Informers,
    pub clock: Clock,
    pub tasks: Tasks,
    /// A client with the identity of the named controller (`deployment-controller`, ...).
    pub client_for: Arc<dyn Fn(&str) -> Client + Send + Sync>,
    /// The certificate authorities of the API server, in PEM.
    pub root_ca: String,
    /// Every kind of object that can be listed, watched and deleted.
    pub resources: Vec<graph::Resource>,
    /// The cluster's pod addresses, of which each node gets a part; the primary family first.
    pub pod_ranges: Vec<node_ipam::Range>,
    /// Signs certificates and what joining nodes are told.
    pub signer: Arc<dyn certificates::Signer>,
}

impl Context {
    /// Starts the workers of a controller. None of them acts before the caches that the controller reads are filled, which is
    /// waited for once.
    fn run_workers<K, S, F>(&self, name: &'static str, workers: usize, queue: &Queue<K>, sync: S)
    where
        K: Clone + Eq + Hash + Debug + Display + Send + Sync + 'static,
        S: Fn(K) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Next, Status>> + Send + 'static,
    {
        let (informers, filled) = (self.informers.clone(), Arc::new(OnceCell::new()));
        let sync = Arc::new(sync);
        client::run_workers(name, workers, &self.tasks, queue, move |key| {
            let (informers, filled, sync) = (informers.clone(), filled.clone(), sync.clone());
            async move {
                filled.get_or_init(|| informers.synced()).await;
                sync(key).await
            }
        });
    }

    /// The client and the event recorder of the controller called `name`.
    fn identity(&self, name: &str) -> (Client, Recorder) {
        let client = (self.client_for)(name);
        let recorder = Recorder::new(client.clone(), self.clock.clone(), &self.tasks, name, "");
        (client, recorder)
    }
}

/// What creating an object in a namespace came to: another may have been quicker, and a namespace on its way out needs nothing
/// any more.
fn created<T>(outcome: Result<T, Status>) -> Result<Next, Status> {
    match outcome {
        Err(status) if status.is_already_exists() || status.is_not_found() || status.code == 403 => Ok(Next::Wait),
        Err(status) => Err(status),
        Ok(_) => Ok(Next::Wait),
    }
}

/// Starts every controller; they stop with `cx.tasks`.
pub fn start(cx: &Context) {
    replicaset::start(cx);
    deployment::start(cx);
    service_account::start(cx);
    root_ca::start(cx, &cx.root_ca);
    endpoint_slice::start(cx);
    endpoints::start(cx);
    node_ipam::start(cx, cx.pod_ranges.clone());
    node_lifecycle::start(cx);
    pod_gc::start(cx);
    certificates::start(cx);
    bootstrap_signer::start(cx);
    let (garbage, namespaces) = (Queue::default(), Queue::default());
    let listeners = vec![garbage::listener(&garbage), namespace::listener(&namespaces)];
    let graph = graph::Graph::start(cx, cx.resources.clone(), listeners);
    garbage::start(cx, &graph, &garbage);
    namespace::start(cx, &graph, &namespaces);
}
