//! What the kernel should hold for each frontend, and the smallest batch that takes it from there to a new plan.
//!
//! ```text
//! plans of changed services ─► set(frontend, plan) ─► elements before / after ─► their difference ─► one batch
//! ```
//!
//! [`elements`](Program::set) is the only place that says which map entries a frontend needs; the difference, the full load and the
//! tests all come from it. The cost is that of the frontends that changed, however many there are.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use super::Config;
use super::layout::{self, Class};
use super::plan::{Backend, Frontend, FrontendPlan, Masquerade, Pool};
use super::slots;
use crate::nft::{Batch, Data, Element, Table, Value, Verdict};

/// Chains for this many backends are there from the start: adding a chain makes the kernel check the whole table, which
/// with ten thousand services takes as long as five ordinary changes.
const COMMON_COUNT_MAX: u32 = 10;

/// A pool with its backends put into slots.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Installed {
    Slots(Masquerade, Vec<Backend>),
    Reject,
    Drop,
}

impl Installed {
    fn new(pool: &Pool, before: Option<&Installed>, sticky: bool) -> Self {
        match pool {
            Pool::Reject => Installed::Reject,
            Pool::Drop => Installed::Drop,
            Pool::Backends(masquerade, backends) => {
                let mut slots = slots::assign(before.map_or(&[], Installed::backends), backends);
                if sticky {
                    slots.truncate(layout::STICKY_SLOTS_MAX);
                }
                Installed::Slots(*masquerade, slots)
            }
        }
    }

    fn backends(&self) -> &[Backend] {
        if let Installed::Slots(_, slots) = self { slots } else { &[] }
    }
}

/// What one frontend has in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Programmed {
    main: Installed,
    outside: Option<Installed>,
    affinity_s: Option<u32>,
}

impl Programmed {
    fn backends(&self) -> impl Iterator<Item = &Backend> {
        self.main.backends().iter().chain(self.outside.iter().flat_map(Installed::backends))
    }
}

