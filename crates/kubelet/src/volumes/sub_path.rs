//! subPath: one file or directory of a volume instead of the whole.
//!
//! What is in a volume may be written by the pod itself, links included. So the path is opened by the kernel with the volume
//! as its world (`RESOLVE_BENEATH`), and what was opened, not its name, is bound to a place of ours that the container then
//! mounts. A link that leads out of the volume is an error.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, open, openat2};

/// Binds `sub_path` of `volume` to `target` and returns `target`. A missing directory is made where `may_make`.
pub fn bind(volume: &Path, sub_path: &str, target: &Path, may_make: bool) -> Result<PathBuf, String> {
    let relative = Path::new(sub_path);
    if !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(format!("subPath {sub_path:?} must be relative and not contain '..'"));
    }
    let opened = open_inside(volume, relative, may_make)
        .map_err(|error| format!("failed to prepare subPath {sub_path:?} of volume: {error}"))?;
    place(&opened, target).map_err(|error| format!("failed to bind subPath {sub_path:?}: {error}"))?;
    Ok(target.to_path_buf())
}

fn open_inside(volume: &Path, relative: &Path, may_make: bool) -> io::Result<OwnedFd> {
    let root = open(volume, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let beneath = |path: &Path, flags: OFlags| {
        openat2(
            &root,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
        )
    };
    match beneath(relative, OFlags::PATH) {
        Err(rustix::io::Errno::NOENT) if may_make => {}
        opened => return Ok(opened?),
    }
    let mut made = PathBuf::new();
    for part in relative.components() {
        let parent = if made.as_os_str().is_empty() { PathBuf::from(".") } else { made.clone() };
        made.push(part);
        match beneath(&made, OFlags::PATH) {
            Ok(_) => {}
            Err(rustix::io::Errno::NOENT) => {
                let parent = beneath(&parent, OFlags::PATH | OFlags::DIRECTORY)?;
                match mkdirat(&parent, part.as_os_str(), Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(beneath(relative, OFlags::PATH)?)
}

fn place(opened: &OwnedFd, target: &Path) -> io::Result<()> {
    let is_directory = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(opened)?.st_mode).is_dir();
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent)?;
    }
    // `target` may be left from an earlier start of the container, possibly of the other sort.
    match rustix::fs::statat(CWD, target, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => {}
        Err(rustix::io::Errno::NOENT) if is_directory => std::fs::create_dir(target)?,
        Err(rustix::io::Errno::NOENT) => drop(std::fs::File::create(target)?),
        Err(error) => return Err(error.into()),
    }
    super::mount::bind_descriptor(opened.as_raw_fd(), target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_inside_are_followed_and_links_out_refused() {
        let volume = tempfile::tempdir().unwrap();
        let at = volume.path();
        std::fs::create_dir(at.join("..data")).unwrap();
        std::fs::write(at.join("..data/key"), "1").unwrap();
        std::os::unix::fs::symlink("..data/key", at.join("key")).unwrap();
        std::os::unix::fs::symlink("/etc", at.join("out")).unwrap();
        std::os::unix::fs::symlink("../..", at.join("up")).unwrap();
        for (path, may_make, opens) in [
            ("key", false, true),
            ("out", false, false),
            ("out/passwd", false, false),
            ("up", false, false),
            ("new/deep", false, false),
            ("new/deep", true, true),
            ("out/new", true, false),
        ] {
            assert_eq!(open_inside(at, Path::new(path), may_make).is_ok(), opens, "{path}");
        }
        assert!(at.join("new/deep").is_dir());
        assert!(bind(at, "../x", &at.join("t"), true).is_err());
        assert!(bind(at, "/etc", &at.join("t"), true).is_err());
    }
}
