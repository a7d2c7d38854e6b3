//! What follows from the arguments: addresses, names, ranges. Every refusal says what to do.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use kubelet::node::thresholds::Thresholds;
use runtime::image::{Mirror, Registries};

use crate::arguments::{ControlPlaneArguments, NodeArguments};
use crate::parts::{Part, Without};

/// The device names and nftables tables of this machine's instance start with it.
pub const PREFIX: &str = "coracle";
/// Upstream's namespaces and addresses that clients may rely on.
pub const CLUSTER_NAME: &str = "coracle";

/// The cluster's DNS has the tenth address of the service range, as usual.
const DNS_INDEX: u32 = 10;

/// The cluster, as its control plane sees it.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub listen: SocketAddr,
    pub service_cidrs: Vec<IpNet>,
    pub pod_cidrs: Vec<IpNet>,
    pub dns: IpAddr,
    pub domain: String,
}

/// This machine.
#[derive(Clone, Debug)]
pub struct Machine {
    pub data_dir: PathBuf,
    pub name: String,
    pub address: IpAddr,
    pub cgroup_parent: String,
    pub registries: Registries,
    pub eviction_hard: Thresholds,
    /// The socket of the runtime to use instead of our own.
    pub runtime_socket: Option<PathBuf>,
    pub without: Without,
}

impl Cluster {
    pub fn new(arguments: &ControlPlaneArguments) -> Result<Self> {
        let service_cidrs = ranges("--service-cidr", &arguments.service_cidr)?;
        let pod_cidrs = ranges("--pod-cidr", &arguments.pod_cidr)?;
        let primary = service_cidrs.first().context("--service-cidr is empty: give a range such as 10.43.0.0/16")?;
        for service in &service_cidrs {
            if let Some(pod) = pod_cidrs.iter().find(|pod| pod.contains(service) || service.contains(*pod)) {
                bail!("--service-cidr {service} and --pod-cidr {pod} overlap: give ranges that do not");
            }
        }
        let dns = arguments.cluster_dns.unwrap_or_else(|| nth(primary, DNS_INDEX));
        if !service_cidrs.iter().any(|range| range.contains(&dns)) {
            bail!(
                "the DNS address {dns} is not in --service-cidr {primary}: give a larger range or another --cluster-dns"
            );
        }
        if let Some(error) = meta::name::dns1123_subdomain(&arguments.cluster_domain).first() {
            bail!("--cluster-domain {:?}: {error}", arguments.cluster_domain);
        }
        Ok(Cluster {
            listen: arguments.listen,
            dns,
            pod_cidrs,
            domain: arguments.cluster_domain.clone(),
            service_cidrs,
        })
    }

    /// The address of the `kubernetes` Service: the first of the range.
    pub fn api_service_address(&self) -> IpAddr {
        self.service_cidrs.first().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |range| nth(range, 1))
    }

    /// Where this machine's own programs reach the API that is bound to `port`: `--listen` may leave the choice to the system.
    pub fn local_server(&self, port: u16) -> String {
        let ip = if self.listen.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { self.listen.ip() };
        format!("https://{}", SocketAddr::new(ip, port))
    }
}

impl Machine {
    /// `parts` are those that the command has, and that can therefore be left out.
    pub fn new(arguments: &NodeArguments, parts: &[Part]) -> Result<Self> {
        let name = match &arguments.node_name {
            Some(name) => name.clone(),
            None => host_name()?.to_lowercase(),
        };
        if let Some(error) = meta::name::dns1123_subdomain(&name).first() {
            bail!("{name:?} cannot be a node's name: {error}; give another with --node-name");
        }
        if !arguments.cgroup_parent.starts_with('/') {
            bail!("--cgroup-parent {:?} has to start with a slash: /pods, or / for the top", arguments.cgroup_parent);
        }
        let data_dir = std::path::absolute(&arguments.data.data_dir)?;
        Ok(Machine {
            data_dir,
            name,
            address: arguments.node_ip.map_or_else(own_address, checked_address)?,
            cgroup_parent: arguments.cgroup_parent.clone(),
            registries: registries(&arguments.registry_mirror)?,
            eviction_hard: arguments.eviction_hard.clone(),
            runtime_socket: arguments.container_runtime_endpoint.as_deref().map(runtime_socket).transpose()?,
            without: Without::read(&arguments.without, parts)?,
        })
    }
}

/// The administrator's way in.
pub fn admin_kubeconfig(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.kubeconfig")
}

fn ranges(flag: &str, texts: &[String]) -> Result<Vec<IpNet>> {
    let range = |text: &String| {
        text.parse().with_context(|| format!("{flag} {text:?} is not an address range such as 10.43.0.0/16"))
    };
    texts.iter().map(range).collect()
}

