//! What is written about one pod is written in order.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::{Clock, Tasks, Timestamp};
use client::Client;
use client::door::{Door, EventStream, Request, Response, Verb};
use client::events::Recorder;
use meta::{GroupResource, ObjectKey, Status};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::Instant;

use crate::cache::Cache;
use crate::node_info::NodeFacts;
use crate::pod_info::PodInfo;
use crate::queue::Queue;
use crate::{BINDINGS_MAX, Scheduler, plugins};

/// Holds every patch back for as long as it is told, and notes in which order writes about pods arrive.
struct SlowPatches {
    wait: Duration,
    arrived: mpsc::UnboundedSender<String>,
}

#[async_trait]
impl Door for SlowPatches {
    async fn send(&self, request: Request) -> Result<Response, Status> {
        if request.verb == Verb::Patch {
            tokio::time::sleep(self.wait).await;
        }
        if &*request.resource.resource == "pods" {
            self.arrived.send(request.subresource).unwrap();
        }
        Err(Status::not_found(&GroupResource::new("", "pods"), &request.name))
    }

    async fn watch(&self, _request: Request) -> Result<EventStream, Status> {
        Err(Status::method_not_allowed("not played"))
    }
}

fn scheduler(door: impl Door) -> Arc<Scheduler> {
    let clock = Clock::simulated(Timestamp::UNIX_EPOCH);
    let (client, tasks) = (Client::new(Arc::new(door)), Tasks::root());
    Arc::new(Scheduler {
        recorder: Recorder::new(client.clone(), clock.clone(), &tasks, crate::NAME, ""),
        client,
        clock,
        tasks,
        plugins: plugins::defaults(),
        cache: Mutex::new(Cache::default()),
        queue: Mutex::new(Queue::default()),
        bell: Notify::new(),
        bindings: Arc::new(Semaphore::new(BINDINGS_MAX)),
    })
}

#[tokio::test(start_paused = true)]
async fn a_binding_does_not_overtake_the_failure_before_it() {
    let (arrived, mut order) = mpsc::unbounded_channel();
    let scheduler = scheduler(SlowPatches { wait: Duration::from_secs(60), arrived });
    let pod = PodInfo { key: ObjectKey::new("n", "p"), uid: "u".into(), ..PodInfo::default() };
    scheduler.queue.lock().put(Arc::new(pod), Instant::now(), &scheduler.plugins);
    let waiting = scheduler.queue.lock().pop(Instant::now()).unwrap();
    scheduler.schedule(waiting).await;
    scheduler.cache.lock().put_node(Arc::new(NodeFacts { name: "a".into(), pods_max: 1, ..NodeFacts::default() }));
    let waiting = scheduler.queue.lock().pop(Instant::now() + Duration::from_secs(10)).unwrap();
    scheduler.schedule(waiting).await;
    assert_eq!(order.recv().await.as_deref(), Some("status"));
    assert_eq!(order.recv().await.as_deref(), Some("binding"));
}
