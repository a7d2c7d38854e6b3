//! Lifecycle hooks: what a container asks to be done right after it starts and right before it is stopped.

use std::time::Duration;

use cri::v1::ExecSyncRequest;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::agent::Agent;
use crate::probes::{ask, http};

/// An HTTP hook has no time limit of its own in the API.
const HTTP_LIMIT: Duration = Duration::from_secs(60);

/// Runs a hook to its end; `limit` is how long it may take. The error is for the event.
pub async fn run(
    agent: &Agent,
    container: &Container,
    container_id: &str,
    address: &str,
    handler: &LifecycleHandler,
    limit: Option<Duration>,
) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        let request = ExecSyncRequest {
            container_id: container_id.to_string(),
            cmd: exec.command.clone().unwrap_or_default(),
            timeout: limit.map_or(0, |limit| i64::try_from(limit.as_secs().max(1)).unwrap_or(i64::MAX)),
        };
        let command = request.cmd.join(" ");
        let output = agent.cri.exec_sync(request).await.map_err(|error| error.to_string())?;
        if output.exit_code == 0 {
            return Ok(());
        }
        let text = [output.stdout, output.stderr].concat();
        return Err(format!(
            "command '{command}' exited with {}: {}",
            output.exit_code,
            String::from_utf8_lossy(&text)
        ));
    }
    if let Some(get) = &handler.http_get {
        let request = ask::http_request(get, container, address, "kube-lifecycle/1.37")?;
        return http::probe(&request, limit.unwrap_or(HTTP_LIMIT).min(HTTP_LIMIT)).await;
    }
    if let Some(sleep) = &handler.sleep {
        let wanted = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
        agent.clock.sleep(limit.map_or(wanted, |limit| wanted.min(limit))).await;
        return Ok(());
    }
    Err("cannot run a hook of no known kind".to_string())
}
