//! Connection tracking over netlink: finding entries and deleting them.
//!
//! A UDP "connection" lives as long as packets flow, so a client that keeps sending to a service would reach a backend that is
//! gone for ever: the entry, not the map, decides about its packets. Whoever changes UDP destinations therefore deletes the entries
//! that no longer fit ([`Conntrack::forget`]).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netlink::{Attributes, Request, Socket, Writer};
use crate::nft::Family;

const SUBSYSTEM: u16 = (libc::NFNL_SUBSYS_CTNETLINK as u16) << 8;
const MESSAGE_GET: u16 = SUBSYSTEM | 1;
const MESSAGE_DELETE: u16 = SUBSYSTEM | 2;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_SOURCE: u16 = 1;
const IP_V4_DESTINATION: u16 = 2;
const IP_V6_SOURCE: u16 = 3;
const IP_V6_DESTINATION: u16 = 4;
const PROTO_NUMBER: u16 = 1;
const PROTO_SOURCE_PORT: u16 = 2;
const PROTO_DESTINATION_PORT: u16 = 3;

/// One direction of a tracked connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Layer 4 protocol number.
    pub protocol: u8,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub source_port: u16,
    pub destination_port: u16,
}

/// One tracked connection: as the client sent it, and as answers come in.
#[derive(Debug, Clone)]
pub struct Entry {
    pub original: Flow,
    pub reply: Flow,
    /// The attributes that name it to the kernel.
    identity: Vec<u8>,
}

/// A connection to the connection tracker of one network namespace.
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
}

impl Conntrack {
    /// Opens a connection in the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        Ok(Conntrack { socket: Socket::netfilter()? })
    }

    /// All entries of a family.
    pub fn entries(&mut self, family: Family) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let request = Request { kind: MESSAGE_GET, flags: 0, body: &[family.number(), 0, 0, 0] };
        self.socket.dump(&request, |_, body| {
            entries.extend(parse(&Attributes(body.get(4..).unwrap_or_default())));
        })?;
        Ok(entries)
    }

    /// Deletes every entry that `stale` says yes to, and returns how many there were. An entry that went by itself is no error.
    pub fn forget(&mut self, family: Family, stale: impl Fn(&Entry) -> bool) -> io::Result<usize> {
        let doomed: Vec<Entry> = self.entries(family)?.into_iter().filter(|entry| stale(entry)).collect();
        for entry in &doomed {
            let mut writer = Writer::new();
            writer.raw(&[family.number(), 0, 0, 0]);
            writer.raw(&entry.identity);
            let request = Request { kind: MESSAGE_DELETE, flags: 0, body: writer.bytes() };
            match self.socket.call(&request) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => (),
            }
        }
        Ok(doomed.len())
    }
}

fn parse(attributes: &Attributes<'_>) -> Option<Entry> {
    let mut identity = Writer::new();
    for kind in [TUPLE_ORIGINAL, ID, ZONE] {
        if let Some(payload) = attributes.find(kind) {
            if kind == TUPLE_ORIGINAL {
                identity.nest(kind, |nest| nest.raw(payload));
            } else {
                identity.bytes_attr(kind, payload);
            }
        }
    }
    Some(Entry {
        original: flow(&attributes.inside(TUPLE_ORIGINAL))?,
        reply: flow(&attributes.inside(TUPLE_REPLY))?,
        identity: identity.bytes().to_vec(),
    })
}

fn flow(tuple: &Attributes<'_>) -> Option<Flow> {
    let (ip, proto) = (tuple.inside(TUPLE_IP), tuple.inside(TUPLE_PROTO));
    let address = |v4, v6| {
        let four = ip.find(v4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).map(Ipv4Addr::from);
        let six = ip.find(v6).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok()).map(Ipv6Addr::from);
        four.map(IpAddr::V4).or(six.map(IpAddr::V6))
    };
    // ICMP has no ports.
    let port = |kind| proto.find(kind).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_be_bytes);
    Some(Flow {
        protocol: *proto.find(PROTO_NUMBER)?.first()?,
        source: address(IP_V4_SOURCE, IP_V6_SOURCE)?,
        destination: address(IP_V4_DESTINATION, IP_V6_DESTINATION)?,
        source_port: port(PROTO_SOURCE_PORT),
        destination_port: port(PROTO_DESTINATION_PORT),
    })
}
