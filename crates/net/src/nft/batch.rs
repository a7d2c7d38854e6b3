//! A batch: operations that the kernel applies together or not at all.
//!
//! Bytes are encoded as operations are added, so a full load is one growing buffer. Each message remembers which operation it
//! was, in words, so that a refusal says what was refused.

use super::set::{Element, Set};
use super::{Family, Rule, wire};
use crate::netlink::{Header, Writer, socket::put_header};

/// Elements of one message stay below this many bytes: a netlink attribute's length is 16 bits.
const ELEMENT_BYTES_MAX: usize = 60_000;
const NETLINK_HEADER_LEN: usize = 16;

/// A table by family and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Address family.
    pub family: Family,
    /// Name, unique in the family.
    pub name: String,
}

/// Where a base chain is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookPoint {
    /// Before routing.
    Prerouting,
    /// For this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// After routing.
    Postrouting,
}

/// How a base chain is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook {
    /// `nat` or `filter`.
    pub kind: &'static str,
    /// Where.
    pub point: HookPoint,
    /// Order among the chains at the same point; smaller is earlier.
    pub priority: i32,
}

/// A chain to create.
#[derive(Debug, Clone)]
pub struct Chain<'a> {
    /// Name, unique in the table.
    pub name: &'a str,
    /// Set for a base chain.
    pub hook: Option<Hook>,
}

/// Operations on one table, in order.
#[derive(Debug)]
pub struct Batch {
    table: Table,
    writer: Writer,
    operations: Vec<String>,
    last_message: usize,
    sets: u32,
}

impl Batch {
    /// An empty batch for `table`.
    pub fn new(table: &Table) -> Self {
        let mut batch =
            Batch { table: table.clone(), writer: Writer::new(), operations: Vec::new(), last_message: 0, sets: 0 };
        batch.control(libc::NFNL_MSG_BATCH_BEGIN as u16);
        batch
    }

    /// The table's family.
    pub fn family(&self) -> Family {
        self.table.family
    }

    /// Whether no operation has been added.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// How many messages the kernel will get.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Creates the table unless it exists.
    pub fn add_table(&mut self) {
        let name = self.table.name.clone();
        self.message(
            libc::NFT_MSG_NEWTABLE,
            libc::NLM_F_CREATE,
            || format!("create table {name}"),
            |w| w.string(wire::TABLE_NAME, &name),
        );
    }

    /// Deletes the table with all it holds; it must exist.
    pub fn delete_table(&mut self) {
        let name = self.table.name.clone();
        self.message(
            libc::NFT_MSG_DELTABLE,
            0,
            || format!("delete table {name}"),
            |w| w.string(wire::TABLE_NAME, &name),
        );
    }

    /// Makes the table exist and be empty, whatever was there, without a moment without it.
    pub fn renew_table(&mut self) {
        self.add_table();
        self.delete_table();
        self.add_table();
    }

    /// Creates a chain unless it exists.
    pub fn add_chain(&mut self, chain: &Chain<'_>) {
        let table = self.table.name.clone();
        self.message(
            libc::NFT_MSG_NEWCHAIN,
            libc::NLM_F_CREATE,
            || format!("create chain {}", chain.name),
            |w| {
                w.string(wire::CHAIN_TABLE, &table);
                w.string(wire::CHAIN_NAME, chain.name);
                let Some(hook) = chain.hook else { return };
                w.nest(wire::CHAIN_HOOK, |nest| {
                    nest.be32(wire::HOOK_HOOKNUM, hook.point as u32);
                    nest.be32(wire::HOOK_PRIORITY, hook.priority as u32);
                });
                w.be32(wire::CHAIN_POLICY, libc::NF_ACCEPT as u32);
                w.string(wire::CHAIN_TYPE, hook.kind);
            },
        );
    }

    /// Appends a rule to a chain.
    pub fn add_rule(&mut self, chain: &str, rule: &Rule) {
        let table = self.table.name.clone();
        self.message(
            libc::NFT_MSG_NEWRULE,
            libc::NLM_F_CREATE | libc::NLM_F_APPEND,
            || format!("add a rule to chain {chain}"),
            |w| {
                w.string(wire::RULE_TABLE, &table);
                w.string(wire::RULE_CHAIN, chain);
                w.nest(wire::RULE_EXPRESSIONS, |nest| nest.raw(rule.expressions()));
            },
        );
    }

