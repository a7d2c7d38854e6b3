//! What a lab is, written down: where its files are, who is alive, what its nodes are called.
//!
//! `/run/coracle-lab/<id>/` holds the plan, the lock, process numbers and logs; `/var/lib/coracle-lab/<id>/` holds what
//! needs a real file system. Every process of the lab's frame holds the lock shared, so "dead" means that it can be
//! had alone: no process numbers that may have been given to somebody else.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::Runtime;
use super::containerd::Programs;
use super::upstream::Cluster;
use crate::{paths, process};

pub const RUN_DIR: &str = "/run/coracle-lab";
pub const DATA_DIR: &str = "/var/lib/coracle-lab";
pub const CGROUP_PREFIX: &str = "coracle-lab-";
/// Where a process in a lab finds the lab's folder.
pub const DIR_VARIABLE: &str = "CORACLE_LAB";
/// How many times slower than a plain machine this one is (software emulation): deadlines are stretched by it.
pub const SLOWNESS_VARIABLE: &str = "CORACLE_LAB_SLOWNESS";

/// The hub's address: registry, gateway to nowhere, and where the command's connections come from. The network is one
/// that is reserved for documentation, so it is nobody's even by mistake.
pub const HUB: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const REGISTRY_PORT: u16 = 5000;
/// The registry that asks for a name and a password.
pub const PRIVATE_REGISTRY_PORT: u16 = 5001;
/// The neighbour that the default route leads to and that does not exist.
pub const DEAD_NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
pub const API_PORT: u16 = 6443;
/// What Coracle's process is called among a node's others.
pub const CORACLE: &str = "coracle";

/// One lab, as its tool planned it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    pub id: String,
    pub nodes: usize,
    pub bare: bool,
    pub keep: bool,
    pub coracle: PathBuf,
    pub kubectl: PathBuf,
    pub xtask: PathBuf,
    /// What nodes join with.
    pub token: String,
    pub cluster: Cluster,
    /// Upstream's programs that it takes, by name.
    pub programs: BTreeMap<String, PathBuf>,
    /// What nodes run containers with instead of Coracle's own runtime.
    pub containerd: Option<Programs>,
    pub command: Vec<OsString>,
}

impl Plan {
    pub fn new(nodes: usize, coracle: PathBuf, kubectl: PathBuf, command: Vec<OsString>) -> Result<Self> {
        let xtask = paths::own_program()?;
        let id = std::process::id().to_string();
        Ok(Self {
            id,
            nodes,
            bare: false,
            keep: false,
            coracle,
            kubectl,
            xtask,
            token: token()?,
            cluster: Cluster::Coracle { swapped: Vec::new() },
            programs: BTreeMap::new(),
            containerd: None,
            command,
        })
    }

    pub fn read(dir: &Path) -> Result<Self> {
        let text = fs::read(dir.join("plan.json")).with_context(|| format!("no lab at {}", dir.display()))?;
        serde_json::from_slice(&text).context("reading the lab's plan")
    }

    /// What runs its containers.
    pub fn runtime(&self) -> Runtime {
        if self.containerd.is_some() { Runtime::Containerd } else { Runtime::Coracle }
    }

    pub fn dir(&self) -> PathBuf {
        Path::new(RUN_DIR).join(&self.id)
    }

    pub fn data(&self) -> PathBuf {
        Path::new(DATA_DIR).join(&self.id)
    }

    pub fn registry_storage(&self) -> PathBuf {
        self.data().join("registry")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir().join("kubeconfig")
    }

    /// A program of upstream's.
    pub fn upstream(&self, name: &str) -> Result<PathBuf> {
        self.programs.get(name).cloned().with_context(|| format!("this lab was made without upstream's {name}"))
    }

    /// Below every hierarchy's root.
    pub fn cgroup(&self) -> String {
        format!("{CGROUP_PREFIX}{}", self.id)
    }

    /// Nodes are counted from 1.
    pub fn node(&self, number: usize) -> Result<Node> {
        if number == 0 || number > super::NODES_MAX {
            bail!("there is no node {number}: nodes are counted from 1");
        }
        Ok(Node {
            number,
            name: format!("node{number}"),
            address: Ipv4Addr::new(192, 0, 2, 10 + u8::try_from(number)?),
            run: self.dir().join(format!("node{number}")),
            data: self.data().join(format!("node{number}")),
            cgroup: format!("{}/node{number}", self.cgroup()),
        })
    }

    pub fn all_nodes(&self) -> Result<Vec<Node>> {
        (1..=self.nodes).map(|number| self.node(number)).collect()
    }
}

/// One node: names and places.
#[derive(Debug, Clone)]
pub struct Node {
    pub number: usize,
    pub name: String,
    pub address: Ipv4Addr,
    /// Process numbers and logs.
    pub run: PathBuf,
    /// What the node's private folders are made of.
    pub data: PathBuf,
    /// Where its pods' groups go; its own processes are in `host` below it.
    pub cgroup: String,
}

impl Node {
    pub fn host_cgroup(&self) -> String {
        format!("{}/host", self.cgroup)
    }

    /// Process 1 of the node, as the lab's processes count.
    pub fn init_pid(&self) -> Result<i32> {
        read_pid(&self.run.join("init.pid")).with_context(|| format!("{} is not running", self.name))
    }

