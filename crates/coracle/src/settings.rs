//! What follows from the arguments: addresses, names, ranges. Every refusal says what to do.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use runtime::image::{Mirror, Registries};

use crate::arguments::{ControlPlaneArguments, NodeArguments};

/// The device names and nftables tables of this machine's instance start with it.
pub const PREFIX: &str = "coracle";
/// Upstream's namespaces and addresses that clients may rely on.
pub const CLUSTER_NAME: &str = "coracle";

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
}

impl Cluster {
    pub fn new(arguments: &ControlPlaneArguments) -> Result<Self> {
        let service_cidrs = ranges("--service-cidr", &arguments.service_cidr)?;
        let primary = service_cidrs.first().context("--service-cidr is empty: give a range such as 10.43.0.0/16")?;
        Ok(Cluster {
            listen: arguments.listen,
            dns: arguments.cluster_dns.unwrap_or_else(|| nth(primary, 10)),
            pod_cidrs: ranges("--pod-cidr", &arguments.pod_cidr)?,
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
    pub fn new(arguments: &NodeArguments) -> Result<Self> {
        let name = match &arguments.node_name {
            Some(name) => name.clone(),
            None => host_name()?.to_lowercase(),
        };
        if let Some(error) = meta::name::dns1123_subdomain(&name).first() {
            bail!("{name:?} cannot be a node's name: {error}; give another with --node-name");
        }
        let data_dir = std::path::absolute(&arguments.data.data_dir)?;
        Ok(Machine {
            data_dir,
            name,
            address: arguments.node_ip.map_or_else(own_address, Ok)?,
            cgroup_parent: arguments.cgroup_parent.clone(),
            registries: registries(&arguments.registry_mirror)?,
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
    fn mirrors_are_read_and_bad_ones_refused_with_advice() {
        let read = registries(&["docker.io=http://127.0.0.1:5000/".into()]).unwrap();
        let mirror = &read.mirrors["docker.io"][0];
        assert_eq!((mirror.host.as_str(), mirror.plain_http), ("127.0.0.1:5000", true));
        assert!(registries(&["docker.io".into()]).unwrap_err().to_string().contains("HOST=URL"));
        assert!(registries(&["a=ftp://b".into()]).unwrap_err().to_string().contains("http://"));
    }
}
