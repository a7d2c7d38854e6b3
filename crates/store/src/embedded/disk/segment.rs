//! One file of the log: a block that says which, then frames.
//!
//! A file that is only ever overwritten is synced without a word to the file system's own journal, so the log runs over
//! files that were filled beforehand: with zeros, or in an earlier life as a segment that a base has made needless.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::folder::Folder;
use super::frame::{BLOCK_BYTES, Frame, Group};
use crate::Revision;

/// The seed of the first frame of every file, which tells the seed of the others.
const HEADER_SEED: u64 = u64::from_le_bytes(*b"coracle ");
/// Stands where a group has the revision before it.
pub const FORMAT: u64 = 2;
/// How much a file that is prepared grows at a time.
const FILL_BYTES: usize = 1 << 20;

/// What the first block of a file says: its number in the log, and the seed of its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub number: u64,
    pub seed: u64,
}

impl Header {
    /// With a seed of its own.
    pub fn new(number: u64) -> Self {
        let mut seed = [0; 8];
        base::chance::fill(&mut seed);
        Header { number, seed: u64::from_le_bytes(seed) }
    }

    pub fn block(&self) -> Vec<u8> {
        let mut frame = Frame::default();
        frame.clear();
        frame.add_numbers(&[self.seed]);
        frame.seal(HEADER_SEED, FORMAT, self.number).to_vec()
    }

    /// None for a block of zeros.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or of a format that is not this program's.
    pub fn read(source: &mut &[u8], path: &Path) -> io::Result<Option<Self>> {
        let Some(block) = source.get(..BLOCK_BYTES).filter(|block| block.iter().any(|byte| *byte != 0)) else {
            return Ok(None);
        };
        *source = &source[BLOCK_BYTES..];
        let broken = |what: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()));
        let group =
            Group::read(&mut &*block, HEADER_SEED)?.ok_or_else(|| broken("its first block is damaged".into()))?;
        match (group.before, &*group.numbers()) {
            (FORMAT, [seed]) => Ok(Some(Header { number: group.revision, seed: *seed })),
            (format, _) => Err(broken(format!(
                "it is of format {format}, this program reads format {FORMAT}: use the program that wrote it"
            ))),
        }
    }
}

/// The file that is being written.
pub struct Segment {
    header: Header,
    file: File,
    /// Where the next frame goes.
    end: u64,
    /// Whether the folder still has to be told of its name.
    is_new: bool,
}

impl Segment {
    /// Begins the file of a number, in a prepared one if there is any. It has its name when its first block is durable: a power
    /// cut leaves no file of the log that cannot be read, and one that cannot be read has been damaged.
    pub fn begin(folder: &Folder, number: u64, prepared: Option<&Path>) -> io::Result<Self> {
        let unfinished = prepared.map_or_else(|| folder.unfinished(), Path::to_path_buf);
        let file = File::options().write(true).create(true).truncate(false).open(&unfinished)?;
        let header = Header::new(number);
        file.write_all_at(&header.block(), 0)?;
        file.sync_data()?;
        fs::rename(unfinished, folder.segment(number))?;
        Ok(Segment { header, file, end: BLOCK_BYTES as u64, is_new: true })
    }

    pub fn number(&self) -> u64 {
        self.header.number
    }

    /// How much of the file is used.
    pub fn bytes(&self) -> u64 {
        self.end
    }

    /// Writes a group and returns when it is durable: as fdatasync(2), all that is needed to read it back, the file's length
    /// included, but no times.
    pub fn append(&mut self, folder: &Folder, frame: &mut Frame, before: Revision, after: Revision) -> io::Result<()> {
        let bytes = frame.seal(self.header.seed, before, after);
        self.file.write_all_at(bytes, self.end)?;
        self.file.sync_data()?;
        if self.is_new {
            folder.sync()?;
            self.is_new = false;
        }
        self.end += bytes.len() as u64;
        Ok(())
    }
}

/// Makes a file of zeros that a segment can be begun in. Takes a while.
pub fn prepare(folder: &Folder, bytes: u64) -> io::Result<PathBuf> {
    let path = folder.unfinished();
    let file = File::create_new(&path)?;
    let (zeros, mut end) = (vec![0; FILL_BYTES], 0);
    while end < bytes {
        let piece = &zeros[..usize::try_from(bytes - end).unwrap_or(FILL_BYTES).min(FILL_BYTES)];
        file.write_all_at(piece, end)?;
        // Piece by piece, so that no group waits behind all of it.
        file.sync_data()?;
        end += piece.len() as u64;
    }
    Ok(path)
}
