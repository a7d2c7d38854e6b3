//! One `ContainerStatus` per container of the spec, in the spec's order.
//!
//! A container that is going to run again shows `waiting` with the reason it waits for, and what it was before as `lastState`;
//! one that is done for good shows `terminated`.

use k8s_openapi::api::core::v1::{
    Container as Spec, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus,
};

use super::{Inputs, Stage};
use crate::pod::{self, Sort};
use crate::pod_worker::crash_loop::Waiting;
use crate::runtime_view::{Container, State, spec_hash};

/// The statuses of all containers, by sort.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statuses {
    pub init: Vec<ContainerStatus>,
    pub regular: Vec<ContainerStatus>,
    pub ephemeral: Vec<ContainerStatus>,
}

pub fn all(inputs: &Inputs<'_>) -> Statuses {
    let mut statuses = Statuses::default();
    for (sort, container) in pod::all_containers(inputs.pod) {
        let status = one(inputs, sort, &container);
        match sort {
            Sort::Init => statuses.init.push(status),
            Sort::Regular => statuses.regular.push(status),
            Sort::Ephemeral => statuses.ephemeral.push(status),
        }
    }
    statuses
}

fn one(inputs: &Inputs<'_>, sort: Sort, container: &Spec) -> ContainerStatus {
    let latest = inputs.runtime.latest(&container.name);
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(state(inputs, sort, container, latest)),
        last_state: Some(ContainerState::default()),
        started: Some(false),
        ..ContainerStatus::default()
    };
    let Some(latest) = latest else {
        keep_what_was_known(inputs, container, &mut status);
        return status;
    };
    status.container_id = Some(container_id(inputs, &latest.id));
    status.image_id = latest.image_ref.clone();
    if !latest.image.is_empty() {
        status.image = latest.image.clone();
    }
    status.restart_count = i32::try_from(latest.attempt).unwrap_or(i32::MAX);
    status.resources = container.resources.clone().filter(|_| latest.is_running());
    let previous = inputs.runtime.previous(&container.name).filter(|previous| previous.state == State::Exited);
    let waits = status.state.as_ref().is_some_and(|state| state.waiting.is_some());
    let last = if waits && latest.state == State::Exited { Some(latest) } else { previous };
    if let Some(last) = last {
        status.last_state = Some(terminated(inputs, last));
    }
    let verdicts = inputs.verdicts.get(&latest.id);
    let startup_passed = || verdicts.is_some_and(|verdicts| verdicts.startup == Some(true));
    let started = latest.is_running() && (container.startup_probe.is_none() || startup_passed());
    status.started = Some(started);
    status.ready = if sort == Sort::Init && !pod::is_sidecar(container) {
        latest.state == State::Exited && latest.exit_code == 0
    } else {
        let probe_passed = || verdicts.is_some_and(|verdicts| verdicts.readiness == Some(true));
        started && sort != Sort::Ephemeral && (container.readiness_probe.is_none() || probe_passed())
    };
    status
}

/// A container the runtime no longer has keeps its count and how it ended.
fn keep_what_was_known(inputs: &Inputs<'_>, container: &Spec, status: &mut ContainerStatus) {
    let old = inputs.known;
    let lists = [&old.container_statuses, &old.init_container_statuses, &old.ephemeral_container_statuses];
    let known = lists.into_iter().flatten().flatten().find(|known| known.name == container.name);
    let Some(known) = known else { return };
    status.restart_count = known.restart_count;
    status.last_state = known.last_state.clone().or_else(|| status.last_state.take());
    let ended = known.state.clone().filter(|state| state.terminated.is_some());
    if *inputs.stage == Stage::Syncing {
        status.last_state = ended.or_else(|| status.last_state.take());
        return;
    }
    status.container_id = known.container_id.clone();
    status.image_id = known.image_id.clone();
    status.state = ended.or_else(|| status.state.take());
}

