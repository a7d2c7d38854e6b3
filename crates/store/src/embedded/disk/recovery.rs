//! Reading a folder back: the newest base, and the log from its file on.
//!
//! ```text
//! 3.base   3.log  4.log  5.log     records of the base, then every group in order
//!                          └─ the last frame may be torn: its group was never answered, and is forgotten
//! ```
//!
//! Every frame says which revision it goes on from, so a group that is missing is noticed: then the store refuses to open
//! rather than serve less than it promised. So it does when a whole frame follows one that is torn, since a frame is only
//! written when the one before it is durable.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::folder::Folder;
use super::frame::{BLOCK_BYTES, Group};
use super::segment::Header;
use super::{Loaded, Record, base_file};
use crate::{Key, Revision};

/// What a folder holds.
#[derive(Debug, Default)]
pub struct Recovered {
    pub loaded: Loaded,
    /// The number of the next file.
    pub next: u64,
    /// How many files of the log there are, and what is used of them.
    pub segments: usize,
    pub log_bytes: u64,
    pub base_bytes: u64,
}

/// Reads everything and clears away what is needed no more.
///
/// # Errors
/// The folder cannot be read, holds something else, or something in it is missing or damaged.
pub fn recover(folder: &Folder) -> io::Result<Recovered> {
    let found = folder.list()?;
    found.unfinished.iter().try_for_each(fs::remove_file)?;
    let mut reading = Reading::default();
    let first = match found.bases.last() {
        Some(base) => {
            let take = |record: Record| drop(reading.world.insert(record.entry.key.clone(), record));
            let (revision, bytes) = base_file::read(&folder.base(*base), *base, take)?;
            (reading.revision, reading.recovered.base_bytes) = (Some(revision), bytes);
            *base
        }
        None => 1,
    };
    reading.recovered.next = first;
    for number in found.segments.range(first..) {
        reading.segment(folder, *number)?;
    }
    if reading.recovered.segments > 0 {
        // What a killed process wrote and did not sync is served from now on.
        File::open(folder.segment(reading.recovered.next - 1))?.sync_data()?;
        folder.sync()?;
    } else if !found.bases.is_empty() {
        return Err(missing(&folder.segment(first)));
    }
    for number in found.segments.range(..first) {
        fs::remove_file(folder.segment(*number))?;
    }
    for number in found.bases.range(..first) {
        fs::remove_file(folder.base(*number))?;
    }
    Ok(reading.finish())
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} is missing", path.display()))
}

#[derive(Default)]
struct Reading {
    world: BTreeMap<Key, Record>,
    revision: Option<Revision>,
    /// Of the last frame.
    chained: Option<Revision>,
    recovered: Recovered,
}

impl Reading {
    fn segment(&mut self, folder: &Folder, number: u64) -> io::Result<()> {
        let path = folder.segment(number);
        let bytes = fs::read(&path)?;
        let mut source = &*bytes;
        let header = Header::read(&mut source, &path)?.filter(|header| header.number == number);
        let Header { seed, .. } = header.ok_or_else(|| damaged(&path, "its first block"))?;
        if number != self.recovered.next {
            return Err(missing(&folder.segment(self.recovered.next)));
        }
        let mut used = BLOCK_BYTES;
        while let Some(group) = Group::read(&mut source, seed)? {
            used += group.padded_bytes();
            self.apply(&path, &group)?;
        }
        if let Some(offset) = frame_after(&bytes, used, seed) {
            return Err(damaged(&path, &format!("the group at {used}, before the one at {offset}")));
        }
        self.recovered.next = number + 1;
        self.recovered.segments += 1;
        self.recovered.log_bytes += used as u64;
        Ok(())
    }

    fn apply(&mut self, path: &Path, group: &Group) -> io::Result<()> {
        let goes_on = match (self.chained, self.revision) {
            (Some(chained), _) => group.before == chained,
            // The base may be of later than the beginning of its file.
            (None, Some(base)) => group.before <= base,
            (None, None) => group.before == 0,
        };
        if !goes_on {
            return Err(damaged(path, &format!("what leads to revision {}", group.before)));
        }
        for (key, record) in group.changes()? {
            match record {
                Some(record) => drop(self.world.insert(key, record)),
                None => drop(self.world.remove(&key)),
            }
        }
        self.chained = Some(group.revision);
        self.revision = self.revision.max(self.chained);
        Ok(())
    }

    fn finish(mut self) -> Recovered {
        let records = self.world.into_values().collect();
        self.recovered.loaded = Loaded { revision: self.revision, records };
        self.recovered
    }
}

/// Where a whole frame begins behind one that is none.
fn frame_after(bytes: &[u8], end: usize, seed: u64) -> Option<usize> {
    let offsets = (end + BLOCK_BYTES..bytes.len()).step_by(BLOCK_BYTES);
    offsets.into_iter().find(|at| matches!(Group::read(&mut &bytes[*at..], seed), Ok(Some(_))))
}

fn damaged(path: &Path, what: &str) -> io::Error {
    let message = format!("{} is damaged: {what} is missing; restore the store's folder", path.display());
    io::Error::new(io::ErrorKind::InvalidData, message)
}
