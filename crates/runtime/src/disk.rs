//! Small files written so that a crash leaves the old or the new one, never half of either.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};

/// Replaces the file at `path` and makes it durable, its name included.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

/// Replaces the file at `path`; after a crash of the machine it may be gone, which is fine for what does not outlive one.
pub fn write_volatile(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.new"));
    fs::write(&temporary, bytes)?;
    fs::rename(&temporary, path)
}

/// [`write`] as JSON.
pub fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    write(path, &serde_json::to_vec(value)?)
}

/// Reads JSON; `None` when there is no such file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => Ok(Some(serde_json::from_slice(&other?)?)),
    }
}

/// Nobody but root may look inside.
pub fn private(folder: &Path) -> io::Result<()> {
    set_mode(folder, 0o700)
}

/// Sets permission bits whatever the umask.
pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Makes everything on the file system of `path` durable.
pub fn sync_file_system(path: &Path) -> io::Result<()> {
    let folder = File::open(path)?;
    // SAFETY: takes a descriptor that lives across the call.
    crate::syscalls::check(unsafe { libc::syncfs(folder.as_raw_fd()) }).map(drop)
}

/// Removes the entries of `folder` whose names are not to be kept.
pub fn remove_all_but(folder: &Path, keep: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&keep) {
            continue;
        }
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}

/// Removes a folder; fine when it is gone.
pub fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Bytes and entries below `folder`, following no links and counting hard links once per name.
pub fn usage(folder: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let (mut bytes, mut entries) = (0, 0);
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            // What is removed while we look counts as gone.
            let Ok(metadata) = entry.metadata() else { continue };
            bytes += metadata.blocks() * 512;
            entries += 1;
            if metadata.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok((bytes, entries))
}
