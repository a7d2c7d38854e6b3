//! The service proxy: Services and EndpointSlices become map entries in the kernel.
//!
//! ```text
//! informers ─► dirty service keys ─► Proxy::sync
//!     model   (what we keep of the objects)
//!     plan    (one service ─► what each frontend does; pure)
//!     slots   (which backend in which slot; pure)
//!     program (elements before/after ─► one nftables batch)     layout (the table itself)
//! ```
//!
//! A change costs what changed: one endpoint of ten thousand services is a handful of elements in one batch. Connections that exist
//! are never touched by a batch; only UDP entries that lead to a backend that is gone are deleted. While this process is
//! away the kernel goes on with what it was told last, and the first sync after a start replaces all of it in one step.
//!
//! Not yet: `healthCheckNodePort` servers, `loadBalancerSourceRanges`, and taking over affinity entries across a restart.

mod affinity;
pub mod layout;
pub mod model;
pub mod plan;
pub mod program;
pub mod run;
pub mod slots;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use meta::ObjectKey;

pub use model::{Endpoint, Protocol, Service, ServicePort, Slice, SlicePort};
pub use plan::{Backend, Frontend, FrontendPlan, Node};
pub use run::run;

use crate::conntrack::Conntrack;
use crate::nft::{Family, Nft, NftError, Table};
use program::{Pending, Program};

/// What the proxy has to know about the cluster and this node.
#[derive(Debug, Clone)]
pub struct Config {
    /// The table is called `<prefix>-services`.
    pub prefix: String,
    /// The name of this node.
    pub node: String,
    /// The whole cluster's pod ranges.
    pub pod_cidrs: Vec<IpNet>,
    /// The ranges service addresses come from: unallocated ones are rejected.
    pub service_cidrs: Vec<IpNet>,
    /// Service addresses that a process on this node answers itself (the resolver's): left alone, and UDP with them not tracked.
    pub own_addresses: Vec<IpAddr>,
    /// Where node ports are served; empty for the internal addresses of the Node object.
    pub node_port_addresses: Vec<IpAddr>,
}

/// Why the proxy could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// nftables would not take the change.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// The connection tracker failed.
    #[error("connection tracking: {0}")]
    Conntrack(std::io::Error),
}

/// Desired state per service; `None` for a service that is gone.
pub type Plans = HashMap<ObjectKey, BTreeMap<Frontend, FrontendPlan>>;

/// The proxy of one node: who owns which frontend, and the kernel's tables.
#[derive(Debug)]
pub struct Proxy {
    config: Config,
    nft: Nft,
    conntrack: Conntrack,
    programs: [Program; 2],
    owners: HashMap<Frontend, ObjectKey>,
    /// Services that want a frontend which another one has (the same external IP and port).
    waiting: HashMap<Frontend, BTreeSet<ObjectKey>>,
    wanted: Plans,
    /// The tables are known to hold what the programs say.
    in_step: bool,
}

impl Proxy {
    /// A proxy in the calling thread's network namespace. Nothing is changed before the first [`Proxy::sync`].
    pub fn open(config: Config) -> Result<Self, ProxyError> {
        let name = format!("{}-services", config.prefix);
        let program = |family| Program::new(Table { family, name: name.clone() });
        Ok(Proxy {
            nft: Nft::open()?,
            conntrack: Conntrack::open().map_err(ProxyError::Conntrack)?,
            programs: [program(Family::V4), program(Family::V6)],
            owners: HashMap::new(),
            waiting: HashMap::new(),
            wanted: Plans::new(),
            in_step: false,
            config,
        })
    }

    /// How many frontends are served.
    pub fn frontends(&self) -> usize {
        self.programs.iter().map(Program::len).sum()
    }

    /// Takes over new plans (an empty one for a service that is gone) and brings the kernel in step.
    ///
    /// # Errors
    /// After an error the kernel still has its last consistent state, and the next call replaces the tables as a whole.
    pub fn sync(&mut self, plans: Plans) -> Result<(), ProxyError> {
        let mut changed = BTreeSet::new();
        for (service, plan) in plans {
            self.claim(&service, plan, &mut changed);
        }
        let mut pending = [Pending::of(self.in_step), Pending::of(self.in_step)];
        for frontend in changed {
            let plan = self
                .owners
                .get(&frontend)
                .and_then(|owner| self.wanted.get(owner))
                .and_then(|plan| plan.get(&frontend));
            let index = usize::from(frontend.address.is_ipv6());
            self.programs[index].set(frontend, plan, &mut pending[index]);
        }
        let (mut stale, mut moved) = (Vec::new(), Vec::new());
        for pending in &mut pending {
            stale.append(&mut pending.stale_udp);
            moved.append(&mut pending.moved);
        }
        self.commit(pending)?;
        affinity::follow(&mut self.nft, &self.programs, &moved)?;
        self.forget_stale(&stale)
    }

