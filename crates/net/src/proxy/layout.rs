//! The proxy's table: chains, sets and maps, and the rules that never change.
//!
//! ```text
//! prerouting, output ─► services:  key = (address, protocol, port)
//!     client outside the cluster:  outside[key] ─► goto pick-…, or return
//!     services[key] ─► goto pick-<count>…
//! pick-<count>…:  mark for masquerade, as its name says
//!     backends[(key, random slot)] ─► destination NAT
//! postrouting:  hairpin[(a, a)] or marked ─► masquerade
//! input, forward, output (new connections):  dropped[key], rejected[key], anything else in the service range ─► reject
//! raw prerouting, raw output:  UDP with the node's own service addresses (its resolver's) ─► not tracked
//! ```
//!
//! There is a chain per [`Class`]: a number of backends (nft draws numbers below a constant), whom to masquerade, and an affinity time;
//! a few dozen for any number of services. Services with affinity go through the packet's mark, which holds the slot:
//!
//! ```text
//! mark = sticky[(client, key)];  backends[(key, mark)] ─► start the entry's time anew ─► destination NAT
//! mark = random slot;            backends[(key, mark)] ─► new entry in sticky         ─► destination NAT
//! ```
//!
//! Two constraints shaped this. Each rule looks up one map, because the `nft` program dies listing a rule whose key comes out of another
//! map. And the masquerade bit is part of the mark, so such services have every slot twice, with and without it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Config;
use super::plan::Masquerade;
use crate::nft::{Batch, Chain, Compare, Family, Hook, HookPoint, KeyPart, Register, Rule, Set, Value, Verdict};

use KeyPart::{Address, Number, Port, Protocol};

pub const SERVICES: &str = "services";
pub const OUTSIDE: &str = "outside";
pub const BACKENDS: &str = "backends";
pub const STICKY: &str = "sticky";
pub const HAIRPIN: &str = "hairpin";
pub const REJECTED: &str = "rejected";
pub const DROPPED: &str = "dropped";

/// Slots of the backends for clients outside the cluster start here; a service has fewer endpoints than this.
pub const OUTSIDE_SLOT_FIRST: u32 = 1 << 20;
/// How many clients may be bound to their backends at a time, over all services.
const STICKY_CLIENTS_MAX: u32 = 1 << 20;
/// Upstream's bit, so that other software that knows it does the right thing.
pub const MASQUERADE_MARK: u32 = 0x4000;
/// How many backends a service with affinity may have: slots stay below the masquerade bit.
pub const STICKY_SLOTS_MAX: usize = MASQUERADE_MARK as usize - 1;

const PRIORITY_RAW: i32 = -300;
const PRIORITY_DESTINATION_NAT: i32 = -100;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SOURCE_NAT: i32 = 100;

const MARK: &str = "mark";
const MARK_OFF_CLUSTER: &str = "mark-off-cluster";
const UNSERVED: &str = "unserved";
const UNALLOCATED: &str = "unallocated";
const REFUSE: &str = "refuse";

/// The sets and maps of the table.
pub const SETS: &[Set] = &[
    Set::verdict_map(SERVICES, &[Address, Protocol, Port]),
    Set::verdict_map(OUTSIDE, &[Address, Protocol, Port]),
    Set::map(BACKENDS, &[Address, Protocol, Port, Number], &[Address, Port]),
    Set {
        dynamic_entries_max: Some(STICKY_CLIENTS_MAX),
        ..Set::map(STICKY, &[Address, Address, Protocol, Port], &[Number])
    },
    Set::plain(HAIRPIN, &[Address, Address]),
    Set::plain(REJECTED, &[Address, Protocol, Port]),
    Set::plain(DROPPED, &[Address, Protocol, Port]),
];

/// What a chain that picks backends is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class {
    pub masquerade: Masquerade,
    /// How many backends there are; at least 1.
    pub count: u32,
    /// The backends for clients outside the cluster.
    pub outside: bool,
    pub affinity_s: Option<u32>,
}

impl Class {
    /// The name of its chain.
    pub fn chain(&self) -> String {
        let masquerade = match self.masquerade {
            Masquerade::OffCluster => "",
            Masquerade::Always => "-masq",
            Masquerade::Never => "-keep",
        };
        let outside = if self.outside { "-outside" } else { "" };
        let sticky = self.affinity_s.map(|seconds| format!("-sticky-{seconds}")).unwrap_or_default();
        format!("pick-{}{masquerade}{outside}{sticky}", self.count)
    }
}

