//! The pod network as the runtime knows it: [`Pods`] behind a lock, worked on blocking threads.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use cri::{PodAddresses, PodNetwork, SandboxNetwork};
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{PodError, Pods};
use crate::link::{Links, RouteOwner};

/// A shared handle on the pods of this node. A join takes a millisecond or two under the lock, much of it under a lock of the
/// kernel's own, so more locks would not make more haste.
#[derive(Debug, Clone)]
pub struct Network {
    pods: Arc<Mutex<Pods>>,
    has_range: Arc<watch::Sender<bool>>,
}

impl Network {
    pub fn new(pods: Pods) -> Self {
        Network { pods: Arc::new(Mutex::new(pods)), has_range: Arc::new(watch::Sender::new(false)) }
    }

    /// Turns true when the node has got its own pod ranges.
    pub fn has_range(&self) -> watch::Receiver<bool> {
        self.has_range.subscribe()
    }

    /// Sets the node's own pod ranges; before that no pod can join.
    pub async fn assign(&self, ranges: Vec<IpNet>) -> Result<(), cri::Error> {
        self.work(move |pods| pods.assign(&ranges)).await?;
        self.has_range.send_if_modified(|has_range| !std::mem::replace(has_range, true));
        Ok(())
    }

    /// Sets the addresses of all nodes.
    pub async fn set_nodes(&self, nodes: BTreeSet<IpAddr>) -> Result<(), cri::Error> {
        self.work(move |pods| pods.set_nodes(nodes)).await
    }

    /// Deletes every device and table of ours, for `down`.
    pub async fn remove(&self) -> Result<(), cri::Error> {
        self.work(Pods::remove).await
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Pods) -> Result<T, PodError> + Send + 'static,
    ) -> Result<T, cri::Error> {
        let pods = self.pods.clone();
        let done = tokio::task::spawn_blocking(move || work(&mut pods.lock())).await;
        let result = done.map_err(|error| cri::Error::unknown(format!("pod network: {error}")))?;
        result.map_err(|error| match error {
            PodError::Unknown(_) => cri::Error::not_found(error.to_string()),
            _ => cri::Error::unknown(error.to_string()),
        })
    }
}

#[async_trait]
impl PodNetwork for Network {
    async fn join(&self, sandbox: &SandboxNetwork) -> Result<PodAddresses, cri::Error> {
        let sandbox = sandbox.clone();
        self.work(move |pods| pods.join(&sandbox)).await
    }

    async fn leave(&self, sandbox: &SandboxNetwork) -> Result<(), cri::Error> {
        let id = sandbox.id.clone();
        let device = self.work(move |pods| pods.detach(&id)).await?;
        // Not under the lock: the kernel waits for all processors here, and pods that come must not wait with it.
        let deleted = tokio::task::spawn_blocking(move || Links::open(RouteOwner::Pods)?.delete(&device)).await;
        let deleted = deleted.map_err(|error| cri::Error::unknown(format!("pod network: {error}")))?;
        deleted.map_err(|error| cri::Error::unknown(format!("delete the pod's device: {error}")))?;
        let id = sandbox.id.clone();
        self.work(move |pods| pods.release(&id)).await
    }

    async fn ready(&self) -> Result<(), cri::Error> {
        self.work(|pods| pods.ready()).await
    }

    async fn check(&self, sandbox: &SandboxNetwork) -> Result<PodAddresses, cri::Error> {
        let sandbox = sandbox.clone();
        self.work(move |pods| pods.check(&sandbox.id, &sandbox.netns_path)).await
    }

    async fn keep(&self, ids: &[String]) -> Result<(), cri::Error> {
        let ids = ids.to_vec();
        self.work(move |pods| pods.keep(&ids)).await
    }

    async fn reconcile(&self, sandboxes: &[(SandboxNetwork, PodAddresses)]) -> Result<(), cri::Error> {
        let sandboxes = sandboxes.to_vec();
        self.work(move |pods| pods.reconcile(&sandboxes)).await
    }
}
