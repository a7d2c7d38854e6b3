//! The base of a log: everything, so that what came before in the log is needed no more.
//!
//! ```text
//! N.base:  header | frames of records, in key order ... | a frame without any: how many there were
//! ```
//!
//! It is written while changes go on, from the view and a part at a time, so it is not of one moment. That does no harm: all
//! it holds is durable in the log already, and the log from file N on, which is applied to it, has every change that was
//! made since it was begun.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::folder::Folder;
use super::frame::{BLOCK_BYTES, Frame, Group};
use super::segment::Header;
use super::{Record, Records, Write};
use crate::{Key, Revision};

/// About what a frame holds. The view is locked while it is gathered.
const FRAME_BYTES: usize = 256 << 10;
/// How much is written between syncs, so that no group waits behind a heap of it.
const SYNC_BYTES: u64 = 4 << 20;

/// Writes the base of file `number`; returns its size. Everything before that file must be in `records`, and `revision` be
/// no later than what they are of.
///
/// # Errors
/// It cannot be written, or `stop` was set.
pub fn write(
    folder: &Folder,
    number: u64,
    revision: Revision,
    records: &dyn Records,
    stop: &AtomicBool,
) -> io::Result<u64> {
    let path = folder.unfinished();
    let mut file = File::create_new(&path)?;
    let header = Header::new(number);
    file.write_all(&header.block())?;
    let (mut bytes, mut synced, mut count) = (BLOCK_BYTES as u64, 0, 0);
    let (mut frame, mut last) = (Frame::default(), None::<Key>);
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "the store is closed"));
        }
        let part = records.following(last.as_ref(), FRAME_BYTES);
        frame.clear();
        part.iter().for_each(|record| frame.add(&Write::Put(record)));
        count += part.len() as u64;
        let Some(end) = part.last() else { break };
        last = Some(end.entry.key.clone());
        let sealed = frame.seal(header.seed, 0, revision);
        file.write_all(sealed)?;
        bytes += sealed.len() as u64;
        if bytes - synced > SYNC_BYTES {
            file.sync_data()?;
            synced = bytes;
        }
    }
    file.write_all(frame.seal(header.seed, count, revision))?;
    file.sync_all()?;
    fs::rename(&path, folder.base(number))?;
    folder.sync()?;
    Ok(bytes)
}

/// Reads a base; returns the revision up to which it stands for the log, and its size.
///
/// # Errors
/// It cannot be read or is not whole.
pub fn read(path: &Path, number: u64, mut take: impl FnMut(Record)) -> io::Result<(Revision, u64)> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged", path.display()));
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut source = BufReader::with_capacity(FRAME_BYTES, file);
    let mut block = vec![0; BLOCK_BYTES];
    source.read_exact(&mut block)?;
    let header = Header::read(&mut &*block, path)?.filter(|header| header.number == number).ok_or_else(broken)?;
    let mut count = 0;
    loop {
        let group = Group::read(&mut source, header.seed)?.ok_or_else(broken)?;
        let changes = group.changes()?;
        if changes.is_empty() {
            return if group.before == count { Ok((group.revision, size)) } else { Err(broken()) };
        }
        for (_, record) in changes {
            take(record.ok_or_else(broken)?);
            count += 1;
        }
    }
}
