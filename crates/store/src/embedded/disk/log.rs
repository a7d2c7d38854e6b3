//! The disk: a log of groups, and a base that it is folded into when it has grown.
//!
//! ```text
//! DIR/lock                   one process at a time
//! DIR/0000000000000003.base  everything that the log had before file 3
//! DIR/0000000000000003.log   a frame per group, in order, file after file
//! DIR/0000000000000004.log
//! DIR/*.new                  in the making
//! ```
//!
//! A group costs one write and one fdatasync into a file that is there already. What takes long happens on threads of its own
//! and holds nobody up: filling the next file while a quarter of this one is used, and writing a base when what the log
//! repeats outweighs it. When such a thread fails, the log goes on without: it makes its next file itself, or grows.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use super::folder::Folder;
use super::frame::Frame;
use super::recovery::{Recovered, recover};
use super::segment::{self, Segment};
use super::{Disk, Loaded, Records, Write, base_file};
use crate::Revision;

/// How large files are and how many.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Of one file of the log; a group that is larger has a larger file.
    pub segment_bytes: u64,
    /// What full files must come to before they are folded: at least this, and at least what there is.
    pub fold_bytes_min: u64,
    /// Files of the log that are not full before they are folded: every start leaves one.
    pub short_segments_max: usize,
    /// Files that wait to be used again.
    pub prepared_max: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Sizes { segment_bytes: 16 << 20, fold_bytes_min: 64 << 20, short_segments_max: 16, prepared_max: 4 }
    }
}

/// See the module.
pub struct LogDisk {
    folder: Arc<Folder>,
    sizes: Sizes,
    frame: Frame,
    revision: Revision,
    current: Option<Segment>,
    /// The number of the file after the current one.
    next: u64,
    /// Files that were full or of an earlier process, since the base, and what is used of them.
    closed: Closed,
    base_bytes: u64,
    prepared: Vec<PathBuf>,
    preparing: Option<JoinHandle<io::Result<PathBuf>>>,
    folding: Option<Folding>,
}

#[derive(Clone, Copy, Default)]
struct Closed {
    segments: usize,
    bytes: u64,
}

struct Folding {
    /// What the base makes needless.
    closed: Closed,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Folded>>,
}

struct Folded {
    base_bytes: u64,
    /// Files to be used again.
    prepared: Vec<PathBuf>,
}

impl LogDisk {
    /// Opens the folder and reads everything in it.
    ///
    /// # Errors
    /// The folder cannot be read or written, holds something else or something damaged, or is in use by another process.
    pub fn open(dir: &Path) -> io::Result<(Self, Loaded)> {
        Self::open_sized(dir, Sizes::default())
    }

    fn open_sized(dir: &Path, sizes: Sizes) -> io::Result<(Self, Loaded)> {
        let opened = Folder::open(dir).and_then(|folder| Ok((recover(&folder)?, folder)));
        let (recovered, folder) = opened.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot open the store in {}: {error}", dir.display()))
        })?;
        let Recovered { loaded, next, segments, log_bytes, base_bytes } = recovered;
        let disk = LogDisk {
            folder: Arc::new(folder),
            sizes,
            frame: Frame::default(),
            revision: loaded.revision.unwrap_or(0),
            current: None,
            next,
            closed: Closed { segments, bytes: log_bytes },
            base_bytes,
            prepared: Vec::new(),
            preparing: None,
            folding: None,
        };
        Ok((disk, loaded))
    }

    /// The file that has room for the frame in the making.
    fn segment(&mut self) -> io::Result<Segment> {
        if let Some(current) = self.current.take() {
            if current.bytes() + self.frame.len() as u64 <= self.sizes.segment_bytes {
                return Ok(current);
            }
            self.closed.segments += 1;
            self.closed.bytes += current.bytes();
        }
        let segment = Segment::begin(&self.folder, self.next, self.prepared.pop().as_deref())?;
        self.next += 1;
        Ok(segment)
    }

    /// Takes what the threads have done.
    fn reap(&mut self) {
        if let Some(preparing) = self.preparing.take_if(|thread| thread.is_finished()) {
            match outcome(preparing) {
                Ok(path) => self.prepared.push(path),
                Err(error) => tracing::warn!(%error, "the store's next file cannot be prepared"),
            }
        }
        if let Some(folding) = self.folding.take_if(|folding| folding.thread.is_finished()) {
            match outcome(folding.thread) {
                Ok(folded) => {
                    self.base_bytes = folded.base_bytes;
                    self.prepared.extend(folded.prepared);
                }
                Err(error) => {
                    tracing::warn!(%error, "the store's log cannot be folded; it grows");
                    // They are needed still, and the next try waits until as much has come again.
                    self.base_bytes += folding.closed.bytes;
                    self.closed.segments += folding.closed.segments;
                    self.closed.bytes += folding.closed.bytes;
                }
            }
        }
    }

    fn prepare(&mut self, used: u64) {
        let wanted = self.prepared.is_empty() && self.preparing.is_none() && used > self.sizes.segment_bytes / 4;
        if !wanted {
            return;
        }
        let (folder, bytes) = (self.folder.clone(), self.sizes.segment_bytes);
        self.preparing = begin("store-prepare", move || segment::prepare(&folder, bytes));
    }

    fn fold(&mut self, current: u64, records: &Arc<dyn Records>) {
        let Closed { segments, bytes } = self.closed;
        let short_segments = (segments as u64).saturating_sub(bytes.div_ceil(self.sizes.segment_bytes));
        let is_long = bytes > self.base_bytes.max(self.sizes.fold_bytes_min)
            || short_segments > self.sizes.short_segments_max as u64;
        if !is_long || self.folding.is_some() {
            return;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let job = FoldJob {
            folder: self.folder.clone(),
            segment_bytes: self.sizes.segment_bytes,
            prepared_max: self.sizes.prepared_max.saturating_sub(self.prepared.len()),
            current,
            revision: self.revision,
            records: records.clone(),
            stop: stop.clone(),
        };
        if let Some(thread) = begin("store-fold", move || job.run()) {
            let closed = std::mem::take(&mut self.closed);
            self.folding = Some(Folding { closed, stop, thread });
        }
    }
}