type Elements = BTreeMap<(&'static str, Value), Data>;

/// Changes that have not reached the kernel yet.
#[derive(Debug, Default)]
pub struct Pending {
    /// The whole table is about to be replaced: which elements come and go need not be known.
    whole: bool,
    delete: BTreeMap<&'static str, Vec<Element>>,
    add: BTreeMap<&'static str, Vec<Element>>,
    classes: Vec<Class>,
    /// UDP frontends whose backends changed, with those they have now: connections to any other are stale.
    pub stale_udp: Vec<(Frontend, Vec<Backend>)>,
    /// Frontends with affinity whose slots changed: clients bound to a slot have to follow.
    pub moved: Vec<Moved>,
}

/// Where the backends of a frontend's slots are now.
#[derive(Debug)]
pub struct Moved {
    pub frontend: Frontend,
    pub affinity_s: u32,
    /// From old slot to new slot, `None` for a backend that is gone. Slots that stayed are not listed.
    pub slots: HashMap<u32, Option<u32>>,
}

impl Pending {
    /// Nothing yet, for a table that holds what its program says, or for one that is to be replaced as a whole.
    pub fn of(in_step: bool) -> Self {
        Pending { whole: !in_step, ..Pending::default() }
    }

    /// Whether the kernel has nothing to be told.
    pub fn is_empty(&self) -> bool {
        self.delete.is_empty() && self.add.is_empty() && self.classes.is_empty()
    }

    fn add(&mut self, set: &'static str, key: Value, data: Data) {
        self.add.entry(set).or_default().push(Element { key, data, timeout_ms: None });
    }

    /// Everything in one batch: chains first, then what goes, then what comes.
    fn into_batch(self, mut batch: Batch) -> Batch {
        for class in &self.classes {
            layout::create_class(&mut batch, class);
        }
        for (set, elements) in &self.delete {
            batch.delete_elements(set, elements);
        }
        for (set, elements) in &self.add {
            batch.add_elements(set, elements);
        }
        batch
    }
}

/// The proxy's table of one address family.
#[derive(Debug)]
pub struct Program {
    table: Table,
    frontends: HashMap<Frontend, Programmed>,
    /// The classes that have a chain. Chains are kept: there are few, and counts come back.
    classes: HashSet<Class>,
    /// How many backends of frontends name a local pod's address.
    hairpins: HashMap<IpAddr, usize>,
}

impl Program {
    /// A program with nothing in it.
    pub fn new(table: Table) -> Self {
        Program { table, frontends: HashMap::new(), classes: HashSet::new(), hairpins: HashMap::new() }
    }

    /// The table it lives in.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// How many frontends it serves.
    pub fn len(&self) -> usize {
        self.frontends.len()
    }

    /// Whether it serves nothing.
    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty()
    }

    /// Makes a frontend do what `plan` says, or nothing. Each frontend may be set once per `pending`.
    pub fn set(&mut self, frontend: Frontend, plan: Option<&FrontendPlan>, pending: &mut Pending) {
        let before = self.frontends.remove(&frontend);
        let after = plan.map(|plan| {
            let sticky = plan.affinity_s.is_some();
            let outside_before = before.as_ref().and_then(|before| before.outside.as_ref());
            Programmed {
                main: Installed::new(&plan.main, before.as_ref().map(|before| &before.main), sticky),
                outside: plan.outside.as_ref().map(|outside| Installed::new(outside, outside_before, sticky)),
                affinity_s: plan.affinity_s,
            }
        });
        if before == after {
            self.frontends.extend(after.map(|after| (frontend, after)));
            return;
        }
        if !pending.whole {
            let old = before.as_ref().map(|before| self.elements(frontend, before, pending)).unwrap_or_default();
            let new = after.as_ref().map(|after| self.elements(frontend, after, pending)).unwrap_or_default();
            difference(&old, new, pending);
        }
        self.count_hairpins(before.as_ref(), after.as_ref(), pending);
        pending.moved.extend(moved(frontend, before.as_ref(), after.as_ref()));
        if frontend.protocol == super::model::Protocol::Udp {
            let now = after.as_ref().map(|after| after.backends().copied().collect()).unwrap_or_default();
            pending.stale_udp.push((frontend, now));
        }
        self.frontends.extend(after.map(|after| (frontend, after)));
    }

    /// The batch for `pending` alone.
    pub fn incremental(&self, pending: Pending) -> Batch {
        pending.into_batch(Batch::new(&self.table))
    }

    /// A batch that replaces the whole table, whatever is there.
    pub fn full(&mut self, config: &Config) -> Batch {
        let mut batch = Batch::new(&self.table);
        batch.renew_table();
        layout::create(&mut batch, config);
        let mut pending = Pending::default();
        self.classes = (1..=COMMON_COUNT_MAX)
            .map(|count| Class { masquerade: Masquerade::OffCluster, count, outside: false, affinity_s: None })
            .collect();
        pending.classes.extend(&self.classes);
        let frontends = std::mem::take(&mut self.frontends);
        for (frontend, programmed) in &frontends {
            for ((set, key), data) in self.elements(*frontend, programmed, &mut pending) {
                pending.add(set, key, data);
            }
        }
        self.frontends = frontends;
        for address in self.hairpins.keys() {
            pending.add(layout::HAIRPIN, Value::new().address(*address).address(*address), Data::None);
        }
        pending.into_batch(batch)
    }

    /// The map entries that a frontend needs.
    fn elements(&mut self, frontend: Frontend, programmed: &Programmed, pending: &mut Pending) -> Elements {
        let key = || frontend.key();
        let mut elements = Elements::new();
        let pools = [(false, Some(&programmed.main)), (true, programmed.outside.as_ref())];
        for (outside, pool) in pools {
            let map = if outside { layout::OUTSIDE } else { layout::SERVICES };
            match pool {
                None => (),
                Some(Installed::Slots(masquerade, slots)) => {
                    let class = Class {
                        masquerade: *masquerade,
                        count: slots.len() as u32,
                        outside,
                        affinity_s: programmed.affinity_s,
                    };
                    elements.insert((map, key()), Data::Verdict(Verdict::Goto(class.chain())));
                    if self.classes.insert(class) {
                        pending.classes.push(class);
                    }
                    for (slot, backend) in (layout::first_slot(outside, programmed.affinity_s.is_some())..).zip(slots) {
                        let to = Data::Value(Value::new().address(backend.address).port(backend.port));
                        if programmed.affinity_s.is_some() {
                            let marked = slot | layout::MASQUERADE_MARK;
                            elements.insert((layout::BACKENDS, key().number(marked)), to.clone());
                        }
                        elements.insert((layout::BACKENDS, key().number(slot)), to);
                    }
                }
                Some(refused) => {
                    if outside {
                        elements.insert((map, key()), Data::Verdict(Verdict::Return));
                    }
                    let set = if *refused == Installed::Drop { layout::DROPPED } else { layout::REJECTED };
                    elements.insert((set, key()), Data::None);
                }
            }
        }
        elements
    }

    fn count_hairpins(&mut self, before: Option<&Programmed>, after: Option<&Programmed>, pending: &mut Pending) {
        let local = |programmed: Option<&Programmed>| -> Vec<IpAddr> {
            let backends = programmed.into_iter().flat_map(Programmed::backends);
            backends.filter(|backend| backend.local).map(|backend| backend.address).collect()
        };
        let pair = |address: IpAddr| Value::new().address(address).address(address);
        let mut touched: BTreeMap<IpAddr, bool> = BTreeMap::new();
        for address in local(after) {
            touched.entry(address).or_insert(self.hairpins.contains_key(&address));
            *self.hairpins.entry(address).or_default() += 1;
        }
        for address in local(before) {
            touched.entry(address).or_insert(true);
            if let Some(count) = self.hairpins.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    self.hairpins.remove(&address);
                }
            }
        }
        for (address, had) in touched {
            match (had, self.hairpins.contains_key(&address)) {
                (false, true) => pending.hairpin(pair(address), true),
                (true, false) => pending.hairpin(pair(address), false),
                _ => (),
            }
        }
    }
}

