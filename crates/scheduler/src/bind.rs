//! Binding: telling the API where an assumed pod goes, while the next cycles go on.

use std::sync::Arc;

use client::Typed;
use k8s_openapi::api::core::v1::Pod;
use meta::{GroupVersionKind, Object, Status};
use serde_json::json;

use crate::Scheduler;
use crate::events::Event;
use crate::pod_info::PodInfo;
use crate::queue::Waiting;

impl Scheduler {
    /// Starts the binding; waits only while too many are under way.
    pub(crate) async fn bind(self: &Arc<Self>, waiting: Waiting, assumed: Arc<PodInfo>) {
        // The semaphore is never closed; without a permit the binding would merely go on unbounded.
        let permit = self.bindings.clone().acquire_owned().await.ok();
        let scheduler = self.clone();
        self.tasks.spawn("bind", async move {
            if let Some(telling) = waiting.telling.clone() {
                telling.ended().await;
            }
            let outcome = scheduler.send_binding(&assumed).await;
            drop(permit);
            scheduler.settle(waiting, &assumed, outcome);
        });
    }

    async fn send_binding(&self, assumed: &PodInfo) -> Result<(), Status> {
        let mut binding = Object::new(&GroupVersionKind::new("", "v1", "Binding"));
        binding.set_meta("name", &*assumed.key.name);
        binding.set_meta("namespace", &*assumed.key.namespace);
        binding.set_meta("uid", assumed.uid.as_str());
        binding.set(&["target"], json!({"kind": "Node", "name": assumed.node}));
        self.client.create_subresource(&Pod::gvr(), &assumed.key, "binding", binding).await.map(drop)
    }

    fn settle(&self, waiting: Waiting, assumed: &Arc<PodInfo>, outcome: Result<(), Status>) {
        let about = client::events::reference_to(
            &GroupVersionKind::new("", "v1", "Pod"),
            &assumed.key,
            Some(&assumed.uid),
            Some(&assumed.revision.to_string()),
        );
        match outcome {
            Ok(()) => {
                let message = format!("Successfully assigned {} to {}", assumed.key, assumed.node);
                self.recorder.normal(&about, "Scheduled", message);
            }
            Err(status) => {
                let taken_back = self.cache.lock().forget(&assumed.uid);
                if taken_back {
                    self.wake(&Event::PodFreed(assumed.clone()));
                }
                if status.is_not_found() {
                    return;
                }
                tracing::warn!(pod = %assumed.key, node = assumed.node, error = %status, "binding failed");
                self.recorder.warning(&about, "FailedScheduling", format!("binding rejected: {status}"));
                if taken_back {
                    self.queue.lock().failed(waiting, Vec::new(), self.clock.instant(), &self.plugins);
                    self.bell.notify_one();
                }
            }
        }
    }
}
