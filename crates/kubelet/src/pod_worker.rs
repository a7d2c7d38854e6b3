//! The worker of one pod: a state machine that is woken by events and makes what is into what should be.
//!
//! ```text
//!             deleted, done for good, past its deadline              nothing runs any more
//!  Syncing ────────────────────────────────────────▶ Terminating ──────────────────────────▶ Terminated ─▶ (released)
//!     │ look ─▶ plan ─▶ carry out ─▶ look ...            │ hooks, SIGTERM, grace, SIGKILL        │ sandbox, volumes, cgroup gone;
//!     └─ wakes: pod, runtime event, probe, timer          └─ sidecars last                        └ when deleted: everything, then the API object
//! ```
//!
//! Looking, planning and the status are redone at every wake. Carrying out ([`sync`], [`stop`], [`teardown`]) is one future at a time
//! beside them, so the status stays true while an image is pulled or a grace period runs. A deletion drops what is being carried
//! out; calls that must not be broken off run to their end on their own ([`Agent::to_the_end`]).
//!
//! A worker keeps no state that a restart of the agent would need: it begins by looking.

pub mod crash_loop;
pub mod messages;
pub mod plan;
pub mod sandbox;
pub mod start;
pub mod start_failure;
pub mod stop;
pub mod sync;
pub mod teardown;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::{Backoff, BackoffPolicy, Timestamp};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::agent::Agent;
use crate::pod;
use crate::probes::Probes;
use crate::runtime_view::{self, RuntimePod};
use crate::status::{self, Failed, Stage};
use crate::volumes::Volumes;
use crate::waker::Waker;
use crash_loop::CrashLoops;
use plan::{BackingOff, Facts, Plan};
use start_failure::StartFailure;

/// How long a step that failed as a whole waits before the next try.
const RETRY: BackoffPolicy = BackoffPolicy::doubling(Duration::from_millis(500), Duration::from_secs(120));

/// The pod as the API has it.
#[derive(Clone, Debug)]
pub struct Desired {
    pub pod: Arc<Pod>,
    /// The API no longer has it; `pod` is how it last was.
    pub removed: bool,
}

/// What the steps of a worker share.
#[derive(Default)]
pub struct Shared {
    /// By container name.
    pub failures: Mutex<HashMap<String, StartFailure>>,
    pub crash_loops: Mutex<CrashLoops>,
    /// None until they have been prepared by this agent.
    pub volumes: Mutex<Option<Volumes>>,
}

/// What a step is carried out with.
#[derive(Clone)]
pub struct Context {
    pub agent: Arc<Agent>,
    pub pod: Arc<Pod>,
    pub waker: Waker,
    pub shared: Arc<Shared>,
}

/// A step that failed as a whole: it was told to the user where the user can help, and is tried again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StepFailed(pub String);

impl From<cri::Error> for StepFailed {
    fn from(error: cri::Error) -> Self {
        StepFailed(error.to_string())
    }
}

type Step = BoxFuture<'static, Result<(), StepFailed>>;

/// Where a step leads when it has succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leads {
    /// Look again.
    On,
    /// Nothing runs any more.
    ToTerminated,
    /// The sandbox, the volumes and the cgroup are gone.
    ToTornDown,
    /// Nothing is left on this node.
    ToReleased,
}

/// The worker of one pod.
pub struct PodWorker {
    context: Context,
    desired: watch::Receiver<Desired>,
    removed: bool,
    probes: Probes,
    stage: Stage,
    failed: Option<Failed>,
    torn_down: bool,
    /// The containers are being removed: the status stays as it was when they were last there.
    removing: bool,
    released: bool,
    step: Option<(Step, Leads)>,
    /// The grace period the running stop was begun with.
    stopping_with: i64,
    messages: HashMap<String, String>,
    /// The status made last.
    published: Option<PodStatus>,
    start_time: Timestamp,
    retry: Backoff,
    retry_at: Option<Timestamp>,
    volumes_stale: bool,
    told_back_off: HashMap<String, Timestamp>,
}

