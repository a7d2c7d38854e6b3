//! The pods' nftables table: host ports, and the masquerade of what leaves the cluster.
//!
//! ```text
//! prerouting, output ─► host-ports:  ports-at[(address, protocol, port)] ─► pod
//!                                    any address of this node:  ports[(protocol, port)] ─► pod
//! postrouting:  own-ports[(pod, pod)] ─► masquerade       (a pod that reaches itself by a host port)
//!               from 127/8 to elsewhere ─► masquerade     (the node's loopback to a host port)
//!               from a pod of ours, not to pods, services, nodes, multicast ─► masquerade
//! raw prerouting:  to 127/8, not from lo ─► drop          (pods' devices route loopback for host ports; keep others out)
//! ```

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Config;
use crate::ipam::Record;
use crate::nft::{
    Batch, Chain, Compare, Element, Family, Hook, HookPoint, KeyPart, Nft, NftError, Register, Rule, Set, Table, Value,
    Verdict,
};

use KeyPart::{Address, Port, Protocol};

const PORTS: &str = "ports";
const PORTS_AT: &str = "ports-at";
const OWN_PORTS: &str = "own-ports";
const NODES: &str = "nodes";
const HOST_PORTS: &str = "host-ports";
const LEAVING: &str = "leaving";

const SETS: &[Set] = &[
    Set::map(PORTS, &[Protocol, Port], &[Address, Port]),
    Set::map(PORTS_AT, &[Address, Protocol, Port], &[Address, Port]),
    Set::plain(OWN_PORTS, &[Address, Address]),
    Set::plain(NODES, &[Address]),
];

/// After the services' chain at -100: a node port wins over a host port, as upstream.
const PRIORITY_HOST_PORTS: i32 = -99;
const PRIORITY_SOURCE_NAT: i32 = 100;
const PRIORITY_RAW: i32 = -300;
/// The loopback device has this index in every namespace.
const LOOPBACK_INDEX: u32 = 1;

/// The table of both families, and what its rules depend on.
#[derive(Debug)]
pub struct PodTable {
    nft: Nft,
    name: String,
    /// Destinations inside the cluster.
    inside: Vec<IpNet>,
    ranges: Vec<IpNet>,
    nodes: BTreeSet<IpAddr>,
    /// The kernel has the table as we know it.
    in_step: bool,
}

impl PodTable {
    /// A connection in the calling thread's network namespace. The kernel is first touched by [`PodTable::replace`].
    pub fn open(config: &Config) -> Result<Self, NftError> {
        Ok(PodTable {
            nft: Nft::open()?,
            name: format!("{}-pods", config.prefix),
            inside: [&*config.cluster_cidrs, &config.service_cidrs].concat(),
            ranges: Vec::new(),
            nodes: BTreeSet::new(),
            in_step: false,
        })
    }

    /// Sets this node's pod ranges, for the next [`PodTable::replace`].
    pub fn set_ranges(&mut self, ranges: &[IpNet]) {
        self.ranges = ranges.to_vec();
    }

    /// Sets the nodes' addresses, for the next [`PodTable::replace`]; false when they are as before.
    pub fn set_nodes(&mut self, nodes: BTreeSet<IpAddr>) -> bool {
        let changed = self.nodes != nodes;
        self.nodes = nodes;
        changed
    }

