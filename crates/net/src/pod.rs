//! The pod network of one node: an interface, addresses, routes and host ports for every sandbox.
//!
//! ```text
//! host namespace                                   pod namespace
//!   <prefix>1a2b3c4d  ee:ee:ee:ee:ee:ee ── veth ──  eth0  10.42.1.7/32
//!   10.42.1.7/32 dev <prefix>1a2b3c4d               default via 169.254.1.1 dev eth0 onlink
//!   10.42.1.7 is at the pod's hardware address      169.254.1.1 is at ee:ee:ee:ee:ee:ee
//! ```
//!
//! Nobody ever asks for a hardware address, since both sides are told for good; no two pods share a segment, since every packet
//! is routed. [`Pods`] does the work on the calling thread; [`Network`] is the `cri::PodNetwork` around it. Whatever
//! [`Pods::join`] did is undone when a later step of it fails. [`table`] holds host ports and the masquerade.

pub mod network;
pub mod table;

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use cri::{PodAddresses, SandboxNetwork};
use ipnet::IpNet;

pub use network::Network;

use crate::conntrack::Conntrack;
use crate::ipam::{Ipam, IpamError, PortRecord, Record};
use crate::link::{Link, Links, Mac, Route, RouteOwner, Veth};
use crate::nft::{Family, NftError};
use crate::proxy::Protocol;
use crate::{netns, sysctl};
use table::PodTable;

/// Every host end of a pair has this hardware address, so that pods can be told it beforehand.
const HOST_MAC: Mac = [0xee; 6];
pub(crate) const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
pub(crate) const GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
pub(crate) const POD_DEVICE: &str = "eth0";
/// Device names have at most 15 letters, eight of which tell pods apart.
pub const PREFIX_LEN_MAX: usize = 7;

/// What the pod network has to know about the cluster and this node.
#[derive(Debug, Clone)]
pub struct Config {
    /// Devices and the table start with it; at most [`PREFIX_LEN_MAX`] letters.
    pub prefix: String,
    /// Where address records are kept (`<data-dir>/net/sandboxes`).
    pub folder: PathBuf,
    /// The whole cluster's pod ranges.
    pub cluster_cidrs: Vec<IpNet>,
    /// The ranges service addresses come from.
    pub service_cidrs: Vec<IpNet>,
    /// Largest packet of a pod in bytes: the uplink's, less 50 where nodes may be reached through VXLAN.
    pub mtu: u32,
}

