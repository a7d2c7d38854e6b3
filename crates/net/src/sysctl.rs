//! Kernel switches under `/proc/sys/net`, as seen by the calling thread's network namespace.

use std::io;
use std::path::Path;

/// Sets `net/<name>` (written with slashes) to `value`, unless it has that value.
///
/// # Errors
/// Says which switch it was.
pub fn set(name: &str, value: &str) -> io::Result<()> {
    let path = Path::new("/proc/sys/net").join(name);
    let explain = |error: io::Error| io::Error::new(error.kind(), format!("set {}: {error}", path.display()));
    if std::fs::read_to_string(&path).map_err(explain)?.trim_end() == value {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(explain)
}
