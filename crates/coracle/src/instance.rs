//! One running Coracle per data folder: its lock, its process number, and the word it sends when it is ready.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

const LOCK_FILE: &str = "coracle.lock";
/// How long a process that was killed may take to let go of its folder.
const LAST_MOMENTS_MAX: Duration = Duration::from_secs(1);

/// Held for as long as the process runs; the kernel lets go of it however the process ends.
pub struct Instance {
    _lock: Flock<File>,
}

fn lock_path(data_dir: &Path) -> PathBuf {
    data_dir.join(LOCK_FILE)
}

impl Instance {
    /// Takes the data folder, which is made when missing.
    pub fn take(data_dir: &Path) -> Result<Self> {
        let is_new = !data_dir.exists();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(data_dir)
            .with_context(|| format!("cannot make {}; run as root or give another --data-dir", data_dir.display()))?;
        if let (true, Some(parent)) = (is_new, data_dir.parent()) {
            File::open(parent)?.sync_all()?;
        }
        let path = lock_path(data_dir);
        let file = OpenOptions::new().create(true).read(true).write(true).truncate(false).mode(0o644).open(&path);
        let file = file
            .with_context(|| format!("cannot write to {}; run as root or give another --data-dir", path.display()))?;
        let Some(mut lock) = lock(file) else {
            bail!("Coracle runs on {} already; stop it with `coracle down` first", data_dir.display());
        };
        lock.set_len(0)?;
        lock.write_all(std::process::id().to_string().as_bytes())?;
        Ok(Instance { _lock: lock })
    }
}

/// Takes the lock, from a process in its last moments too: one that was killed keeps its files until the kernel has taken
/// apart all of it, which may be after whoever killed it has seen it dead.
fn lock(file: File) -> Option<Flock<File>> {
    let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => return Some(lock),
        Err((file, _)) => file,
    };
    let (taken, wait) = mpsc::channel();
    // Who waits in vain ends, and this thread with it.
    thread::spawn(move || drop(taken.send(Flock::lock(file, FlockArg::LockExclusive))));
    wait.recv_timeout(LAST_MOMENTS_MAX).ok()?.ok()
}

/// The process that holds a data folder; none when nobody does.
pub fn running(data_dir: &Path) -> Result<Option<i32>> {
    let mut file = match File::open(lock_path(data_dir)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("cannot read the lock file"),
    };
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => Ok(None),
        Err(_) => Ok(text.trim().parse().ok()),
    }
}

/// What a node leaves outside its data folder, noted so that `down` and `uninstall` find it.
#[derive(serde::Serialize, serde::Deserialize, Default)]
pub struct Traces {
    pub cgroup_parent: String,
    /// Held by the loopback device.
    pub own_addresses: Vec<IpAddr>,
    /// The folder of container logs, if it was ours to make.
    pub log_dir: Option<PathBuf>,
    /// The socket of a runtime of others that has run containers.
    #[serde(default)]
    pub runtime_socket: Option<PathBuf>,
    /// Made so that such a runtime finds the pod network; outermost first.
    #[serde(default)]
    pub cni_folders: Vec<PathBuf>,
}

const TRACES_FILE: &str = "traces.json";

impl Traces {
    /// Adds to what is noted already; call before leaving the trace.
    pub fn note(data_dir: &Path, cgroup_parent: &str, own_address: IpAddr, log_dir: &Path) -> Result<()> {
        let mut traces = Self::read(data_dir)?;
        traces.cgroup_parent = cgroup_parent.to_string();
        if !traces.own_addresses.contains(&own_address) {
            traces.own_addresses.push(own_address);
        }
        if !log_dir.exists() {
            traces.log_dir = Some(log_dir.to_path_buf());
        }
        traces.write(data_dir)
    }

    /// The same for a runtime of others and the folders that are made for it.
    pub fn note_runtime(data_dir: &Path, socket: &Path, folders: Vec<PathBuf>) -> Result<()> {
        let mut traces = Self::read(data_dir)?;
        traces.runtime_socket = Some(socket.to_path_buf());
        let new: Vec<PathBuf> = folders.into_iter().filter(|folder| !traces.cni_folders.contains(folder)).collect();
        traces.cni_folders.extend(new);
        traces.write(data_dir)
    }

    /// Nothing is left at the runtime of others.
    pub fn forget_runtime(data_dir: &Path) -> Result<()> {
        let traces = Self::read(data_dir)?;
        Traces { runtime_socket: None, cni_folders: Vec::new(), ..traces }.write(data_dir)
    }

    fn write(&self, data_dir: &Path) -> Result<()> {
        write_private(&data_dir.join(TRACES_FILE), &serde_json::to_string(self)?)
    }

    /// What is noted; nothing where no node has run.
    pub fn read(data_dir: &Path) -> Result<Self> {
        match fs::read_to_string(data_dir.join(TRACES_FILE)) {
            Ok(text) => serde_json::from_str(&text).with_context(|| format!("{TRACES_FILE} cannot be read; remove it")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Traces::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {TRACES_FILE}")),
        }
    }
}

/// Writes a file that only root reads, as a whole or not at all.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    Unpublished::write(path, text)?.publish()
}

/// A private file that is durable under another name and not yet in its place.
pub struct Unpublished {
    path: PathBuf,
    unfinished: PathBuf,
}

impl Unpublished {
    pub fn write(path: &Path, text: &str) -> Result<Self> {
        let unfinished = path.with_extension("new");
        let write = || -> std::io::Result<()> {
            let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&unfinished)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Unpublished { path: path.to_path_buf(), unfinished })
    }

    pub fn publish(self) -> Result<()> {
        fs::rename(&self.unfinished, &self.path).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// What is said on that pipe.
pub const READY_WORD: [u8; 5] = *b"ready";

/// The end of a pipe on which a detached cluster says that it is ready.
pub struct ReadyPipe(pub Option<OwnedFd>);

impl ReadyPipe {
    /// Tells whoever waits. Once.
    pub fn tell(&mut self) {
        if let Some(end) = self.0.take() {
            // Nobody may be waiting any more; that is their business.
            drop(File::from(end).write_all(&READY_WORD));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_instance_and_says_who_it_is() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(running(dir.path()).unwrap(), None);
        let first = Instance::take(dir.path()).unwrap();
        assert_eq!(running(dir.path()).unwrap(), Some(std::process::id() as i32));
        let refused = Instance::take(dir.path()).err().unwrap().to_string();
        assert!(refused.contains("coracle down"), "{refused}");
        drop(first);
        assert_eq!(running(dir.path()).unwrap(), None);
    }

    #[test]
    fn a_folder_is_taken_over_from_one_that_is_letting_go() {
        let dir = tempfile::tempdir().unwrap();
        let first = Instance::take(dir.path()).unwrap();
        let path = lock_path(dir.path());
        let second = thread::scope(|scope| {
            let second = scope.spawn(|| Instance::take(dir.path()));
            // lets go when the other is waiting: the kernel lists who waits for a lock behind an arrow
            let inode = format!(":{} ", std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap()));
            let waits = || {
                fs::read_to_string("/proc/locks")
                    .unwrap()
                    .lines()
                    .any(|line| line.contains("->") && line.contains(&inode))
            };
            while !waits() && !second.is_finished() {
                thread::yield_now();
            }
            drop(first);
            second.join().unwrap()
        });
        assert!(second.is_ok(), "{:?}", second.err());
    }
}
