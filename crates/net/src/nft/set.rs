//! Sets and maps: what a key is made of, what it leads to, and the encoding of elements.
//!
//! A key is a concatenation of parts, each padded to four bytes, exactly as registers hold it. The data type numbers are those
//! the `nft` program shows; the kernel itself only looks at lengths.

use std::net::IpAddr;

use super::{Family, wire};
use crate::netlink::Writer;

/// One part of a concatenated key or of concatenated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPart {
    /// An address of the table's family.
    Address,
    /// A layer 4 protocol number.
    Protocol,
    /// A layer 4 port.
    Port,
    /// A 32-bit number in host order, shown by `nft` as a mark.
    Number,
}

impl KeyPart {
    fn data_type(self, family: Family) -> u32 {
        match (self, family) {
            (KeyPart::Address, Family::V4) => 7,
            (KeyPart::Address, Family::V6) => 8,
            (KeyPart::Protocol, _) => 12,
            (KeyPart::Port, _) => 13,
            (KeyPart::Number, _) => 19,
        }
    }

    fn len(self, family: Family) -> u32 {
        if self == KeyPart::Address { family.address_len() } else { 4 }
    }
}

/// What the keys of a set lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataKind {
    /// A plain set.
    None,
    /// A map to a value.
    Value(&'static [KeyPart]),
    /// A map to a verdict.
    Verdict,
}

/// A set or map to create.
#[derive(Debug, Clone, Copy)]
pub struct Set {
    /// Unique in its table.
    pub name: &'static str,
    /// The parts of the key, in register order.
    pub key: &'static [KeyPart],
    /// What keys lead to.
    pub data: DataKind,
    /// Filled by packets, with elements that expire: how many it may hold.
    pub dynamic_entries_max: Option<u32>,
}

impl Set {
    /// A plain set.
    pub const fn plain(name: &'static str, key: &'static [KeyPart]) -> Self {
        Set { name, key, data: DataKind::None, dynamic_entries_max: None }
    }

    /// A map to values.
    pub const fn map(name: &'static str, key: &'static [KeyPart], data: &'static [KeyPart]) -> Self {
        Set { name, key, data: DataKind::Value(data), dynamic_entries_max: None }
    }

    /// A map to verdicts.
    pub const fn verdict_map(name: &'static str, key: &'static [KeyPart]) -> Self {
        Set { name, key, data: DataKind::Verdict, dynamic_entries_max: None }
    }

    pub(super) fn encode(&self, writer: &mut Writer, family: Family, id: u32) {
        let mut flags = 0;
        if self.data != DataKind::None {
            flags |= libc::NFT_SET_MAP as u32;
        }
        if self.dynamic_entries_max.is_some() {
            flags |= (libc::NFT_SET_TIMEOUT | libc::NFT_SET_EVAL) as u32;
        }
        writer.be32(wire::SET_FLAGS, flags);
        writer.be32(wire::SET_KEY_TYPE, concatenated_type(self.key, family));
        writer.be32(wire::SET_KEY_LEN, total_len(self.key, family));
        match self.data {
            DataKind::None => (),
            DataKind::Verdict => writer.be32(wire::SET_DATA_TYPE, wire::DATA_TYPE_VERDICT),
            DataKind::Value(parts) => {
                writer.be32(wire::SET_DATA_TYPE, concatenated_type(parts, family));
                writer.be32(wire::SET_DATA_LEN, total_len(parts, family));
            }
        }
        if let Some(entries) = self.dynamic_entries_max {
            writer.nest(wire::SET_DESC, |desc| desc.be32(wire::SET_DESC_SIZE, entries));
        }
        writer.be32(wire::SET_ID, id);
    }
}

fn concatenated_type(parts: &[KeyPart], family: Family) -> u32 {
    parts.iter().fold(0, |sum, part| (sum << 6) | part.data_type(family))
}

