//! What a container is to be, down to the last mount: plain data, made by `spec`, read by the shim.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Everything the shim needs to start one container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LaunchPlan {
    /// The container's id.
    pub id: String,
    /// What runs.
    pub process: ProcessPlan,
    /// The root file system.
    pub root: RootPlan,
    /// What is mounted into it, in this order.
    pub mounts: Vec<MountPlan>,
    /// Device nodes in `/dev` beyond the standard ones.
    pub devices: Vec<DevicePlan>,
    /// Which process ids it sees.
    pub pid_namespace: PidNamespace,
    /// The cgroup, from each hierarchy's root.
    pub cgroup: String,
    /// Paths hidden by an empty file or folder.
    pub masked_paths: Vec<String>,
    /// Paths made read-only.
    pub readonly_paths: Vec<String>,
    /// Standard input is kept open for attach.
    pub stdin: bool,
    /// Standard input is closed after the first attach ends.
    pub stdin_once: bool,
    /// Where the CRI log goes; `None` discards output.
    pub log_path: Option<PathBuf>,
    /// What that log may grow to.
    #[serde(default)]
    pub log_limits: LogLimits,
}

/// What a container's log may grow to: the defaults are the node agent's upstream.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct LogLimits {
    /// A file that has grown to this is put aside, in bytes.
    pub file_bytes_max: u64,
    /// Files of one container: the one being written and older ones.
    pub files_max: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        LogLimits { file_bytes_max: 10 << 20, files_max: 5 }
    }
}

/// A process in a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessPlan {
    /// The command; never empty.
    pub arguments: Vec<String>,
    /// `NAME=value`.
    pub environment: Vec<String>,
    /// The working directory inside the container; made when missing.
    pub directory: String,
    /// Who it runs as.
    pub user: UserPlan,
    /// What it may do.
    pub capabilities: CapabilityPlan,
    /// `exec` grants nothing.
    pub no_new_privileges: bool,
    /// Which system calls it may make.
    pub seccomp: SeccompPlan,
    /// AppArmor profile; `None` leaves it unconfined.
    pub apparmor: Option<String>,
    /// How readily the kernel kills it, -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// It has a terminal of its own.
    pub terminal: bool,
}

/// Who a process runs as; names are looked up in the container's own files.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct UserPlan {
    /// `user`, `user:group`, names or numbers; empty is root.
    pub user: String,
    /// Overrides the group.
    pub group: Option<u32>,
    /// Further groups.
    pub supplemental_groups: Vec<u32>,
    /// Leave out the groups that the container's `/etc/group` gives the user.
    pub strict_groups: bool,
}

/// The capability sets, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityPlan {
    /// Bounding, permitted and effective.
    pub granted: u64,
    /// Inheritable and ambient.
    pub ambient: u64,
}

/// The system call filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeccompPlan {
    /// None.
    Unconfined,
    /// Our own list, shaped by the capabilities.
    RuntimeDefault,
    /// A profile in the runtimes' JSON form.
    File(PathBuf),
}

/// The root file system: read-only layers and a writable one on top.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RootPlan {
    /// The folder that `layers` are relative to, so that many fit into the mount call's one page.
    pub layers_folder: PathBuf,
    /// Top layer first.
    pub layers: Vec<String>,
    /// An empty folder to mount on.
    pub target: PathBuf,
    /// Where changes go.
    pub upper: PathBuf,
    /// Overlay's scratch folder.
    pub work: PathBuf,
    /// The container may not write to it.
    pub readonly: bool,
}

/// One mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MountPlan {
    /// Where, inside the container.
    pub target: String,
    /// What.
    pub source: MountSource,
    /// Read-only.
    pub readonly: bool,
    /// Read-only for mounts below it as well.
    pub readonly_recursive: bool,
    /// What passes between the host's mounts and the container's.
    pub propagation: Propagation,
}

/// What is mounted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum MountSource {
    /// A path of the host, with mounts below it.
    Bind(PathBuf),
    /// Image layers, read-only, top first, relative to the layers folder; `sub_path` inside them.
    Layers {
        /// Top layer first.
        layers: Vec<String>,
        /// A folder inside.
        sub_path: String,
        /// An empty folder of the host to mount on.
        staging: PathBuf,
    },
    /// The container's own `/proc`.
    Proc,
    /// The kernel's objects as the pod's network namespace sees them.
    Sysfs,
    /// A folder in memory with these options.
    Tmpfs(Vec<(String, String)>),
    /// Pseudo-terminals of its own.
    Devpts,
    /// POSIX message queues.
    Mqueue,
    /// The container's own cgroup.
    Cgroup,
    /// The minimal `/dev`.
    Dev,
}

/// Mount propagation, in CRI's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// None.
    #[default]
    Private,
    /// New mounts of the host show in the container.
    HostToContainer,
    /// And the reverse.
    Bidirectional,
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevicePlan {
    /// Where, inside the container.
    pub path: String,
    /// `c` or `b`.
    pub kind: char,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// `r`, `w`, `m`: what the device cgroup allows.
    pub access: String,
}

/// Which process ids a container sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidNamespace {
    /// Its own.
    Own,
    /// The pod's (`shareProcessNamespace`).
    Pod,
    /// The host's.
    Host,
    /// Another container's of the same pod (ephemeral containers that target one).
    Target(String),
}