    /// Makes the tables hold exactly these records' ports, in one step each.
    pub fn replace<'a>(&mut self, records: impl Iterator<Item = &'a Record> + Clone) -> Result<(), NftError> {
        self.in_step = false;
        for family in self.families() {
            let mut batch = Batch::new(&self.table(family));
            batch.renew_table();
            self.create(&mut batch);
            for record in records.clone() {
                for (set, elements) in elements(record, family) {
                    batch.add_elements(set, &elements);
                }
            }
            self.nft.commit(batch)?;
        }
        self.in_step = true;
        Ok(())
    }

    /// Opens a sandbox's host ports.
    pub fn add_ports(&mut self, record: &Record) -> Result<(), NftError> {
        self.change(record, Batch::add_elements)
    }

    /// Closes them.
    pub fn delete_ports(&mut self, record: &Record) -> Result<(), NftError> {
        self.change(record, |batch, set, elements| {
            // Deleting what is not there is refused; adding it first makes this hold whatever happened to the table.
            batch.add_elements(set, elements);
            batch.delete_elements(set, elements);
        })
    }

    /// Deletes the tables.
    pub fn remove(&mut self) -> Result<(), NftError> {
        self.in_step = false;
        [Family::V4, Family::V6].into_iter().try_for_each(|family| self.nft.delete_table(&self.table(family)))
    }

    /// The families of the cluster; the kernel may lack the other.
    fn families(&self) -> Vec<Family> {
        let has = |family: &Family| self.inside.iter().any(|cidr| Family::of(cidr.addr()) == *family);
        [Family::V4, Family::V6].into_iter().filter(has).collect()
    }

    fn table(&self, family: Family) -> Table {
        Table { family, name: self.name.clone() }
    }

    fn change(&mut self, record: &Record, change: impl Fn(&mut Batch, &str, &[Element])) -> Result<(), NftError> {
        if record.ports.is_empty() || !self.in_step {
            return Ok(());
        }
        for family in self.families() {
            let mut batch = Batch::new(&self.table(family));
            for (set, elements) in elements(record, family) {
                change(&mut batch, set, &elements);
            }
            self.nft.commit(batch)?;
        }
        Ok(())
    }

    fn create(&self, batch: &mut Batch) {
        let family = batch.family();
        for set in SETS {
            batch.add_set(set);
        }
        for name in [HOST_PORTS, LEAVING] {
            batch.add_chain(&Chain { name, hook: None });
        }
        for (name, kind, point, priority) in [
            ("raw-prerouting", "filter", HookPoint::Prerouting, PRIORITY_RAW),
            ("nat-prerouting", "nat", HookPoint::Prerouting, PRIORITY_HOST_PORTS),
            ("nat-output", "nat", HookPoint::Output, PRIORITY_HOST_PORTS),
            ("nat-postrouting", "nat", HookPoint::Postrouting, PRIORITY_SOURCE_NAT),
        ] {
            batch.add_chain(&Chain { name, hook: Some(Hook { kind, point, priority }) });
        }
        self.create_host_ports(batch, family);
        self.create_masquerade(batch, family);
        let nodes: Vec<Element> = self
            .nodes
            .iter()
            .filter(|node| Family::of(**node) == family)
            .map(|node| Element::key(Value::new().address(*node)))
            .collect();
        batch.add_elements(NODES, &nodes);
    }

    fn create_host_ports(&self, batch: &mut Batch, family: Family) {
        let words = family.address_registers();
        for chain in ["nat-prerouting", "nat-output"] {
            batch.add_rule(chain, &Rule::new(family).jump(HOST_PORTS));
        }
        let frontend =
            Rule::new(family).destination(Register(0)).protocol(Register(words)).destination_port(Register(words + 1));
        let specific = frontend.in_map(PORTS_AT, Register(0), Register(8));
        batch.add_rule(HOST_PORTS, &specific.translate_destination(Register(8), Register(8 + words)));
        let local = u32::from(libc::RTN_LOCAL).to_ne_bytes();
        let ours = Rule::new(family).destination_type(Register(0)).compare(Register(0), Compare::Equal, &local);
        let any = ours.protocol(Register(0)).destination_port(Register(1)).in_map(PORTS, Register(0), Register(8));
        batch.add_rule(HOST_PORTS, &any.translate_destination(Register(8), Register(8 + words)));
    }

    fn create_masquerade(&self, batch: &mut Batch, family: Family) {
        let words = family.address_registers();
        let register = Register(0);
        let both = Rule::new(family).source(register).destination(Register(words));
        batch.add_rule("nat-postrouting", &both.in_set(OWN_PORTS, register).masquerade());
        if family == Family::V4 {
            let loopback = IpNet::from(ipnet::Ipv4Net::new_assert([127, 0, 0, 0].into(), 8));
            let from = Rule::new(family).source(register).network(register, Compare::Equal, loopback);
            let away = from.destination(register).network(register, Compare::NotEqual, loopback);
            batch.add_rule("nat-postrouting", &away.masquerade());
            let foreign = Rule::new(family).input_index(register);
            let foreign = foreign.compare(register, Compare::NotEqual, &LOOPBACK_INDEX.to_ne_bytes());
            let into = foreign.destination(register).network(register, Compare::Equal, loopback);
            batch.add_rule("raw-prerouting", &into.verdict(&Verdict::Drop));
        }
        let in_family = |net: &&IpNet| Family::of(net.addr()) == family;
        for range in self.ranges.iter().filter(in_family) {
            let from = Rule::new(family).source(register).network(register, Compare::Equal, *range);
            batch.add_rule("nat-postrouting", &from.verdict(&Verdict::Goto(LEAVING.to_owned())));
        }
        let multicast = match family {
            Family::V4 => IpNet::from(ipnet::Ipv4Net::new_assert([224, 0, 0, 0].into(), 4)),
            Family::V6 => IpNet::from(ipnet::Ipv6Net::new_assert([0xff00, 0, 0, 0, 0, 0, 0, 0].into(), 8)),
        };
        for network in self.inside.iter().filter(in_family).chain([&multicast]) {
            let to = Rule::new(family).destination(register).network(register, Compare::Equal, *network);
            batch.add_rule(LEAVING, &to.verdict(&Verdict::Return));
        }
        let to_node = Rule::new(family).destination(register).in_set(NODES, register);
        batch.add_rule(LEAVING, &to_node.verdict(&Verdict::Return));
        batch.add_rule(LEAVING, &Rule::new(family).masquerade());
    }
}

/// The map entries of a sandbox's host ports.
fn elements(record: &Record, family: Family) -> Vec<(&'static str, Vec<Element>)> {
    let Some(pod) = record.addresses.iter().copied().find(|address| Family::of(*address) == family) else {
        return Vec::new();
    };
    let (mut any, mut specific) = (Vec::new(), Vec::new());
    for port in &record.ports {
        let to = Value::new().address(pod).port(port.container_port);
        match port.host_ip {
            None => any.push(Element::value(Value::new().protocol(port.protocol).port(port.host_port), to)),
            Some(host) if Family::of(host) == family => {
                let key = Value::new().address(host).protocol(port.protocol).port(port.host_port);
                specific.push(Element::value(key, to));
            }
            Some(_) => (),
        }
    }
    if any.is_empty() && specific.is_empty() {
        return Vec::new();
    }
    let own = vec![Element::key(Value::new().address(pod).address(pod))];
    vec![(PORTS, any), (PORTS_AT, specific), (OWN_PORTS, own)]
}
