//! Stopping: `preStop`, SIGTERM, the grace period, SIGKILL; sidecars after everything else, last started first.

use std::time::Duration;

use cri::v1::{StopContainerRequest, StopPodSandboxRequest};
use futures::future::join_all;

use super::{Context, StepFailed};
use crate::pod::{self, Sort};
use crate::runtime_view::{Container, RuntimePod, State};
use crate::{hooks, probes};

/// What is left of a grace period is at least this long, in seconds, so that a process always gets its SIGTERM.
const GRACE_SECONDS_MIN: i64 = 2;

/// How long a pod that services lead to goes on serving after it began to go: proxies on all nodes stop sending to it meanwhile, so
/// that nobody is sent to a process that has been told to stop. Upstream leaves this to a `preStop` hook.
const LEAVING: Duration = Duration::from_millis(500);

/// Stops every container within the grace period, once nobody is sent to the pod any more.
pub async fn stop_deleted(context: Context, runtime: RuntimePod, grace_seconds: i64) -> Result<(), StepFailed> {
    if grace_seconds > GRACE_SECONDS_MIN && runtime.any_running() && is_served(&context) {
        context.agent.clock.sleep(LEAVING).await;
    }
    stop_all(context, runtime, grace_seconds).await
}

/// Whether a service selects the pod.
fn is_served(context: &Context) -> bool {
    let labels = context.pod.metadata.labels.as_ref();
    context.agent.services.in_namespace(pod::namespace(&context.pod)).iter().any(|service| {
        let selector =
            service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).filter(|selector| !selector.is_empty());
        selector.is_some_and(|selector| {
            selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
        })
    })
}

/// Stops every container of the pod within the grace period.
pub async fn stop_all(context: Context, runtime: RuntimePod, grace_seconds: i64) -> Result<(), StepFailed> {
    let clock = context.agent.clock.clone();
    let began = clock.instant();
    let sidecars: Vec<&str> = pod::init_containers(&context.pod)
        .iter()
        .filter(|container| pod::is_sidecar(container))
        .map(|container| container.name.as_str())
        .collect();
    let alive = runtime.containers.iter().filter(|found| matches!(found.state, State::Running | State::Unknown));
    let (last, first): (Vec<_>, Vec<_>) = alive.partition(|found| sidecars.contains(&found.name.as_str()));
    let stops = first.into_iter().map(|found| stop_one(&context, &runtime, found, grace_seconds, None));
    for outcome in join_all(stops).await {
        outcome?;
    }
    for name in sidecars.iter().rev() {
        for found in last.iter().filter(|found| found.name == *name) {
            let spent = i64::try_from((clock.instant() - began).as_secs()).unwrap_or(i64::MAX);
            let left = grace_seconds.saturating_sub(spent).max(GRACE_SECONDS_MIN.min(grace_seconds));
            stop_one(&context, &runtime, found, left, None).await?;
        }
    }
    Ok(())
}

/// Stops one container, after its `preStop` hook.
pub async fn stop_one(
    context: &Context,
    runtime: &RuntimePod,
    found: &Container,
    grace_seconds: i64,
    message: Option<String>,
) -> Result<(), StepFailed> {
    let spec = pod::find_container(&context.pod, &found.name);
    let sort = spec.as_ref().map_or(Sort::Regular, |(sort, _)| *sort);
    let clock = &context.agent.clock;
    let began = clock.instant();
    let message = message.unwrap_or_else(|| format!("Stopping container {}", found.name));
    let about = context.agent.container_reference(&context.pod, sort, &found.name);
    context.agent.recorder.normal(&about, "Killing", message);
    let hook = spec.as_ref().and_then(|(_, spec)| spec.lifecycle.as_ref()?.pre_stop.as_ref().map(|hook| (spec, hook)));
    if let Some((spec, hook)) = hook.filter(|_| found.is_running() && grace_seconds > 0) {
        let limit = Duration::from_secs(u64::try_from(grace_seconds).unwrap_or(0));
        let address = probes::address(&context.agent, &context.pod, runtime);
        let run = hooks::run(&context.agent, spec, &found.id, &address, hook, Some(limit));
        match tokio::time::timeout(limit, run).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => {
                tracing::debug!(container = found.name, why, "preStop hook failed");
                context.agent.recorder.warning(&about, "FailedPreStopHook", "PreStopHook failed");
            }
            Err(_) => tracing::debug!(container = found.name, "preStop hook took the whole grace period"),
        }
    }
    let spent = i64::try_from((clock.instant() - began).as_secs()).unwrap_or(i64::MAX);
    let left = grace_seconds.saturating_sub(spent).max(GRACE_SECONDS_MIN.min(grace_seconds));
    stop_quietly(context, &found.id, left).await
}

/// Stops a container of which only the id is known yet.
pub async fn stop_id(
    context: &Context,
    sort: Sort,
    name: &str,
    id: &str,
    grace_seconds: i64,
    message: Option<String>,
) -> Result<(), StepFailed> {
    let about = context.agent.container_reference(&context.pod, sort, name);
    let message = message.unwrap_or_else(|| format!("Stopping container {name}"));
    context.agent.recorder.normal(&about, "Killing", message);
    stop_quietly(context, id, grace_seconds).await
}

async fn stop_quietly(context: &Context, id: &str, timeout: i64) -> Result<(), StepFailed> {
    let (cri, request) = (context.agent.cri.clone(), StopContainerRequest { container_id: id.to_string(), timeout });
    let stopped = context.agent.to_the_end(async move { cri.stop_container(request).await }).await;
    match stopped {
        Err::<_, cri::Error>(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

/// Stops the sandboxes, and with them the pod's network.
pub async fn stop_sandboxes(context: &Context, runtime: &RuntimePod) -> Result<(), StepFailed> {
    for sandbox in &runtime.sandboxes {
        let request = StopPodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
        let cri = context.agent.cri.clone();
        let stopped = context.agent.to_the_end(async move { cri.stop_pod_sandbox(request).await }).await;
        match stopped {
            Err::<_, cri::Error>(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}
