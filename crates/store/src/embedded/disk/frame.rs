//! How a group looks in a file.
//!
//! ```text
//! frame:   hash u64 | length u64 | before u64 | revision u64 | changes ... | zeros up to the next block
//! change:  key length u32 | value length u32 | create u64 | mod u64 | version u64 | deadline u64 | key | value
//! ```
//!
//! All numbers are little endian. A frame begins on a block, so that no write touches a block that is durable already. The
//! length counts head and changes; the hash is over all of that behind itself. Its seed is the file's own, so frames that a
//! file holds from an earlier life are not taken for its own. A change with `create` 0, which no entry has, removes the key.
//!
//! `before` is the store's revision before the group: a frame that does not go on where the one before it ended shows that
//! something is missing.

use std::io::{self, Read};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Record, Write};
use crate::{Entry, Key, Revision};

/// What a file is written in.
pub const BLOCK_BYTES: usize = 4096;
const HEAD_BYTES: usize = 32;
const CHANGE_HEAD_BYTES: usize = 40;
/// A buffer that has grown beyond this for one large group is given back.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// A frame in the making; used again for the next.
#[derive(Default)]
pub struct Frame {
    buffer: Vec<u8>,
}

impl Frame {
    /// Starts anew.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        self.buffer.resize(HEAD_BYTES, 0);
    }

    pub fn add(&mut self, write: &Write<'_>) {
        match write {
            Write::Put(Record { entry, deadline_ms }) => {
                let numbers = [entry.create_revision, entry.mod_revision, entry.version, *deadline_ms];
                self.add_change(entry.key.as_bytes(), &entry.value, numbers);
            }
            Write::Remove(key) => self.add_change(key.as_bytes(), &[], [0; 4]),
        }
    }

    fn add_change(&mut self, key: &[u8], value: &[u8], numbers: [u64; 4]) {
        for length in [key.len(), value.len()] {
            // Both are checked transactions' and far below 4 GiB.
            self.buffer.extend_from_slice(&(length as u32).to_le_bytes());
        }
        self.add_numbers(&numbers);
        self.buffer.extend_from_slice(key);
        self.buffer.extend_from_slice(value);
    }

    /// Bare numbers, for frames that are no groups.
    pub fn add_numbers(&mut self, numbers: &[u64]) {
        numbers.iter().for_each(|number| self.buffer.extend_from_slice(&number.to_le_bytes()));
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// The whole frame, up to the end of its last block.
    pub fn seal(&mut self, seed: u64, before: Revision, revision: Revision) -> &[u8] {
        let length = self.buffer.len();
        for (index, number) in [(1, length as u64), (2, before), (3, revision)] {
            self.buffer[index * 8..index * 8 + 8].copy_from_slice(&number.to_le_bytes());
        }
        let hash = xxh3_64_with_seed(&self.buffer[8..], seed);
        self.buffer[..8].copy_from_slice(&hash.to_le_bytes());
        self.buffer.resize(length.next_multiple_of(BLOCK_BYTES), 0);
        &self.buffer
    }
}

/// A frame that was read.
#[derive(Debug)]
pub struct Group {
    pub before: Revision,
    pub revision: Revision,
    /// Head and changes.
    bytes: Vec<u8>,
}

/// What a group did to one key: what it is since, or that it is gone.
pub type Change = (Key, Option<Record>);

