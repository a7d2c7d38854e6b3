//! hostPath: a path of the node, checked or made as its type says.

use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use k8s_openapi::api::core::v1::HostPathVolumeSource;

/// Checks the path, making it where the type says so; the error is the message of the mount failure.
pub fn check(source: &HostPathVolumeSource) -> Result<(), String> {
    let path = Path::new(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    let made = match kind {
        "DirectoryOrCreate" if !path.exists() => std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path),
        "FileOrCreate" if !path.exists() => {
            std::fs::OpenOptions::new().create(true).append(true).mode(0o644).open(path).map(drop)
        }
        _ => Ok(()),
    };
    made.map_err(|error: io::Error| format!("cannot make host path {}: {error}", source.path))?;
    let file_type = std::fs::metadata(path).map(|metadata| metadata.file_type());
    let is = |test: fn(&std::fs::FileType) -> bool| file_type.as_ref().is_ok_and(test);
    let (fits, what) = match kind {
        "" => (true, ""),
        "Directory" | "DirectoryOrCreate" => (is(|found| found.is_dir()), "a directory"),
        "File" | "FileOrCreate" => (is(|found| found.is_file()), "a file"),
        "Socket" => (is(|found| found.is_socket()), "a socket file"),
        "CharDevice" => (is(|found| found.is_char_device()), "a character device"),
        "BlockDevice" => (is(|found| found.is_block_device()), "a block device"),
        other => return Err(format!("{other} is an invalid volume type")),
    };
    if fits { Ok(()) } else { Err(format!("hostPath type check failed: {} is not {what}", source.path)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked_and_made() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        std::fs::write(at("file"), "").unwrap();
        for (name, kind, fits) in [
            ("missing", "", true),
            ("missing", "Directory", false),
            ("made", "DirectoryOrCreate", true),
            ("made", "File", false),
            ("file", "File", true),
            ("file", "Directory", false),
            ("new", "FileOrCreate", true),
            ("file", "Socket", false),
        ] {
            let source = HostPathVolumeSource { path: at(name), type_: Some(kind.to_string()) };
            assert_eq!(check(&source).is_ok(), fits, "{name} {kind}");
        }
    }
}
