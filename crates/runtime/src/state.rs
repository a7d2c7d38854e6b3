//! What the runtime knows: sandboxes and containers, in memory and on disk.
//!
//! The disk is written first, without waiting for it: a machine that crashes takes its containers along, and what is left half
//! written is swept at the next start. Nothing here talks to a shim.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use cri::{
    Error, PodAddresses,
    v1::{ContainerConfig, ContainerState, PodSandboxConfig, RunPodSandboxRequest},
};
use parking_lot::Mutex;
use prost::Message;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    disk,
    shim::{
        client::Client,
        protocol::{ExitRecord, StartRecord},
    },
};

/// What changes about a sandbox.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SandboxRecord {
    /// Nanoseconds since the epoch.
    pub created_at_ns: i64,
    /// It can run containers.
    pub ready: bool,
    /// What the network gave it.
    pub addresses: PodAddresses,
    /// The network still has to take that back.
    pub network_joined: bool,
    /// The shim's process id.
    pub shim_pid: i32,
}

/// A pod's sandbox.
pub struct Sandbox {
    pub id: String,
    pub folder: PathBuf,
    pub request: RunPodSandboxRequest,
    pub shim: Client,
    pub record: Mutex<SandboxRecord>,
    /// Held by whoever stops or removes it.
    pub changing: tokio::sync::Mutex<()>,
}

impl Sandbox {
    /// The file names in a sandbox's folder.
    const REQUEST: &str = "sandbox.pb";
    const RECORD: &str = "record.json";

    /// A sandbox in `folder`.
    pub fn new(id: String, folder: PathBuf, request: RunPodSandboxRequest, record: SandboxRecord) -> Self {
        let shim = Client::new(&folder);
        Sandbox { id, folder, request, shim, record: Mutex::new(record), changing: tokio::sync::Mutex::default() }
    }

    /// Notes what was asked for.
    pub fn save_request(&self) -> io::Result<()> {
        disk::write_volatile(&self.folder.join(Self::REQUEST), &self.request.encode_to_vec())
    }

    /// Reads back what `save_request` and `change` wrote.
    pub fn load(id: String, folder: PathBuf) -> io::Result<Self> {
        let request = RunPodSandboxRequest::decode(std::fs::read(folder.join(Self::REQUEST))?.as_slice())?;
        let record = disk::read_json(&folder.join(Self::RECORD))?.unwrap_or_default();
        Ok(Sandbox::new(id, folder, request, record))
    }

    /// Changes the record, on disk as well.
    pub fn change(&self, change: impl FnOnce(&mut SandboxRecord)) -> io::Result<()> {
        let mut record = self.record.lock();
        change(&mut record);
        disk::write_volatile(&self.folder.join(Self::RECORD), &serde_json::to_vec(&*record)?)
    }

    /// What the pod asked for; empty when it asked for nothing.
    pub fn config(&self) -> &PodSandboxConfig {
        static NOTHING: LazyLock<PodSandboxConfig> = LazyLock::new(PodSandboxConfig::default);
        self.request.config.as_ref().unwrap_or(&NOTHING)
    }

    /// Whether it can run containers.
    pub fn is_ready(&self) -> bool {
        self.record.lock().ready
    }
}

/// What does not change about a container, beside CRI's configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Nanoseconds since the epoch.
    pub created_at_ns: i64,
    /// Its pod's sandbox.
    pub sandbox: String,
    /// The image's id.
    pub image_id: String,
    /// What the node agent knows the image by: a name with digest, or the id.
    pub image_ref: String,
    /// How it is asked to stop.
    pub stop_signal: i32,
    /// Its cgroup.
    pub cgroup: String,
    /// The layer folders it stands on.
    pub layers: Vec<String>,
}

/// A container's life so far.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// It has run.
    pub started: Option<StartRecord>,
    /// It runs no more.
    pub exited: Option<ExitRecord>,
    /// Why it could not start, or what happened to it.
    pub failure: Option<Failure>,
}

/// An end that the container did not come to by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// One word for the node agent.
    pub reason: String,
    /// What happened.
    pub message: String,
}

impl Life {
    /// CRI's word for it.
    pub fn state(&self) -> ContainerState {
        match (&self.started, &self.exited) {
            (_, Some(_)) => ContainerState::ContainerExited,
            (Some(_), None) => ContainerState::ContainerRunning,
            (None, None) => ContainerState::ContainerCreated,
        }
    }

    /// CRI's reason for an end.
    pub fn reason(&self) -> &str {
        match (&self.failure, &self.exited) {
            (Some(failure), _) => &failure.reason,
            (None, Some(exit)) if exit.out_of_memory => "OOMKilled",
            (None, Some(exit)) if exit.code == 0 => "Completed",
            (None, Some(_)) => "Error",
            (None, None) => "",
        }
    }
}

/// A container.
pub struct Container {
    pub id: String,
    pub sandbox: Arc<Sandbox>,
    pub folder: PathBuf,
    pub config: ContainerConfig,
    pub record: ContainerRecord,
    pub life: watch::Sender<Life>,
    /// The resources as last set.
    pub resources: Mutex<Option<cri::v1::LinuxContainerResources>>,
    /// Processor time at the last look, for the rate since then.
    pub last_cpu: Mutex<Option<(i64, u64, u64)>>,
    /// Held by whoever starts or removes it.
    pub changing: tokio::sync::Mutex<()>,
}

