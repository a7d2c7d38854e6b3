//! The phase: one word for the whole pod.

use k8s_openapi::api::core::v1::ContainerStatus;

use super::containers::Statuses;
use super::{Inputs, Stage};
use crate::pod::{self, Sort};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Running => "Running",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
        }
    }
}

pub fn phase(inputs: &Inputs<'_>, statuses: &Statuses) -> Phase {
    // A phase once final stays, whoever made it so.
    for status in [pod::status(inputs.pod), inputs.known] {
        match status.phase.as_deref() {
            Some("Succeeded") => return Phase::Succeeded,
            Some("Failed") => return Phase::Failed,
            _ => {}
        }
    }
    let done = *inputs.stage == Stage::Terminated;
    if inputs.failed.is_some() {
        return if done { Phase::Failed } else { so_far(statuses) };
    }
    if done {
        return ended(inputs, statuses);
    }
    so_far(statuses)
}

/// The phase of a pod of which nothing runs any more.
fn ended(inputs: &Inputs<'_>, statuses: &Statuses) -> Phase {
    let code = |status: &ContainerStatus| Some(status.state.as_ref()?.terminated.as_ref()?.exit_code);
    let init_specs = pod::init_containers(inputs.pod);
    let init_failed = statuses.init.iter().zip(init_specs).any(|(status, spec)| {
        !pod::is_sidecar(spec)
            && code(status).is_some_and(|code| code != 0 && !pod::restarts_after(inputs.pod, Sort::Init, spec, code))
    });
    if init_failed {
        return Phase::Failed;
    }
    let codes: Vec<Option<i32>> = statuses.regular.iter().map(code).collect();
    if codes.iter().any(Option::is_none) {
        return if codes.iter().any(Option::is_some) { Phase::Failed } else { Phase::Pending };
    }
    if codes.iter().all(|code| *code == Some(0)) { Phase::Succeeded } else { Phase::Failed }
}

fn so_far(statuses: &Statuses) -> Phase {
    // A regular container that has ever run shows a state or a last state of its own.
    let has_run = |status: &ContainerStatus| {
        let ran = |state: Option<&k8s_openapi::api::core::v1::ContainerState>| {
            state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
        };
        ran(status.state.as_ref()) || ran(status.last_state.as_ref())
    };
    let all_have_run = !statuses.regular.is_empty() && statuses.regular.iter().all(has_run);
    if all_have_run { Phase::Running } else { Phase::Pending }
}
