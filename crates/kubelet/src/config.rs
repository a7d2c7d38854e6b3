//! What the binary tells the node agent.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use base::{Clock, Tasks};
use client::Client;
use cri::Cri;
use tokio::sync::watch;

use crate::dns::ClusterDns;
use crate::node::thresholds::Thresholds;

/// How the node API on port 10250 proves itself and whom it trusts.
#[derive(Clone)]
pub struct Serving {
    /// Asked at each handshake, so that a certificate may be renewed underneath.
    pub certificate: Arc<dyn rustls::server::ResolvesServerCert>,
    /// The authorities whose client certificates are taken as identities.
    pub client_ca: Arc<rustls::RootCertStore>,
}

/// A node agent's settings. [`Config::new`] fills in what has a sane default.
#[derive(Clone)]
pub struct Config {
    pub node_name: String,
    /// The node's own addresses, the primary one first.
    pub node_ips: Vec<IpAddr>,
    pub client: Client,
    pub clock: Clock,
    pub tasks: Tasks,
    pub cri: Arc<dyn Cri>,
    /// Pods live below `<data_dir>/pods`.
    pub data_dir: PathBuf,
    /// Container logs: `<log_dir>/<namespace>_<name>_<uid>/<container>/<attempt>.log`.
    pub log_dir: PathBuf,
    /// Where the node API listens; port 0 takes any free one. None for no node API.
    pub listen: Option<SocketAddr>,
    pub serving: Option<Serving>,
    pub cluster_dns: ClusterDns,
    /// The node's own resolver settings.
    pub resolv_conf: PathBuf,
    /// The cgroup below which `kubepods` is made; empty for the root.
    pub cgroup_parent: String,
    /// Written to `spec.podCIDRs` when the node is registered, where nobody else hands out ranges.
    pub pod_cidrs: Vec<String>,
    pub max_pods: u32,
    /// Labels of the node beyond those that say what it is.
    pub node_labels: Vec<(String, String)>,
    /// Turns when the runtime's network becomes ready: the node's status follows at once. Without it that is found out by looking.
    pub network_ready: Option<watch::Receiver<bool>>,
    /// Containers that say nothing get the runtime's seccomp profile.
    pub seccomp_default: bool,
    /// The runtime does not put full logs aside itself.
    pub rotates_logs: bool,
    /// At which shortage the node says that it is under pressure.
    pub eviction_hard: Thresholds,
}

impl Config {
    /// The defaults for a node: pods below `data_dir`, logs in `/var/log/pods`, 110 pods, the node API on 10250.
    pub fn new(
        node_name: &str,
        node_ips: Vec<IpAddr>,
        client: Client,
        clock: Clock,
        tasks: Tasks,
        cri: Arc<dyn Cri>,
        data_dir: PathBuf,
    ) -> Self {
        Config {
            node_name: node_name.to_string(),
            node_ips,
            client,
            clock,
            tasks,
            cri,
            data_dir,
            log_dir: "/var/log/pods".into(),
            listen: Some(SocketAddr::from(([0, 0, 0, 0], 10250))),
            serving: None,
            cluster_dns: ClusterDns { servers: Vec::new(), domain: "cluster.local".to_string() },
            resolv_conf: "/etc/resolv.conf".into(),
            cgroup_parent: String::new(),
            pod_cidrs: Vec::new(),
            max_pods: 110,
            node_labels: Vec::new(),
            network_ready: None,
            seccomp_default: false,
            rotates_logs: false,
            eviction_hard: Thresholds::default(),
        }
    }
}
