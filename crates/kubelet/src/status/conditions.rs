//! The conditions this agent owns, with upstream's reasons and messages. Those of others are not its to repeat: what it saw of
//! them may be old.

use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition};

use super::containers::Statuses;
use super::phase::Phase;
use super::{Inputs, Stage};
use crate::pod;

pub const OWNED: [&str; 5] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// A condition without its times.
struct Verdict {
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn yes() -> Self {
        Verdict { holds: true, reason: "", message: String::new() }
    }

    fn no(reason: &'static str, message: String) -> Self {
        Verdict { holds: false, reason, message }
    }
}

/// In upstream's order.
pub fn all(inputs: &Inputs<'_>, statuses: &Statuses, phase: Phase) -> Vec<PodCondition> {
    let sandbox_up = match inputs.stage {
        Stage::Terminated => Verdict::no("", String::new()),
        _ => Verdict { holds: inputs.runtime.ready_sandbox().is_some(), reason: "", message: String::new() },
    };
    let containers_ready = containers_ready(inputs, statuses, phase);
    let ready = ready(inputs, &containers_ready);
    vec![
        condition(inputs, "PodReadyToStartContainers", sandbox_up),
        condition(inputs, "Initialized", initialized(inputs, statuses, phase)),
        condition(inputs, "Ready", ready),
        condition(inputs, "ContainersReady", containers_ready),
        // It is here.
        condition(inputs, "PodScheduled", Verdict::yes()),
    ]
}

fn condition(inputs: &Inputs<'_>, type_: &str, verdict: Verdict) -> PodCondition {
    let status = if verdict.holds { "True" } else { "False" };
    let old = inputs.known.conditions.iter().flatten().find(|old| old.type_ == type_);
    let since = old.filter(|old| old.status == status).and_then(|old| old.last_transition_time.clone());
    let text = |text: String| (!text.is_empty()).then_some(text);
    PodCondition {
        type_: type_.to_string(),
        status: status.to_string(),
        reason: text(verdict.reason.to_string()),
        message: text(verdict.message),
        last_transition_time: Some(since.unwrap_or_else(|| pod::time(inputs.now))),
        last_probe_time: None,
        observed_generation: inputs.pod.metadata.generation,
    }
}

/// `[a b]`, as Go prints a list.
fn listed(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

fn has_ever_run(status: &ContainerStatus) -> bool {
    status.container_id.is_some() || status.restart_count > 0
}

fn initialized(inputs: &Inputs<'_>, statuses: &Statuses, phase: Phase) -> Verdict {
    if phase == Phase::Succeeded {
        let reason = if statuses.init.is_empty() { "" } else { "PodCompleted" };
        return Verdict { holds: true, reason, message: String::new() };
    }
    if statuses.regular.iter().any(has_ever_run) {
        return Verdict::yes();
    }
    let specs = pod::init_containers(inputs.pod);
    let incomplete = statuses
        .init
        .iter()
        .zip(specs)
        .filter(|(status, spec)| if pod::is_sidecar(spec) { status.started != Some(true) } else { !status.ready });
    let incomplete: Vec<&str> = incomplete.map(|(status, _)| status.name.as_str()).collect();
    if incomplete.is_empty() {
        return Verdict::yes();
    }
    Verdict::no("ContainersNotInitialized", format!("containers with incomplete status: {}", listed(&incomplete)))
}

fn containers_ready(inputs: &Inputs<'_>, statuses: &Statuses, phase: Phase) -> Verdict {
    match phase {
        Phase::Succeeded => return Verdict::no("PodCompleted", String::new()),
        Phase::Failed => return Verdict::no("PodFailed", String::new()),
        Phase::Pending | Phase::Running => {}
    }
    let specs = pod::init_containers(inputs.pod);
    let sidecars = statuses.init.iter().zip(specs).filter(|(_, spec)| pod::is_sidecar(spec)).map(|(status, _)| status);
    let unready: Vec<&str> =
        sidecars.chain(&statuses.regular).filter(|status| !status.ready).map(|status| status.name.as_str()).collect();
    if unready.is_empty() {
        return Verdict::yes();
    }
    Verdict::no("ContainersNotReady", format!("containers with unready status: {}", listed(&unready)))
}

fn ready(inputs: &Inputs<'_>, containers: &Verdict) -> Verdict {
    if !containers.holds {
        return Verdict::no(containers.reason, containers.message.clone());
    }
    let conditions = pod::status(inputs.pod).conditions.as_deref().unwrap_or_default();
    let mut unmet = Vec::new();
    for gate in pod::spec(inputs.pod).readiness_gates.iter().flatten() {
        let gate = &gate.condition_type;
        match conditions.iter().find(|condition| condition.type_ == *gate) {
            None => unmet.push(format!("corresponding condition of pod readiness gate {gate:?} does not exist.")),
            Some(found) if found.status != "True" => {
                unmet.push(format!("the status of pod readiness gate {gate:?} is not \"True\", but {}", found.status))
            }
            Some(_) => {}
        }
    }
    if unmet.is_empty() { Verdict::yes() } else { Verdict::no("ReadinessGatesNotReady", unmet.join(", ")) }
}
