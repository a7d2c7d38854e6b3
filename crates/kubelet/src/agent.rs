//! What all parts of the agent share: its settings, the ways to the API and the runtime, and what it knows of the machine.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use base::{Clock, Tasks};
use client::events::{Recorder, reference};
use client::{Client, Informer, Lister};
use cri::{Cri, Streaming};
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service};
use meta::Quantity;
use tokio::sync::{Semaphore, watch};

use crate::cgroups::Cgroups;
use crate::config::Config;
use crate::environment::fields::Node;
use crate::node::machine::Machine;
use crate::pod::{self, Sort};
use crate::references::References;
use crate::server::far_streams::FarStreams;
use crate::status_writer::StatusWriter;
use crate::volumes::tokens::Tokens;

/// Images pulled at the same time.
pub const PULLS_MAX: usize = 5;

/// The agent of this node, for its parts.
pub struct Agent {
    pub config: Config,
    pub client: Client,
    pub clock: Clock,
    pub tasks: Tasks,
    pub cri: Arc<dyn Cri>,
    /// The byte streams of a runtime that has none in this process.
    pub far_streams: FarStreams,
    pub recorder: Recorder,
    pub references: References,
    pub tokens: Tokens,
    /// The pods of this node.
    pub pods: Informer<Pod>,
    pub services: Lister<Service>,
    /// Counts the runtime's events, for those who wait for any.
    pub runtime_events: watch::Sender<u64>,
    pub cgroups: Cgroups,
    pub statuses: StatusWriter,
    pub machine: Machine,
    pub allocatable: BTreeMap<String, Quantity>,
    /// The scheme of container ids.
    pub runtime_name: String,
    pub runtime_version: String,
    pub pulls: Semaphore,
}

impl Agent {
    /// The folder of everything a pod has on this node, its logs aside.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.config.data_dir.join("pods").join(uid)
    }

    /// The folder of a pod's container logs.
    pub fn log_dir(&self, pod: &Pod) -> PathBuf {
        self.config.log_dir.join(format!("{}_{}_{}", pod::namespace(pod), pod::name(pod), pod::uid(pod)))
    }

    /// What a container's termination message is written to.
    pub fn termination_log(&self, pod_uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.pod_dir(pod_uid).join("containers").join(container).join(attempt.to_string())
    }

    pub fn downward_node<'a>(&'a self, pod_ips: &'a [String]) -> Node<'a> {
        Node { name: &self.config.node_name, ips: &self.config.node_ips, pod_ips, allocatable: &self.allocatable }
    }

    /// For events about a pod.
    pub fn pod_reference(&self, pod: &Pod) -> ObjectReference {
        reference(pod)
    }

    /// For events about a container of a pod.
    pub fn container_reference(&self, pod: &Pod, sort: Sort, container: &str) -> ObjectReference {
        let field_path = Some(format!("spec.{}{{{container}}}", sort.field()));
        ObjectReference { field_path, ..reference(pod) }
    }

    /// The runtime's byte streams, wherever it lives.
    pub fn streaming(&self) -> &dyn Streaming {
        self.cri.streaming().unwrap_or(&self.far_streams)
    }

    /// Runs a call that must not be broken off half-way to its end, even when the caller loses interest.
    pub async fn to_the_end<T, E, F>(&self, call: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<cri::Error> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        match self.tasks.spawn_graceful("cri", call).await {
            Ok(outcome) => outcome,
            Err(error) => Err(cri::Error::unknown(format!("the call panicked: {error}")).into()),
        }
    }
}
