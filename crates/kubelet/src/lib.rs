//! The node agent: makes the pods that the API binds to this node run, and says truthfully how they are.
//!
//! ```text
//!            API (client::Client)                                   runtime (cri::Cri)
//!   pods ─▶ pods.rs ─▶ pod_worker.rs ── plan ─▶ sync / start / stop ─▶ sandboxes, containers
//!                          ▲   │                                          │ events
//!              probes.rs ──┘   ├─▶ status.rs ─▶ status_writer.rs ─▶ API   └─▶ wake the worker
//!              references.rs   └─▶ volumes.rs, environment.rs, container_config.rs, cgroups.rs
//!   node.rs: the node object, its conditions, its lease            server.rs: the node API on 10250
//! ```
//!
//! The agent knows the API only through [`client::Client`] and any runtime only through [`cri::Cri`]. It keeps nothing on disk but
//! pods' files: what it must know after a restart stands in the runtime's labels and in the API. Nothing polls: workers are woken by
//! the API's and the runtime's events, by probes and by timers; only the machine itself is looked at every ten seconds, and a runtime
//! that has no events every second (`relist.rs`).
//!
//! Not built yet, and refused by name where asked for: claims and CSI volumes, user namespaces, static pods, eviction under pressure,
//! image garbage collection, in-place resize, device plugins and resource claims, CPU and memory managers, node shutdown.

pub mod agent;
pub mod cgroups;
pub mod config;
pub mod container_config;
pub mod credentials;
pub mod dns;
pub mod environment;
#[cfg(test)]
mod fakes;
pub mod hooks;
pub mod hosts_file;
pub mod images;
mod log_rotation;
pub mod node;
pub mod pod;
pub mod pod_worker;
pub mod pods;
pub mod probes;
pub mod references;
mod relist;
pub mod resources;
pub mod runtime_view;
pub mod security;
pub mod server;
pub mod status;
pub mod status_writer;
pub mod volumes;
pub mod waker;

use std::sync::Arc;

use base::phase;
use client::events::Recorder;
use client::{Informer, Typed, Watched};
use cri::v1::VersionRequest;
use k8s_openapi::api::core::v1::{Node, Service};
use meta::ObjectKey;
use tokio::sync::{Semaphore, watch};

pub use config::{Config, Serving};
pub use dns::ClusterDns;

use agent::Agent;
use cgroups::Cgroups;
use node::machine::Machine;
use references::References;
use server::far_streams::FarStreams;
use status_writer::StatusWriter;
use volumes::tokens::Tokens;

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the container runtime does not answer: {0}")]
    Runtime(#[from] cri::Error),
    #[error("{what}")]
    Io { what: &'static str, source: std::io::Error },
    #[error("the node API cannot be served: {0}")]
    Tls(#[from] rustls::Error),
}

/// A running agent; it ends with the tasks it was started on.
pub struct Kubelet {
    /// Whether the API has been told that the node is ready.
    pub ready: watch::Receiver<bool>,
    /// Where the node API listens; 0 without one.
    pub port: u16,
}

/// Starts the agent and returns when the node is registered and its pods are known. Containers run on when it is stopped.
pub async fn run(config: Config) -> Result<Kubelet, StartError> {
    let (client, clock, tasks) = (config.client.clone(), config.clock.clone(), config.tasks.clone());
    let io = |what| move |source| StartError::Io { what, source };
    std::fs::create_dir_all(config.data_dir.join("pods")).map_err(io("cannot make the pods folder"))?;
    std::fs::create_dir_all(&config.log_dir).map_err(io("cannot make the log folder"))?;
    let cgroups = Cgroups::detect(&config.cgroup_parent).map_err(io("cannot find the cgroups"))?;
    cgroups.prepare().map_err(io("cannot make the cgroups of pods"))?;
    let version = config.cri.version(VersionRequest::default()).await?;
    let machine = Machine::read();
    let allocatable = node::status::capacity(&machine, &config.data_dir, config.max_pods);
    let registering = node::registration::register(&client, &clock, &config, &machine, &allocatable);
    let node = phase::of("registration", registering).await;
    let recorder = Recorder::new(client.clone(), clock.clone(), &tasks, "kubelet", &config.node_name);
    let services = Informer::<Service>::start(&client, &tasks, Watched::all_of::<Service>(), &[]);
    let agent = Arc::new(Agent {
        references: References::new(client.clone(), tasks.child()),
        tokens: Tokens::new(client.clone(), clock.clone()),
        statuses: StatusWriter::start(client.clone(), &tasks),
        cri: config.cri.clone(),
        far_streams: FarStreams::new(config.cri.clone(), tasks.child()),
        pods: pods::informer(&client, &tasks, &config.node_name),
        services: services.lister(),
        runtime_events: watch::Sender::new(0),
        runtime_name: version.runtime_name,
        runtime_version: version.runtime_version,
        pulls: Semaphore::new(agent::PULLS_MAX),
        config,
        client,
        clock,
        tasks,
        recorder,
        cgroups,
        machine,
        allocatable,
    });
    let port = server::start(agent.clone()).await?;
    let (set_ready, ready) = watch::channel(false);
    agent.tasks.spawn("node-lease", node::lease::run(agent.clone(), node.metadata.uid.unwrap_or_default()));
    agent.tasks.spawn("node-status", node::status::run(agent.clone(), port, node.status, set_ready));
    tell_starting(&agent);
    // Containers are told of the services there are: none may start before those are known.
    phase::of("services known", services.synced()).await;
    phase::of("pods known", pods::Pods::start(agent.clone())).await;
    Ok(Kubelet { ready, port })
}

fn tell_starting(agent: &Agent) {
    let name = &agent.config.node_name;
    let about = client::events::reference_to(&Node::gvk(), &ObjectKey::cluster(name), Some(name.as_str()), None);
    agent.recorder.normal(&about, "Starting", "Starting kubelet.");
}
