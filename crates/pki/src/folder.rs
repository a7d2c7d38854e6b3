//! Files of the folder: private, and replaced as a whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::{PkiError, Result};

/// Makes the folder, for its owner only.
pub fn create(dir: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|source| PkiError::File { action: "make the folder", path: dir.into(), source })
}

/// The file's text; none when there is none.
pub fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::File { action: "read", path: path.into(), source }),
    }
}

/// A file as it shall be.
pub struct Content {
    pub name: String,
    pub text: String,
    pub mode: u32,
}

/// Replaces files of a folder, in the given order: after a crash each has its old content or its new one, never half of it,
/// and none is new unless those before it are. Files are synced side by side, which costs about as much as one.
pub fn write(dir: &Path, files: &[Content]) -> Result<()> {
    let failed = |name: &str, source| PkiError::File { action: "write", path: dir.join(name), source };
    std::thread::scope(|scope| {
        let writes: Vec<_> = files.iter().map(|file| (file, scope.spawn(|| write_beside(dir, file)))).collect();
        writes.into_iter().try_for_each(|(file, write)| {
            let outcome = write.join().unwrap_or_else(|_| Err(io::Error::other("the writer panicked")));
            outcome.map_err(|source| failed(&file.name, source))
        })
    })?;
    for file in files {
        let renamed = fs::rename(beside(dir, file), dir.join(&file.name));
        renamed.map_err(|source| failed(&file.name, source))?;
    }
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|source| PkiError::File { action: "sync the folder", path: dir.into(), source })
}

fn beside(dir: &Path, file: &Content) -> PathBuf {
    dir.join(format!("{}.new", file.name))
}

fn write_beside(dir: &Path, file: &Content) -> io::Result<()> {
    let path = beside(dir, file);
    // One left by a crash may have another mode.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut opened = OpenOptions::new().write(true).create_new(true).mode(file.mode).open(&path)?;
    opened.write_all(file.text.as_bytes())?;
    opened.sync_all()
}