impl Pending {
    /// Adds or removes a hairpin pair; what came and went within this very batch is not sent at all.
    fn hairpin(&mut self, pair: Value, add: bool) {
        let (list, other) = if add { (&mut self.add, &mut self.delete) } else { (&mut self.delete, &mut self.add) };
        let element = Element::key(pair);
        if let Some(opposite) = other.get_mut(layout::HAIRPIN)
            && let Some(at) = opposite.iter().position(|known| *known == element)
        {
            opposite.swap_remove(at);
            return;
        }
        list.entry(layout::HAIRPIN).or_default().push(element);
    }
}

/// How the slots of a frontend with affinity changed, if they did.
fn moved(frontend: Frontend, before: Option<&Programmed>, after: Option<&Programmed>) -> Option<Moved> {
    let before = before?;
    before.affinity_s?;
    let mut slots = HashMap::new();
    for outside in [false, true] {
        let pool = |programmed: &Programmed| -> Vec<Backend> {
            let pool = if outside { programmed.outside.as_ref() } else { Some(&programmed.main) };
            pool.map(Installed::backends).unwrap_or_default().to_vec()
        };
        let first = layout::first_slot(outside, true);
        let sticky = after.filter(|after| after.affinity_s.is_some());
        let now: HashMap<Backend, u32> = sticky.map(pool).unwrap_or_default().into_iter().zip(first..).collect();
        for (backend, slot) in pool(before).into_iter().zip(first..) {
            let new = now.get(&backend).copied();
            if new != Some(slot) {
                slots.insert(slot, new);
            }
        }
    }
    let affinity_s = after.and_then(|after| after.affinity_s).unwrap_or_default();
    (!slots.is_empty()).then_some(Moved { frontend, affinity_s, slots })
}

fn difference(old: &Elements, new: Elements, pending: &mut Pending) {
    for ((set, key), data) in old {
        if new.get(&(*set, key.clone())) != Some(data) {
            pending.delete.entry(set).or_default().push(Element::key(key.clone()));
        }
    }
    for ((set, key), data) in new {
        let at = (set, key);
        if old.get(&at) != Some(&data) {
            pending.add(at.0, at.1, data);
        }
    }
}
