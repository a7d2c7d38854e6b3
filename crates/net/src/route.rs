//! The ways from this node to other nodes' pods and to service addresses.
//!
//! ```text
//! peer on our own network segment:   10.42.2.0/24 via 192.0.2.2 (its address)            no overhead
//! any other peer:                    10.42.2.0/24 via 10.42.2.0 dev <prefix>-vx          VXLAN
//! service range:                     10.43.0.0/16 dev <uplink>, source = this node's address
//! whole pod range:                   unreachable
//! ```
//!
//! Only the first step to an address decides whether a peer is on our segment: the kernel is asked whether it needs a gateway. VXLAN
//! peers need no exchange of keys: tunnel address (the first of the pod range) and hardware address follow from what the
//! Node object says. The service route exists so that a process of the node without a default route still gets its packet as far
//! as the output chain, where it is translated or refused; the unreachable route keeps packets for pods that are nowhere from
//! leaving by the default route.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::link::{Link, Links, Route, RouteOwner, Vxlan};
use crate::pod::mac_for;

/// Bytes that VXLAN adds to a packet over IPv4.
pub const VXLAN_OVERHEAD: u32 = 50;
const MTU_DEFAULT: u32 = 1500;

/// How peers are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlay {
    /// Directly where possible, by VXLAN elsewhere.
    Auto,
    /// By VXLAN only, for networks that drop packets with pod addresses.
    Always,
    /// Directly only; somebody else routes to peers that are not on our segment.
    Never,
}

/// What routing has to know about the cluster and this node.
#[derive(Debug, Clone)]
pub struct Config {
    /// The VXLAN device is called `<prefix>-vx`.
    pub prefix: String,
    /// The address by which other nodes know this one.
    pub node_address: IpAddr,
    /// The whole cluster's pod ranges.
    pub cluster_cidrs: Vec<IpNet>,
    /// The ranges service addresses come from.
    pub service_cidrs: Vec<IpNet>,
    /// Service addresses that a process on this node answers itself (the resolver's): put on the loopback device.
    pub own_addresses: Vec<IpAddr>,
    pub overlay: Overlay,
    /// Network identifier and UDP port, the same on all nodes.
    pub vxlan_id: u32,
    pub vxlan_port: u16,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    pub name: String,
    pub internal_ip: IpAddr,
    pub pod_cidrs: Vec<IpNet>,
}

/// A tunnel end that the VXLAN device was told of.
type Tunnel = ([u8; 6], IpAddr);

/// The routes of this node.
#[derive(Debug)]
pub struct Routes {
    config: Config,
    links: Links,
    tunnels: BTreeSet<Tunnel>,
}

impl Routes {
    /// A connection in the calling thread's network namespace; nothing is changed yet.
    pub fn open(config: Config) -> io::Result<Self> {
        Ok(Routes { links: Links::open(RouteOwner::Nodes)?, config, tunnels: BTreeSet::new() })
    }

    /// Makes the routes fit these peers. `own_cidrs` are this node's pod ranges, none while they are unknown.
    pub fn apply(&mut self, own_cidrs: &[IpNet], peers: &[Peer]) -> io::Result<()> {
        let loopback = self.links.index("lo")?;
        for address in &self.config.own_addresses {
            self.links.hold_address(loopback, *address)?;
        }
        let mut wanted = self.fixed_routes()?;
        let mut tunnels = BTreeSet::new();
        for peer in peers {
            match self.routes_to(peer, own_cidrs, &mut tunnels) {
                Ok(routes) => wanted.extend(routes),
                // One node that cannot be reached must not keep the others from being.
                Err(error) => {
                    tracing::warn!(node = %peer.name, address = %peer.internal_ip, %error, "no way to a node's pods")
                }
            }
        }
        for route in self.links.routes()?.iter().filter(|route| !wanted.contains(route)) {
            self.links.delete_route(route)?;
        }
        for route in &wanted {
            self.links.add_route(route)?;
        }
        self.forget_tunnels(&tunnels)
    }

    /// Deletes the routes, the addresses on loopback and the VXLAN device.
    pub fn remove(&mut self) -> io::Result<()> {
        for route in self.links.routes()? {
            self.links.delete_route(&route)?;
        }
        let loopback = self.links.index("lo")?;
        for address in &self.config.own_addresses {
            self.links.delete_address(loopback, *address, if address.is_ipv4() { 32 } else { 128 })?;
        }
        self.tunnels.clear();
        let device = self.device();
        self.links.delete(&device)
    }

