//! The disk by itself: reading back, tearing, damage, folding.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::Mutex;
use tempfile::TempDir;

use super::super::Record;
use super::super::frame::BLOCK_BYTES;
use super::*;
use crate::{Entry, Key};

/// Files of a few blocks, folded all the time.
const SMALL: Sizes =
    Sizes { segment_bytes: 32 << 10, fold_bytes_min: 64 << 10, short_segments_max: 4, prepared_max: 2 };

/// What the view would be.
#[derive(Default)]
struct World(Mutex<BTreeMap<Key, Record>>);

impl Records for World {
    fn following(&self, key: Option<&Key>, _: usize) -> Vec<Record> {
        let world = self.0.lock();
        // One at a time, so that groups come in between.
        world.values().find(|record| key.is_none_or(|key| record.entry.key > *key)).cloned().into_iter().collect()
    }
}

/// A disk and what should be on it.
struct Writer {
    dir: TempDir,
    sizes: Sizes,
    disk: Option<LogDisk>,
    world: Arc<World>,
    revision: Revision,
}

impl Writer {
    fn new(sizes: Sizes) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (disk, loaded) = LogDisk::open_sized(dir.path(), sizes).unwrap();
        assert_eq!(loaded, Loaded::default());
        Writer { dir, sizes, disk: Some(disk), world: Arc::default(), revision: 1 }
    }

    fn disk(&mut self) -> &mut LogDisk {
        self.disk.as_mut().unwrap()
    }

    fn put(&mut self, key: &str, bytes: usize) {
        let revision = self.revision + 1;
        let entry = Entry {
            key: key.into(),
            value: Bytes::from(vec![revision as u8; bytes]),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
        };
        self.write(key, Some(Record { entry, deadline_ms: revision * 10 }));
    }

    fn remove(&mut self, key: &str) {
        self.write(key, None);
    }

    fn write(&mut self, key: &str, record: Option<Record>) {
        self.revision += 1;
        let (key, revision, world) = (Key::from(key), self.revision, self.world.clone());
        let write = record.as_ref().map_or(Write::Remove(&key), Write::Put);
        self.disk().write(revision, &mut [write].into_iter()).unwrap();
        match record {
            Some(record) => world.0.lock().insert(key, record),
            None => world.0.lock().remove(&key),
        };
        let records: Arc<dyn Records> = world;
        self.disk().settle(&records);
    }

    fn close(&mut self) {
        self.disk = None;
    }

    fn reopen(&mut self) -> io::Result<Loaded> {
        self.close();
        let (disk, loaded) = LogDisk::open_sized(self.dir.path(), self.sizes)?;
        self.disk = Some(disk);
        Ok(loaded)
    }

    /// Opens it anew; it must hold what was written.
    fn check(&mut self) {
        let records: Vec<Record> = self.world.0.lock().values().cloned().collect();
        let loaded = self.reopen().unwrap();
        assert_eq!(loaded, Loaded { revision: Some(self.revision), records });
    }

    /// Until nothing is done in the background.
    fn rest(&mut self) {
        let disk = self.disk();
        while disk.preparing.is_some() || disk.folding.is_some() {
            disk.reap();
            thread::yield_now();
        }
    }

    fn files(&self, extension: &str) -> Vec<PathBuf> {
        let files = fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|own| own == extension)).collect();
        files.sort();
        files
    }
}