impl PodWorker {
    pub fn new(agent: Arc<Agent>, desired: watch::Receiver<Desired>, waker: Waker) -> Self {
        let first = desired.borrow().clone();
        let start_time = agent.clock.now();
        let probes = Probes::new(agent.clone(), waker.clone());
        PodWorker {
            context: Context { agent, pod: first.pod, waker, shared: Arc::default() },
            desired,
            removed: first.removed,
            probes,
            stage: Stage::Syncing,
            failed: None,
            torn_down: false,
            removing: false,
            released: false,
            step: None,
            stopping_with: 0,
            messages: HashMap::new(),
            published: None,
            start_time,
            retry: Backoff::new(RETRY),
            retry_at: None,
            volumes_stale: false,
            told_back_off: HashMap::new(),
        }
    }

    /// Runs until nothing of the pod is left here and the API has let it go.
    pub async fn run(mut self) {
        loop {
            self.take_desired();
            let (agent, uid) = (self.context.agent.clone(), pod::uid(&self.context.pod).to_string());
            let runtime = match runtime_view::observe(&*agent.cri, &uid).await {
                Ok(runtime) => runtime,
                Err(error) => {
                    tracing::warn!(pod = %pod::full_name(&self.context.pod), %error, "cannot look at the pod, will retry");
                    // All workers are woken when a runtime that was away is back.
                    tokio::select! {
                        () = agent.clock.sleep(self.retry.next(agent.clock.instant())) => {}
                        () = self.context.waker.woken() => {}
                    }
                    continue;
                }
            };
            let wake_at = self.look(&runtime);
            if self.released && self.removed {
                agent.statuses.forget(&uid);
                return;
            }
            self.wait(wake_at).await;
        }
    }

    fn take_desired(&mut self) {
        let desired = self.desired.borrow_and_update().clone();
        if !Arc::ptr_eq(&desired.pod, &self.context.pod) {
            self.volumes_stale = true;
            self.context.pod = desired.pod;
        }
        self.removed = desired.removed;
        if self.context.waker.take_references_changed() {
            self.volumes_stale = true;
            let now = self.context.agent.clock.now();
            self.retry_at = None;
            for failure in self.context.shared.failures.lock().values_mut() {
                if failure.reason == start_failure::FailureReason::CreateContainerConfigError {
                    failure.retry_at = now;
                }
            }
        }
    }

    /// One look: moves the state machine, begins a step if there is one to begin, and sets the status. Says when to look again.
    fn look(&mut self, runtime: &RuntimePod) -> Option<Timestamp> {
        let pod = self.context.pod.clone();
        self.probes.follow(&pod, runtime);
        messages::read(&self.context, runtime, &mut self.messages);
        let now = self.context.agent.clock.now();
        let mut plan = Plan::default();
        if self.stage == Stage::Syncing {
            plan = self.look_syncing(runtime, now);
        }
        match self.stage {
            Stage::Syncing => {}
            Stage::Terminating => self.look_terminating(runtime, now),
            Stage::Terminated => self.look_terminated(runtime, now),
        }
        self.publish(runtime, now);
        self.removing |= self.step.as_ref().is_some_and(|(_, leads)| *leads == Leads::ToReleased);
        let deadline = self.deadline().filter(|_| self.stage == Stage::Syncing);
        let refresh = self.context.shared.volumes.lock().as_ref().and_then(|volumes| volumes.refresh_at);
        let retry = self.retry_at.filter(|at| *at > now);
        let refresh = refresh.filter(|_| self.stage == Stage::Syncing);
        [plan.wake_at, deadline, refresh, retry].into_iter().flatten().min()
    }

    fn is_deleted(&self) -> bool {
        self.removed || self.context.pod.metadata.deletion_timestamp.is_some()
    }