fn nth(range: &IpNet, index: u32) -> IpAddr {
    match range.network() {
        IpAddr::V4(base) => Ipv4Addr::from(u32::from(base).saturating_add(index)).into(),
        IpAddr::V6(base) => std::net::Ipv6Addr::from(u128::from(base).saturating_add(u128::from(index))).into(),
    }
}

fn host_name() -> Result<String> {
    let name = nix::unistd::gethostname().context("cannot read the host name; give --node-name")?;
    name.into_string().ok().context("the host name is not text; give --node-name")
}

/// The address this machine would send from. Nothing is sent: connecting a UDP socket only asks the routing table. A machine with
/// no way out uses its first address, else loopback.
fn own_address() -> Result<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // An address reserved for documentation.
    let routed = socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).and_then(|()| socket.local_addr());
    Ok(routed.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip()))
}

/// An address that was given has to be one of this machine's.
fn checked_address(address: IpAddr) -> Result<IpAddr> {
    if address.is_unspecified() || address.is_multicast() {
        bail!("--node-ip {address} is not one machine's address: give one that `ip address` shows");
    }
    match UdpSocket::bind((address, 0)) {
        Ok(_socket) => Ok(address),
        Err(error) => bail!("--node-ip {address} is not this machine's ({error}): give one that `ip address` shows"),
    }
}

/// A socket by its URL, or by its bare path as upstream's node agent takes it too.
fn runtime_socket(endpoint: &str) -> Result<PathBuf> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if !path.starts_with('/') || path.ends_with('/') {
        bail!("--container-runtime-endpoint {endpoint:?}: write it as unix:///run/containerd/containerd.sock");
    }
    Ok(path.into())
}

fn registries(mirrors: &[String]) -> Result<Registries> {
    let mut registries = Registries::default();
    for text in mirrors {
        let (host, url) = text.split_once('=').with_context(|| {
            format!("--registry-mirror {text:?}: write HOST=URL, such as docker.io=http://mirror:5000")
        })?;
        let (plain_http, endpoint) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => bail!("--registry-mirror {text:?}: the URL has to start with http:// or https://"),
        };
        let mirror = Mirror { host: endpoint.trim_end_matches('/').to_string(), plain_http };
        registries.mirrors.entry(host.to_string()).or_default().push(mirror);
    }
    Ok(registries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_addresses_follow_from_the_range() {
        let range: IpNet = "10.43.0.0/16".parse().unwrap();
        assert_eq!(nth(&range, 10).to_string(), "10.43.0.10");
        assert_eq!(nth(&"fd00::/112".parse().unwrap(), 1).to_string(), "fd00::1");
    }

    #[test]
    fn ranges_that_cannot_work_are_refused_with_advice() {
        let refused = |service: &str, pod: &str, domain: &str| {
            let arguments = ControlPlaneArguments {
                listen: "127.0.0.1:0".parse().unwrap(),
                service_cidr: vec![service.into()],
                pod_cidr: vec![pod.into()],
                cluster_dns: None,
                cluster_domain: domain.into(),
            };
            Cluster::new(&arguments).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(refused("10.43.0.0/16", "10.42.0.0/16", "cluster.local"), "");
        assert!(refused("10.42.8.0/24", "10.42.0.0/16", "cluster.local").contains("overlap"));
        assert!(refused("10.43.0.0/30", "10.42.0.0/16", "cluster.local").contains("larger range"));
        assert!(refused("10.43.0.0/16", "10.42.0.0/16", "Not A Domain").contains("--cluster-domain"));
    }

    #[test]
    fn an_address_that_is_not_ours_is_refused() {
        assert!(checked_address([127, 0, 0, 1].into()).is_ok());
        assert!(checked_address([203, 0, 113, 77].into()).unwrap_err().to_string().contains("not this machine's"));
        assert!(checked_address([0, 0, 0, 0].into()).is_err());
    }

    #[test]
    fn a_runtime_is_named_by_its_socket() {
        for endpoint in ["unix:///run/x.sock", "/run/x.sock"] {
            assert_eq!(runtime_socket(endpoint).unwrap(), Path::new("/run/x.sock"));
        }
        for endpoint in ["", "x.sock", "unix://x.sock", "tcp://127.0.0.1:1", "http://x/", "/"] {
            let refused = runtime_socket(endpoint).unwrap_err().to_string();
            assert!(refused.contains("--container-runtime-endpoint"), "{refused}");
        }
    }

    #[test]
    fn mirrors_are_read_and_bad_ones_refused_with_advice() {
        let read = registries(&["docker.io=http://127.0.0.1:5000/".into()]).unwrap();
        let mirror = &read.mirrors["docker.io"][0];
        assert_eq!((mirror.host.as_str(), mirror.plain_http), ("127.0.0.1:5000", true));
        assert!(registries(&["docker.io".into()]).unwrap_err().to_string().contains("HOST=URL"));
        assert!(registries(&["a=ftp://b".into()]).unwrap_err().to_string().contains("http://"));
    }
}
