//! Putting full logs aside for a runtime that leaves it to the node agent, as CRI has it: rename the file, ask for a new one.
//!
//! Our own runtime does so itself, byte by byte; containerd never does. Sizes are looked at along with the machine, every ten
//! seconds as upstream does, so a loud container may exceed the limit by what it writes meanwhile. What is put aside is called
//! `0.log.<time>`, as by our runtime; it is not compressed.

use std::io;
use std::path::{Path, PathBuf};

use base::Timestamp;
use cri::v1::{
    ContainerFilter, ContainerState, ContainerStateValue, ContainerStatusRequest, ListContainersRequest,
    ReopenContainerLogRequest,
};

use crate::agent::Agent;

/// Upstream's `containerLogMaxSize`.
const FILE_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// Upstream's `containerLogMaxFiles`, the present one among them.
const FILES_MAX: usize = 5;

/// Rotates what is full. Failures are logged, and tried again at the next look.
pub async fn look(agent: &Agent) {
    let state = Some(ContainerStateValue { state: ContainerState::ContainerRunning as i32 });
    let filter = Some(ContainerFilter { state, ..ContainerFilter::default() });
    let running = match agent.cri.list_containers(ListContainersRequest { filter }).await {
        Ok(answer) => answer.containers,
        Err(error) => return tracing::debug!(%error, "logs are not looked at"),
    };
    for container in running {
        if let Err(error) = look_at(agent, &container.id).await {
            tracing::warn!(container = container.id, error, "a log is not rotated, will retry");
        }
    }
}

async fn look_at(agent: &Agent, id: &str) -> Result<(), String> {
    let request = ContainerStatusRequest { container_id: id.to_string(), verbose: false };
    let status = match agent.cri.container_status(request).await {
        Ok(answer) => answer.status.unwrap_or_default(),
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    let log = PathBuf::from(status.log_path);
    if std::fs::metadata(&log).map_or(0, |found| found.len()) < FILE_BYTES_MAX {
        return Ok(());
    }
    let aside = put_aside(&log, agent.clock.now()).map_err(|error| error.to_string())?;
    let reopen = ReopenContainerLogRequest { container_id: id.to_string() };
    if let Err(error) = agent.cri.reopen_container_log(reopen).await {
        // The runtime goes on writing to the file that it has open: it keeps its name, too.
        if !log.exists() {
            std::fs::rename(&aside, &log).map_err(|error| error.to_string())?;
        }
        return Err(error.to_string());
    }
    forget_oldest(&log).map_err(|error| error.to_string())
}

fn put_aside(log: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let mut aside = log.as_os_str().to_owned();
    aside.push(now.strftime(".%Y%m%d-%H%M%S.%9f").to_string());
    std::fs::rename(log, &aside)?;
    Ok(aside.into())
}

/// Names sort by time.
fn forget_oldest(log: &Path) -> io::Result<()> {
    let prefix = [log.as_os_str().as_encoded_bytes(), b"."].concat();
    let mut aside = Vec::new();
    for entry in std::fs::read_dir(log.parent().unwrap_or(Path::new("/")))? {
        let path = entry?.path();
        if path.as_os_str().as_encoded_bytes().starts_with(&prefix) {
            aside.push(path);
        }
    }
    aside.sort();
    let many = aside.len().saturating_sub(FILES_MAX - 1);
    aside[..many].iter().try_for_each(std::fs::remove_file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::{self, FakeNode};
    use serde_json::json;

    #[tokio::test(start_paused = true)]
    async fn a_full_log_is_put_aside_and_the_oldest_go_and_a_refusal_leaves_it_as_it_was() {
        let node = FakeNode::start().await;
        node.create_pod("p", json!({"containers": [{"name": "a", "image": "forever:1"}]}));
        let pod = node.pod_when("p", fakes::is_running).await;
        let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap().trim_start_matches("fake://");
        let log = node.directory.path().join("0.log");
        node.runtime.logs_to(id, &log);
        let fill = || std::fs::write(&log, vec![b'x'; FILE_BYTES_MAX as usize]).unwrap();
        let names = || {
            let entries = std::fs::read_dir(node.directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
            names.retain(|name| name.starts_with("0.log"));
            names.sort();
            names
        };
        std::fs::write(&log, "short").unwrap();
        look(&node.agent).await;
        assert_eq!(names(), ["0.log"]);
        let later = || node.agent.clock.sleep(std::time::Duration::from_secs(1));
        for _ in 0..6 {
            fill();
            later().await;
            look(&node.agent).await;
            assert!(!log.exists(), "the runtime makes the new one");
        }
        assert_eq!(names().len(), FILES_MAX - 1);
        assert!(*names()[0] > *"0.log.20260101-000002", "{:?}", names());
        fill();
        later().await;
        node.runtime.go_down(true);
        look(&node.agent).await;
        assert!(log.exists() && names().len() == FILES_MAX, "{:?}", names());
        node.tasks.shutdown().await;
    }
}