    /// Removes all rules of a chain.
    pub fn flush_chain(&mut self, chain: &str) {
        let table = self.table.name.clone();
        self.message(
            libc::NFT_MSG_DELRULE,
            0,
            || format!("flush chain {chain}"),
            |w| {
                w.string(wire::RULE_TABLE, &table);
                w.string(wire::RULE_CHAIN, chain);
            },
        );
    }

    /// Creates a set or map unless it exists.
    pub fn add_set(&mut self, set: &Set) {
        let table = self.table.clone();
        self.sets += 1;
        let id = self.sets;
        self.message(
            libc::NFT_MSG_NEWSET,
            libc::NLM_F_CREATE,
            || format!("create set {}", set.name),
            |w| {
                w.string(wire::SET_TABLE, &table.name);
                w.string(wire::SET_NAME, set.name);
                set.encode(w, table.family, id);
            },
        );
    }

    /// Adds elements; one that exists with the same data is left alone.
    pub fn add_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements(libc::NFT_MSG_NEWSETELEM, libc::NLM_F_CREATE, "add elements to", set, elements);
    }

    /// Deletes elements by key; each must exist.
    pub fn delete_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements(libc::NFT_MSG_DELSETELEM, 0, "delete elements from", set, elements);
    }

    fn elements(&mut self, message: i32, flags: i32, what: &str, set: &str, elements: &[Element]) {
        let table = self.table.name.clone();
        let with_data = message == libc::NFT_MSG_NEWSETELEM;
        let mut rest = elements.iter().peekable();
        while rest.peek().is_some() {
            self.message(
                message,
                flags,
                || format!("{what} {set}"),
                |w| {
                    w.string(wire::ELEM_LIST_TABLE, &table);
                    w.string(wire::ELEM_LIST_SET, set);
                    w.nest(wire::ELEM_LIST_ELEMENTS, |list| {
                        let start = list.len();
                        while list.len() - start < ELEMENT_BYTES_MAX {
                            let Some(element) = rest.next() else { return };
                            element.encode(list, with_data);
                        }
                    });
                },
            );
        }
    }

    /// The finished bytes, numbered from `first_sequence`, and the operations in order: operation `i` has the sequence number
    /// `first_sequence + 1 + i`. The last operation asks for an acknowledgement.
    pub(super) fn finish(mut self, first_sequence: u32) -> (Vec<u8>, Vec<String>) {
        let last = self.last_message;
        self.control(libc::NFNL_MSG_BATCH_END as u16);
        let mut bytes = self.writer.bytes().to_vec();
        number_messages(&mut bytes, first_sequence);
        if let Some(flags) = bytes.get_mut(last + 6..last + 8) {
            let with_ack = u16::from_ne_bytes([flags[0], flags[1]]) | libc::NLM_F_ACK as u16;
            flags.copy_from_slice(&with_ack.to_ne_bytes());
        }
        (bytes, self.operations)
    }

    fn message(&mut self, kind: i32, flags: i32, name: impl FnOnce() -> String, fill: impl FnOnce(&mut Writer)) {
        self.last_message = self.writer.len();
        self.operations.push(name());
        let kind = ((libc::NFNL_SUBSYS_NFTABLES as u16) << 8) | kind as u16;
        self.start(kind, flags as u16, self.table.family.number(), 0);
        fill(&mut self.writer);
        let length = (self.writer.len() - self.last_message) as u32;
        self.writer.patch_u32(self.last_message, length);
    }

    fn control(&mut self, kind: u16) {
        self.start(kind, 0, libc::AF_UNSPEC as u8, libc::NFNL_SUBSYS_NFTABLES as u16);
    }

    /// A netlink header and the netfilter header (`u8 family, u8 version, be16 resource`).
    fn start(&mut self, kind: u16, flags: u16, family: u8, resource: u16) {
        let mut head = Vec::with_capacity(NETLINK_HEADER_LEN + 4);
        let flags = flags | libc::NLM_F_REQUEST as u16;
        put_header(&mut head, Header { kind, flags, sequence: 0 }, 4);
        head.extend_from_slice(&[family, 0]);
        head.extend_from_slice(&resource.to_be_bytes());
        self.writer.raw(&head);
    }
}

fn number_messages(bytes: &mut [u8], first_sequence: u32) {
    let mut sequence = first_sequence;
    let mut at = 0;
    while let Some(length) = bytes.get(at..at + 4).and_then(|head| head.try_into().ok()).map(u32::from_ne_bytes) {
        if let Some(place) = bytes.get_mut(at + 8..at + 12) {
            place.copy_from_slice(&sequence.to_ne_bytes());
        }
        sequence = sequence.wrapping_add(1);
        at += (length as usize).max(NETLINK_HEADER_LEN);
    }
}
