//! Links, addresses, routes and neighbours of one network namespace.
//!
//! A thin layer over the kernel's route netlink: each method is one request, applied when it returns. Adding replaces what is there,
//! deleting does not mind absence, so that everything built on this can simply be done again.

mod message;

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::IpNet;
use netlink_packet_core::Parseable;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::netlink::{Request, Socket};
use message::*;

/// Marks routes as ours, and says which part of us looks after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteOwner {
    /// Routes to pods of this node.
    Pods,
    /// Routes to other nodes' pods and to service addresses.
    Nodes,
}

impl RouteOwner {
    fn protocol(self) -> RouteProtocol {
        match self {
            RouteOwner::Pods => RouteProtocol::Other(143),
            RouteOwner::Nodes => RouteProtocol::Other(144),
        }
    }
}

/// A hardware address.
pub type Mac = [u8; 6];

/// A link as far as we care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// Largest packet in bytes.
    pub mtu: u32,
}

/// A veth pair to create.
#[derive(Debug)]
pub struct Veth<'a> {
    /// This namespace's end.
    pub name: &'a str,
    pub mac: Mac,
    /// The other end, created right in `peer_namespace`.
    pub peer_name: &'a str,
    pub peer_mac: Mac,
    pub peer_namespace: BorrowedFd<'a>,
    pub mtu: u32,
}

/// A VXLAN device to create.
#[derive(Debug)]
pub struct Vxlan<'a> {
    pub name: &'a str,
    pub mac: Mac,
    /// Network identifier.
    pub id: u32,
    /// UDP port.
    pub port: u16,
    /// The address that outer packets come from.
    pub local: IpAddr,
    pub mtu: u32,
}

/// Where packets for a destination go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    pub destination: IpNet,
    /// Index of the device; `None` makes the destination unreachable.
    pub device: Option<u32>,
    pub gateway: Option<IpAddr>,
    /// The source address of packets from this host.
    pub source: Option<IpAddr>,
}

impl Route {
    /// A destination that is right behind a device.
    pub fn direct(destination: IpNet, device: u32) -> Self {
        Route { destination, device: Some(device), gateway: None, source: None }
    }
}

/// A connection to the links and routes of the namespace it was opened in.
#[derive(Debug)]
pub struct Links {
    socket: Socket,
    owner: RouteOwner,
}

impl Links {
    /// Opens a connection in the calling thread's network namespace, for the routes of `owner`.
    pub fn open(owner: RouteOwner) -> io::Result<Self> {
        Ok(Links { socket: Socket::route()?, owner })
    }