impl Group {
    /// Reads a frame and its padding. None when what comes is none: the end, zeros, something torn, or of an earlier life.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(source: &mut impl Read, seed: u64) -> io::Result<Option<Self>> {
        let mut bytes = Vec::with_capacity(BLOCK_BYTES);
        if source.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut bytes)? < BLOCK_BYTES {
            return Ok(None);
        }
        let Some(length) = number(&bytes, 1).and_then(|length| usize::try_from(length).ok()) else { return Ok(None) };
        if length < HEAD_BYTES {
            return Ok(None);
        }
        let padded = length.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES);
        // Reads no more than there is, however absurd a torn length.
        source.by_ref().take((padded - BLOCK_BYTES) as u64).read_to_end(&mut bytes)?;
        let Some(sealed) = bytes.get(8..length) else { return Ok(None) };
        if number(&bytes, 0) != Some(xxh3_64_with_seed(sealed, seed)) {
            return Ok(None);
        }
        bytes.truncate(length);
        let (before, revision) = (number(&bytes, 2).unwrap_or(0), number(&bytes, 3).unwrap_or(0));
        Ok(Some(Group { before, revision, bytes }))
    }

    /// What it takes in its file.
    pub fn padded_bytes(&self) -> usize {
        self.bytes.len().next_multiple_of(BLOCK_BYTES)
    }

    /// Bare numbers, as [`Frame::add_numbers`] put them.
    pub fn numbers(&self) -> Vec<u64> {
        let count = (self.bytes.len() - HEAD_BYTES) / 8;
        (0..count).filter_map(|index| number(&self.bytes, HEAD_BYTES / 8 + index)).collect()
    }

    /// What it changed.
    ///
    /// # Errors
    /// A change is cut short, which the hash excludes.
    pub fn changes(&self) -> io::Result<Vec<Change>> {
        let (mut changes, mut at) = (Vec::new(), HEAD_BYTES);
        while at < self.bytes.len() {
            let (change, length) = change(&self.bytes[at..])
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a change in the store is cut short"))?;
            changes.push(change);
            at += length;
        }
        Ok(changes)
    }
}

/// The change at the beginning, and its length.
fn change(bytes: &[u8]) -> Option<(Change, usize)> {
    let lengths = number(bytes, 0)?;
    let (key_length, value_length) = ((lengths & u64::from(u32::MAX)) as usize, (lengths >> 32) as usize);
    let value_at = CHANGE_HEAD_BYTES + key_length;
    let key = Key::new(bytes.get(CHANGE_HEAD_BYTES..value_at)?);
    let value = bytes.get(value_at..value_at + value_length)?;
    let create_revision = number(bytes, 1)?;
    let record = (create_revision != 0).then_some(Record {
        entry: Entry {
            key: key.clone(),
            value: Bytes::copy_from_slice(value),
            create_revision,
            mod_revision: number(bytes, 2)?,
            version: number(bytes, 3)?,
        },
        deadline_ms: number(bytes, 4)?,
    });
    Some(((key, record), value_at + value_length))
}

/// The `index`th u64.
fn number(bytes: &[u8], index: usize) -> Option<u64> {
    let bytes = <[u8; 8]>::try_from(bytes.get(index * 8..index * 8 + 8)?).ok()?;
    Some(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Record {
        let entry = Entry {
            key: key.into(),
            value: Bytes::copy_from_slice(value),
            create_revision: 5,
            mod_revision: 7,
            version: 2,
        };
        Record { entry, deadline_ms: 9 }
    }

    fn sealed(value: &[u8], seed: u64) -> Vec<u8> {
        let mut frame = Frame::default();
        frame.clear();
        frame.add(&Write::Put(&record("/a", value)));
        frame.add(&Write::Remove(&"/b".into()));
        frame.seal(seed, 6, 7).to_vec()
    }

    #[test]
    fn a_group_is_read_as_it_was_written() {
        for length in [0, 1, 4000, 4096, 10_000] {
            let value = vec![3; length];
            let mut bytes = sealed(&value, 1);
            assert_eq!(bytes.len() % BLOCK_BYTES, 0);
            let whole = bytes.len();
            bytes.extend([0; BLOCK_BYTES]);
            let mut source = &*bytes;
            let group = Group::read(&mut source, 1).unwrap().unwrap();
            assert_eq!((group.before, group.revision, group.padded_bytes()), (6, 7, whole));
            let expected = [("/a".into(), Some(record("/a", &value))), ("/b".into(), None)];
            assert_eq!(group.changes().unwrap(), expected);
            assert!(Group::read(&mut source, 1).unwrap().is_none(), "zeros are no frame");
        }
    }

    #[test]
    fn what_is_torn_or_of_another_life_is_no_frame() {
        let whole = sealed(&[3; 10_000], 1);
        assert!(Group::read(&mut &*whole, 2).unwrap().is_none());
        assert!(Group::read(&mut &whole[..whole.len() - BLOCK_BYTES], 1).unwrap().is_none());
        for at in [0, 8, 15, 16, 31, 32, 40, 9000] {
            let mut torn = whole.clone();
            torn[at] ^= 0x40;
            assert!(Group::read(&mut &*torn, 1).unwrap().is_none(), "byte {at}");
        }
    }
}
