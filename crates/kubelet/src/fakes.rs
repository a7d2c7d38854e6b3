//! A played API, a played runtime, and an agent between them, for tests on virtual time.

pub mod api;
pub mod runtime;

use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Tasks, Timestamp};
use client::Client;
use client::events::Recorder;
use meta::ObjectKey;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::agent::Agent;
use crate::cgroups::Cgroups;
use crate::config::Config;
use crate::node::machine::Machine;
use crate::references::References;
use crate::status_writer::StatusWriter;
use crate::volumes::tokens::Tokens;
use api::FakeApi;
use runtime::FakeRuntime;

/// How long a test waits for something, in virtual time.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// A node with a played API and runtime; time is virtual.
pub struct FakeNode {
    pub api: FakeApi,
    pub runtime: FakeRuntime,
    pub agent: Arc<Agent>,
    pub tasks: Tasks,
    pub directory: Arc<tempfile::TempDir>,
}

impl FakeNode {
    /// An agent that runs the pods the API has for node `node1`.
    pub async fn start() -> Self {
        let clock = Clock::simulated("2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap());
        let directory = Arc::new(tempfile::tempdir().unwrap());
        Self::start_with(FakeApi::new(clock.clone()), FakeRuntime::new(clock.clone()), clock, directory).await
    }

    /// The agent dies and another takes its place; API and runtime go on.
    pub async fn restart(self) -> Self {
        self.tasks.shutdown().await;
        let clock = self.agent.clock.clone();
        Self::start_with(self.api, self.runtime, clock, self.directory).await
    }

    async fn start_with(api: FakeApi, runtime: FakeRuntime, clock: Clock, directory: Arc<tempfile::TempDir>) -> Self {
        let tasks = Tasks::root();
        let client = Client::new(Arc::new(api.clone()));
        let cri: Arc<dyn cri::Cri> = Arc::new(runtime.clone());
        let mut config = Config::new(
            "node1",
            vec!["192.0.2.1".parse().unwrap()],
            client.clone(),
            clock.clone(),
            tasks.clone(),
            cri.clone(),
            directory.path().to_path_buf(),
        );
        config.log_dir = directory.path().join("logs");
        let services = client::Informer::start(
            &client,
            &tasks,
            client::Watched::all_of::<k8s_openapi::api::core::v1::Service>(),
            &[],
        );
        let agent = Arc::new(Agent {
            references: References::new(client.clone(), tasks.child()),
            tokens: Tokens::new(client.clone(), clock.clone()),
            statuses: StatusWriter::start(client.clone(), &tasks),
            recorder: Recorder::new(client.clone(), clock.clone(), &tasks, "kubelet", "node1"),
            pods: crate::pods::informer(&client, &tasks, "node1"),
            services: services.lister(),
            runtime_events: tokio::sync::watch::Sender::new(0),
            cgroups: Cgroups::none(),
            machine: Machine { memory_bytes: 1 << 30, ..Machine::default() },
            allocatable: Default::default(),
            runtime_name: "fake".into(),
            runtime_version: "1".into(),
            pulls: Semaphore::new(1),
            config,
            client,
            clock,
            far_streams: crate::server::far_streams::FarStreams::new(cri.clone(), tasks.child()),
            tasks: tasks.clone(),
            cri,
        });
        crate::pods::Pods::start(agent.clone()).await;
        FakeNode { api, runtime, agent, tasks, directory }
    }

    /// Creates a pod on this node from its spec.
    pub fn create_pod(&self, name: &str, spec: Value) {
        self.api.create_pod(name, spec);
    }

    /// Waits until the pod's JSON satisfies `test`, and returns it.
    pub async fn pod_when(&self, name: &str, test: impl Fn(&Value) -> bool) -> Value {
        self.pod_until(name, |found| found.is_some_and(&test)).await.unwrap_or_default()
    }

    /// Waits until the API has no such pod.
    pub async fn gone(&self, name: &str) {
        self.pod_until(name, |found| found.is_none()).await;
    }

    /// Gives up after a long virtual time, so that what never comes fails a test and does not hang it.
    async fn pod_until(&self, name: &str, test: impl Fn(Option<&Value>) -> bool) -> Option<Value> {
        let key = ObjectKey::new("n", name);
        let found = tokio::time::timeout(WAIT_MAX, self.api.when("pods", &key, test)).await;
        found.unwrap_or_else(|_| panic!("it never came; the pod is {:?}", self.api.get("pods", &key)))
    }

    pub fn seconds(&self) -> i64 {
        self.agent.clock.now().as_second() - "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap().as_second()
    }
}

/// The waiting reason of a pod's first container; empty when it does not wait.
pub fn waiting(pod: &Value) -> &str {
    pod.pointer("/status/containerStatuses/0/state/waiting/reason").and_then(Value::as_str).unwrap_or_default()
}

pub fn restarts(pod: &Value) -> i64 {
    pod.pointer("/status/containerStatuses/0/restartCount").and_then(Value::as_i64).unwrap_or(-1)
}

pub fn is_running(pod: &Value) -> bool {
    pod.pointer("/status/containerStatuses/0/state/running").is_some()
}

pub fn phase(pod: &Value) -> &str {
    pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default()
}