    /// Deletes the tables.
    pub fn remove(&mut self) -> Result<(), ProxyError> {
        self.in_step = false;
        for program in &self.programs {
            self.nft.delete_table(program.table())?;
        }
        Ok(())
    }

    /// Notes what a service wants, gives it what is free, and passes on what it no longer wants.
    fn claim(&mut self, service: &ObjectKey, plan: BTreeMap<Frontend, FrontendPlan>, changed: &mut BTreeSet<Frontend>) {
        let plan: BTreeMap<_, _> =
            plan.into_iter().filter(|(frontend, _)| !self.config.own_addresses.contains(&frontend.address)).collect();
        let before = self.wanted.remove(service).unwrap_or_default();
        for frontend in before.keys().filter(|frontend| !plan.contains_key(frontend)) {
            if self.owners.get(frontend) == Some(service) {
                self.owners.remove(frontend);
                changed.insert(*frontend);
                if let Some(heir) = self.waiting.get_mut(frontend).and_then(BTreeSet::pop_first) {
                    self.owners.insert(*frontend, heir);
                }
            }
            if let Some(waiting) = self.waiting.get_mut(frontend) {
                waiting.remove(service);
                if waiting.is_empty() {
                    self.waiting.remove(frontend);
                }
            }
        }
        for frontend in plan.keys() {
            match self.owners.get(frontend) {
                Some(owner) if owner != service => {
                    tracing::warn!(%service, %owner, address = %frontend.address, port = frontend.port, "address and port belong to another service");
                    self.waiting.entry(*frontend).or_default().insert(service.clone());
                }
                _ => {
                    self.owners.insert(*frontend, service.clone());
                    if before.get(frontend) != plan.get(frontend) {
                        changed.insert(*frontend);
                    }
                }
            }
        }
        if !plan.is_empty() {
            self.wanted.insert(service.clone(), plan);
        }
    }

    fn commit(&mut self, pending: [Pending; 2]) -> Result<(), ProxyError> {
        if self.in_step {
            let result = self.programs.iter().zip(pending).try_for_each(|(program, pending)| {
                if pending.is_empty() { Ok(()) } else { self.nft.commit(program.incremental(pending)) }
            });
            match result {
                Ok(()) => return Ok(()),
                // Someone else changed or deleted our table: put all of it back.
                Err(error) => tracing::warn!(%error, "replacing the service tables as a whole"),
            }
        }
        self.in_step = false;
        for program in &mut self.programs {
            // A family that the cluster does not have may be one that the kernel does not have.
            let family = program.table().family;
            let cidrs = self.config.pod_cidrs.iter().chain(&self.config.service_cidrs);
            if program.is_empty() && !cidrs.into_iter().any(|cidr| Family::of(cidr.addr()) == family) {
                continue;
            }
            self.nft.commit(program.full(&self.config))?;
        }
        self.in_step = true;
        Ok(())
    }

    /// Deletes UDP connections to changed frontends whose backend is no longer one of theirs, or that never had one.
    fn forget_stale(&mut self, stale: &[(Frontend, Vec<Backend>)]) -> Result<(), ProxyError> {
        for family in [Family::V4, Family::V6] {
            let changed: HashMap<(IpAddr, u16), &[Backend]> = stale
                .iter()
                .filter(|(frontend, _)| Family::of(frontend.address) == family)
                .map(|(frontend, now)| ((frontend.address, frontend.port), now.as_slice()))
                .collect();
            if changed.is_empty() {
                continue;
            }
            let forgotten = self.conntrack.forget(family, |entry| {
                let to = (entry.original.destination, entry.original.destination_port);
                let from = (entry.reply.source, entry.reply.source_port);
                entry.original.protocol == libc::IPPROTO_UDP as u8
                    && changed.get(&to).is_some_and(|now| !now.iter().any(|b| (b.address, b.port) == from))
            });
            let forgotten = forgotten.map_err(ProxyError::Conntrack)?;
            tracing::debug!(forgotten, "deleted stale UDP connections");
        }
        Ok(())
    }
}