/// Creates the chains and sets with their constant rules in an empty table.
pub fn create(batch: &mut Batch, config: &Config) {
    let family = batch.family();
    for set in SETS {
        batch.add_set(set);
    }
    for name in [SERVICES, MARK, MARK_OFF_CLUSTER, UNSERVED, UNALLOCATED, REFUSE] {
        batch.add_chain(&Chain { name, hook: None });
    }
    for (name, kind, point, priority) in [
        ("raw-prerouting", "filter", HookPoint::Prerouting, PRIORITY_RAW),
        ("raw-output", "filter", HookPoint::Output, PRIORITY_RAW),
        ("nat-prerouting", "nat", HookPoint::Prerouting, PRIORITY_DESTINATION_NAT),
        ("nat-output", "nat", HookPoint::Output, PRIORITY_DESTINATION_NAT),
        ("nat-postrouting", "nat", HookPoint::Postrouting, PRIORITY_SOURCE_NAT),
        ("filter-input", "filter", HookPoint::Input, PRIORITY_FILTER),
        ("filter-forward", "filter", HookPoint::Forward, PRIORITY_FILTER),
        ("filter-output", "filter", HookPoint::Output, PRIORITY_FILTER),
    ] {
        batch.add_chain(&Chain { name, hook: Some(Hook { kind, point, priority }) });
    }
    let in_family = |cidrs: &[IpNet]| -> Vec<IpNet> {
        cidrs.iter().filter(|cidr| Family::of(cidr.addr()) == family).copied().collect()
    };
    for address in config.own_addresses.iter().filter(|address| Family::of(**address) == family) {
        leave_untracked(batch, family, *address);
    }
    translate(batch, family, &in_family(&config.pod_cidrs));
    refuse(batch, family, &in_family(&config.service_cidrs));
}

/// Every question to a resolver comes from another port: tracked, each would be a connection that is remembered for half a minute,
/// and a pod that asks much could fill the kernel's table. Nothing of it is ever translated, so nothing needs to be known.
fn leave_untracked(batch: &mut Batch, family: Family, address: IpAddr) {
    let bytes = Value::new().address(address).0;
    let udp = || Rule::new(family).protocol(reg(0)).compare(reg(0), Compare::Equal, &[libc::IPPROTO_UDP as u8]);
    let to = || udp().destination(reg(0)).compare(reg(0), Compare::Equal, &bytes).untracked();
    let from = udp().source(reg(0)).compare(reg(0), Compare::Equal, &bytes).untracked();
    batch.add_rule("raw-prerouting", &to());
    batch.add_rule("raw-output", &to());
    batch.add_rule("raw-output", &from);
}

fn translate(batch: &mut Batch, family: Family, pod_cidrs: &[IpNet]) {
    batch.add_rule("nat-prerouting", &Rule::new(family).jump(SERVICES));
    batch.add_rule("nat-output", &Rule::new(family).jump(SERVICES));

    let mut outside = Rule::new(family);
    for cidr in pod_cidrs {
        outside = outside.source(reg(0)).network(reg(0), Compare::NotEqual, *cidr);
    }
    let local = u32::from(libc::RTN_LOCAL).to_ne_bytes();
    outside = outside.source_type(reg(0)).compare(reg(0), Compare::NotEqual, &local);
    batch.add_rule(SERVICES, &frontend(outside, 0).verdict_of(OUTSIDE, reg(0)));
    batch.add_rule(SERVICES, &frontend(Rule::new(family), 0).verdict_of(SERVICES, reg(0)));

    for cidr in pod_cidrs {
        let pods = Rule::new(family).source(reg(0)).network(reg(0), Compare::Equal, *cidr);
        batch.add_rule(MARK_OFF_CLUSTER, &pods.verdict(&Verdict::Return));
    }
    for chain in [MARK_OFF_CLUSTER, MARK] {
        let keep = (!MASQUERADE_MARK).to_ne_bytes();
        let set = Rule::new(family).mark(reg(0)).bitwise(reg(0), reg(0), &keep, &MASQUERADE_MARK.to_ne_bytes());
        batch.add_rule(chain, &set.set_mark(reg(0)));
    }
    let both = Rule::new(family).source(reg(0)).destination(reg(family.address_registers()));
    batch.add_rule("nat-postrouting", &both.in_set(HAIRPIN, reg(0)).masquerade());
    let only = MASQUERADE_MARK.to_ne_bytes();
    let marked =
        Rule::new(family).mark(reg(0)).bitwise(reg(0), reg(1), &only, &[0; 4]).compare(reg(1), Compare::Equal, &only);
    let cleared = marked.bitwise(reg(0), reg(0), &(!MASQUERADE_MARK).to_ne_bytes(), &[0; 4]).set_mark(reg(0));
    batch.add_rule("nat-postrouting", &cleared.masquerade());
}