    /// The link of this name, if there is one.
    pub fn find(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.get(RouteNetlinkMessage::GetLink(message)) {
            Ok(answer) => Ok(answer.as_deref().and_then(parse_link)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The index of a link that has to exist.
    pub fn index(&mut self, name: &str) -> io::Result<u32> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("there is no device {name}"));
        self.find(name)?.map(|link| link.index).ok_or_else(missing)
    }

    /// All links.
    pub fn list(&mut self) -> io::Result<Vec<Link>> {
        let mut links = Vec::new();
        let (kind, body) = encode(&RouteNetlinkMessage::GetLink(LinkMessage::default()));
        self.socket.dump(&Request { kind, flags: 0, body: &body }, |_, answer| links.extend(parse_link(answer)))?;
        Ok(links)
    }

    /// Creates a veth pair; both ends are down.
    pub fn create_veth(&mut self, veth: &Veth<'_>) -> io::Result<()> {
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(veth.peer_name.to_owned()),
            LinkAttribute::Address(veth.peer_mac.to_vec()),
            LinkAttribute::Mtu(veth.mtu),
            LinkAttribute::NetNsFd(veth.peer_namespace.as_raw_fd()),
        ];
        let data = InfoData::Veth(InfoVeth::Peer(peer));
        self.create(veth.name, veth.mac, veth.mtu, vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)])
    }

    /// Creates a VXLAN device that learns nothing by itself; it is down.
    pub fn create_vxlan(&mut self, vxlan: &Vxlan<'_>) -> io::Result<()> {
        let local = match vxlan.local {
            IpAddr::V4(v4) => InfoVxlan::Local(v4),
            IpAddr::V6(v6) => InfoVxlan::Local6(v6),
        };
        let data = vec![InfoVxlan::Id(vxlan.id), local, InfoVxlan::Port(vxlan.port), InfoVxlan::Learning(false)];
        let info = vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(InfoData::Vxlan(data))];
        self.create(vxlan.name, vxlan.mac, vxlan.mtu, info)
    }

    fn create(&mut self, name: &str, mac: Mac, mtu: u32, info: Vec<LinkInfo>) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(mac.to_vec()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::LinkInfo(info),
        ];
        self.change(RouteNetlinkMessage::NewLink(message), libc::NLM_F_CREATE | libc::NLM_F_EXCL)
    }

    /// Brings a link up.
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.change(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Keeps the kernel from giving a link an IPv6 address and soliciting routers when it comes up.
    pub fn without_link_local(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        message.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![none])]));
        match self.change(RouteNetlinkMessage::SetLink(message), 0) {
            // A kernel without IPv6 has nothing to keep from.
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(()),
            other => other,
        }
    }

    /// Deletes a link, and with it the other end of a pair.
    pub fn delete(&mut self, name: &str) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        forgive_absence(self.change(RouteNetlinkMessage::DelLink(message), 0))
    }

    /// Gives a link an address.
    pub fn add_address(&mut self, index: u32, address: IpAddr, prefix_len: u8) -> io::Result<()> {
        let message = address_message(index, address, prefix_len);
        self.change(RouteNetlinkMessage::NewAddress(message), libc::NLM_F_CREATE | libc::NLM_F_REPLACE)
    }

    /// Gives a link an address that this host answers at, but that its own packets never come from unless asked to.
    pub fn hold_address(&mut self, index: u32, address: IpAddr) -> io::Result<()> {
        let mut message = address_message(index, address, if address.is_ipv4() { 32 } else { 128 });
        message.header.scope = AddressScope::Host;
        self.change(RouteNetlinkMessage::NewAddress(message), libc::NLM_F_CREATE | libc::NLM_F_REPLACE)
    }

    /// Takes an address from a link.
    pub fn delete_address(&mut self, index: u32, address: IpAddr, prefix_len: u8) -> io::Result<()> {
        let message = address_message(index, address, prefix_len);
        forgive_absence(self.change(RouteNetlinkMessage::DelAddress(message), 0))
    }

    /// The device that has this address.
    pub fn device_of(&mut self, address: IpAddr) -> io::Result<Option<u32>> {
        let mut found = None;
        let (kind, body) = encode(&RouteNetlinkMessage::GetAddress(AddressMessage::default()));
        self.socket.dump(&Request { kind, flags: 0, body: &body }, |_, answer| {
            if let Ok(message) = AddressMessage::parse(answer) {
                let ours = |attribute: &AddressAttribute| match attribute {
                    AddressAttribute::Local(local) | AddressAttribute::Address(local) => *local == address,
                    _ => false,
                };
                if message.attributes.iter().any(ours) {
                    found = Some(message.header.index);
                }
            }
        })?;
        Ok(found)
    }

    /// Adds a route, in place of one to the same destination.
    pub fn add_route(&mut self, route: &Route) -> io::Result<()> {
        let message = RouteNetlinkMessage::NewRoute(route_message(route, self.owner));
        self.change(message, libc::NLM_F_CREATE | libc::NLM_F_REPLACE)
    }

    /// Deletes one of our routes.
    pub fn delete_route(&mut self, route: &Route) -> io::Result<()> {
        forgive_absence(self.change(RouteNetlinkMessage::DelRoute(route_message(route, self.owner)), 0))
    }

    /// Our routes in the main table.
    pub fn routes(&mut self) -> io::Result<Vec<Route>> {
        let mut routes = Vec::new();
        let owner = self.owner;
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            message.header.table = RouteHeader::RT_TABLE_MAIN;
            message.header.protocol = self.owner.protocol();
            let (kind, body) = encode(&RouteNetlinkMessage::GetRoute(message));
            let result = self.socket.dump(&Request { kind, flags: 0, body: &body }, |_, answer| {
                routes.extend(RouteMessage::parse(answer).ok().and_then(|message| our_route(&message, owner)));
            });
            match result {
                Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
                _ => (),
            }
        }
        Ok(routes)
    }

    /// How this host would reach an address: the device's index and the gateway, if one is needed.
    pub fn way_to(&mut self, address: IpAddr) -> io::Result<(u32, Option<IpAddr>)> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(address);
        message.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
        message.attributes.push(RouteAttribute::Destination(address.into()));
        let answer = self.get(RouteNetlinkMessage::GetRoute(message))?;
        let answer = answer.and_then(|answer| RouteMessage::parse(&answer).ok()).and_then(|answer| {
            let device = answer.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            });
            Some((device?, gateway(&answer)))
        });
        answer.ok_or_else(|| io::Error::new(io::ErrorKind::HostUnreachable, format!("no route to {address}")))
    }

    /// States the hardware address of a neighbour for good.
    pub fn add_neighbour(&mut self, index: u32, address: IpAddr, mac: Mac) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = index;
        message.header.state = NeighbourState::Permanent;
        message.header.kind = RouteType::Unicast;
        let destination = neighbour_address(address);
        message.attributes =
            vec![NeighbourAttribute::Destination(destination), NeighbourAttribute::LinkLayerAddress(mac.to_vec())];
        self.change(RouteNetlinkMessage::NewNeighbour(message), libc::NLM_F_CREATE | libc::NLM_F_REPLACE)
    }

    /// Tells a VXLAN device which host is behind a hardware address.
    pub fn add_tunnel(&mut self, index: u32, mac: Mac, host: IpAddr) -> io::Result<()> {
        let message = tunnel_message(index, mac, host);
        self.change(RouteNetlinkMessage::NewNeighbour(message), libc::NLM_F_CREATE | libc::NLM_F_REPLACE)
    }

    /// Takes it back.
    pub fn delete_tunnel(&mut self, index: u32, mac: Mac, host: IpAddr) -> io::Result<()> {
        forgive_absence(self.change(RouteNetlinkMessage::DelNeighbour(tunnel_message(index, mac, host)), 0))
    }

    fn change(&mut self, message: RouteNetlinkMessage, flags: i32) -> io::Result<()> {
        let (kind, body) = encode(&message);
        self.socket.call(&Request { kind, flags: flags as u16, body: &body })
    }

    fn get(&mut self, message: RouteNetlinkMessage) -> io::Result<Option<Vec<u8>>> {
        let (kind, body) = encode(&message);
        self.socket.get(&Request { kind, flags: 0, body: &body })
    }
}
