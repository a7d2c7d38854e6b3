//! Taking away what a pod had on this node, once nothing of it runs.

use cri::v1::{RemoveContainerRequest, RemovePodSandboxRequest};

use super::{Context, StepFailed, stop};
use crate::pod;
use crate::runtime_view::RuntimePod;
use crate::volumes;

/// The network, the volumes and the cgroup go; containers and logs stay to be looked at.
pub async fn tear_down(context: Context, runtime: RuntimePod) -> Result<(), StepFailed> {
    stop::stop_sandboxes(&context, &runtime).await?;
    let uid = pod::uid(&context.pod).to_string();
    context.agent.references.release(&uid);
    context.agent.tokens.release(&uid);
    let pod_dir = context.agent.pod_dir(&uid);
    let agent = context.agent.clone();
    let removed = tokio::task::spawn_blocking(move || {
        for part in ["volumes", "volume-subpaths"] {
            volumes::remove(&pod_dir.join(part))?;
        }
        agent.cgroups.remove_pod(&uid)
    });
    flatten(removed.await)
}

/// The containers, the sandboxes, the logs and the folder go too.
pub async fn remove_all(context: Context, runtime: RuntimePod) -> Result<(), StepFailed> {
    let agent = &context.agent;
    for found in &runtime.containers {
        let (cri, request) = (agent.cri.clone(), RemoveContainerRequest { container_id: found.id.clone() });
        match agent.to_the_end(async move { cri.remove_container(request).await }).await {
            Err::<_, cri::Error>(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
    }
    for sandbox in &runtime.sandboxes {
        let (cri, request) = (agent.cri.clone(), RemovePodSandboxRequest { pod_sandbox_id: sandbox.id.clone() });
        match agent.to_the_end(async move { cri.remove_pod_sandbox(request).await }).await {
            Err::<_, cri::Error>(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
    }
    let (pod_dir, log_dir) = (agent.pod_dir(pod::uid(&context.pod)), agent.log_dir(&context.pod));
    let removed = tokio::task::spawn_blocking(move || {
        volumes::remove(&pod_dir)?;
        match std::fs::remove_dir_all(&log_dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    });
    flatten(removed.await)
}

fn flatten(outcome: Result<std::io::Result<()>, tokio::task::JoinError>) -> Result<(), StepFailed> {
    match outcome {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(StepFailed(error.to_string())),
        Err(error) => Err(StepFailed(error.to_string())),
    }
}
