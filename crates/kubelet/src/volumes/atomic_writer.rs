//! Files that change all at once: a reader sees the old set or the new one, never a mixture.
//!
//! ```text
//! <dir>/name      -> ..data/name
//! <dir>/..data    -> ..2026_11_21_12_00_00.123456789
//! <dir>/..2026_11_21_12_00_00.123456789/name     the file
//! ```
//!
//! A new set is written to a new directory, and one rename of `..data` makes it the present one. Afterwards names that came get
//! a link, names that went lose theirs, and the old directory is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use base::Timestamp;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// One file of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// The owner, where it is not root.
    pub user: Option<u32>,
}

/// Files by path relative to the directory.
pub type Files = BTreeMap<String, File>;

/// Makes the directory show exactly `files`. True when anything changed.
pub fn write(directory: &Path, files: &Files, group: Option<u32>, now: Timestamp) -> io::Result<bool> {
    for path in files.keys() {
        check(path)?;
    }
    let old = match std::fs::read_link(directory.join(DATA)) {
        Ok(target) => Some(target),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if let Some(old) = &old
        && read(&directory.join(old))? == contents(files)
    {
        link_names(directory, files)?;
        return Ok(false);
    }
    let fresh = make_set(directory, files, group, now)?;
    let name = fresh.file_name().map(PathBuf::from).unwrap_or_default();
    let new_link = directory.join(DATA_NEW);
    remove_if_there(&new_link)?;
    symlink(&name, &new_link)?;
    std::fs::rename(&new_link, directory.join(DATA))?;
    link_names(directory, files)?;
    unlink_names(directory, files)?;
    if let Some(old) = old.filter(|old| *old != name) {
        std::fs::remove_dir_all(directory.join(old))?;
    }
    Ok(true)
}

fn check(path: &str) -> io::Result<()> {
    let refused = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path {path:?}: {why}")));
    if path.is_empty() {
        return refused("must not be empty");
    }
    if path.len() > 4096 {
        return refused("must be less than or equal to 4096 characters");
    }
    if path.starts_with("..") {
        return refused("must not start with '..'");
    }
    if !Path::new(path).components().all(|part| matches!(part, Component::Normal(_))) {
        return refused("must be a relative path without '..'");
    }
    Ok(())
}

fn contents(files: &Files) -> BTreeMap<String, Vec<u8>> {
    files.iter().map(|(path, file)| (path.clone(), file.bytes.clone())).collect()
}

/// All files below a directory, by relative path.
fn read(directory: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let (mut found, mut open) = (BTreeMap::new(), vec![PathBuf::new()]);
    while let Some(below) = open.pop() {
        for entry in std::fs::read_dir(directory.join(&below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                open.push(path);
            } else {
                found.insert(path.to_string_lossy().into_owned(), std::fs::read(entry.path())?);
            }
        }
    }
    Ok(found)
}

fn make_set(directory: &Path, files: &Files, group: Option<u32>, now: Timestamp) -> io::Result<PathBuf> {
    let stamp = now.strftime("..%Y_%m_%d_%H_%M_%S.%9f").to_string();
    let mut fresh = directory.join(&stamp);
    let mut tries = 0;
    while let Err(error) = std::fs::create_dir(&fresh) {
        if error.kind() != io::ErrorKind::AlreadyExists || tries == 100 {
            return Err(error);
        }
        tries += 1;
        fresh = directory.join(format!("{stamp}-{tries}"));
    }
    own_directory(&fresh, group)?;
    for (path, file) in files {
        let target = fresh.join(path);
        if let Some(parent) = target.parent() {
            make_directories(&fresh, parent, group)?;
        }
        std::fs::write(&target, &file.bytes)?;
        let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(mode))?;
        chown(&target, file.user, group)?;
    }
    Ok(fresh)
}

fn make_directories(top: &Path, directory: &Path, group: Option<u32>) -> io::Result<()> {
    let Ok(below) = directory.strip_prefix(top) else { return Ok(()) };
    let mut made = top.to_path_buf();
    for part in below {
        made.push(part);
        if !made.is_dir() {
            std::fs::create_dir(&made)?;
            own_directory(&made, group)?;
        }
    }
    Ok(())
}

fn own_directory(directory: &Path, group: Option<u32>) -> io::Result<()> {
    chown(directory, None, group)?;
    let mode = if group.is_some() { 0o2755 } else { 0o755 };
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(mode))
}

/// The names that users see: the first part of each path.
fn names(files: &Files) -> BTreeSet<&str> {
    files.keys().filter_map(|path| path.split('/').next()).collect()
}

fn link_names(directory: &Path, files: &Files) -> io::Result<()> {
    for name in names(files) {
        match symlink(Path::new(DATA).join(name), directory.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn unlink_names(directory: &Path, files: &Files) -> io::Result<()> {
    let wanted = names(files);
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(name.as_str()) && entry.file_type()?.is_symlink() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(listed: &[(&str, &str)]) -> Files {
        let file = |text: &str| File { bytes: text.as_bytes().to_vec(), mode: 0o644, user: None };
        listed.iter().map(|(path, text)| (path.to_string(), file(text))).collect()
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn shown(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_set_replaces_the_old_one_behind_one_link() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        assert!(write(at, &files(&[("a", "1"), ("sub/b", "2")]), None, now()).unwrap());
        assert_eq!(std::fs::read_to_string(at.join("sub/b")).unwrap(), "2");
        assert!(!write(at, &files(&[("a", "1"), ("sub/b", "2")]), None, now()).unwrap(), "nothing new");
        let held_open = std::fs::canonicalize(at.join("a")).unwrap();
        assert!(write(at, &files(&[("a", "3"), ("c", "4")]), None, now()).unwrap());
        assert_eq!(std::fs::read_to_string(at.join("a")).unwrap(), "3");
        assert!(!held_open.exists(), "the old set is gone");
        let names = shown(at);
        assert_eq!(names.iter().filter(|name| !name.starts_with("..")).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(names.iter().filter(|name| name.starts_with("..")).count(), 2);
        assert_eq!(std::fs::read_link(at.join("a")).unwrap(), Path::new("..data/a"));
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        for path in ["", "..", "../x", "/x", "a/../../x", "..a"] {
            assert!(write(directory.path(), &files(&[(path, "1")]), None, now()).is_err(), "{path:?}");
        }
        assert!(shown(directory.path()).is_empty());
    }

    #[test]
    fn modes_are_as_asked() {
        let directory = tempfile::tempdir().unwrap();
        let mut set = files(&[("a", "1")]);
        set.get_mut("a").unwrap().mode = 0o400;
        write(directory.path(), &set, None, now()).unwrap();
        let mode = std::fs::metadata(directory.path().join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o400);
    }
}
