//! Network namespaces: do one thing inside another namespace and come back.
//!
//! The namespace is a property of a thread. [`within`] therefore uses a short-lived thread of its own: whatever goes wrong inside,
//! no thread of the runtime's pool is ever left in a pod's namespace. Sockets opened inside stay there for life and can be
//! used from anywhere, so that is usually all that is done inside.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

/// Runs `work` on a thread that has entered the network namespace at `path` (`/proc/<pid>/ns/net` or a bind mount of it).
///
/// # Errors
/// The namespace cannot be opened or entered. A panic of `work` is reported as an error, not passed on.
pub fn within<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let namespace = File::open(path)?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
            Ok(work())
        });
        thread.join().map_err(|_| io::Error::other("a thread inside a network namespace panicked"))?
    })
}
