//! The folder of a new store, made whole or not at all.
//!
//! The engine below syncs some forty times, one after the other, while it makes its files: seconds on a slow disk. So the
//! empty store is made in memory, where a sync costs nothing, and its files are then copied beside their place and synced
//! side by side:
//!
//! ```text
//! /dev/shm/coracle-store-*  ──copy──►  DIR.new  ──sync all, rename──►  DIR  ──sync the parent
//! ```
//!
//! A start that is cut short leaves no `DIR`, so the next one begins anew. Where there is no memory to make it in, nothing is
//! done here and the engine makes the folder in place.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;

const MEMORY: &str = "/dev/shm";
/// What statfs(2) says of memory.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// What objects say is nobody's business on the machine.
pub const FOLDER_MODE: u32 = 0o700;

/// Makes `dir` if it is not there yet; `make` fills the folder that it is given and lets go of it.
///
/// # Errors
/// The copy cannot be written or made durable. That `make` failed is no error: it will fail in place too, and say why.
pub fn make(dir: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    // One that is there and empty may be where a disk is mounted, which nothing can be renamed to.
    if dir.try_exists()? {
        return Ok(());
    }
    let (Some(parent), Some(name), Some(scratch)) = (dir.parent(), dir.file_name(), Scratch::new()) else {
        return Ok(());
    };
    if let Err(error) = make(&scratch.0) {
        tracing::debug!(%error, "the new store is made in place");
        return Ok(());
    }
    let mut beside = name.to_owned();
    beside.push(".new");
    let beside = parent.join(beside);
    match fs::remove_dir_all(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::DirBuilder::new().mode(FOLDER_MODE).create(&beside)?;
    copy(&scratch.0, &beside)?;
    fs::rename(&beside, dir)?;
    File::open(parent)?.sync_all()
}

/// A private folder in memory, gone with this value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Option<Self> {
        let is_memory = rustix::fs::statfs(MEMORY).is_ok_and(|found| found.f_type == TMPFS_MAGIC);
        let path = Path::new(MEMORY).join(format!("coracle-store-{}", base::chance::suffix(16)));
        let made = is_memory && fs::DirBuilder::new().mode(FOLDER_MODE).create(&path).is_ok();
        made.then_some(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is a few kilobytes, until the machine is started again.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Copies a tree of files and folders and makes all of it durable, except for its name in its own parent.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let (mut folders, mut files) = (vec![(from.to_owned(), to.to_owned())], Vec::new());
    let mut next = 0;
    while let Some((from, to)) = folders.get(next).cloned() {
        fs::create_dir_all(&to)?;
        for entry in fs::read_dir(&from)? {
            let entry = entry?;
            let pair = (entry.path(), to.join(entry.file_name()));
            if entry.file_type()?.is_dir() { folders.push(pair) } else { files.push(pair) }
        }
        next += 1;
    }
    // Side by side, syncs of a file system share their work.
    side_by_side(&files, |(from, to)| copy_file(from, to)?.sync_all())?;
    side_by_side(&folders, |(_, to)| File::open(to)?.sync_all())
}

fn side_by_side<T: Sync>(items: &[T], work: impl Fn(&T) -> io::Result<()> + Sync) -> io::Result<()> {
    std::thread::scope(|scope| {
        let running: Vec<_> = items.iter().map(|item| scope.spawn(|| work(item))).collect();
        running.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| Err(io::Error::other("a copy panicked"))))
    })
}

/// Copies what has been written; holes stay holes (the journal is one large hole).
fn copy_file(from: &Path, to: &Path) -> io::Result<File> {
    let (mut source, mut target) = (File::open(from)?, File::create_new(to)?);
    let mut end = 0;
    loop {
        let start = match rustix::fs::seek(&source, SeekFrom::Data(end)) {
            Ok(start) => start,
            // Nothing but a hole follows.
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        end = rustix::fs::seek(&source, SeekFrom::Hole(start))?;
        source.seek(io::SeekFrom::Start(start))?;
        target.seek(io::SeekFrom::Start(start))?;
        let mut part = Vec::new();
        (&mut source).take(end - start).read_to_end(&mut part)?;
        target.write_all(&part)?;
    }
    target.set_len(source.metadata()?.len())?;
    Ok(target)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    fn fill(folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder.join("deep/empty"))?;
        fs::write(folder.join("deep/file"), "text")?;
        let journal = File::create(folder.join("journal"))?;
        journal.set_len(64 << 20)?;
        journal.write_all_at(b"head", 0)?;
        journal.write_all_at(b"far", 32 << 20)
    }

    #[test]
    fn a_tree_is_copied_with_its_holes() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fill(from.path()).unwrap();
        let to = to.path().join("copy");
        copy(from.path(), &to).unwrap();
        assert!(to.join("deep/empty").is_dir());
        assert_eq!(fs::read(to.join("deep/file")).unwrap(), b"text");
        let found = fs::metadata(to.join("journal")).unwrap();
        assert_eq!(found.len(), 64 << 20);
        assert!(found.blocks() * 512 < 1 << 20, "holes were filled: {} blocks", found.blocks());
        assert!(fs::read(to.join("journal")).unwrap() == fs::read(from.path().join("journal")).unwrap());
    }

    #[test]
    fn what_a_start_left_that_was_cut_short_is_replaced_and_what_is_there_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let (dir, beside) = (parent.path().join("store"), parent.path().join("store.new"));
        fs::create_dir_all(beside.join("half")).unwrap();
        make(&dir, fill).unwrap();
        if !dir.exists() {
            return; // a machine without memory to make it in
        }
        assert!(dir.join("deep/file").exists() && !dir.join("half").exists() && !beside.exists());
        make(&dir, |_| panic!("there is a store already")).unwrap();
    }

    #[test]
    fn a_maker_that_fails_leaves_it_to_be_made_in_place() {
        let parent = tempfile::tempdir().unwrap();
        make(&parent.path().join("store"), |_| Err(io::Error::other("no"))).unwrap();
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
