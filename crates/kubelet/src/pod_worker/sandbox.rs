//! The sandbox of a pod and what has to be there before it: folders, cgroup, volumes.

use cri::v1::{PodSandboxConfig, RunPodSandboxRequest};
use meta::{GroupVersionResource, ObjectKey};

use super::{Context, StepFailed, stop};
use crate::container_config::sandbox_config;
use crate::runtime_view::RuntimePod;
use crate::volumes::payload::For;
use crate::{dns, hosts_file, pod, volumes};

/// Linux takes host names of up to this many bytes.
const HOSTNAME_BYTES_MAX: usize = 64;

/// Makes a new sandbox in place of any older one.
pub async fn make(context: &Context, attempt: u32, runtime: &RuntimePod) -> Result<(), StepFailed> {
    let (agent, pod) = (&context.agent, &context.pod);
    if !runtime.sandboxes.is_empty() {
        let about = agent.pod_reference(pod);
        if runtime.any_running() || runtime.sandboxes.iter().any(|sandbox| sandbox.ready) {
            agent.recorder.normal(&about, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.");
        }
        stop::stop_all(context.clone(), runtime.clone(), pod::grace_period_seconds(pod)).await?;
        stop::stop_sandboxes(context, runtime).await?;
    }
    let failed = |why: String| {
        agent.recorder.warning(
            &agent.pod_reference(pod),
            "FailedCreatePodSandBox",
            format!("Failed to create pod sandbox: {why}"),
        );
        StepFailed(why)
    };
    std::fs::create_dir_all(agent.pod_dir(pod::uid(pod))).map_err(|error| failed(error.to_string()))?;
    std::fs::create_dir_all(agent.log_dir(pod)).map_err(|error| failed(error.to_string()))?;
    agent.cgroups.make_pod(pod).map_err(|error| failed(format!("cannot make the pod's cgroup: {error}")))?;
    ensure_volumes(context).await?;
    let config = config(context, attempt).map_err(failed)?;
    let runtime_handler = runtime_handler(context).await.map_err(failed)?;
    let (cri, request) = (agent.cri.clone(), RunPodSandboxRequest { config: Some(config), runtime_handler });
    let made: Result<_, cri::Error> = agent.to_the_end(async move { cri.run_pod_sandbox(request).await }).await;
    made.map(drop).map_err(|error| failed(error.to_string()))
}

/// The sandbox configuration; also what the runtime is told along with each container.
pub fn config(context: &Context, attempt: u32) -> Result<PodSandboxConfig, String> {
    let (agent, pod) = (&context.agent, &context.pod);
    if pod::spec(pod).host_users == Some(false) {
        return Err("user namespaces are not supported yet".to_string());
    }
    let host = dns::host_text(&agent.config.resolv_conf);
    let dns = dns::config(pod, &agent.config.cluster_dns, &host);
    let (short, domain) = hosts_file::host_and_domain(pod, &agent.config.cluster_dns.domain);
    let mut hostname = short.clone();
    if pod::spec(pod).set_hostname_as_fqdn == Some(true) && !domain.is_empty() {
        hostname = format!("{short}.{domain}");
        if hostname.len() > HOSTNAME_BYTES_MAX {
            return Err(format!(
                "failed to construct FQDN from pod hostname and cluster domain, FQDN {hostname} is too long \
                 ({HOSTNAME_BYTES_MAX} characters is the max, {} characters requested)",
                hostname.len()
            ));
        }
    }
    Ok(sandbox_config(pod, attempt, &hostname, dns, &agent.log_dir(pod), &agent.cgroups.pod_path(pod)))
}

/// The handler that the pod's RuntimeClass names; empty without one.
async fn runtime_handler(context: &Context) -> Result<String, String> {
    let Some(class) = pod::spec(&context.pod).runtime_class_name.as_deref().filter(|class| !class.is_empty()) else {
        return Ok(String::new());
    };
    let classes = GroupVersionResource::new("node.k8s.io", "v1", "runtimeclasses");
    let found = context.agent.client.get_object(&classes, &ObjectKey::cluster(class)).await;
    let found = found.map_err(|status| format!("failed to get sandbox runtime: {status}"))?;
    Ok(found.str_at(&["handler"]).to_string())
}

/// Prepares the volumes unless this worker has.
pub async fn ensure_volumes(context: &Context) -> Result<(), StepFailed> {
    if context.shared.volumes.lock().is_some() {
        return Ok(());
    }
    refresh_volumes(context.clone()).await
}

/// Prepares the volumes, or brings them up to date.
pub async fn refresh_volumes(context: Context) -> Result<(), StepFailed> {
    let (agent, pod) = (&context.agent, &context.pod);
    let wanted = For { agent, pod, waker: &context.waker, pod_ips: &[] };
    match volumes::prepare(&wanted).await {
        Ok(volumes) => {
            *context.shared.volumes.lock() = Some(volumes);
            Ok(())
        }
        Err(error) => {
            agent.recorder.warning(&agent.pod_reference(pod), "FailedMount", error.to_string());
            Err(StepFailed(error.to_string()))
        }
    }
}
