//! The scheduler: which node each pod goes to.
//!
//! ```text
//! pod informer ──unbound──▶ Queue (active, backing off, unschedulable) ──pop──▶ cycle
//!      │                        ▲ events wake what they may help                  │
//!      └──bound──▶ Cache ◀──────┴───────── assume ◀── filter, score, select ◀─────┘
//! node informer ──▶ Cache                     └──▶ bind (asynchronous) ──▶ API
//! ```
//!
//! The cache is the snapshot: a cycle holds its lock from the first filter to the assumption, which takes microseconds, so
//! nothing is copied per pod; counts by domain for pod affinity are kept as pods come and go. A pod counts against its node from the moment it is assumed; a failed binding takes it
//! back. What a plugin knows is in one file of its own under `plugins/`; the framework is the [`plugin::Plugin`] trait.

mod affinity;
mod bind;
mod cache;
mod cycle;
mod events;
mod fit_error;
mod node_info;
#[cfg(test)]
mod order_tests;
mod plugin;
mod plugins;
mod pod_info;
mod queue;
mod resources;
#[cfg(test)]
mod tests;
mod topology;

use std::sync::Arc;

use base::{Clock, Tasks};
use client::events::Recorder;
use client::{Client, Informers, Watched};
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolumeClaim, Pod};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use cache::Cache;
use node_info::NodeFacts;
use pod_info::PodInfo;
use queue::Queue;

/// The name pods ask for with `schedulerName`, and the source of events.
pub const NAME: &str = "default-scheduler";
/// Bindings under way at the same time.
const BINDINGS_MAX: usize = 512;

/// What a scheduler is given.
#[derive(Clone)]
pub struct Config {
    pub client: Client,
    pub informers: Informers,
    pub clock: Clock,
    pub tasks: Tasks,
}

pub(crate) struct Scheduler {
    client: Client,
    clock: Clock,
    tasks: Tasks,
    recorder: Recorder,
    plugins: plugins::Plugins,
    cache: Mutex<Cache>,
    queue: Mutex<Queue>,
    /// Rung when a pod may have become ready to schedule.
    bell: Notify,
    bindings: Arc<Semaphore>,
}

/// Starts scheduling; it stops with `config.tasks`.
pub fn start(config: Config) {
    let recorder = Recorder::new(config.client.clone(), config.clock.clone(), &config.tasks, NAME, "");
    let scheduler = Arc::new(Scheduler {
        client: config.client,
        clock: config.clock.clone(),
        tasks: config.tasks.clone(),
        recorder,
        plugins: plugins::defaults(),
        cache: Mutex::default(),
        queue: Mutex::new(Queue::default()),
        bell: Notify::new(),
        bindings: Arc::new(Semaphore::new(BINDINGS_MAX)),
    });
    let nodes = config.informers.of::<NodeFacts>(Watched::all_of::<Node>(), &[]);
    let pods = config.informers.of::<PodInfo>(Watched::all_of::<Pod>(), &[]);
    let claims = config.informers.of::<events::Claim>(Watched::all_of::<PersistentVolumeClaim>(), &[]);
    let namespaces = config.informers.of::<events::NamespaceLabels>(Watched::all_of::<Namespace>(), &[]);
    let seen = scheduler.clone();
    namespaces.subscribe(move |change| seen.namespace_changed(change));
    let seen = scheduler.clone();
    claims.subscribe(move |change| seen.claim_changed(change));
    let seen = scheduler.clone();
    nodes.subscribe(move |change| seen.node_changed(change));
    let seen = scheduler.clone();
    pods.subscribe(move |change| seen.pod_changed(change));
    config.tasks.spawn("scheduler", async move {
        // Deciding before all nodes and bound pods are known would overcommit.
        let known = nodes.synced().await && namespaces.synced().await && pods.synced().await && claims.synced().await;
        if known {
            scheduler.run().await;
        }
    });
}

impl Scheduler {
    async fn run(self: Arc<Self>) {
        loop {
            let rung = self.bell.notified();
            let (pod, due) = {
                let mut queue = self.queue.lock();
                (queue.pop(tokio::time::Instant::now()), queue.next_due())
            };
            match (pod, due) {
                (Some(pod), _) => {
                    self.schedule(pod).await;
                    tokio::task::coop::consume_budget().await;
                }
                (None, Some(due)) => drop(tokio::time::timeout_at(due, rung).await),
                (None, None) => rung.await,
            }
        }
    }
}
