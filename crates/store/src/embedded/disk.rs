//! What is durable, and its layout on fjall.
//!
//! ```text
//! keyspace "data":  key -> create_revision, mod_revision, version, deadline (4 x u64, little endian), value
//! keyspace "meta":  "format" -> 1,   "revision" -> u64: the latest, written with every batch
//! ```
//!
//! fjall is used as a log that cleans itself up: it is read once, at the start, and everything is served from memory. So
//! its caches are kept as small as they go.

mod first_folder;

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};

use crate::{Entry, Key, Revision};

/// An entry and when it expires, in milliseconds since 1970; 0 for never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub entry: Entry,
    pub deadline_ms: u64,
}

/// Everything that was found at the start.
#[derive(Debug, Default)]
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
    fn load(&self) -> io::Result<Loaded>;

    /// Makes a group durable as a whole, or fails; after a failure nobody knows what is on disk. A key occurs once.
    fn write(&mut self, revision: Revision, writes: &mut dyn Iterator<Item = Write<'_>>) -> io::Result<()>;
}

const FORMAT: &[u8] = b"1";
const HEADER_BYTES: usize = 32;
/// fjall's own journal before it is folded into tables; its smallest allowed size.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;
const MEMTABLE_BYTES_MAX: u64 = 8 << 20;
/// Blocks are read only while loading and compacting.
const CACHE_BYTES: u64 = 1 << 20;

/// The disk on fjall.
pub struct FjallDisk {
    database: Database,
    data: Keyspace,
    meta: Keyspace,
}

impl FjallDisk {
    pub fn open(dir: &Path) -> io::Result<Self> {
        if let Some(parent) = dir.parent() {
            std::fs::create_dir_all(parent)?;
        }
        first_folder::make(dir, |scratch| Self::open_in_place(scratch)?.settle())?;
        Self::open_in_place(dir)
    }

    fn open_in_place(dir: &Path) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(first_folder::FOLDER_MODE).create(dir)?;
        let database = Database::builder(dir)
            .cache_size(CACHE_BYTES)
            .worker_threads(1)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .open()
            .map_err(|error| broken(dir, error))?;
        let keyspace = |name: &str| {
            let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES_MAX);
            database.keyspace(name, options).map_err(|error| broken(dir, error))
        };
        let (data, meta) = (keyspace("data")?, keyspace("meta")?);
        let disk = FjallDisk { database, data, meta };
        disk.check_format(dir)?;
        Ok(disk)
    }

    /// Closes it with everything in its files.
    fn settle(self) -> io::Result<()> {
        self.database.persist(PersistMode::SyncAll).map_err(io::Error::other)
    }

    fn check_format(&self, dir: &Path) -> io::Result<()> {
        match self.meta.get("format").map_err(|error| broken(dir, error))? {
            Some(found) if &*found == FORMAT => Ok(()),
            Some(found) => Err(io::Error::other(format!(
                "{} holds a store of format {}, this program reads format 1: use the program that wrote it",
                dir.display(),
                String::from_utf8_lossy(&found)
            ))),
            None => self.meta.insert("format", FORMAT).map_err(|error| broken(dir, error)),
        }
    }
}

impl Disk for FjallDisk {
    fn load(&self) -> io::Result<Loaded> {
        let snapshot = self.database.snapshot();
        let revision = snapshot.get(&self.meta, "revision").map_err(io::Error::other)?;
        let revision = revision.map(|bytes| number(&bytes, 0)).transpose()?;
        let records = snapshot.iter(&self.data).map(|found| {
            let (key, stored) = found.into_inner().map_err(io::Error::other)?;
            decode(Key::new(&key), &stored)
        });
        let records: Vec<Record> = records.collect::<io::Result<_>>()?;
        if revision.is_none() && !records.is_empty() {
            return Err(io::Error::other("the store has entries but no revision"));
        }
        Ok(Loaded { revision, records })
    }

    fn write(&mut self, revision: Revision, writes: &mut dyn Iterator<Item = Write<'_>>) -> io::Result<()> {
        // As fdatasync(2): all that is needed to read it back, the file's length included, but no times.
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for write in writes {
            match write {
                Write::Put(record) => batch.insert(&self.data, record.entry.key.as_bytes(), encode(record)),
                Write::Remove(key) => batch.remove(&self.data, key.as_bytes()),
            }
        }
        batch.insert(&self.meta, "revision", revision.to_le_bytes());
        batch.commit().map_err(io::Error::other)
    }
}

fn encode(record: &Record) -> Vec<u8> {
    let Record { entry, deadline_ms } = record;
    let mut stored = Vec::with_capacity(HEADER_BYTES + entry.value.len());
    for number in [entry.create_revision, entry.mod_revision, entry.version, *deadline_ms] {
        stored.extend_from_slice(&number.to_le_bytes());
    }
    stored.extend_from_slice(&entry.value);
    stored
}

fn decode(key: Key, stored: &[u8]) -> io::Result<Record> {
    let value = stored.get(HEADER_BYTES..).ok_or_else(|| io::Error::other(format!("entry {key} is cut short")))?;
    let entry = Entry {
        value: Bytes::copy_from_slice(value),
        create_revision: number(stored, 0)?,
        mod_revision: number(stored, 1)?,
        version: number(stored, 2)?,
        key,
    };
    Ok(Record { entry, deadline_ms: number(stored, 3)? })
}

/// The `index`th u64.
fn number(bytes: &[u8], index: usize) -> io::Result<u64> {
    let bytes = bytes.get(index * 8..index * 8 + 8).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    bytes.map(u64::from_le_bytes).ok_or_else(|| io::Error::other("a number in the store is cut short"))
}

fn broken(dir: &Path, error: fjall::Error) -> io::Error {
    match error {
        fjall::Error::Locked => {
            io::Error::new(io::ErrorKind::ResourceBusy, format!("{} is in use by another process", dir.display()))
        }
        error => io::Error::other(format!("cannot open the store in {}: {error}", dir.display())),
    }
}