    /// The largest packet a pod of this node may send.
    pub fn pod_mtu(&mut self) -> io::Result<u32> {
        let uplink = self.uplink_mtu()?;
        Ok(if self.config.overlay == Overlay::Never { uplink } else { uplink - VXLAN_OVERHEAD })
    }

    fn uplink_mtu(&mut self) -> io::Result<u32> {
        let device = self.links.device_of(self.config.node_address)?;
        let uplink = self.links.list()?.into_iter().find(|link| Some(link.index) == device);
        // A node on loopback alone has no other nodes, and its huge packets would help nobody.
        Ok(uplink.map_or(MTU_DEFAULT, |link| link.mtu).clamp(576, 9000))
    }

    fn device(&self) -> String {
        format!("{}-vx", self.config.prefix)
    }

    fn fixed_routes(&mut self) -> io::Result<BTreeSet<Route>> {
        let node = self.config.node_address;
        let uplink = match self.links.device_of(node)? {
            Some(uplink) => uplink,
            None => self.links.index("lo")?,
        };
        let unreachable = |cidr: &IpNet| Route { destination: *cidr, device: None, gateway: None, source: None };
        let source = |cidr: &IpNet| (cidr.addr().is_ipv4() == node.is_ipv4()).then_some(node);
        let services = self.config.service_cidrs.iter();
        let to_services = services.map(|cidr| Route { source: source(cidr), ..Route::direct(*cidr, uplink) });
        Ok(self.config.cluster_cidrs.iter().map(unreachable).chain(to_services).collect())
    }

    fn routes_to(&mut self, peer: &Peer, own: &[IpNet], tunnels: &mut BTreeSet<Tunnel>) -> io::Result<Vec<Route>> {
        let (uplink, gateway) = self.links.way_to(peer.internal_ip)?;
        let direct = match self.config.overlay {
            Overlay::Auto => gateway.is_none(),
            Overlay::Always => false,
            Overlay::Never if gateway.is_some() => return Ok(Vec::new()),
            Overlay::Never => true,
        };
        let mut routes = Vec::new();
        let tunnel = (mac_for(peer.internal_ip), peer.internal_ip);
        for cidr in &peer.pod_cidrs {
            // A range is routed within its own family; another family's node address cannot be its gateway.
            let same_family = cidr.addr().is_ipv4() == peer.internal_ip.is_ipv4();
            if direct && same_family {
                let gateway = Some(peer.internal_ip);
                routes.push(Route { destination: *cidr, device: Some(uplink), gateway, source: None });
                continue;
            }
            let Some(own) = own.iter().find(|own| own.addr().is_ipv4() == cidr.addr().is_ipv4()) else { continue };
            let device = self.vxlan(own.network())?;
            self.links.add_neighbour(device.index, cidr.network(), tunnel.0)?;
            self.links.add_tunnel(device.index, tunnel.0, tunnel.1)?;
            tunnels.insert(tunnel);
            routes.push(Route {
                destination: *cidr,
                device: Some(device.index),
                gateway: Some(cidr.network()),
                source: Some(own.network()),
            });
        }
        Ok(routes)
    }

    /// The VXLAN device, made when first needed.
    fn vxlan(&mut self, address: IpAddr) -> io::Result<Link> {
        let name = self.device();
        let existing = self.links.find(&name)?;
        let link = match existing {
            Some(link) => link,
            None => {
                let mtu = self.uplink_mtu()? - VXLAN_OVERHEAD;
                self.links.create_vxlan(&Vxlan {
                    name: &name,
                    mac: mac_for(self.config.node_address),
                    id: self.config.vxlan_id,
                    port: self.config.vxlan_port,
                    local: self.config.node_address,
                    mtu,
                })?;
                Link { index: self.links.index(&name)?, name, mtu }
            }
        };
        self.links.without_link_local(link.index)?;
        self.links.set_up(link.index)?;
        self.links.add_address(link.index, address, if address.is_ipv4() { 32 } else { 128 })?;
        Ok(link)
    }

    fn forget_tunnels(&mut self, wanted: &BTreeSet<Tunnel>) -> io::Result<()> {
        let gone: Vec<Tunnel> = self.tunnels.difference(wanted).copied().collect();
        if !gone.is_empty() {
            let device = self.device();
            if let Some(link) = self.links.find(&device)? {
                for (mac, host) in gone {
                    self.links.delete_tunnel(link.index, mac, host)?;
                }
            }
        }
        self.tunnels.clone_from(wanted);
        Ok(())
    }
}
