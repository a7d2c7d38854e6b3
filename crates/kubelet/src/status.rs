//! The pod status, made anew from what is: a pure function of spec, runtime view, probe verdicts and waits.
//!
//! ```text
//! containers.rs: one ContainerStatus each  ──▶  phase.rs: the phase  ──▶  conditions.rs: the conditions
//! ```
//!
//! What others own in the status (conditions of other types, `nominatedNodeName`, ...) is left alone: the result holds only what
//! this agent writes, and [`crate::status_writer`] sends the difference.

pub mod conditions;
pub mod containers;
pub mod phase;

use std::collections::HashMap;
use std::net::IpAddr;

use base::Timestamp;
use k8s_openapi::api::core::v1::{HostIP, Pod, PodIP, PodStatus};

use crate::pod;
use crate::pod_worker::crash_loop::CrashLoops;
use crate::pod_worker::start_failure::StartFailure;
use crate::probes::Verdicts;
use crate::runtime_view::RuntimePod;

/// How far the pod's life has come.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// To be run.
    Syncing,
    /// Its containers are being stopped.
    Terminating,
    /// Nothing of it runs any more.
    Terminated,
}

/// Why the agent itself ended a pod; becomes `status.reason` and `status.message` with phase Failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failed {
    pub reason: String,
    pub message: String,
}

/// Everything a status is made from.
pub struct Inputs<'a> {
    pub pod: &'a Pod,
    /// The status made last, which the API may not show yet; at first, what the API has.
    pub known: &'a PodStatus,
    pub runtime: &'a RuntimePod,
    /// By container id.
    pub verdicts: &'a HashMap<String, Verdicts>,
    pub failures: &'a HashMap<String, StartFailure>,
    pub crash_loops: &'a CrashLoops,
    /// Termination messages by container id.
    pub messages: &'a HashMap<String, String>,
    pub stage: &'a Stage,
    pub failed: Option<&'a Failed>,
    /// When the agent first took the pod on.
    pub start_time: Timestamp,
    pub now: Timestamp,
    pub host_ips: &'a [IpAddr],
    /// `containerd`, `coracle`: the scheme of container ids.
    pub runtime_name: &'a str,
}

/// The status of the pod now.
pub fn generate(inputs: &Inputs<'_>) -> PodStatus {
    let pod = inputs.pod;
    let statuses = containers::all(inputs);
    let phase = phase::phase(inputs, &statuses);
    let (of_api, known) = (pod::status(pod), inputs.known);
    let mut status = PodStatus {
        phase: Some(phase.as_str().to_string()),
        observed_generation: pod.metadata.generation,
        qos_class: Some(pod::qos_class(pod).as_str().to_string()),
        start_time: Some(known.start_time.clone().unwrap_or_else(|| pod::time(inputs.start_time))),
        reason: inputs.failed.map(|failed| failed.reason.clone()).or_else(|| of_api.reason.clone()),
        message: inputs.failed.map(|failed| failed.message.clone()).or_else(|| of_api.message.clone()),
        ..PodStatus::default()
    };
    status.conditions = Some(conditions::all(inputs, &statuses, phase));
    status.container_statuses = some(statuses.regular);
    status.init_container_statuses = some(statuses.init);
    status.ephemeral_container_statuses = some(statuses.ephemeral);
    addresses(inputs, &mut status);
    status
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn addresses(inputs: &Inputs<'_>, status: &mut PodStatus) {
    let hosts: Vec<String> = inputs.host_ips.iter().map(IpAddr::to_string).collect();
    status.host_ip = hosts.first().cloned();
    status.host_ips = some(hosts.iter().map(|ip| HostIP { ip: ip.clone() }).collect());
    let pod_ips: Vec<String> = if pod::spec(inputs.pod).host_network.unwrap_or(false) {
        if inputs.runtime.sandboxes.is_empty() { Vec::new() } else { hosts }
    } else {
        match inputs.runtime.sandboxes.first() {
            Some(sandbox) if !sandbox.ips.is_empty() => sandbox.ips.clone(),
            // A sandbox that is gone had the address that the status still shows.
            _ => inputs.known.pod_ips.iter().flatten().map(|known| known.ip.clone()).collect(),
        }
    };
    status.pod_ip = pod_ips.first().cloned();
    status.pod_ips = some(pod_ips.into_iter().map(|ip| PodIP { ip }).collect());
}

#[cfg(test)]
mod tests;