/// Why a sandbox has no network.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// The node has no pod range yet; it comes with the Node object's `spec.podCIDRs`.
    #[error("no pod range has been assigned to this node yet")]
    NoRange,
    /// The prefix is longer than a device name allows.
    #[error("prefix {0:?} is longer than {PREFIX_LEN_MAX} letters")]
    Prefix(String),
    /// Nothing was made for a sandbox of this id.
    #[error("sandbox {0} has no network")]
    Unknown(String),
    /// No address could be given.
    #[error(transparent)]
    Address(#[from] IpamError),
    /// A port mapping does not make sense.
    #[error("host port {0}: {1}")]
    Port(u16, String),
    /// The kernel refused a step.
    #[error("{step}: {source}")]
    Kernel {
        /// What was being done.
        step: &'static str,
        source: io::Error,
    },
    /// nftables refused the host ports.
    #[error("host ports: {0}")]
    Nft(#[from] NftError),
}

/// Names the step of an I/O error.
fn at(step: &'static str) -> impl Fn(io::Error) -> PodError {
    move |source| PodError::Kernel { step, source }
}

/// The pods of this node and their place in its network.
#[derive(Debug)]
pub struct Pods {
    config: Config,
    links: Links,
    conntrack: Conntrack,
    table: PodTable,
    ipam: Ipam,
}

impl Pods {
    /// Opens the records and makes the calling thread's network namespace a router. Pods that exist keep working.
    pub fn open(config: Config) -> Result<Self, PodError> {
        if config.prefix.len() > PREFIX_LEN_MAX {
            return Err(PodError::Prefix(config.prefix));
        }
        sysctl::set("ipv4/ip_forward", "1").map_err(at("turn the node into a router"))?;
        if config.cluster_cidrs.iter().any(|cidr| !cidr.addr().is_ipv4()) {
            sysctl::set("ipv6/conf/all/forwarding", "1").map_err(at("turn the node into a router"))?;
        }
        Ok(Pods {
            links: Links::open(RouteOwner::Pods).map_err(at("open netlink"))?,
            conntrack: Conntrack::open().map_err(at("open connection tracking"))?,
            table: PodTable::open(&config)?,
            ipam: Ipam::open(&config.folder)?,
            config,
        })
    }

    /// Sets the node's own pod ranges, from which addresses are given.
    pub fn assign(&mut self, ranges: &[IpNet]) -> Result<(), PodError> {
        if self.ipam.ranges() != ranges {
            self.ipam.set_ranges(ranges);
            self.table.set_ranges(ranges);
            self.table.replace(self.ipam.records().map(|(_, record)| record))?;
        }
        Ok(())
    }

    /// Sets the addresses of all nodes, which pods reach with their own source address.
    pub fn set_nodes(&mut self, nodes: BTreeSet<IpAddr>) -> Result<(), PodError> {
        if self.table.set_nodes(nodes) {
            self.table.replace(self.ipam.records().map(|(_, record)| record))?;
        }
        Ok(())
    }

    /// Whether pods can be given a network.
    pub fn ready(&self) -> Result<(), PodError> {
        if self.ipam.ranges().is_empty() { Err(PodError::NoRange) } else { Ok(()) }
    }

    /// Gives a sandbox its interface, addresses, routes and host ports. Doing it again changes nothing.
    pub fn join(&mut self, sandbox: &SandboxNetwork) -> Result<PodAddresses, PodError> {
        self.ready()?;
        let known = self.ipam.get(&sandbox.id).is_some();
        let ports = port_records(sandbox)?;
        self.refuse_taken(&sandbox.id, &ports)?;
        let record = self.ipam.allocate(&sandbox.id, ports)?;
        let result = self
            .wire(&sandbox.id, &sandbox.netns_path, &record)
            .and_then(|()| if known { Ok(()) } else { self.open_ports(&record) });
        match result {
            Ok(()) => Ok(PodAddresses { ips: record.addresses }),
            Err(error) => {
                if let Err(left) = self.leave(&sandbox.id) {
                    tracing::warn!(sandbox = %sandbox.id, error = %left, "could not undo a failed join");
                }
                Err(error)
            }
        }
    }

    /// Takes everything back. What is gone already is no error.
    pub fn leave(&mut self, id: &str) -> Result<(), PodError> {
        let device = self.detach(id)?;
        self.links.delete(&device).map_err(at("delete the pod's device"))?;
        self.release(id)
    }

    /// The first half of leaving: nothing is sent to the pod any more. Returns the device to delete, which takes the kernel some
    /// ten milliseconds; then comes [`Pods::release`].
    pub fn detach(&mut self, id: &str) -> Result<String, PodError> {
        if let Some(record) = self.ipam.get(id).cloned() {
            self.table.delete_ports(&record)?;
            self.forget_udp(&record, true)?;
        }
        Ok(self.device(id))
    }

    /// The second half, once the device is gone: the addresses are free again.
    pub fn release(&mut self, id: &str) -> Result<(), PodError> {
        self.ipam.release(id)?;
        Ok(())
    }

    /// Keeps what belongs to `sandboxes` and gives back the rest, after a restart.
    pub fn reconcile(&mut self, sandboxes: &[(SandboxNetwork, PodAddresses)]) -> Result<(), PodError> {
        let live: HashSet<&str> = sandboxes.iter().map(|(sandbox, _)| &*sandbox.id).collect();
        let gone: Vec<String> =
            self.ipam.records().map(|(id, _)| id).filter(|id| !live.contains(&***id)).cloned().collect();
        for id in gone {
            self.ipam.release(&id)?;
        }
        for (sandbox, addresses) in sandboxes {
            let record = Record { addresses: addresses.ips.clone(), ports: port_records(sandbox)? };
            self.ipam.adopt(&sandbox.id, record)?;
        }
        let devices: HashSet<String> = live.iter().map(|id| self.device(id)).collect();
        for link in self.links.list().map_err(at("list devices"))? {
            if is_pod_device(&self.config.prefix, &link.name) && !devices.contains(&link.name) {
                self.links.delete(&link.name).map_err(at("delete a leftover device"))?;
            }
        }
        Ok(self.table.replace(self.ipam.records().map(|(_, record)| record))?)
    }

    /// The addresses of a sandbox, when what was made for it is still there.
    pub fn check(&mut self, id: &str, namespace: &Path) -> Result<PodAddresses, PodError> {
        let record = self.ipam.get(id).ok_or_else(|| PodError::Unknown(id.to_owned()))?;
        let host = self.links.find(&self.device(id)).map_err(at("look for the pod's device"))?;
        // Only an address of the namespace can be bound there.
        let bind = || record.addresses.iter().try_for_each(|address| UdpSocket::bind((*address, 0)).map(drop));
        let inside = netns::within(namespace, || Links::open(RouteOwner::Pods)?.find(POD_DEVICE));
        let inside = inside.and_then(|found| found).map_err(at("enter the pod's network namespace"))?;
        if host.is_none() || inside.is_none() {
            return Err(at("find the pod's device")(io::ErrorKind::NotFound.into()));
        }
        netns::within(namespace, bind).and_then(|bound| bound).map_err(at("find the pod's address"))?;
        Ok(PodAddresses { ips: record.addresses.clone() })
    }

    /// Takes everything back from all sandboxes but these.
    pub fn keep(&mut self, ids: &[String]) -> Result<(), PodError> {
        let gone: Vec<String> = self.ipam.records().map(|(id, _)| id).filter(|id| !ids.contains(id)).cloned().collect();
        gone.iter().try_for_each(|id| self.leave(id))
    }

    /// Deletes the table and all pods' devices; records stay, for they are files.
    pub fn remove(&mut self) -> Result<(), PodError> {
        for link in self.links.list().map_err(at("list devices"))? {
            if is_pod_device(&self.config.prefix, &link.name) {
                self.links.delete(&link.name).map_err(at("delete a pod's device"))?;
            }
        }
        Ok(self.table.remove()?)
    }

    fn device(&self, id: &str) -> String {
        // FNV-1a, folded to 32 bits: the name has to be the same after a restart.
        let hash = id
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        format!("{}{:08x}", self.config.prefix, (hash >> 32) as u32 ^ hash as u32)
    }

    /// A host port belongs to one sandbox: map entries are deleted by their key, so two must never share one.
    fn refuse_taken(&self, id: &str, ports: &[PortRecord]) -> Result<(), PodError> {
        for (other, record) in self.ipam.records().filter(|(other, _)| *other != id) {
            let taken = |port: &&PortRecord| {
                let same = |known: &PortRecord| {
                    (known.protocol, known.host_port, known.host_ip) == (port.protocol, port.host_port, port.host_ip)
                };
                record.ports.iter().any(same)
            };
            if let Some(port) = ports.iter().find(taken) {
                return Err(PodError::Port(port.host_port, format!("already used by sandbox {other}")));
            }
        }
        Ok(())
    }

    fn wire(&mut self, id: &str, namespace: &Path, record: &Record) -> Result<(), PodError> {
        let name = self.device(id);
        let opened = netns::within(namespace, || Links::open(RouteOwner::Pods));
        let mut inside = opened.and_then(|result| result).map_err(at("enter the pod's network namespace"))?;
        let host = self.links.find(&name).map_err(at("look for the pod's device"))?;
        let pod = inside.find(POD_DEVICE).map_err(at("look for the pod's device"))?;
        let (host, pod) = match (host, pod) {
            (Some(host), Some(pod)) => (host, pod),
            (None, None) => self.create_pair(&name, namespace, record, &mut inside)?,
            (host, _) => {
                // Half of an attempt that was cut short; the other half goes with it.
                let links = if host.is_some() { &mut self.links } else { &mut inside };
                let name = if host.is_some() { &*name } else { POD_DEVICE };
                links.delete(name).map_err(at("delete half a pair"))?;
                self.create_pair(&self.device(id), namespace, record, &mut inside)?
            }
        };
        configure_inside(&mut inside, &pod, record).map_err(at("configure the pod's interface"))?;
        self.configure_host(&host, record)
    }

    fn create_pair(
        &mut self,
        name: &str,
        namespace: &Path,
        record: &Record,
        inside: &mut Links,
    ) -> Result<(Link, Link), PodError> {
        let namespace = File::open(namespace).map_err(at("open the pod's network namespace"))?;
        let veth = Veth {
            name,
            mac: HOST_MAC,
            peer_name: POD_DEVICE,
            peer_mac: pod_mac(record),
            peer_namespace: namespace.as_fd(),
            mtu: self.config.mtu,
        };
        self.links.create_veth(&veth).map_err(at("create the pod's device"))?;
        let found = self.links.find(name).and_then(|host| Ok((host, inside.find(POD_DEVICE)?)));
        match found.map_err(at("find the pod's device"))? {
            (Some(host), Some(pod)) => Ok((host, pod)),
            _ => Err(at("find the pod's device")(io::ErrorKind::NotFound.into())),
        }
    }

    fn configure_host(&mut self, host: &Link, record: &Record) -> Result<(), PodError> {
        // A connection from the node's loopback to a host port leaves by this device with a loopback source until it is masqueraded.
        for (switch, value) in [("route_localnet", "1"), ("send_redirects", "0"), ("rp_filter", "1")] {
            sysctl::set(&format!("ipv4/conf/{}/{switch}", host.name), value).map_err(at("set up the pod's device"))?;
        }
        let mut configure = || -> io::Result<()> {
            if record.addresses.iter().all(IpAddr::is_ipv4) {
                self.links.without_link_local(host.index)?;
            }
            self.links.set_up(host.index)?;
            for address in &record.addresses {
                self.links.add_neighbour(host.index, *address, pod_mac(record))?;
                self.links.add_route(&Route::direct((*address).into(), host.index))?;
            }
            Ok(())
        };
        configure().map_err(at("route to the pod"))
    }

    fn open_ports(&mut self, record: &Record) -> Result<(), PodError> {
        self.table.add_ports(record)?;
        self.forget_udp(record, false)
    }

    /// Deletes UDP connections to the record's host ports: those that lead to the pod, or all others.
    fn forget_udp(&mut self, record: &Record, to_pod: bool) -> Result<(), PodError> {
        let udp = libc::IPPROTO_UDP as u8;
        let ports: HashSet<u16> =
            record.ports.iter().filter(|port| port.protocol == udp).map(|port| port.host_port).collect();
        if ports.is_empty() {
            return Ok(());
        }
        for family in record.addresses.iter().map(|address| Family::of(*address)) {
            let stale = self.conntrack.forget(family, |entry| {
                let ours = record.addresses.contains(&entry.reply.source);
                entry.original.protocol == udp && ports.contains(&entry.original.destination_port) && ours == to_pod
            });
            stale.map_err(at("delete stale UDP connections"))?;
        }
        Ok(())
    }
}

fn configure_inside(inside: &mut Links, pod: &Link, record: &Record) -> io::Result<()> {
    let loopback = inside.index("lo")?;
    inside.set_up(loopback)?;
    if record.addresses.iter().all(IpAddr::is_ipv4) {
        inside.without_link_local(pod.index)?;
    }
    inside.set_up(pod.index)?;
    for address in &record.addresses {
        let (prefix_len, gateway, any) = match address {
            IpAddr::V4(_) => (32, GATEWAY_V4, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            IpAddr::V6(_) => (128, GATEWAY_V6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        };
        inside.add_address(pod.index, *address, prefix_len)?;
        inside.add_neighbour(pod.index, gateway, HOST_MAC)?;
        let destination = IpNet::new(any, 0).map_err(io::Error::other)?;
        let route = Route { destination, device: Some(pod.index), gateway: Some(gateway), source: None };
        inside.add_route(&route)?;
    }
    Ok(())
}

/// Whether a device is the host's end of a pod's pair.
pub(crate) fn is_pod_device(prefix: &str, name: &str) -> bool {
    let digits = name.strip_prefix(prefix);
    digits.is_some_and(|digits| digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A hardware address made from the pod's first address: locally administered, and the same after a restart.
fn pod_mac(record: &Record) -> Mac {
    mac_for(record.addresses.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
}

/// A locally administered hardware address that belongs to an address.
pub(crate) fn mac_for(address: IpAddr) -> Mac {
    let [a, b, c, d] = match address {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => {
            let octets = v6.octets();
            [octets[12], octets[13], octets[14], octets[15]]
        }
    };
    [0x0a, 0x58, a, b, c, d]
}

fn port_records(sandbox: &SandboxNetwork) -> Result<Vec<PortRecord>, PodError> {
    let mapped = sandbox.port_mappings.iter().filter(|port| port.host_port != 0);
    let read = |port: &cri::network::HostPort| {
        let refuse = |why: String| PodError::Port(port.host_port, why);
        let protocol = Protocol::parse(Some(&port.protocol))
            .ok_or_else(|| refuse(format!("{:?} is not TCP, UDP or SCTP", port.protocol)))?;
        let host_ip = match &*port.host_ip {
            "" => None,
            text => Some(text.parse::<IpAddr>().map_err(|error| refuse(format!("{text:?}: {error}")))?),
        };
        Ok(PortRecord {
            protocol: protocol.number(),
            container_port: port.container_port,
            host_port: port.host_port,
            host_ip: host_ip.filter(|ip| !ip.is_unspecified()),
        })
    };
    mapped.map(read).collect()
}
