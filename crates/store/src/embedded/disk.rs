//! What is durable: the contract between the committer and a disk, and what is written to one.
//!
//! The disk is a log of groups ([`log`]) that folds itself into a base now and then. It is read once, at the start, and
//! everything is served from memory.
//!
//! ```text
//! committer ─► Disk::write ─► log: one frame a group, one fdatasync
//!          └─► Disk::settle ─► (in the background) prepares the next file of the log; writes a new base
//!                                 └─ Records ◄── view
//! ```

mod base_file;
mod folder;
mod frame;
mod log;
mod recovery;
mod segment;

use std::io;
use std::sync::Arc;

use crate::{Entry, Key, Revision};

pub use log::LogDisk;

/// An entry and when it expires, in milliseconds since 1970; 0 for never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub entry: Entry,
    pub deadline_ms: u64,
}

/// Everything that was found at the start.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The latest revision; none on a new disk.
    pub revision: Option<Revision>,
    /// In key order.
    pub records: Vec<Record>,
}

/// The final state of one key after a group.
pub enum Write<'a> {
    Put(&'a Record),
    Remove(&'a Key),
}

/// Where groups become durable. One thread uses it.
pub trait Disk: Send {
    /// Makes a group durable as a whole, or fails; after a failure nobody knows what is on disk. A key occurs once.
    fn write(&mut self, revision: Revision, writes: &mut dyn Iterator<Item = Write<'_>>) -> io::Result<()>;

    /// Called between groups, when all that was written can be read from `records` too: the moment to begin housekeeping.
    fn settle(&mut self, _records: &Arc<dyn Records>) {}
}

/// Everything as it is now, a part at a time.
pub trait Records: Send + Sync {
    /// The records that follow `key` (none for the beginning) in key order, until they have about `bytes`; empty at the end.
    fn following(&self, key: Option<&Key>, bytes: usize) -> Vec<Record>;
}
