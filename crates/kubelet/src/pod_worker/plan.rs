//! What to do about a pod now: a pure function from what is to what is to be done.
//!
//! ```text
//! spec + runtime view + probe verdicts + waits + time  ──▶  Plan { finish? sandbox? kill.. start.. wake_at }
//! ```
//!
//! The order is upstream's: a sandbox first; then init containers one after the other, sidecars among them running on; then all
//! regular containers; ephemeral ones at any time. Nothing here does I/O or reads a clock, so every rule is a table in the tests.

use std::collections::HashMap;

use base::Timestamp;
use k8s_openapi::api::core::v1::{Container as Spec, Pod};

use super::crash_loop::{CrashLoops, Waiting};
use super::start_failure::StartFailure;
use crate::pod::{self, Sort};
use crate::probes::Verdicts;
use crate::runtime_view::{Container, RuntimePod, State, spec_hash};

/// Everything a plan is made from.
pub struct Facts<'a> {
    pub pod: &'a Pod,
    pub runtime: &'a RuntimePod,
    /// By container id.
    pub verdicts: &'a HashMap<String, Verdicts>,
    pub crash_loops: &'a CrashLoops,
    /// By container name: starts that failed before there was a process.
    pub failures: &'a HashMap<String, StartFailure>,
    pub now: Timestamp,
}

/// A container to be stopped so that it can run anew.
#[derive(Clone, Debug, PartialEq)]
pub struct Kill {
    pub id: String,
    pub name: String,
    pub why: KillReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    Liveness,
    Startup,
    SpecChanged,
    Unknown,
}

/// A container to be started.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    pub sort: Sort,
    pub name: String,
    /// 0 for the first instance.
    pub attempt: u32,
}

/// A container that has to wait out its back-off.
#[derive(Clone, Debug, PartialEq)]
pub struct BackingOff {
    pub name: String,
    pub waiting: Waiting,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// All containers are done and none is to run again.
    pub finished: bool,
    /// Stop what is left of the old sandbox and make a new one with this attempt number.
    pub new_sandbox: Option<u32>,
    pub kill: Vec<Kill>,
    pub start: Vec<Start>,
    pub backing_off: Vec<BackingOff>,
    /// When to look again even if nothing happens.
    pub wake_at: Option<Timestamp>,
}

