//! Route netlink messages: from our words to the packet crate's and back.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NetlinkSerializable, Parseable};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Link, Mac, Route, RouteOwner};

pub(super) fn encode(message: &RouteNetlinkMessage) -> (u16, Vec<u8>) {
    let mut body = vec![0; NetlinkSerializable::buffer_len(message)];
    NetlinkSerializable::serialize(message, &mut body);
    (NetlinkSerializable::message_type(message), body)
}

pub(super) fn is_absent(error: &io::Error) -> bool {
    [libc::ENODEV, libc::ENOENT, libc::ESRCH, libc::EADDRNOTAVAIL]
        .into_iter()
        .any(|code| error.raw_os_error() == Some(code))
}

pub(super) fn forgive_absence(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if is_absent(&error) => Ok(()),
        other => other,
    }
}

pub(super) fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

pub(super) fn neighbour_address(address: IpAddr) -> NeighbourAddress {
    match address {
        IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
        IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
    }
}

pub(super) fn parse_link(answer: &[u8]) -> Option<Link> {
    let message = LinkMessage::parse(answer).ok()?;
    let mut link = Link { index: message.header.index, name: String::new(), mtu: 0 };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            _ => (),
        }
    }
    Some(link)
}

pub(super) fn address_message(index: u32, address: IpAddr, prefix_len: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = prefix_len;
    message.header.scope = AddressScope::Universe;
    if address.is_ipv6() {
        // Nobody else can have it, and looking for duplicates would keep it unusable for a second.
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    message
}

pub(super) fn tunnel_message(index: u32, mac: Mac, host: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message.attributes = vec![
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
        NeighbourAttribute::Destination(neighbour_address(host)),
    ];
    message
}

pub(super) fn route_message(route: &Route, owner: RouteOwner) -> RouteMessage {
    let mut message = RouteMessage::default();
    let destination = route.destination.network();
    message.header.address_family = family(destination);
    message.header.destination_prefix_length = route.destination.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = owner.protocol();
    message.header.kind = if route.device.is_some() { RouteType::Unicast } else { RouteType::Unreachable };
    if route.device.is_some() && route.gateway.is_none() {
        message.header.scope = RouteScope::Link;
    }
    if route.gateway.is_some() {
        // Gateways of ours are neighbours by decree; no address of the device has to be in their network.
        message.header.flags = RouteFlags::Onlink;
    }
    if route.destination.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(destination.into()));
    }
    message.attributes.extend(route.device.map(RouteAttribute::Oif));
    message.attributes.extend(route.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
    message.attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(source.into())));
    message
}

pub(super) fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

pub(super) fn gateway(message: &RouteMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        _ => None,
    })
}

pub(super) fn our_route(message: &RouteMessage, owner: RouteOwner) -> Option<Route> {
    let header = &message.header;
    if header.protocol != owner.protocol() || header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let any: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        _ => Ipv6Addr::UNSPECIFIED.into(),
    };
    let (mut destination, mut device, mut source) = (any, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Oif(index) => device = Some(*index),
            RouteAttribute::PrefSource(address) => source = ip(address),
            _ => (),
        }
    }
    if header.kind == RouteType::Unreachable {
        device = None;
    }
    let destination = IpNet::new(destination, header.destination_prefix_length).ok()?;
    Some(Route { destination, device, gateway: gateway(message), source })
}
