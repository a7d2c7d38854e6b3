//! Startup, liveness and readiness: asked on time, counted, and told to the pod's worker when the verdict turns.
//!
//! ```text
//! one task per container and probe:  wait ─▶ ask (exec.rs, http.rs, tcp.rs, grpc.rs) ─▶ count (thresholds.rs) ─▶ Verdicts ─▶ wake
//! ```
//!
//! Liveness and readiness begin when startup, if there is one, has succeeded. A container that has just begun is given a whole
//! period before an answer can count against it: it is asked at once whether it has started and is ready, so that a quick one
//! is not kept waiting, but it is not restarted for what it does not answer in its first milliseconds. Upstream asks at the ticks
//! of a clock that runs on its own, half a period after the start on average.
//!
//! Tasks belong to one container instance: a new instance gets new ones. Verdicts of an instance stay until the runtime has
//! forgotten it, for the plan that replaces it.

pub mod ask;
pub mod grpc;
pub mod http;
pub mod tcp;
pub mod thresholds;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::{Tasks, Timestamp};
use k8s_openapi::api::core::v1::{Container as Spec, Pod, Probe};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::agent::Agent;
use crate::pod::{self, Sort};
use crate::runtime_view::RuntimePod;
use crate::waker::Waker;
use ask::{Answer, Target};
use thresholds::Thresholds;

/// What the probes of one container instance have found; none where they have not yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    pub startup: Option<bool>,
    pub liveness: Option<bool>,
    pub readiness: Option<bool>,
}

