//! From the pods of this node to one worker each, and from the runtime's events to the workers.
//!
//! ```text
//! informer (spec.nodeName = me) ─▶ Pods ─▶ PodWorker (by uid)      runtime events ─▶ wake the worker of that uid
//! ```
//!
//! A pod that the API forgets is told to its worker as removed; the worker ends when nothing is left. What the runtime has of pods
//! that nobody knows (deleted while the agent was away) is stopped and removed once, at the start.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use base::{Backoff, BackoffPolicy, Tasks};
use client::{Change, Client, Informer, Typed, Watched};
use cri::CriStream;
use cri::v1::{
    ContainerEventResponse, GetEventsRequest, ListPodSandboxRequest, RemovePodSandboxRequest, StopContainerRequest,
    StopPodSandboxRequest, VersionRequest,
};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::agent::Agent;
use crate::pod;
use crate::pod_worker::{Desired, PodWorker};
use crate::relist;
use crate::runtime_view::{self, LABEL_POD_UID};
use crate::volumes;
use crate::waker::Waker;

/// How long the event stream of a runtime that went away is left alone.
const RECONNECT: BackoffPolicy = BackoffPolicy::doubling(Duration::from_millis(200), Duration::from_secs(2));
/// How long a worker that panicked is left alone.
const BEGIN_ANEW: BackoffPolicy = BackoffPolicy::doubling(Duration::from_millis(200), Duration::from_secs(30));
/// Seconds that the containers of an unknown pod have.
const ORPHAN_GRACE_SECONDS: i64 = 30;

/// Follows the pods bound to a node.
pub fn informer(client: &Client, tasks: &Tasks, node_name: &str) -> Informer<Pod> {
    let field_selector = format!("spec.nodeName={node_name}");
    Informer::start(client, tasks, Watched { field_selector, ..Watched::all(Pod::gvr()) }, &[])
}

struct Handle {
    desired: watch::Sender<Desired>,
    waker: Waker,
}

/// The workers of this node. Cheap to clone.
#[derive(Clone)]
pub struct Pods {
    agent: Arc<Agent>,
    /// By uid.
    workers: Arc<Mutex<HashMap<String, Handle>>>,
}

impl Pods {
    /// Follows the pods of this node. Returns when the first list has been handed to workers.
    pub async fn start(agent: Arc<Agent>) -> Self {
        let pods = Pods { agent: agent.clone(), workers: Arc::default() };
        let informer = agent.pods.clone();
        informer.synced().await;
        let known: Vec<String> = informer.lister().all().iter().map(|pod| pod::uid(pod).to_string()).collect();
        pods.remove_orphans(&known).await;
        let told = pods.clone();
        informer.subscribe(move |change| told.apply(change));
        let events = pods.clone();
        agent.tasks.spawn("runtime-events", async move { events.follow_runtime().await });
        pods
    }

    fn apply(&self, change: &Change<Pod>) {
        let (old, new) = change.sides();
        if let Some(old) = old
            && new.is_none_or(|new| pod::uid(new) != pod::uid(old))
        {
            self.tell(old, true);
        }
        if let Some(new) = new {
            self.tell(new, false);
        }
    }

    /// Tells the worker of a pod, making one for a pod that is new.
    fn tell(&self, pod: &Arc<Pod>, removed: bool) {
        let uid = pod::uid(pod).to_string();
        let desired = Desired { pod: pod.clone(), removed };
        let mut workers = self.workers.lock();
        match workers.entry(uid.clone()) {
            Entry::Occupied(known) => {
                known.get().desired.send_replace(desired);
            }
            Entry::Vacant(_) if removed => {}
            Entry::Vacant(free) => {
                let (sender, receiver) = watch::channel(desired);
                let waker = Waker::default();
                let worker = PodWorker::new(self.agent.clone(), receiver, waker.clone());
                free.insert(Handle { desired: sender, waker });
                let pods = self.clone();
                self.agent.tasks.spawn("pod-worker", async move { pods.keep_running(uid, worker).await });
            }
        }
    }

