//! What a runtime asks of the pod network when a sandbox comes and goes.
//!
//! The runtime makes the network namespace and names it by path; the network puts an interface and an address into it. The
//! binary hands an implementation (ours, or one that runs CNI plugins) to the runtime.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use async_trait::async_trait;

use crate::error::Error;

/// One port of a sandbox that is reachable on the host's addresses.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HostPort {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The port inside the pod.
    pub container_port: u16,
    /// The port on the host.
    pub host_port: u16,
    /// The host address to listen on; empty for all.
    pub host_ip: String,
}

/// A sandbox as its network sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SandboxNetwork {
    /// The sandbox's id, unique on this node and over time.
    pub id: String,
    /// The pod's name.
    pub name: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's uid.
    pub uid: String,
    /// The network namespace; for `leave` it may be gone already.
    pub netns_path: PathBuf,
    /// The sandbox's labels.
    pub labels: BTreeMap<String, String>,
    /// The sandbox's annotations.
    pub annotations: BTreeMap<String, String>,
    /// Host ports asked for.
    pub port_mappings: Vec<HostPort>,
    /// The pod shares the host's network: there is nothing to join, and a runtime does not call `join` for it.
    pub host_network: bool,
}

/// The addresses a sandbox got, the primary one first.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PodAddresses {
    /// At most one of each family.
    pub ips: Vec<IpAddr>,
}

/// The pod network of a node.
#[async_trait]
pub trait PodNetwork: Send + Sync + 'static {
    /// Gives the sandbox its interface, routes and addresses. Called once per sandbox, before its first container.
    async fn join(&self, sandbox: &SandboxNetwork) -> Result<PodAddresses, Error>;

    /// Takes them back. Called at least once per sandbox, and again until it succeeds, so it must not mind what is already
    /// gone, be it the namespace or a machine reboot ago.
    async fn leave(&self, sandbox: &SandboxNetwork) -> Result<(), Error>;

    /// Whether pods can be given a network now; `Err` says why not, and becomes the message of `NetworkReady=false`.
    async fn ready(&self) -> Result<(), Error> {
        Ok(())
    }

    /// The addresses of a sandbox, when what `join` made for it is still there; `NotFound` when it never joined.
    async fn check(&self, sandbox: &SandboxNetwork) -> Result<PodAddresses, Error> {
        Err(Error::unimplemented(&format!("check of sandbox {}", sandbox.id)))
    }

    /// Takes everything back from all sandboxes but these.
    async fn keep(&self, ids: &[String]) -> Result<(), Error> {
        let _ = ids;
        Err(Error::unimplemented("keep"))
    }

    /// Told which sandboxes exist after a restart, so that addresses in use are kept and others given back.
    async fn reconcile(&self, sandboxes: &[(SandboxNetwork, PodAddresses)]) -> Result<(), Error> {
        let _ = sandboxes;
        Ok(())
    }
}