/// Which of a container's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    /// As messages begin.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Liveness => "Liveness",
            Kind::Readiness => "Readiness",
        }
    }

    fn of(self, container: &Spec) -> Option<&Probe> {
        match self {
            Kind::Startup => container.startup_probe.as_ref(),
            Kind::Liveness => container.liveness_probe.as_ref(),
            Kind::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// The probes of one pod.
pub struct Probes {
    agent: Arc<Agent>,
    waker: Waker,
    verdicts: Arc<Mutex<HashMap<String, Verdicts>>>,
    /// By container id.
    running: HashMap<String, Running>,
}

struct Running {
    all: Tasks,
    /// Startup and liveness: those that restart.
    restarting: Tasks,
}

impl Probes {
    pub fn new(agent: Arc<Agent>, waker: Waker) -> Self {
        Probes { agent, waker, verdicts: Arc::default(), running: HashMap::new() }
    }

    pub fn verdicts(&self) -> HashMap<String, Verdicts> {
        self.verdicts.lock().clone()
    }

    /// Starts the probes of containers that run, and ends those of containers that do not.
    pub fn follow(&mut self, pod: &Arc<Pod>, runtime: &RuntimePod) {
        self.running.retain(|id, running| {
            let keep = runtime.by_id(id).is_some_and(|container| container.is_running());
            if !keep {
                running.all.cancel();
            }
            keep
        });
        self.verdicts.lock().retain(|id, _| runtime.by_id(id).is_some());
        for (sort, container) in pod::all_containers(pod) {
            let probed = sort == Sort::Regular || (sort == Sort::Init && pod::is_sidecar(&container));
            let Some(found) = runtime.latest(&container.name).filter(|found| probed && found.is_running()) else {
                continue;
            };
            let kinds = [Kind::Startup, Kind::Liveness, Kind::Readiness];
            if self.running.contains_key(&found.id) || kinds.iter().all(|kind| kind.of(&container).is_none()) {
                continue;
            }
            let address = address(&self.agent, pod, runtime);
            let target = Target { pod: pod.clone(), sort, container, container_id: found.id.clone(), address };
            let running = self.start(Arc::new(target), found.started_at.unwrap_or(found.created_at));
            self.running.insert(found.id.clone(), running);
        }
    }

    /// Ends the probes that would restart a container, when its pod is on its way out.
    pub fn stop_restarting(&mut self) {
        self.running.values().for_each(|running| running.restarting.cancel());
    }

    fn start(&self, target: Arc<Target>, since: Timestamp) -> Running {
        let all = self.agent.tasks.child();
        let restarting = all.child();
        let (started, has_started) = watch::channel(target.container.startup_probe.is_none());
        let started = Arc::new(started);
        for kind in [Kind::Startup, Kind::Liveness, Kind::Readiness] {
            let Some(probe) = kind.of(&target.container).cloned() else { continue };
            let tasks = if kind == Kind::Readiness { &all } else { &restarting };
            let task = Asking {
                agent: self.agent.clone(),
                target: target.clone(),
                kind,
                probe,
                since,
                verdicts: self.verdicts.clone(),
                waker: self.waker.clone(),
                started: started.clone(),
            };
            tasks.spawn("probe", task.run(has_started.clone()));
        }
        Running { all, restarting }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.running.values().for_each(|running| running.all.cancel());
    }
}

/// Where probes and hooks of the pod are sent.
pub fn address(agent: &Agent, pod: &Pod, runtime: &RuntimePod) -> String {
    let of_sandbox = runtime.sandboxes.first().and_then(|sandbox| sandbox.ips.first()).cloned();
    let of_host = || agent.config.node_ips.first().map(ToString::to_string).unwrap_or_default();
    if pod::spec(pod).host_network == Some(true) { of_host() } else { of_sandbox.unwrap_or_default() }
}

/// The task of one probe.
struct Asking {
    agent: Arc<Agent>,
    target: Arc<Target>,
    kind: Kind,
    probe: Probe,
    /// When the container started.
    since: Timestamp,
    verdicts: Arc<Mutex<HashMap<String, Verdicts>>>,
    waker: Waker,
    started: Arc<watch::Sender<bool>>,
}

impl Asking {
    async fn run(self, mut has_started: watch::Receiver<bool>) {
        if self.kind != Kind::Startup && has_started.wait_for(|started| *started).await.is_err() {
            return;
        }
        let clock = self.agent.clock.clone();
        let delayed = self.since + Duration::from_secs(positive(self.probe.initial_delay_seconds, 0));
        let period = Duration::from_secs(positive(self.probe.period_seconds, 10));
        let counts_from = delayed.max(self.begins() + period);
        let first = if self.kind == Kind::Liveness { counts_from } else { delayed };
        clock.sleep(clock.until(first)).await;
        let mut thresholds = Thresholds::new(
            positive(self.probe.success_threshold, 1) as u32,
            positive(self.probe.failure_threshold, 3) as u32,
        );
        let mut next = clock.instant();
        loop {
            let is_early = clock.now() < counts_from;
            let answer = ask::ask(&self.agent, &self.target, &self.probe).await;
            let is_void = self.kind == Kind::Startup && is_early && !matches!(answer, Answer::Success);
            if !is_void && self.take(answer, &mut thresholds) {
                return;
            }
            next = (next + period).max(clock.instant());
            clock.sleep_until(next).await;
        }
    }

    /// Since when this probe could have been asked.
    fn begins(&self) -> Timestamp {
        let waited = self.kind != Kind::Startup && self.target.container.startup_probe.is_some();
        if waited { self.agent.clock.now() } else { self.since }
    }

    /// Counts an answer. True when there is nothing more to ask.
    fn take(&self, answer: Answer, thresholds: &mut Thresholds) -> bool {
        let passed = match &answer {
            Answer::Success => true,
            Answer::Failure(message) => {
                self.tell(format!("{} probe failed: {message}", self.kind.word()));
                false
            }
            // An answer that could not be had says nothing about the container.
            Answer::Error(message) => {
                self.tell(format!("{} probe errored and resulted in unknown state: {message}", self.kind.word()));
                return false;
            }
        };
        let Some(verdict) = thresholds.count(passed) else { return false };
        let changed = {
            let mut verdicts = self.verdicts.lock();
            let verdicts = verdicts.entry(self.target.container_id.clone()).or_default();
            let kept = match self.kind {
                Kind::Startup => &mut verdicts.startup,
                Kind::Liveness => &mut verdicts.liveness,
                Kind::Readiness => &mut verdicts.readiness,
            };
            kept.replace(verdict) != Some(verdict)
        };
        if changed {
            self.waker.wake();
        }
        match (self.kind, verdict) {
            (Kind::Startup, true) => {
                self.started.send_replace(true);
                true
            }
            // The container is going to be replaced, and this task with it.
            (Kind::Startup | Kind::Liveness, false) => true,
            (Kind::Liveness, true) | (Kind::Readiness, _) => false,
        }
    }

    fn tell(&self, message: String) {
        let about = self.agent.container_reference(&self.target.pod, self.target.sort, &self.target.container.name);
        self.agent.recorder.warning(&about, "Unhealthy", message);
    }
}

/// A number of the spec; 0 and less stand for the default.
fn positive(given: Option<i32>, default: u64) -> u64 {
    given.and_then(|given| u64::try_from(given).ok()).filter(|given| *given > 0).unwrap_or(default)
}