impl Disk for LogDisk {
    fn write(&mut self, revision: Revision, writes: &mut dyn Iterator<Item = Write<'_>>) -> io::Result<()> {
        self.frame.clear();
        writes.for_each(|write| self.frame.add(&write));
        let mut segment = self.segment()?;
        segment.append(&self.folder, &mut self.frame, self.revision, revision)?;
        self.current = Some(segment);
        self.revision = revision;
        Ok(())
    }

    fn settle(&mut self, records: &Arc<dyn Records>) {
        self.reap();
        if let Some((number, bytes)) = self.current.as_ref().map(|current| (current.number(), current.bytes())) {
            self.prepare(bytes);
            self.fold(number, records);
        }
    }
}

impl Drop for LogDisk {
    fn drop(&mut self) {
        if let Some(folding) = self.folding.take() {
            folding.stop.store(true, Ordering::Relaxed);
            // A base that was not finished is made again.
            drop(folding.thread.join());
        }
        if let Some(preparing) = self.preparing.take() {
            drop(preparing.join());
        }
    }
}

/// Writes a base, then lets go of what it makes needless.
struct FoldJob {
    folder: Arc<Folder>,
    segment_bytes: u64,
    prepared_max: usize,
    /// The file of the log that the base goes before.
    current: u64,
    revision: Revision,
    records: Arc<dyn Records>,
    stop: Arc<AtomicBool>,
}

impl FoldJob {
    fn run(self) -> io::Result<Folded> {
        let base_bytes = base_file::write(&self.folder, self.current, self.revision, &*self.records, &self.stop)?;
        let found = self.folder.list()?;
        let mut prepared = Vec::new();
        for number in found.segments.range(..self.current) {
            let path = self.folder.segment(*number);
            let length = fs::metadata(&path)?.len();
            let is_usual = (self.segment_bytes..self.segment_bytes * 2).contains(&length);
            if is_usual && prepared.len() < self.prepared_max {
                let again = self.folder.unfinished();
                fs::rename(path, &again)?;
                prepared.push(again);
            } else {
                fs::remove_file(path)?;
            }
        }
        for number in found.bases.range(..self.current) {
            fs::remove_file(self.folder.base(*number))?;
        }
        Ok(Folded { base_bytes, prepared })
    }
}

fn begin<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Option<JoinHandle<T>> {
    let begun = thread::Builder::new().name(name.to_string()).spawn(work);
    begun.inspect_err(|error| tracing::warn!(%error, name, "a thread of the store cannot be started")).ok()
}

fn outcome<T>(thread: JoinHandle<io::Result<T>>) -> io::Result<T> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("it panicked")))
}

#[cfg(test)]
mod tests;