    /// When `activeDeadlineSeconds` is up.
    fn deadline(&self) -> Option<Timestamp> {
        let seconds = pod::spec(&self.context.pod).active_deadline_seconds?;
        let since = pod::status(&self.context.pod).start_time.as_ref().map_or(self.start_time, |time| time.0);
        Some(since + Duration::from_secs(u64::try_from(seconds).ok()?))
    }

    fn look_syncing(&mut self, runtime: &RuntimePod, now: Timestamp) -> Plan {
        let verdicts = self.probes.verdicts();
        let failures = self.context.shared.failures.lock().clone();
        let crash_loops = self.context.shared.crash_loops.lock().clone();
        let facts = Facts {
            pod: &self.context.pod,
            runtime,
            verdicts: &verdicts,
            crash_loops: &crash_loops,
            failures: &failures,
            now,
        };
        let plan = plan::plan(&facts);
        if self.deadline().is_some_and(|deadline| now >= deadline) {
            self.failed = Some(Failed {
                reason: "DeadlineExceeded".to_string(),
                message: "Pod was active on the node longer than the specified deadline".to_string(),
            });
            self.tell_deadline();
        }
        let done = pod::is_terminal(&self.context.pod) || (plan.finished && self.step.is_none());
        if self.is_deleted() || self.failed.is_some() || done {
            self.stage = Stage::Terminating;
            self.step = None;
            self.retry_at = None;
            self.probes.stop_restarting();
            return Plan::default();
        }
        self.tell_back_offs(&plan.backing_off, &failures, now);
        if self.step.is_none() && self.retry_at.is_none_or(|at| now >= at) {
            self.retry_at = None;
            let refresh_due = match self.context.shared.volumes.lock().as_ref() {
                Some(volumes) => self.volumes_stale || volumes.refresh_at.is_some_and(|at| now >= at),
                // An earlier agent prepared them, and this one has to follow what they are made from.
                None => runtime.ready_sandbox().is_some(),
            };
            if !plan.is_idle() {
                let step = sync::carry_out(self.context.clone(), plan.clone(), runtime.clone());
                self.step = Some((Box::pin(step), Leads::On));
            } else if refresh_due {
                self.volumes_stale = false;
                self.step = Some((Box::pin(sandbox::refresh_volumes(self.context.clone())), Leads::On));
            }
        }
        plan
    }

    fn look_terminating(&mut self, runtime: &RuntimePod, now: Timestamp) {
        let grace = pod::grace_period_seconds(&self.context.pod);
        let shortened = self.step.is_some() && grace < self.stopping_with;
        if self.retry_at.is_some_and(|at| now < at) || (self.step.is_some() && !shortened) {
            return;
        }
        self.stopping_with = grace;
        let step = stop::stop_deleted(self.context.clone(), runtime.clone(), grace);
        self.step = Some((Box::pin(step), Leads::ToTerminated));
    }

    fn look_terminated(&mut self, runtime: &RuntimePod, now: Timestamp) {
        if self.step.is_some() || self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        if !self.torn_down {
            let step = teardown::tear_down(self.context.clone(), runtime.clone());
            self.step = Some((Box::pin(step), Leads::ToTornDown));
        } else if self.is_deleted() && !self.released {
            let step = teardown::remove_all(self.context.clone(), runtime.clone());
            self.step = Some((Box::pin(step), Leads::ToReleased));
        }
    }