impl Plan {
    pub fn is_idle(&self) -> bool {
        !self.finished && self.new_sandbox.is_none() && self.kill.is_empty() && self.start.is_empty()
    }

    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// The plan for a pod that is to run (not one being deleted).
pub fn plan(facts: &Facts<'_>) -> Plan {
    let mut plan = Plan::default();
    if let Some(attempt) = sandbox_needed(facts) {
        if may_make_sandbox(facts, attempt) {
            plan.new_sandbox = Some(attempt);
        } else {
            plan.finished = true;
            return plan;
        }
        // The containers of the old sandbox count as gone; those of the new one are planned once it is there.
        return plan;
    }
    for container in pod::ephemeral_containers(facts.pod) {
        if facts.runtime.latest(&container.name).is_none() {
            plan_start(facts, &mut plan, Sort::Ephemeral, &container, None);
        }
    }
    match plan_init(facts, &mut plan) {
        Initialized::Yes => plan_regular(facts, &mut plan),
        Initialized::NotYet => {}
        Initialized::Failed => plan.finished = true,
    }
    if plan.finished {
        return Plan { finished: true, ..Plan::default() };
    }
    plan
}

/// The attempt number of the sandbox to make; none when the one there is good.
fn sandbox_needed(facts: &Facts<'_>) -> Option<u32> {
    let Some(newest) = facts.runtime.sandboxes.first() else { return Some(0) };
    let host_network = pod::spec(facts.pod).host_network.unwrap_or(false);
    let good = newest.ready && (newest.host_network == host_network) && (host_network || !newest.ips.is_empty());
    (!good).then_some(newest.attempt + 1)
}

/// A pod whose containers all ended for good gets no new sandbox.
fn may_make_sandbox(facts: &Facts<'_>, attempt: u32) -> bool {
    let pod = facts.pod;
    if attempt == 0 || facts.runtime.containers.is_empty() {
        return true;
    }
    let init_failed_for_good = pod::init_containers(pod).iter().any(|container| {
        let ended = facts.runtime.latest(&container.name).filter(|found| found.state == State::Exited);
        ended.is_some_and(|found| {
            found.exit_code != 0 && !pod::restarts_after(pod, Sort::Init, container, found.exit_code)
        })
    });
    !init_failed_for_good && pod::containers(pod).iter().any(|container| runs_again(facts, Sort::Regular, container))
}

fn runs_again(facts: &Facts<'_>, sort: Sort, container: &Spec) -> bool {
    match facts.runtime.latest(&container.name) {
        None => true,
        Some(found) => match found.state {
            State::Running => true,
            State::Created | State::Unknown => true,
            State::Exited => pod::restarts_after(facts.pod, sort, container, found.exit_code),
        },
    }
}

enum Initialized {
    Yes,
    NotYet,
    /// An init container failed and may not run again.
    Failed,
}

/// Init containers and sidecars.
fn plan_init(facts: &Facts<'_>, plan: &mut Plan) -> Initialized {
    let containers = pod::init_containers(facts.pod);
    let sandbox = facts.runtime.ready_sandbox().map(|sandbox| sandbox.id.as_str()).unwrap_or_default();
    if has_passed_init(facts, sandbox) {
        for container in containers.iter().filter(|container| pod::is_sidecar(container)) {
            plan_running(facts, plan, Sort::Init, container, sandbox);
        }
        return Initialized::Yes;
    }
    for container in containers {
        let found = facts.runtime.latest(&container.name).filter(|found| found.sandbox_id == sandbox);
        let done = if pod::is_sidecar(container) {
            plan_running(facts, plan, Sort::Init, container, sandbox);
            found.is_some_and(|found| found.is_running() && has_started(facts, container, &found.id))
        } else {
            match found {
                Some(found) if found.state == State::Exited && found.exit_code == 0 => true,
                Some(found) if found.is_running() => false,
                Some(found)
                    if found.state == State::Exited
                        && !pod::restarts_after(facts.pod, Sort::Init, container, found.exit_code) =>
                {
                    return Initialized::Failed;
                }
                // Created but never started means that the start failed: it is made anew.
                other => {
                    plan_start(facts, plan, Sort::Init, container, other);
                    false
                }
            }
        };
        if !done {
            return Initialized::NotYet;
        }
    }
    Initialized::Yes
}

/// A regular container that ran in this sandbox proves that initialization was through.
fn has_passed_init(facts: &Facts<'_>, sandbox: &str) -> bool {
    pod::containers(facts.pod).iter().any(|container| {
        facts
            .runtime
            .latest(&container.name)
            .is_some_and(|found| found.sandbox_id == sandbox && matches!(found.state, State::Running | State::Exited))
    })
}

/// Whether a sidecar lets the next init container begin: it runs and its startup probe, if any, succeeded.
fn has_started(facts: &Facts<'_>, container: &Spec, id: &str) -> bool {
    container.startup_probe.is_none() || facts.verdicts.get(id).is_some_and(|verdicts| verdicts.startup == Some(true))
}

fn plan_regular(facts: &Facts<'_>, plan: &mut Plan) {
    let sandbox = facts.runtime.ready_sandbox().map(|sandbox| sandbox.id.clone()).unwrap_or_default();
    let mut alive = false;
    for container in pod::containers(facts.pod) {
        alive |= plan_running(facts, plan, Sort::Regular, container, &sandbox);
    }
    if !alive {
        plan.finished = true;
    }
}

/// A container that is to be running: start, replace or leave it. False when it is done for good.
fn plan_running(facts: &Facts<'_>, plan: &mut Plan, sort: Sort, container: &Spec, sandbox: &str) -> bool {
    let found = facts.runtime.latest(&container.name);
    let Some(found) = found else {
        plan_start(facts, plan, sort, container, None);
        return true;
    };
    match found.state {
        State::Running if found.sandbox_id == sandbox => {
            if let Some(why) = kill_reason(facts, container, found) {
                plan.kill.push(Kill { id: found.id.clone(), name: container.name.clone(), why });
            }
            true
        }
        State::Unknown => {
            plan.kill.push(Kill { id: found.id.clone(), name: container.name.clone(), why: KillReason::Unknown });
            true
        }
        State::Exited
            if !pod::restarts_after(facts.pod, sort, container, found.exit_code)
                && !was_killed_to_restart(facts, container, found) =>
        {
            false
        }
        State::Exited | State::Created | State::Running => {
            plan_start(facts, plan, sort, container, Some(found));
            true
        }
    }
}

/// A container that we stopped for its probes comes back even if it then ended well.
fn was_killed_to_restart(facts: &Facts<'_>, container: &Spec, found: &Container) -> bool {
    kill_reason(facts, container, found).is_some() && pod::restart_policy(facts.pod) != "Never"
}

fn kill_reason(facts: &Facts<'_>, container: &Spec, found: &Container) -> Option<KillReason> {
    if !found.hash.is_empty() && found.hash != spec_hash(container) {
        return Some(KillReason::SpecChanged);
    }
    let verdicts = facts.verdicts.get(&found.id)?;
    match (verdicts.liveness, verdicts.startup) {
        (Some(false), _) => Some(KillReason::Liveness),
        (_, Some(false)) => Some(KillReason::Startup),
        _ => None,
    }
}

/// A start, unless a wait is on.
fn plan_start(facts: &Facts<'_>, plan: &mut Plan, sort: Sort, container: &Spec, last: Option<&Container>) {
    if let Some(failure) = facts.failures.get(&container.name)
        && facts.now < failure.retry_at
    {
        plan.wake(failure.retry_at);
        if let Some(change) = failure.shown_changes_at(facts.now) {
            plan.wake(change);
        }
        return;
    }
    if let Some(finished_at) = last.filter(|last| last.state == State::Exited).and_then(|last| last.finished_at) {
        let hash = spec_hash(container);
        let waiting = facts.crash_loops.after_end(&container.name, &hash, finished_at);
        if let Some(waiting) = waiting.filter(|waiting| facts.now < waiting.until) {
            plan.wake(waiting.until);
            plan.backing_off.push(BackingOff { name: container.name.clone(), waiting });
            return;
        }
    }
    let attempt = last.map_or(0, |last| last.attempt + 1);
    plan.start.push(Start { sort, name: container.name.clone(), attempt });
}

#[cfg(test)]
mod tests;
