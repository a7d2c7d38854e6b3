//! Starting one container: image, configuration, create, start, `postStart`.
//!
//! A failure of any of these is the container's, not the step's: it is noted with its reason, shown in the status, and tried again
//! after its back-off.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cri::v1::{
    CreateContainerRequest, ImageSpec, ImageStatusRequest, Mount, RemoveContainerRequest, StartContainerRequest,
};
use k8s_openapi::api::core::v1::Container;

use super::plan::Start;
use super::start_failure::{FailureReason, StartFailure};
use super::{Context, StepFailed, sandbox, stop};
use crate::container_config::{Prepared, container_config};
use crate::environment::{self, services};
use crate::images::{Present, Wanted};
use crate::pod::{self, Sort};
use crate::references::{Kind, Loaded};
use crate::runtime_view::{RuntimePod, State, spec_hash};
use crate::security::{self, Defaults};
use crate::volumes::{self, Place};
use crate::{hooks, hosts_file, probes};

type Failure = (FailureReason, String);

/// Starts a container; its own failure is noted, only a failure to talk to the runtime at all is returned.
pub async fn start(context: &Context, wanted: &Start, runtime: &RuntimePod) -> Result<(), StepFailed> {
    let Some((sort, container)) = pod::find_container(&context.pod, &wanted.name) else { return Ok(()) };
    note_restart(context, &container, runtime);
    let starting = Starting { context, sort, container: &container, attempt: wanted.attempt, runtime };
    match starting.run().await {
        Ok(()) => {
            context.shared.failures.lock().remove(&wanted.name);
        }
        Err((reason, message)) => {
            let now = context.agent.clock.now();
            let mut failures = context.shared.failures.lock();
            let image = container.image.as_deref().unwrap_or_default();
            let failure = StartFailure::after(failures.get(&wanted.name), reason, message, image, now);
            failures.insert(wanted.name.clone(), failure);
        }
    }
    Ok(())
}

/// The next wait after a crash grows with each restart.
fn note_restart(context: &Context, container: &Container, runtime: &RuntimePod) {
    let ended = runtime.latest(&container.name).filter(|found| found.state == State::Exited);
    if let Some(finished_at) = ended.and_then(|found| found.finished_at) {
        let now = context.agent.clock.now();
        context.shared.crash_loops.lock().restarted(&container.name, &spec_hash(container), finished_at, now);
    }
}

struct Starting<'a> {
    context: &'a Context,
    sort: Sort,
    container: &'a Container,
    attempt: u32,
    runtime: &'a RuntimePod,
}