/// Overwrites a byte.
fn damage(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn what_was_written_is_read_back() {
    let mut writer = Writer::new(Sizes::default());
    writer.put("/a", 10);
    writer.put("/b", 10_000);
    writer.put("/c", 0);
    writer.remove("/b");
    writer.put("/a", 20);
    writer.check();
    writer.remove("/a");
    writer.check();
    writer.check();
}

#[test]
fn a_torn_group_is_forgotten_for_good() {
    let mut writer = Writer::new(Sizes::default());
    writer.put("/a", 10);
    writer.put("/b", 10);
    let (world, revision) = (writer.world.0.lock().clone(), writer.revision);
    writer.put("/a", 9000);
    writer.close();
    damage(&writer.files("log")[0], 4096 * 4);
    (*writer.world.0.lock(), writer.revision) = (world, revision);
    writer.check();
    writer.put("/c", 10);
    writer.check();
}

#[test]
fn a_group_that_is_missing_is_noticed() {
    for (broken, said) in
        [(0, "damaged"), (1, "damaged"), (2, "damaged"), (3, "missing"), (4, "damaged"), (5, "damaged")]
    {
        let mut writer = Writer::new(Sizes::default());
        for _ in 0..4 {
            writer.put("/a", 10);
            writer.put("/b", 10);
            writer.check();
        }
        writer.close();
        let files = writer.files("log");
        match broken {
            // A group in the middle, the first and the last of a file that others follow, a whole file, its first block, the last file's.
            0 => damage(&files[3], 4096 + 50),
            1 => damage(&files[1], 4096 + 50),
            2 => damage(&files[1], 4096 * 2 + 50),
            3 => fs::remove_file(&files[1]).unwrap(),
            4 => damage(&files[1], 5),
            _ => fs::write(&files[3], [0; 4096]).unwrap(),
        }
        let error = writer.reopen().unwrap_err().to_string();
        assert!(error.contains(said) && error.contains(writer.dir.path().to_str().unwrap()), "{broken}: {error}");
    }
}

#[test]
fn a_log_that_has_grown_is_folded_and_its_files_are_used_again() {
    let mut writer = Writer::new(SMALL);
    for round in 0..2000 {
        match round % 7 {
            3 => writer.remove(&format!("/{}", round % 50)),
            _ => writer.put(&format!("/{}", round % 61), 10 + round % 5000),
        }
        if round % 97 == 0 {
            writer.check();
        }
        if round % 31 == 0 {
            writer.rest();
        }
    }
    writer.rest();
    assert!(!writer.disk().prepared.is_empty());
    let (bases, segments) = (writer.files("base"), writer.files("log"));
    assert_eq!(bases.len(), 1);
    assert_eq!(bases[0].file_stem(), segments[0].file_stem());
    let bytes: u64 = segments.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(bytes < 2 << 20, "{bytes} bytes of log are left");
    writer.check();
    assert_eq!(writer.files("new"), Vec::<PathBuf>::new(), "what a process left over is cleared away");
}

#[test]
fn a_fold_that_was_cut_short_does_no_harm() {
    let mut writer = Writer::new(SMALL);
    let mut kept = BTreeMap::new();
    while writer.files("base").is_empty() {
        for path in writer.files("log") {
            kept.insert(path.clone(), fs::read(&path).unwrap());
        }
        writer.put("/a", 9000);
        writer.remove("/b");
        writer.rest();
    }
    writer.close();
    // The base was there and the files before it not removed yet; another base was begun.
    for (path, bytes) in kept.iter().filter(|(path, _)| !path.exists()) {
        fs::write(path, bytes).unwrap();
    }
    fs::write(writer.dir.path().join("7.new"), "half a base").unwrap();
    // And the next file of the log had not its name yet.
    fs::copy(&writer.files("log")[0], writer.dir.path().join("8.new")).unwrap();
    writer.check();
    assert_eq!(writer.files("base")[0].file_stem(), writer.files("log")[0].file_stem());
    writer.put("/c", 10);
    writer.check();
}

#[test]
fn a_base_that_is_damaged_is_noticed() {
    let mut writer = Writer::new(SMALL);
    while writer.files("base").is_empty() {
        writer.put("/a", 9000);
        writer.rest();
    }
    writer.close();
    damage(&writer.files("base")[0], 5000);
    assert!(writer.reopen().unwrap_err().to_string().contains("damaged"));
}

#[test]
fn a_base_that_lacks_one_of_its_frames_is_noticed() {
    let mut writer = Writer::new(SMALL);
    while writer.files("base").is_empty() {
        writer.put("/a", 9000);
        writer.put("/b", 9000);
        writer.rest();
    }
    writer.close();
    let path = &writer.files("base")[0];
    let bytes = fs::read(path).unwrap();
    // The frame of the first record is as whole as all others.
    let frame = 9000_usize.next_multiple_of(BLOCK_BYTES);
    fs::write(path, [&bytes[..BLOCK_BYTES], &bytes[BLOCK_BYTES + frame..]].concat()).unwrap();
    assert!(writer.reopen().unwrap_err().to_string().contains("damaged"));
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("0.jnl"), "another engine's").unwrap();
    let error = LogDisk::open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("use the program that wrote it"), "{error}");
    assert!(dir.path().join("0.jnl").exists());
}