fn total_len(parts: &[KeyPart], family: Family) -> u32 {
    parts.iter().map(|part| part.len(family)).sum()
}

/// Concatenated bytes of a key or of data, each part padded to four bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub Vec<u8>);

impl Value {
    /// An empty value to append to; room for the longest IPv4 key.
    pub fn new() -> Self {
        Value(Vec::with_capacity(24))
    }

    /// Appends an address in network order.
    pub fn address(mut self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => self.0.extend_from_slice(&v4.octets()),
            IpAddr::V6(v6) => self.0.extend_from_slice(&v6.octets()),
        }
        self
    }

    /// Appends a protocol number.
    pub fn protocol(mut self, number: u8) -> Self {
        self.0.extend_from_slice(&[number, 0, 0, 0]);
        self
    }

    /// Appends a port.
    pub fn port(mut self, port: u16) -> Self {
        self.0.extend_from_slice(&port.to_be_bytes());
        self.0.extend_from_slice(&[0, 0]);
        self
    }

    /// Appends a number in host order.
    pub fn number(mut self, number: u32) -> Self {
        self.0.extend_from_slice(&number.to_ne_bytes());
        self
    }
}

/// What the kernel does with a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Take no further part in this packet's way through the chain that called us.
    Return,
    /// Let it pass.
    Accept,
    /// Discard it without a word.
    Drop,
    /// Continue in another chain and come back.
    Jump(String),
    /// Continue in another chain for good.
    Goto(String),
}

impl Verdict {
    pub(super) fn encode(&self, writer: &mut Writer) {
        let (code, chain) = match self {
            Verdict::Return => (libc::NFT_RETURN, None),
            Verdict::Accept => (libc::NF_ACCEPT, None),
            Verdict::Drop => (libc::NF_DROP, None),
            Verdict::Jump(chain) => (libc::NFT_JUMP, Some(chain)),
            Verdict::Goto(chain) => (libc::NFT_GOTO, Some(chain)),
        };
        writer.nest(wire::DATA_VERDICT, |verdict| {
            verdict.be32(wire::VERDICT_CODE, code as u32);
            if let Some(chain) = chain {
                verdict.string(wire::VERDICT_CHAIN, chain);
            }
        });
    }
}

/// What an element's key leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Nothing: a member of a plain set.
    None,
    /// A value of the map's data parts.
    Value(Value),
    /// A verdict.
    Verdict(Verdict),
}

/// One element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The key.
    pub key: Value,
    /// What it leads to; ignored when the element is deleted.
    pub data: Data,
    /// When it goes by itself; for dynamic maps only.
    pub timeout_ms: Option<u64>,
}

impl Element {
    /// A member of a plain set, or the key of an element to delete.
    pub fn key(key: Value) -> Self {
        Element { key, data: Data::None, timeout_ms: None }
    }

    /// A map entry.
    pub fn value(key: Value, value: Value) -> Self {
        Element { key, data: Data::Value(value), timeout_ms: None }
    }

    /// A verdict map entry.
    pub fn verdict(key: Value, verdict: Verdict) -> Self {
        Element { key, data: Data::Verdict(verdict), timeout_ms: None }
    }

    pub(super) fn encode(&self, writer: &mut Writer, with_data: bool) {
        writer.nest(wire::LIST_ELEM, |element| {
            element.nest(wire::ELEM_KEY, |key| key.bytes_attr(wire::DATA_VALUE, &self.key.0));
            match &self.data {
                Data::Value(value) if with_data => {
                    element.nest(wire::ELEM_DATA, |data| data.bytes_attr(wire::DATA_VALUE, &value.0));
                }
                Data::Verdict(verdict) if with_data => element.nest(wire::ELEM_DATA, |data| verdict.encode(data)),
                _ => (),
            }
            if let Some(timeout_ms) = self.timeout_ms.filter(|_| with_data) {
                element.be64(wire::ELEM_TIMEOUT, timeout_ms);
            }
        });
    }
}
