//! nftables over netlink: tables, chains, rules, sets and maps, changed in atomic batches.
//!
//! ```text
//! Batch (begin, operations, end) -> one sendmsg -> the kernel applies all of it or nothing
//! ```
//!
//! [`Batch`] collects operations, [`Rule`] encodes expressions, [`Nft`] commits and dumps. A packet sees the state before or after a
//! batch, never between. The encoding is ours (see [`crate::netlink`]); the `nft` program is used by tests only, as an
//! oracle. Not here: what our tables contain ([`crate::proxy`], [`crate::pod`]).

pub mod batch;
pub mod handle;
pub mod rule;
pub mod set;
pub(crate) mod wire;

pub use batch::{Batch, Chain, Hook, HookPoint, Table};
pub use handle::{Dumped, Nft};
pub use rule::{Compare, Register, Rule};
pub use set::{Data, DataKind, Element, KeyPart, Set, Value, Verdict};

use std::io;

/// An address family of tables. Services and pods of each family live in a table of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// `ip`
    V4,
    /// `ip6`
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: std::net::IpAddr) -> Self {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// The kernel's protocol family number.
    pub(crate) fn number(self) -> u8 {
        match self {
            Family::V4 => libc::AF_INET as u8,
            Family::V6 => libc::AF_INET6 as u8,
        }
    }

    /// Bytes of one address.
    pub fn address_len(self) -> u32 {
        match self {
            Family::V4 => 4,
            Family::V6 => 16,
        }
    }

    /// How many 32-bit registers one address fills.
    pub fn address_registers(self) -> u32 {
        self.address_len() / 4
    }
}

/// Why a change or a dump did not work.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The socket failed; nothing was applied.
    #[error("netlink to nftables: {0}")]
    Socket(#[from] io::Error),
    /// The kernel refused one operation, and with it the whole batch.
    #[error("the kernel refused to {operation}: {errno}")]
    Refused {
        /// The first operation that failed, in words.
        operation: String,
        /// The kernel's error.
        errno: io::Error,
    },
    /// The kernel gave no answer at all; whether the batch was applied is unknown.
    #[error("the kernel did not answer an nftables batch")]
    NoAnswer,
}
