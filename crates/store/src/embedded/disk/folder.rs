//! The folder of a store: what its files are called, and that one process has it at a time.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::FlockOperation;

/// What objects say is nobody's business on the machine.
const FOLDER_MODE: u32 = 0o700;
const LOCK: &str = "lock";
const SEGMENT: &str = "log";
const BASE: &str = "base";
/// What is in the making, and worth nothing to the next process.
const UNFINISHED: &str = "new";

/// A folder that this process has for itself until this value is gone.
pub struct Folder {
    path: PathBuf,
    handle: File,
    _lock: File,
    unfinished: AtomicU64,
}

/// The files in a folder, by number.
#[derive(Debug, Default)]
pub struct Found {
    pub segments: BTreeSet<u64>,
    pub bases: BTreeSet<u64>,
    /// In the making, by this process or by one that is gone.
    pub unfinished: Vec<PathBuf>,
}

impl Folder {
    /// Makes the folder when it is missing.
    ///
    /// # Errors
    /// It cannot be made or read, or another process has it.
    pub fn open(path: &Path) -> io::Result<Self> {
        if !path.try_exists()? {
            fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path)?;
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        }
        let handle = File::open(path)?;
        let lock = File::options().write(true).create(true).truncate(false).open(path.join(LOCK))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Folder { path: path.to_owned(), handle, _lock: lock, unfinished: AtomicU64::new(0) }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let message = format!("{} is in use by another process", path.display());
                Err(io::Error::new(io::ErrorKind::ResourceBusy, message))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What is there.
    ///
    /// # Errors
    /// It cannot be read, or it holds something that is no store of this format.
    pub fn list(&self) -> io::Result<Found> {
        let (mut found, mut foreign) = (Found::default(), None);
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            match (number, path.extension().and_then(|extension| extension.to_str())) {
                (Some(number), Some(SEGMENT)) => drop(found.segments.insert(number)),
                (Some(number), Some(BASE)) => drop(found.bases.insert(number)),
                (Some(_), Some(UNFINISHED)) => found.unfinished.push(path),
                // A disk that is mounted here has its own.
                _ if path.ends_with(LOCK) || path.ends_with("lost+found") => {}
                _ => foreign = Some(path),
            }
        }
        match foreign {
            Some(path) if found.segments.is_empty() && found.bases.is_empty() => Err(io::Error::other(format!(
                "{} is not of a store that this program reads: use the program that wrote it, or another folder",
                path.display()
            ))),
            _ => Ok(found),
        }
    }

    pub fn segment(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:016}.{SEGMENT}"))
    }

    pub fn base(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:016}.{BASE}"))
    }

    /// A name for something in the making that nothing else has.
    pub fn unfinished(&self) -> PathBuf {
        self.path.join(format!("{}.{UNFINISHED}", self.unfinished.fetch_add(1, Ordering::Relaxed)))
    }

    /// Makes the names of files durable.
    pub fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}