    /// Runs a worker to its end. One that panics is logged and begun anew from what is.
    async fn keep_running(self, uid: String, worker: PodWorker) {
        let mut worker = Some(worker);
        let mut backoff = Backoff::new(BEGIN_ANEW);
        loop {
            let current = match worker.take() {
                Some(worker) => worker,
                None => {
                    let workers = self.workers.lock();
                    let Some(handle) = workers.get(&uid) else { return };
                    PodWorker::new(self.agent.clone(), handle.desired.subscribe(), handle.waker.clone())
                }
            };
            let outcome = futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(current.run())).await;
            if outcome.is_ok() {
                self.workers.lock().remove(&uid);
                return;
            }
            tracing::error!(uid, "a pod worker panicked and is begun anew");
            self.agent.clock.sleep(backoff.next(self.agent.clock.instant())).await;
        }
    }

    /// Wakes workers by the runtime's events; after a gap in them, all.
    async fn follow_runtime(&self) {
        let (cri, clock) = (&self.agent.cri, &self.agent.clock);
        let mut backoff = Backoff::new(RECONNECT);
        loop {
            let mut opening = cri.get_container_events(GetEventsRequest {});
            // A far runtime answers this call with its first event, which may be long in coming: that it is there is known
            // before that by any other call.
            let opened = tokio::select! {
                biased;
                opened = &mut opening => Some(opened),
                answer = cri.version(VersionRequest::default()) => answer.err().map(Err),
            };
            let opened = match opened {
                Some(opened) => opened,
                None => {
                    self.wake_all();
                    opening.await
                }
            };
            match opened {
                Ok(events) => {
                    self.wake_all();
                    backoff.reset();
                    self.hear(events).await;
                    tracing::warn!("the runtime's event stream ended, will be opened again");
                }
                Err(error) if error.is_unimplemented() => relist::follow(&self.agent, |uid| self.told_of(uid)).await,
                Err(error) if backoff.failures() == 0 => {
                    tracing::warn!(%error, "the runtime gives no events, will retry")
                }
                Err(_) => {}
            }
            clock.sleep(backoff.next(clock.instant())).await;
        }
    }

    async fn hear(&self, mut events: CriStream<ContainerEventResponse>) {
        while let Some(Ok(event)) = events.next().await {
            let metadata = event.pod_sandbox_status.and_then(|status| status.metadata);
            self.told_of(metadata.map(|metadata| metadata.uid).as_deref());
        }
    }

    /// Something happened to a pod. What does not say whose it is may be anybody's.
    fn told_of(&self, uid: Option<&str>) {
        self.agent.runtime_events.send_modify(|count| *count = count.wrapping_add(1));
        match uid.and_then(|uid| self.waker(uid)) {
            Some(waker) => waker.wake(),
            None => self.wake_all(),
        }
    }

    fn wake_all(&self) {
        self.workers.lock().values().for_each(|handle| handle.waker.wake());
    }

    fn waker(&self, uid: &str) -> Option<Waker> {
        self.workers.lock().get(uid).map(|handle| handle.waker.clone())
    }

    /// Has removed what the runtime and the disk have of pods that are not known any more. Each has a task of its own: the last
    /// words of an unknown pod may take its whole grace period, and nobody waits for them.
    async fn remove_orphans(&self, known: &[String]) {
        let sandboxes = match self.agent.cri.list_pod_sandbox(ListPodSandboxRequest::default()).await {
            Ok(answer) => answer.items,
            Err(error) => return tracing::warn!(%error, "cannot look for pods that were left behind"),
        };
        let uids = sandboxes.iter().filter_map(|sandbox| sandbox.labels.get(LABEL_POD_UID));
        let mut orphans: Vec<String> = uids.filter(|uid| !known.contains(uid)).cloned().collect();
        orphans.extend(self.folders().into_iter().filter(|uid| !known.contains(uid)));
        orphans.sort();
        orphans.dedup();
        for uid in orphans {
            tracing::info!(uid, "removing what is left of a pod that is gone");
            let pods = self.clone();
            self.agent.tasks.spawn("orphan", async move {
                if let Err(error) = pods.remove_orphan(&uid).await {
                    tracing::warn!(uid, error, "what is left of a pod cannot be removed; the next start tries again");
                }
            });
        }
    }

    fn folders(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.agent.config.data_dir.join("pods")).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    async fn remove_orphan(&self, uid: &str) -> Result<(), String> {
        let agent = &self.agent;
        let view = runtime_view::observe(&*agent.cri, uid).await.map_err(|error| error.to_string())?;
        for found in view.containers.iter().filter(|found| found.is_running()) {
            let request = StopContainerRequest { container_id: found.id.clone(), timeout: ORPHAN_GRACE_SECONDS };
            agent.cri.stop_container(request).await.map_err(|error| error.to_string())?;
        }
        for sandbox in &view.sandboxes {
            let pod_sandbox_id = sandbox.id.clone();
            let stop = StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
            agent.cri.stop_pod_sandbox(stop).await.map_err(|error| error.to_string())?;
            let remove = RemovePodSandboxRequest { pod_sandbox_id };
            agent.cri.remove_pod_sandbox(remove).await.map_err(|error| error.to_string())?;
        }
        volumes::remove(&agent.pod_dir(uid)).map_err(|error| error.to_string())?;
        agent.cgroups.remove_pod(uid).map_err(|error| error.to_string())
    }
}