fn state(inputs: &Inputs<'_>, sort: Sort, container: &Spec, latest: Option<&Container>) -> ContainerState {
    let will_run = *inputs.stage == Stage::Syncing;
    if will_run && let Some(waiting) = waiting(inputs, sort, container, latest) {
        return ContainerState { waiting: Some(waiting), ..ContainerState::default() };
    }
    match latest {
        Some(found) if found.state == State::Running => ContainerState {
            running: Some(ContainerStateRunning { started_at: found.started_at.map(pod::time) }),
            ..ContainerState::default()
        },
        Some(found) if found.state == State::Exited => terminated(inputs, found),
        _ if *inputs.stage != Stage::Syncing && sort != Sort::Ephemeral && was_running(inputs, container) => {
            ContainerState {
                terminated: Some(ContainerStateTerminated {
                    exit_code: 137,
                    reason: Some("ContainerStatusUnknown".to_string()),
                    message: Some("The container could not be located when the pod was terminated".to_string()),
                    ..ContainerStateTerminated::default()
                }),
                ..ContainerState::default()
            }
        }
        _ => ContainerState { waiting: Some(creating(inputs, sort)), ..ContainerState::default() },
    }
}

fn was_running(inputs: &Inputs<'_>, container: &Spec) -> bool {
    let old = inputs.known;
    let mut known = [&old.container_statuses, &old.init_container_statuses].into_iter().flatten().flatten();
    known.any(|known| known.name == container.name && known.state.as_ref().is_some_and(|state| state.running.is_some()))
}

/// What a container that is not running but will be waits for.
fn waiting(
    inputs: &Inputs<'_>,
    sort: Sort,
    container: &Spec,
    latest: Option<&Container>,
) -> Option<ContainerStateWaiting> {
    if latest.is_some_and(Container::is_running) {
        return None;
    }
    let ended = latest.filter(|found| found.state == State::Exited);
    if ended.is_some_and(|found| !pod::restarts_after(inputs.pod, sort, container, found.exit_code)) {
        return None;
    }
    let failure = inputs.failures.get(&container.name);
    // A wait that is over is shown until the container runs again, unless its start failed.
    if let Some(crash) = ended.and_then(|ended| crash_loop(inputs, container, ended))
        && (failure.is_none() || inputs.now < crash.until)
    {
        let wait = duration(crash.wait.as_secs());
        let (name, pod) = (&container.name, pod::full_name(inputs.pod));
        let message = format!("back-off {wait} restarting failed container={name} pod={pod}");
        return Some(shown("CrashLoopBackOff", message));
    }
    if let Some(failure) = failure {
        let (reason, message) = failure.shown(inputs.now);
        return Some(shown(&reason, message));
    }
    // About to be restarted: until then it shows how it ended.
    if ended.is_some() { None } else { Some(creating(inputs, sort)) }
}

fn crash_loop(inputs: &Inputs<'_>, container: &Spec, ended: &Container) -> Option<Waiting> {
    inputs.crash_loops.after_end(&container.name, &spec_hash(container), ended.finished_at?)
}

fn shown(reason: &str, message: String) -> ContainerStateWaiting {
    ContainerStateWaiting { reason: Some(reason.to_string()), message: Some(message) }
}

/// As Go prints a duration of whole seconds: `10s`, `2m40s`, `5m0s`.
fn duration(seconds: u64) -> String {
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}

fn creating(inputs: &Inputs<'_>, sort: Sort) -> ContainerStateWaiting {
    let has_init = !pod::init_containers(inputs.pod).is_empty();
    let reason = if sort != Sort::Ephemeral && has_init { "PodInitializing" } else { "ContainerCreating" };
    ContainerStateWaiting { reason: Some(reason.to_string()), message: None }
}

fn terminated(inputs: &Inputs<'_>, found: &Container) -> ContainerState {
    let message = inputs.messages.get(&found.id).cloned().filter(|message| !message.is_empty());
    let message = message.or_else(|| (!found.message.is_empty()).then(|| found.message.clone()));
    let reason = match found.reason.as_str() {
        "" if found.exit_code == 0 => "Completed",
        "" => "Error",
        given => given,
    };
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(container_id(inputs, &found.id)),
            exit_code: found.exit_code,
            reason: Some(reason.to_string()),
            message,
            started_at: found.started_at.map(pod::time),
            finished_at: found.finished_at.map(pod::time),
            signal: None,
        }),
        ..ContainerState::default()
    }
}

fn container_id(inputs: &Inputs<'_>, id: &str) -> String {
    format!("{}://{id}", inputs.runtime_name)
}