    /// The number of the process that runs `program`, a name such as `coracle` or `kubelet`.
    pub fn pid_file(&self, program: &str) -> PathBuf {
        self.run.join(format!("{program}.pid"))
    }

    /// The programs that were started here and run no more.
    pub fn ended_programs(&self) -> Vec<String> {
        let files = fs::read_dir(&self.run).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
        let ended = files.filter(|path| path.extension().is_some_and(|extension| extension == "pid"));
        let ended = ended.filter(|path| read_pid(path).is_ok_and(|pid| !super::enter::is_alive(pid)));
        ended.filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned())).collect()
    }

    /// When `program` was executed last, in nanoseconds of the epoch.
    pub fn executed_file(&self, program: &str) -> PathBuf {
        self.run.join(format!("{program}.executed"))
    }

    pub fn log(&self, program: &str) -> PathBuf {
        self.run.join(format!("{program}.log"))
    }

    /// All that `program` said; nothing where it never ran.
    pub fn log_text(&self, program: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.log(program)).unwrap_or_default()).into_owned()
    }

    /// The end of what Coracle said, for error messages.
    pub fn log_tail(&self) -> String {
        process::last_lines(&self.log_text(CORACLE), 40)
    }

    /// The bridge port in the hub.
    pub fn port(&self) -> String {
        format!("lab-n{}", self.number)
    }
}

pub fn read_pid(path: &Path) -> Result<i32> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    text.trim().parse().with_context(|| format!("{} holds no process number", path.display()))
}

/// The folder of a running lab.
pub fn dir_of(id: &str) -> Result<PathBuf> {
    let dir = Path::new(RUN_DIR).join(id);
    if id.is_empty() || id.contains('/') || !dir.join("plan.json").exists() {
        let running = labs(RUN_DIR).join(", ");
        bail!("there is no lab {id}; running: {}", if running.is_empty() { "none" } else { &running });
    }
    Ok(dir)
}

/// Names in a folder of labs.
pub fn labs(dir: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    entries
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// How much longer than usual to wait.
pub fn slowness() -> u64 {
    std::env::var(SLOWNESS_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// A shared hold on a lab's lock: while it lives, the lab does.
pub struct Registered {
    _lock: Flock<File>,
}

/// Writes the plan down and takes the lab's lock.
pub fn register(plan: &Plan) -> Result<Registered> {
    let _nobody_reaps = exclusive()?;
    let dir = plan.dir();
    paths::fresh_dir(&dir)?;
    fs::create_dir_all(plan.data())?;
    fs::write(dir.join("plan.json"), serde_json::to_vec_pretty(plan)?)?;
    join(&dir)
}

/// Takes the lock of a lab that is already written down.
pub fn join(dir: &Path) -> Result<Registered> {
    Ok(Registered { _lock: locked(&dir.join("lock"), FlockArg::LockShared)? })
}

/// While held, no lab is registered and none is reaped.
pub fn exclusive() -> Result<Flock<File>> {
    fs::create_dir_all(RUN_DIR).context("making the folder of labs")?;
    locked(&Path::new(RUN_DIR).join(".lock"), FlockArg::LockExclusive)
}

/// Whether every process of the lab's frame is gone.
pub fn is_dead(dir: &Path) -> bool {
    match locked(&dir.join("lock"), FlockArg::LockExclusiveNonblock) {
        Ok(_lock) => true,
        Err(_held) => false,
    }
}

/// Blocks until the lab's processes are gone.
pub fn wait_until_unlocked(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    locked(&dir.join("lock"), FlockArg::LockExclusive).map(drop)
}

fn locked(path: &Path, kind: FlockArg) -> Result<Flock<File>> {
    let file =
        File::options().create(true).append(true).open(path).with_context(|| format!("opening {}", path.display()))?;
    Flock::lock(file, kind).map_err(|(_, errno)| errno).with_context(|| format!("locking {}", path.display()))
}

/// A join token in the form of a bootstrap token, different for every lab.
fn token() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0u8; 11];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("reading random bytes")?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{}.{}", &hex[..6], &hex[6..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_the_form_of_bootstrap_tokens_and_differ() {
        let (one, other) = (token().unwrap(), token().unwrap());
        assert_ne!(one, other);
        let (id, secret) = one.split_once('.').unwrap();
        assert_eq!((id.len(), secret.len()), (6, 16));
    }

    #[test]
    fn a_lab_is_dead_when_nobody_holds_its_lock() {
        let dir = tempfile::tempdir().unwrap();
        let held = join(dir.path()).unwrap();
        let also_held = join(dir.path()).unwrap();
        assert!(!is_dead(dir.path()));
        drop(held);
        assert!(!is_dead(dir.path()));
        drop(also_held);
        assert!(is_dead(dir.path()));
    }

    #[test]
    fn nodes_are_counted_from_one_and_have_addresses_of_their_own() {
        let plan = Plan::new(2, PathBuf::new(), PathBuf::new(), Vec::new()).unwrap();
        let nodes = plan.all_nodes().unwrap();
        assert_eq!(nodes.iter().map(|node| node.address.to_string()).collect::<Vec<_>>(), ["192.0.2.11", "192.0.2.12"]);
        assert!(plan.node(0).is_err());
    }
}
