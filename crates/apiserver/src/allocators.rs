//! Service addresses and node ports: unique in the cluster, taken within the write that needs them.
//!
//! An address is taken by an `IPAddress` object that must not exist yet and is written in the same transaction as the
//! Service: both or neither. A node port is taken in this server's memory, which is filled from the Services at start.
//!
//! ```text
//! strategy ─► Allocation (one per write) ─► picks a candidate, holds it
//!     commit with the records of the held addresses ─► keep()
//!     any failure                                   ─► dropped, everything is free again
//! ```
//!
//! Addresses and ports handed out by the server come from the upper part of the range first, so that the lower part stays
//! free for those who ask for a particular one.

pub mod allocation;
pub mod pool;
pub mod repair;

use std::net::IpAddr;

use api::strategy::IpFamily;
use ipnet::IpNet;
use parking_lot::Mutex;

pub use allocation::Allocation;
use pool::{AddressPool, PortPool};

/// First and last node port.
pub const NODE_PORTS: (u16, u16) = (30_000, 32_767);

/// What there is to take.
pub struct ServiceAllocators {
    /// The primary family first.
    pools: Vec<AddressPool>,
    /// Addresses that writes under way have picked.
    held: Mutex<std::collections::HashSet<IpAddr>>,
    ports: Mutex<PortPool>,
}

impl ServiceAllocators {
    pub fn new(service_cidrs: &[IpNet]) -> Self {
        ServiceAllocators {
            pools: service_cidrs.iter().map(|cidr| AddressPool::new(*cidr)).collect(),
            held: Mutex::default(),
            ports: Mutex::new(PortPool::new(NODE_PORTS)),
        }
    }

    pub fn families(&self) -> Vec<IpFamily> {
        self.pools.iter().map(AddressPool::family).collect()
    }

    /// The ranges, the primary one first.
    pub fn cidrs(&self) -> impl Iterator<Item = IpNet> {
        self.pools.iter().map(AddressPool::cidr)
    }

    /// The first address of the primary range, which the `kubernetes` Service has.
    pub fn first_address(&self) -> Option<IpAddr> {
        self.pools.first().map(AddressPool::first)
    }

    /// Takes a port that a stored Service has.
    pub(super) fn note_port(&self, port: u16) -> bool {
        self.ports.lock().take(Some(port)).is_ok()
    }
}
