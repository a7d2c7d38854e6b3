//! `fsGroup`: the group that owns what is in a volume.

use std::io;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};

/// Gives a volume to a group: all of it readable and writable by the group, new files too (set-group-id on directories).
pub fn give_to_group(top: &Path, group: u32, read_only: bool) -> io::Result<()> {
    let mut open = vec![PathBuf::from(top)];
    while let Some(path) = open.pop() {
        let metadata = std::fs::symlink_metadata(&path)?;
        lchown(&path, None, Some(group))?;
        if metadata.file_type().is_symlink() {
            continue;
        }
        let mut mode = metadata.permissions().mode() | if read_only { 0o440 } else { 0o660 };
        if metadata.is_dir() {
            mode |= 0o2110;
            for entry in std::fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Whether the top already belongs to the group as it should; `OnRootMismatch` then leaves the rest alone.
pub fn top_matches(top: &Path, group: u32) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(top).is_ok_and(|metadata| metadata.gid() == group && metadata.mode() & 0o2770 == 0o2770)
}
