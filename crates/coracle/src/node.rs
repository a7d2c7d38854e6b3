//! The node put together: pod network, runtime (ours, or one of others), node agent, service proxy.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use base::{Clock, Tasks, phase};
use client::{Client, Informers};
use cri::Cri;
use ipnet::IpNet;
use kubelet::{ClusterDns, Kubelet, Serving};
use net::pod::Pods;
use net::pod::network::Network;
use net::route::Overlay;
use runtime::Runtime;
use runtime::image::unpack::UnpackLimits;
use rustls::server::ResolvesServerCert;
use tokio::sync::watch;

use crate::foreign_runtime;
use crate::instance::Traces;
use crate::parts::Part;
use crate::settings::{Machine, PREFIX};

/// The protocol's own port.
const VXLAN_PORT: u16 = 8472;
const VXLAN_ID: u32 = 1;
const DNS_PORT: u16 = 53;
/// What VXLAN adds to a packet, in bytes.
const VXLAN_OVERHEAD: u32 = 50;
const ETHERNET_MTU: u32 = 1500;

/// What a node has to know of its cluster.
#[derive(Clone, Debug)]
pub struct Membership {
    pub service_cidrs: Vec<IpNet>,
    pub pod_cidrs: Vec<IpNet>,
    pub dns: IpAddr,
    pub domain: String,
    /// In PEM.
    pub authority: String,
}

/// How the parts of a node reach the API: each as itself, or all as the node, which then follows what several of them want once.
pub struct Clients {
    pub agent: Client,
    pub proxy: Informers,
    pub dns: Informers,
}

/// A node that runs.
pub struct Node {
    /// None where another program is the node agent.
    kubelet: Option<Kubelet>,
    /// Whether names are answered.
    pub answering: watch::Receiver<bool>,
}

impl Node {
    /// Returns when pods can be started and names are answered.
    pub async fn ready(&mut self) -> Result<()> {
        if let Some(kubelet) = &mut self.kubelet {
            kubelet.ready.wait_for(|ready| *ready).await.context("the node agent ended")?;
        }
        self.answering.wait_for(|answering| *answering).await.context("names are not answered")?;
        Ok(())
    }

    /// Where the node API listens; none where another program is the node agent.
    pub fn port(&self) -> Option<u16> {
        self.kubelet.as_ref().map(|kubelet| kubelet.port)
    }
}

/// What a node stands on before it talks to anybody.
pub struct Ground {
    network: Network,
    /// None where another program is the node agent.
    cri: Option<Arc<dyn Cri>>,
}

impl Ground {
    /// Opens the pod network and the runtime, which finds what an earlier start left. Blocks now and then for the disk.
    pub async fn open(machine: &Machine, membership: &Membership, clock: &Clock, tasks: &Tasks) -> Result<Self> {
        let pods = phase::blocking("pod network", || Pods::open(pod_network(machine, membership)));
        let network = Network::new(pods.context("cannot set up the pod network")?);
        let for_runtime = Arc::new(network.clone());
        let runs_pods = !machine.without.has(Part::Kubelet);
        let cri: Option<Arc<dyn Cri>> = match &machine.runtime_socket {
            // Even where another program is the node agent, for its pods are to be in our network.
            Some(socket) => {
                let opening = foreign_runtime::open(socket, &machine.data_dir, for_runtime, clock, tasks);
                let cri = phase::of("container runtime", opening).await?;
                runs_pods.then(|| Arc::new(cri) as Arc<dyn Cri>)
            }
            None if runs_pods => {
                let opening = Runtime::open(runtime_options(machine, for_runtime, clock, tasks));
                Some(Arc::new(
                    phase::of("container runtime", opening).await.context("cannot open the container runtime")?,
                ))
            }
            None => None,
        };
        Ok(Ground { cri, network })
    }
}

