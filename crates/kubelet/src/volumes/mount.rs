//! The few mounts the agent makes itself, and taking them all away when a pod ends.

use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};

/// Mounts an empty file system in memory; `size_bytes` of 0 leaves the kernel's bound of half the memory.
pub fn tmpfs(target: &Path, size_bytes: i64) -> io::Result<()> {
    if is_mount_point(target)? {
        return Ok(());
    }
    let options = if size_bytes > 0 { Some(format!("size={size_bytes}")) } else { None };
    mount(Some("tmpfs"), target, Some("tmpfs"), MsFlags::empty(), options.as_deref()).map_err(io::Error::from)
}

/// Makes what an open file descriptor refers to appear at `target` too, in place of what was mounted there.
pub fn bind_descriptor(descriptor: std::os::fd::RawFd, target: &Path) -> io::Result<()> {
    while is_mount_point(target)? {
        unmount(target)?;
    }
    let source = format!("/proc/self/fd/{descriptor}");
    mount(Some(source.as_str()), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(io::Error::from)
}

fn unmount(target: &Path) -> io::Result<()> {
    match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Asks about this path alone: the table of all mounts grows with every pod.
fn is_mount_point(path: &Path) -> io::Result<bool> {
    let found = rustix::fs::statx(rustix::fs::CWD, path, AtFlags::empty(), StatxFlags::empty())?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Unmounts everything at and below `directory`, the deepest and newest first. Errors when something stays.
pub fn unmount_below(directory: &Path) -> io::Result<()> {
    let Ok(directory) = std::fs::canonicalize(directory) else { return Ok(()) };
    let points = below(&directory)?;
    if points.is_empty() {
        return Ok(());
    }
    for point in points.into_iter().rev() {
        unmount(&point)?;
    }
    match below(&directory)?.first() {
        None => Ok(()),
        Some(left) => Err(io::Error::other(format!("{} is still mounted", left.display()))),
    }
}

fn below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(mount_points()?.into_iter().filter(|point| point.starts_with(directory)).collect())
}

/// In the order in which they were mounted.
fn mount_points() -> io::Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(text.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).collect())
}

/// The kernel writes blanks and backslashes as `\040` and the like.
fn unescape(field: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let (bytes, mut out, mut at) = (field.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        let code = bytes.get(at + 1..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.filter(|_| bytes[at] == b'\\').and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    std::ffi::OsString::from_vec(out).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_told_from_a_folder_in_it() {
        let folder = tempfile::tempdir().unwrap();
        assert!(is_mount_point(Path::new("/proc")).unwrap());
        assert!(!is_mount_point(Path::new("/proc/self")).unwrap());
        assert!(!is_mount_point(folder.path()).unwrap());
        assert!(is_mount_point(&folder.path().join("absent")).is_err());
    }

    #[test]
    fn escaped_paths_are_read() {
        assert_eq!(unescape(r"/a\040b\134c"), Path::new("/a b\\c"));
    }
}