impl Starting<'_> {
    async fn run(&self) -> Result<(), Failure> {
        let agent = &self.context.agent;
        let sandbox = self.runtime.ready_sandbox();
        let sandbox = sandbox.ok_or((FailureReason::CreateContainerError, "the pod's sandbox is gone".to_string()))?;
        let sandbox_config = sandbox::config(self.context, sandbox.attempt)
            .map_err(|why| (FailureReason::CreateContainerConfigError, why))?;
        let image = Wanted {
            agent,
            pod: &self.context.pod,
            sort: self.sort,
            container: self.container,
            sandbox: &sandbox_config,
            waker: &self.context.waker,
        };
        let image = image.ensure().await?;
        let config = self.config(&image, &sandbox.ips).await.map_err(|why| {
            self.warn("Failed", format!("Error: {why}"));
            (FailureReason::CreateContainerConfigError, why)
        })?;
        self.forget_older().await;
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.id.clone(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        let cri = agent.cri.clone();
        let created = agent.to_the_end(async move { cri.create_container(request).await }).await;
        let created = created.map_err(|error: cri::Error| {
            self.warn("Failed", format!("Error: {error}"));
            (FailureReason::CreateContainerError, error.message().to_string())
        })?;
        let id = created.container_id;
        self.tell("Created", "Container created");
        let (cri, request) = (agent.cri.clone(), StartContainerRequest { container_id: id.clone() });
        let started = agent.to_the_end(async move { cri.start_container(request).await }).await;
        started.map_err(|error: cri::Error| {
            self.warn("Failed", format!("Error: {error}"));
            (FailureReason::RunContainerError, error.message().to_string())
        })?;
        self.tell("Started", "Container started");
        self.post_start(&id).await
    }

    async fn post_start(&self, id: &str) -> Result<(), Failure> {
        let hook = self.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
        let Some(hook) = hook else { return Ok(()) };
        let address = probes::address(&self.context.agent, &self.context.pod, self.runtime);
        let outcome = hooks::run(&self.context.agent, self.container, id, &address, hook, None).await;
        let Err(why) = outcome else { return Ok(()) };
        tracing::debug!(container = self.container.name, why, "postStart hook failed");
        self.warn("FailedPostStartHook", "PostStartHook failed".to_string());
        let grace = pod::grace_period_seconds(&self.context.pod);
        if let Err(error) = stop::stop_id(
            self.context,
            self.sort,
            &self.container.name,
            id,
            grace,
            Some("FailedPostStartHook".to_string()),
        )
        .await
        {
            tracing::warn!(container = self.container.name, %error, "a container whose postStart failed does not stop");
        }
        Err((FailureReason::PostStartHookError, format!("PostStartHook failed: {why}")))
    }

    /// The whole configuration; the error is the message of `CreateContainerConfigError`.
    async fn config(&self, image: &Present, pod_ips: &[String]) -> Result<cri::v1::ContainerConfig, String> {
        let (agent, pod) = (&self.context.agent, &self.context.pod);
        security::verify_non_root(pod, self.container, &image.user)?;
        let loaded = self.load_references().await;
        let services = agent.services.all();
        let links = services::variables(pod, services.iter().map(AsRef::as_ref));
        let node = agent.downward_node(pod_ips);
        let environment = environment::make(pod, self.container, &node, links, &loaded)?;
        let mounts = self.mounts(&environment, pod_ips).await?;
        let log = agent.log_dir(pod).join(&self.container.name);
        std::fs::create_dir_all(&log).map_err(|error| format!("cannot make the log folder: {error}"))?;
        let target = pod::ephemeral_target(pod, &self.container.name).filter(|_| self.sort == Sort::Ephemeral);
        let target = target.and_then(|target| self.runtime.latest(target)).map(|found| found.id.as_str());
        Ok(container_config(
            pod,
            self.container,
            Prepared {
                sort: self.sort,
                attempt: self.attempt,
                image_ref: &image.reference,
                image_user: &image.user,
                environment,
                mounts,
                target_id: target,
                memory_capacity_bytes: agent.machine.memory_bytes,
                cgroup_v2: agent.cgroups.is_v2(),
                defaults: Defaults { seccomp_runtime_default: agent.config.seccomp_default },
            },
        ))
    }

    /// Reads every ConfigMap and Secret that the environment names.
    async fn load_references(&self) -> Loaded {
        let mut names: Vec<(Kind, &str)> = Vec::new();
        for from in self.container.env_from.iter().flatten() {
            names.extend(from.config_map_ref.iter().map(|map| (Kind::ConfigMap, map.name.as_str())));
            names.extend(from.secret_ref.iter().map(|secret| (Kind::Secret, secret.name.as_str())));
        }
        for source in self.container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
            names.extend(source.config_map_key_ref.iter().map(|map| (Kind::ConfigMap, map.name.as_str())));
            names.extend(source.secret_key_ref.iter().map(|secret| (Kind::Secret, secret.name.as_str())));
        }
        let mut loaded = Loaded::default();
        let (context, pod) = (self.context, &self.context.pod);
        for (kind, name) in names {
            let key = meta::ObjectKey::new(pod::namespace(pod), name);
            let read = context.agent.references.get(kind, &key, pod::uid(pod), &context.waker).await;
            loaded.put(kind, name, read);
        }
        loaded
    }

    async fn mounts(&self, environment: &[(String, String)], pod_ips: &[String]) -> Result<Vec<Mount>, String> {
        let (agent, pod) = (&self.context.agent, &self.context.pod);
        let prepared = self.context.shared.volumes.lock().clone().unwrap_or_default();
        let pod_dir = agent.pod_dir(pod::uid(pod));
        let mut mounts = volumes::mounts(&pod_dir, self.container, &prepared, environment)?;
        self.pull_volume_images(&prepared).await?;
        let taken = |path: &str| self.container.volume_mounts.iter().flatten().any(|mount| mount.mount_path == path);
        if !taken("/etc/hosts") {
            let path = pod_dir.join("etc-hosts");
            let (hostname, domain) = hosts_file::host_and_domain(pod, &agent.config.cluster_dns.domain);
            let node_file = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
            let text = hosts_file::content(pod, pod_ips, &hostname, &domain, &node_file);
            write_file(&path, &text, 0o644).map_err(|error| format!("cannot write the hosts file: {error}"))?;
            mounts.push(bind("/etc/hosts", &path));
        }
        let message_path = self.container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
        if !message_path.is_empty() {
            let path = agent.termination_log(pod::uid(pod), &self.container.name, self.attempt);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(|error| format!("cannot make a folder: {error}"))?;
            }
            // The container may run as anyone.
            write_file(&path, "", 0o666).map_err(|error| format!("cannot make the termination log: {error}"))?;
            mounts.push(bind(message_path, &path));
        }
        Ok(mounts)
    }

    /// Images mounted as volumes have to be on the node like those that are run.
    async fn pull_volume_images(&self, prepared: &volumes::Volumes) -> Result<(), String> {
        for mount in self.container.volume_mounts.iter().flatten() {
            let Some(Place::Image(image)) = prepared.places.get(&mount.name) else { continue };
            let spec = Some(ImageSpec { image: image.clone(), ..ImageSpec::default() });
            let found =
                self.context.agent.cri.image_status(ImageStatusRequest { image: spec.clone(), verbose: false }).await;
            if !found.is_ok_and(|found| found.image.is_some()) {
                let request = cri::v1::PullImageRequest { image: spec, ..cri::v1::PullImageRequest::default() };
                self.context.agent.cri.pull_image(request).await.map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    /// Of earlier instances only the newest is kept, for its log and how it ended.
    async fn forget_older(&self) {
        let same = self.runtime.containers.iter().filter(|found| found.name == self.container.name);
        for old in same.skip(1).filter(|found| !found.is_running()) {
            let request = RemoveContainerRequest { container_id: old.id.clone() };
            if let Err(error) = self.context.agent.cri.remove_container(request).await
                && !error.is_not_found()
            {
                tracing::debug!(container = old.id, %error, "an old container is not removed");
                continue;
            }
            forget_logs(&self.context.agent.log_dir(&self.context.pod).join(&old.name), old.attempt);
        }
    }

    fn tell(&self, reason: &str, message: &str) {
        let about = self.context.agent.container_reference(&self.context.pod, self.sort, &self.container.name);
        self.context.agent.recorder.normal(&about, reason, message);
    }

    fn warn(&self, reason: &str, message: String) {
        let about = self.context.agent.container_reference(&self.context.pod, self.sort, &self.container.name);
        self.context.agent.recorder.warning(&about, reason, message);
    }
}

fn bind(container_path: &str, host_path: &std::path::Path) -> Mount {
    Mount { container_path: container_path.to_string(), host_path: host_path.display().to_string(), ..Mount::default() }
}

/// Writes in place, since the file may be mounted already.
fn write_file(path: &std::path::Path, text: &str, mode: u32) -> std::io::Result<()> {
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// Removes an instance's log and what rotation has put aside of it. Gone already is as good.
fn forget_logs(folder: &Path, attempt: u32) {
    let name = format!("{attempt}.log");
    let aside = format!("{name}.");
    for entry in std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        let found = entry.file_name();
        if found == *name || found.as_encoded_bytes().starts_with(aside.as_bytes()) {
            drop(std::fs::remove_file(entry.path()));
        }
    }
}