fn refuse(batch: &mut Batch, family: Family, service_cidrs: &[IpNet]) {
    for chain in ["filter-input", "filter-forward", "filter-output"] {
        batch.add_rule(chain, &Rule::new(family).new_connection(reg(0)).jump(UNSERVED));
    }
    for chain in ["filter-forward", "filter-output"] {
        batch.add_rule(chain, &Rule::new(family).new_connection(reg(0)).jump(UNALLOCATED));
    }
    batch.add_rule(UNSERVED, &frontend(Rule::new(family), 0).in_set(DROPPED, reg(0)).verdict(&Verdict::Drop));
    batch.add_rule(UNSERVED, &frontend(Rule::new(family), 0).in_set(REJECTED, reg(0)).jump(REFUSE));
    // The kernel sends no ICMP error about a packet that leaves by the loopback device, but it does send resets.
    batch.add_rule(REFUSE, &Rule::new(family).reset(reg(0)));
    batch.add_rule(REFUSE, &Rule::new(family).reject());
    // An address of the range that this node serves itself (its resolver's) is local and passes.
    let local = u32::from(libc::RTN_LOCAL).to_ne_bytes();
    for cidr in service_cidrs {
        let unallocated = Rule::new(family).destination(reg(0)).network(reg(0), Compare::Equal, *cidr);
        let foreign = unallocated.destination_type(reg(0)).compare(reg(0), Compare::NotEqual, &local);
        batch.add_rule(UNALLOCATED, &foreign.jump(REFUSE));
    }
}

/// Creates the chain that picks a backend for this class.
pub fn create_class(batch: &mut Batch, class: &Class) {
    let (family, chain) = (batch.family(), class.chain());
    let words = family.address_registers();
    batch.add_chain(&Chain { name: &chain, hook: None });
    if let Some(seconds) = class.affinity_s {
        stick(batch, &chain, class, u64::from(seconds) * 1000);
        return;
    }
    mark(batch, &chain, class.masquerade);
    let slot = frontend(Rule::new(family), 0).random(reg(words + 2), class.count, first_slot(class.outside, false));
    batch.add_rule(&chain, &to_backend(slot, 0));
}

/// The rules that keep a client with its backend. Registers: client, frontend, mark.
fn stick(batch: &mut Batch, chain: &str, class: &Class, timeout_ms: u64) {
    let family = batch.family();
    let words = family.address_registers();
    let (key, slot) = (words, 2 * words + 2);
    let start = || frontend(Rule::new(family).source(reg(0)), key);
    let chosen = start().mark(reg(slot)).in_map(BACKENDS, reg(key), reg(slot + 1));
    let chosen = chosen.refresh(STICKY, reg(0), reg(slot), timeout_ms);
    let kept = chosen.translate_destination(reg(slot + 1), reg(slot + 1 + words));

    batch.add_rule(chain, &start().in_map(STICKY, reg(0), reg(slot)).set_mark(reg(slot)));
    batch.add_rule(chain, &kept);
    let drawn = Rule::new(family).random(reg(0), class.count, first_slot(class.outside, true));
    batch.add_rule(chain, &drawn.set_mark(reg(0)));
    mark(batch, chain, class.masquerade);
    batch.add_rule(chain, &kept);
    // The map is full: serve the client all the same.
    batch.add_rule(chain, &to_backend(frontend(Rule::new(family), 0).mark(reg(words + 2)), 0));
}

fn mark(batch: &mut Batch, chain: &str, masquerade: Masquerade) {
    let family = batch.family();
    match masquerade {
        Masquerade::OffCluster => batch.add_rule(chain, &Rule::new(family).jump(MARK_OFF_CLUSTER)),
        Masquerade::Always => batch.add_rule(chain, &Rule::new(family).jump(MARK)),
        Masquerade::Never => (),
    }
}

/// Looks up the backend by the frontend and slot that start at register `key`, and sends the packet there.
fn to_backend(rule: Rule, key: u32) -> Rule {
    let words = rule.family().address_registers();
    rule.in_map(BACKENDS, reg(key), reg(8)).translate_destination(reg(8), reg(8 + words))
}

/// Where the slots of a pool start. With affinity 0 is left out, since it is the mark of a packet that nobody has marked.
pub fn first_slot(outside: bool, sticky: bool) -> u32 {
    if outside { OUTSIDE_SLOT_FIRST } else { u32::from(sticky) }
}

/// Loads destination address, protocol and destination port into registers from `first` on.
fn frontend(rule: Rule, first: u32) -> Rule {
    // The family decides how many registers the address fills; the rule knows it.
    let words = rule.family().address_registers();
    rule.destination(reg(first)).protocol(reg(first + words)).destination_port(reg(first + words + 1))
}

const fn reg(number: u32) -> Register {
    Register(number)
}