    fn publish(&mut self, runtime: &RuntimePod, now: Timestamp) {
        if self.removed || self.removing {
            return;
        }
        let agent = &self.context.agent;
        let verdicts = self.probes.verdicts();
        let failures = self.context.shared.failures.lock().clone();
        let crash_loops = self.context.shared.crash_loops.lock().clone();
        let status = status::generate(&status::Inputs {
            pod: &self.context.pod,
            known: self.published.as_ref().unwrap_or_else(|| pod::status(&self.context.pod)),
            runtime,
            verdicts: &verdicts,
            failures: &failures,
            crash_loops: &crash_loops,
            messages: &self.messages,
            // Before its sandbox is gone a pod is not done: whoever waits for its end may rely on that.
            stage: if self.torn_down || self.stage != Stage::Terminated { &self.stage } else { &Stage::Terminating },
            failed: self.failed.as_ref(),
            start_time: self.start_time,
            now,
            host_ips: &agent.config.node_ips,
            runtime_name: &agent.runtime_name,
        });
        agent.statuses.set(&self.context.pod, &status);
        self.published = Some(status);
    }

    async fn wait(&mut self, wake_at: Option<Timestamp>) {
        let clock = self.context.agent.clock.clone();
        let timer = async {
            match wake_at {
                Some(at) => clock.sleep(clock.until(at)).await,
                None => std::future::pending().await,
            }
        };
        let step = async {
            match &mut self.step {
                Some((step, leads)) => (step.await, *leads),
                None => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            () = self.context.waker.woken() => None,
            // The sender lives as long as the agent; without it nothing will change any more.
            _ = self.desired.changed() => None,
            () = timer => None,
            outcome = step => Some(outcome),
        };
        if let Some((outcome, leads)) = outcome {
            self.step = None;
            self.settle(outcome, leads);
        }
    }

    fn settle(&mut self, outcome: Result<(), StepFailed>, leads: Leads) {
        let clock = &self.context.agent.clock;
        match outcome {
            Ok(()) => {
                self.retry.reset();
                self.retry_at = None;
                match leads {
                    Leads::On => {}
                    Leads::ToTerminated => self.stage = Stage::Terminated,
                    Leads::ToTornDown => self.torn_down = true,
                    Leads::ToReleased => self.release(),
                }
            }
            Err(StepFailed(why)) => {
                let wait = self.retry.next(clock.instant());
                self.retry_at = Some(clock.now() + wait);
                tracing::debug!(pod = %pod::full_name(&self.context.pod), why, ?wait, "step failed, will retry");
            }
        }
    }

    /// Nothing is left: the last status is the one published; the API may let the pod go.
    fn release(&mut self) {
        self.released = true;
        if !self.removed {
            self.context.agent.statuses.release(&self.context.pod);
        }
    }

    fn tell_deadline(&self) {
        let about = self.context.agent.pod_reference(&self.context.pod);
        let message = "Pod was active on the node longer than the specified deadline";
        self.context.agent.recorder.normal(&about, "DeadlineExceeded", message);
    }

    /// One event for each wait that begins.
    fn tell_back_offs(&mut self, backing_off: &[BackingOff], failures: &HashMap<String, StartFailure>, now: Timestamp) {
        let agent = &self.context.agent;
        let pod = &self.context.pod;
        for entry in backing_off {
            if self.told_back_off.insert(entry.name.clone(), entry.waiting.until) == Some(entry.waiting.until) {
                continue;
            }
            let Some((sort, _)) = pod::find_container(pod, &entry.name) else { continue };
            let message = format!("Back-off restarting failed container {} in pod {}", entry.name, pod::full_name(pod));
            agent.recorder.warning(&agent.container_reference(pod, sort, &entry.name), "BackOff", message);
        }
        for (name, failure) in failures {
            let (reason, message) = failure.shown(now);
            if reason != "ImagePullBackOff" || now >= failure.retry_at {
                continue;
            }
            if self.told_back_off.insert(name.clone(), failure.retry_at) == Some(failure.retry_at) {
                continue;
            }
            let Some((sort, _)) = pod::find_container(pod, name) else { continue };
            let about = agent.container_reference(pod, sort, name);
            agent.recorder.normal(&about, "BackOff", message);
            agent.recorder.warning(&about, "Failed", "Error: ImagePullBackOff");
        }
    }
}

#[cfg(test)]
mod tests;