impl Container {
    const CONFIG: &str = "container.pb";
    const RECORD: &str = "record.json";
    const FAILURE: &str = "failure.json";
    const EXIT: &str = "exit.json";
    const START: &str = "start.json";

    /// A container in `folder`.
    pub fn new(
        id: String,
        folder: PathBuf,
        sandbox: Arc<Sandbox>,
        config: ContainerConfig,
        record: ContainerRecord,
    ) -> Self {
        let resources = config.linux.as_ref().and_then(|linux| linux.resources.clone());
        Container {
            id,
            sandbox,
            folder,
            config,
            record,
            life: watch::Sender::new(Life::default()),
            resources: Mutex::new(resources),
            last_cpu: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// Notes what was asked for.
    pub fn save(&self) -> io::Result<()> {
        disk::write_volatile(&self.folder.join(Self::CONFIG), &self.config.encode_to_vec())?;
        disk::write_volatile(&self.folder.join(Self::RECORD), &serde_json::to_vec(&self.record)?)
    }

    /// Notes an end that the shim has not noted.
    pub fn save_failure(&self, failure: &Failure, exit: &ExitRecord) -> io::Result<()> {
        disk::write_volatile(&self.folder.join(Self::FAILURE), &serde_json::to_vec(failure)?)?;
        disk::write_volatile(&self.folder.join(Self::EXIT), &serde_json::to_vec(exit)?)
    }

    /// Reads back what was written, by us and by the shim.
    pub fn load(id: String, folder: PathBuf, sandboxes: &BTreeMap<String, Arc<Sandbox>>) -> io::Result<Self> {
        let config = ContainerConfig::decode(std::fs::read(folder.join(Self::CONFIG))?.as_slice())?;
        let record: ContainerRecord =
            disk::read_json(&folder.join(Self::RECORD))?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let sandbox = sandboxes.get(&record.sandbox).cloned().ok_or_else(|| io::Error::other("its sandbox is gone"))?;
        let container = Container::new(id, folder, sandbox, config, record);
        container.life.send_replace(Life {
            started: disk::read_json(&container.folder.join(Self::START))?,
            exited: disk::read_json(&container.folder.join(Self::EXIT))?,
            failure: disk::read_json(&container.folder.join(Self::FAILURE))?,
        });
        Ok(container)
    }

    /// Where it is in its life.
    pub fn state(&self) -> ContainerState {
        self.life.borrow().state()
    }

    /// Whether its process runs.
    pub fn is_running(&self) -> bool {
        self.state() == ContainerState::ContainerRunning
    }

    /// Waits for its end; at once when it has ended or never ran.
    pub async fn ended(&self) {
        // The sender is part of ourselves, so this cannot fail.
        let _ = self.life.subscribe().wait_for(|life| life.state() != ContainerState::ContainerRunning).await;
    }
}

/// Everything by id.
pub struct Table<T>(Mutex<BTreeMap<String, Arc<T>>>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table(Mutex::default())
    }
}

impl<T> Table<T> {
    /// Adds one.
    pub fn insert(&self, id: String, value: Arc<T>) {
        self.0.lock().insert(id, value);
    }

    /// Takes one out.
    pub fn remove(&self, id: &str) {
        self.0.lock().remove(id);
    }

    /// By id, or by the start of one when only one starts so.
    pub fn find(&self, id: &str) -> Option<Arc<T>> {
        let table = self.0.lock();
        if let Some(value) = table.get(id) {
            return Some(value.clone());
        }
        let mut found = table.range(id.to_owned()..).take_while(|(known, _)| known.starts_with(id));
        match (found.next(), found.next()) {
            (Some((_, value)), None) if !id.is_empty() => Some(value.clone()),
            _ => None,
        }
    }

    /// By id; the error names what is missing.
    pub fn get(&self, what: &str, id: &str) -> Result<Arc<T>, Error> {
        self.find(id)
            .ok_or_else(|| Error::not_found(format!("an error occurred when try to find {what} {id:?}: not found")))
    }

    /// All of them, by id.
    pub fn all(&self) -> Vec<Arc<T>> {
        self.0.lock().values().cloned().collect()
    }
}

/// A new id: 64 hex digits, as users of other runtimes know them.
pub fn new_id() -> String {
    let mut bytes = [0; 32];
    base::chance::fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Folders of `parent`, by name.
pub fn folders(parent: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string() {
            folders.push((name, entry.path()));
        }
    }
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_by_unique_start_of_an_id() {
        let table = Table::default();
        for id in ["aab", "aac", "b"] {
            table.insert(id.into(), Arc::new(id));
        }
        assert_eq!(table.find("aab").as_deref(), Some(&"aab"));
        assert_eq!(table.find("b").as_deref(), Some(&"b"));
        assert!(table.find("aa").is_none() && table.find("").is_none() && table.find("c").is_none());
    }

    #[test]
    fn an_end_has_upstreams_reason() {
        let ended = |code, out_of_memory| Life {
            exited: Some(ExitRecord { code, out_of_memory, ..Default::default() }),
            ..Default::default()
        };
        for (life, reason) in
            [(ended(0, false), "Completed"), (ended(1, false), "Error"), (ended(137, true), "OOMKilled")]
        {
            assert_eq!(life.reason(), reason);
        }
        assert_eq!(Life::default().reason(), "");
    }
}