/// Starts everything that is not left out; returns when the node is registered.
pub async fn start(
    Ground { network, cri }: Ground,
    machine: &Machine,
    membership: &Membership,
    clients: Clients,
    serving: Arc<dyn ResolvesServerCert>,
    clock: &Clock,
    tasks: &Tasks,
) -> Result<Node> {
    let network_ready = network.has_range();
    Traces::note(&machine.data_dir, &machine.cgroup_parent, membership.dns, &config_log_dir())?;
    // Of those who follow the same, the first is told first: services come before names.
    start_network(machine, membership, network, clients.proxy, tasks);
    let answering = start_dns(machine, membership, clients.dns, tasks);
    let Some(cri) = cri else { return Ok(Node { kubelet: None, answering }) };
    let addresses = vec![machine.address];
    let dir = machine.data_dir.join("kubelet");
    let mut config =
        kubelet::Config::new(&machine.name, addresses, clients.agent, clock.clone(), tasks.child(), cri, dir);
    config.log_dir = config_log_dir();
    config.cgroup_parent.clone_from(&machine.cgroup_parent);
    config.cluster_dns = ClusterDns { servers: vec![membership.dns], domain: membership.domain.clone() };
    let client_ca = pki::tls::roots(&membership.authority).context("the cluster's authority cannot be read")?;
    config.serving = Some(Serving { certificate: serving, client_ca });
    config.network_ready = Some(network_ready);
    config.rotates_logs = machine.runtime_socket.is_some();
    config.eviction_hard.clone_from(&machine.eviction_hard);
    let kubelet = phase::of("node agent", kubelet::run(config)).await.context("cannot start the node agent")?;
    Ok(Node { kubelet: Some(kubelet), answering })
}

/// Where container logs are, as everywhere.
fn config_log_dir() -> std::path::PathBuf {
    "/var/log/pods".into()
}

/// The resolver of this node, which every pod of it asks: a process that outlives this one.
fn start_dns(machine: &Machine, membership: &Membership, informers: Informers, tasks: &Tasks) -> watch::Receiver<bool> {
    let config = dns::Config {
        domain: membership.domain.clone(),
        listen: vec![SocketAddr::new(membership.dns, DNS_PORT)],
        resolv_conf: "/etc/resolv.conf".into(),
        socket: resolver_socket(&machine.data_dir),
    };
    let program = dns::Program { log: machine.data_dir.join("resolver.log") };
    let (set_answering, answering) = watch::channel(false);
    tasks.spawn("dns", async move { dns::run(informers, config, &program, &set_answering).await });
    answering
}

/// Where the resolver is told the zone, or to end.
pub fn resolver_socket(data_dir: &Path) -> PathBuf {
    data_dir.join("resolver.sock")
}

/// The runtime's settings; also what `down` opens it with, to take everything away.
pub fn runtime_options(
    machine: &Machine,
    network: Arc<dyn cri::PodNetwork>,
    clock: &Clock,
    tasks: &Tasks,
) -> runtime::Options {
    runtime::Options {
        root: machine.data_dir.join("runtime"),
        registries: machine.registries.clone(),
        layer_limits: UnpackLimits::default(),
        hierarchies: None,
        network,
        clock: clock.clone(),
        tasks: tasks.child(),
    }
}

/// The pod network's settings.
pub fn pod_network(machine: &Machine, membership: &Membership) -> net::pod::Config {
    net::pod::Config {
        prefix: PREFIX.to_string(),
        folder: machine.data_dir.join("net/sandboxes"),
        cluster_cidrs: membership.pod_cidrs.clone(),
        service_cidrs: membership.service_cidrs.clone(),
        mtu: ETHERNET_MTU - VXLAN_OVERHEAD,
    }
}

/// Routes to other nodes and services: both follow the API for as long as the tasks run.
fn start_network(machine: &Machine, membership: &Membership, network: Network, informers: Informers, tasks: &Tasks) {
    let routes = net::route::Config {
        prefix: PREFIX.to_string(),
        node_address: machine.address,
        cluster_cidrs: membership.pod_cidrs.clone(),
        service_cidrs: membership.service_cidrs.clone(),
        own_addresses: vec![membership.dns],
        overlay: Overlay::Auto,
        vxlan_id: VXLAN_ID,
        vxlan_port: VXLAN_PORT,
    };
    let proxy = net::proxy::Config {
        prefix: PREFIX.to_string(),
        node: machine.name.clone(),
        pod_cidrs: membership.pod_cidrs.clone(),
        service_cidrs: membership.service_cidrs.clone(),
        own_addresses: vec![membership.dns],
        node_port_addresses: Vec::new(),
    };
    let (name, following) = (machine.name.clone(), informers.clone());
    tasks.spawn("routes", async move {
        if let Err(error) = net::node::run(following, name, network, routes).await {
            tracing::error!(%error, "routes to other nodes are not kept");
        }
    });
    if machine.without.has(Part::Proxy) {
        return;
    }
    tasks.spawn("proxy", async move {
        if let Err(error) = net::proxy::run(informers, proxy).await {
            tracing::error!(%error, "services are not kept");
        }
    });
}
