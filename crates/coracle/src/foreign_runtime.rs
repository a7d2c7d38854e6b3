//! A container runtime of others: reached by its socket, told of our pod network by CNI.
//!
//! ```text
//! wait until it answers ─▶ can it be used? ─▶ plugins' socket ─▶ plugin and configuration where it looks for them
//! ```
//!
//! `down` goes the other way: pods are stopped through the same socket, with plugins answered meanwhile, then both files go.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base::{Backoff, BackoffPolicy, Clock, Tasks};
use cri::v1::{
    CgroupDriver, ListPodSandboxRequest, PodSandbox, RemovePodSandboxRequest, RuntimeConfigRequest,
    StopPodSandboxRequest, VersionRequest,
};
use cri::{Cri, PodNetwork, RemoteCri};
use kubelet::runtime_view::LABEL_POD_UID;
use net::cni::install::Place;
use net::cni::server;

use crate::instance::Traces;

/// How long a runtime that is not there yet is left alone.
const RETRY: BackoffPolicy = BackoffPolicy::doubling(Duration::from_millis(200), Duration::from_secs(2));

/// Connects to the runtime at a socket and opens the pod network to it. Waits for a runtime that is not there yet, and says so.
pub async fn open(
    socket: &Path,
    data_dir: &Path,
    network: Arc<dyn PodNetwork>,
    clock: &Clock,
    tasks: &Tasks,
) -> Result<RemoteCri> {
    let runtime = connect(socket, clock).await?;
    refuse_systemd(&runtime, socket).await?;
    let place = Place::default();
    Traces::note_runtime(data_dir, socket, place.missing_folders())?;
    listen(data_dir, network, clock, tasks)?;
    let program = std::env::current_exe().context("cannot find this program")?;
    place.install(&program, &plugin_socket(data_dir)).context("cannot install the network plugin")?;
    if let Some(other) = place.preferred() {
        tracing::warn!(configuration = %other.display(), "pods get the network that this configuration says, not ours: it comes first by name");
    }
    Ok(runtime)
}

/// Where plugins ask.
fn plugin_socket(data_dir: &Path) -> PathBuf {
    data_dir.join("cni.sock")
}

fn listen(data_dir: &Path, network: Arc<dyn PodNetwork>, clock: &Clock, tasks: &Tasks) -> Result<()> {
    let socket = plugin_socket(data_dir);
    let listener = server::listen(&socket).with_context(|| format!("cannot listen at {}", socket.display()))?;
    tasks.spawn("cni", server::serve(listener, network, clock.clone(), tasks.child()));
    Ok(())
}

async fn connect(socket: &Path, clock: &Clock) -> Result<RemoteCri> {
    let mut backoff = Backoff::new(RETRY);
    let mut said = String::new();
    loop {
        if std::fs::metadata(socket).is_ok_and(|found| !found.file_type().is_socket()) {
            bail!("--container-runtime-endpoint: {} is not a socket", socket.display());
        }
        let error = match answering(socket).await {
            Ok(runtime) => return Ok(runtime),
            Err(error) if error.is_unimplemented() => bail!(
                "--container-runtime-endpoint: what answers at {} is no CRI v1 runtime ({}); containerd has to have its CRI plugins enabled",
                socket.display(),
                error.message()
            ),
            Err(error) if error.code() == cri::Code::Internal => {
                format!("what answers does not speak as a container runtime does: {error}")
            }
            Err(error) => error.to_string(),
        };
        if said != error {
            tracing::warn!(socket = %socket.display(), error, "waiting for the container runtime to answer");
            said = error;
        }
        clock.sleep(backoff.next(clock.instant())).await;
    }
}

async fn answering(socket: &Path) -> Result<RemoteCri, cri::Error> {
    let runtime = RemoteCri::connect(&socket.to_string_lossy()).await?;
    let version = runtime.version(VersionRequest::default()).await?;
    tracing::info!(
        name = version.runtime_name,
        version = version.runtime_version,
        "containers are run by another runtime"
    );
    Ok(runtime)
}

/// The node agent makes the groups of pods itself, by path.
async fn refuse_systemd(runtime: &RemoteCri, socket: &Path) -> Result<()> {
    let driver = match runtime.runtime_config(RuntimeConfigRequest {}).await {
        Ok(config) => config.linux.map(|linux| linux.cgroup_driver()),
        // An older one does not tell; then it is found out by the first pod.
        Err(error) if error.is_unimplemented() => None,
        Err(error) => return Err(error).context("the container runtime does not tell its configuration"),
    };
    if driver == Some(CgroupDriver::Systemd) {
        bail!(
            "the runtime at {} has systemd make its control groups, which is not built: for containerd, set SystemdCgroup = false",
            socket.display()
        );
    }
    Ok(())
}

/// Stops and removes every pod that a node agent has on the runtime.
pub async fn end_pods(socket: &Path, data_dir: &Path, network: Arc<dyn PodNetwork>) -> Result<()> {
    let (clock, tasks) = (Clock::system(), Tasks::root());
    let runtime = RemoteCri::connect(&socket.to_string_lossy()).await;
    let runtime = runtime.context("start the runtime, for its containers may run on")?;
    listen(data_dir, network, &clock, &tasks)?;
    let sandboxes = runtime.list_pod_sandbox(ListPodSandboxRequest::default()).await?.items;
    let is_pod = |sandbox: &PodSandbox| sandbox.labels.contains_key(LABEL_POD_UID);
    for PodSandbox { id: pod_sandbox_id, .. } in sandboxes.into_iter().filter(is_pod) {
        runtime.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() }).await?;
        runtime.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id }).await?;
    }
    tasks.shutdown().await;
    Ok(())
}

/// Takes away what [`open`] put where runtimes look.
pub fn remove_files(data_dir: &Path, folders: &[PathBuf]) -> Result<()> {
    Place::default().remove(folders).context("cannot remove the network plugin")?;
    match std::fs::remove_file(plugin_socket(data_dir)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("cannot remove the plugins' socket")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cri::v1::VersionResponse;
    use tokio_util::sync::CancellationToken;

    struct Fake(bool);

    #[async_trait::async_trait]
    impl Cri for Fake {
        async fn version(&self, request: VersionRequest) -> Result<VersionResponse, cri::Error> {
            if self.0 {
                Ok(VersionResponse { version: request.version, ..Default::default() })
            } else {
                Err(cri::Error::unimplemented("Version"))
            }
        }
    }

    #[tokio::test]
    async fn a_runtime_is_waited_for_and_what_cannot_be_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let refused = connect(&file, &Clock::system()).await.unwrap_err().to_string();
        assert!(refused.contains("is not a socket"), "{refused}");
        let stop = CancellationToken::new();
        let serve = |fake: Fake, path: &Path| {
            let (path, stop) = (path.to_path_buf(), stop.clone());
            tokio::spawn(async move { cri::serve(Arc::new(fake), &path, stop).await })
        };
        let (late, other) = (dir.path().join("late.sock"), dir.path().join("other.sock"));
        let waiting = tokio::spawn({
            let late = late.clone();
            async move { connect(&late, &Clock::system()).await.map(drop) }
        });
        serve(Fake(true), &late);
        waiting.await.unwrap().unwrap();
        serve(Fake(false), &other);
        let refused = connect(&other, &Clock::system()).await.unwrap_err().to_string();
        assert!(refused.contains("no CRI v1 runtime"), "{refused}");
        stop.cancel();
    }
}
