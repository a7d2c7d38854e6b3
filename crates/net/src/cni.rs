//! The pod network for runtimes of others: a CNI plugin that asks the running agent.
//!
//! ```text
//! agent: install.rs writes /etc/cni/net.d/10-coracle.conflist and links /opt/cni/bin/coracle-cni to this program
//! containerd ── CNI_COMMAND=ADD, configuration on stdin ─▶ coracle-cni (plugin.rs) ── socket, root only ─▶ agent (server.rs)
//!            ◀─ addresses, or an error with its code ─────                        ◀─ cri::PodNetwork: join, leave, ... ─
//! ```
//!
//! The plugin decides nothing: what a sandbox gets is what our own runtime would get for it, by the same calls, so there is
//! one implementation of the pod network and one process that keeps its records. The plugin's answers are those of the
//! specification, versions 1.0.0 and 1.1.0. Without the agent there is no network to be had: the plugin says "try again later".
//!
//! Host ports come in as the `portMappings` capability. Bandwidth limits and addresses asked for by name are not built.

pub mod install;
pub mod plugin;
pub mod server;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The plugin's name: the `type` of the configuration, and the file name that runtimes look for.
pub const PLUGIN_NAME: &str = "coracle-cni";
/// The versions of the specification that are spoken, oldest first.
pub const VERSIONS: [&str; 2] = ["1.0.0", "1.1.0"];
/// The longest question or answer, in bytes.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;

/// What the specification calls them; numbers below 100 are its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    IncompatibleVersion = 1,
    UnknownContainer = 3,
    InvalidEnvironment = 4,
    Io = 5,
    Undecodable = 6,
    InvalidConfiguration = 7,
    TryAgainLater = 11,
    NotAvailable = 50,
    Failed = 100,
}

/// An error as a runtime reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{msg}")]
pub struct CniError {
    /// The specification's number.
    pub code: u32,
    /// What went wrong.
    pub msg: String,
    /// More about it; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl CniError {
    fn new(code: Code, msg: impl Into<String>) -> Self {
        CniError { code: code as u32, msg: msg.into(), details: String::new() }
    }

    fn because(self, details: impl Into<String>) -> Self {
        CniError { details: details.into(), ..self }
    }
}

/// What the runtime asked the plugin, as the plugin asks the agent: the environment by name and the configuration as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Question {
    command: String,
    container_id: String,
    netns: String,
    ifname: String,
    args: String,
    config: Value,
}

/// The agent's answer: a result to print (null for none), or an error.
type Answer = Result<Value, CniError>;
