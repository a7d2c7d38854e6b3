//! Where things are: the clone, its target folder, and the cache that outlives a clone.
//!
//! Nothing here creates a folder, except `fresh_dir`, which says so.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use anyhow::{Context, Result};

/// The root of the clone this program was built from.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// This very program. When a build has replaced its file meanwhile, the new one: it does the same.
pub fn own_program() -> Result<PathBuf> {
    let own = env::current_exe().context("finding the running program")?;
    let text = own.to_string_lossy();
    Ok(text.strip_suffix(" (deleted)").map_or_else(|| own.clone(), PathBuf::from))
}

/// Cargo's target folder: the one this program itself was built into, so that `CARGO_TARGET_DIR` needs no second guess.
pub fn target() -> Result<PathBuf> {
    let own = own_program()?;
    // <target>/debug/xtask, or <target>/debug/deps/xtask-<hash> for its tests
    let own_dir = own.parent().context("the running program has no folder")?;
    let profile = if own_dir.ends_with("deps") { own_dir.parent().unwrap_or(own_dir) } else { own_dir };
    Ok(profile.parent().unwrap_or(profile).to_path_buf())
}

/// The text of a file; `None` when there is no such file.
pub fn read_if_there(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// What is dear to make and the same for every clone: images, upstream programs.
pub fn cache() -> PathBuf {
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .unwrap_or_else(|| PathBuf::from("/var/cache"));
    base.join("coracle")
}

/// An empty folder at `path`: what was there before is removed.
pub fn fresh_dir(path: &Path) -> Result<()> {
    if path.exists() {
        std::fs::remove_dir_all(path).with_context(|| format!("removing {}", path.display()))?;
    }
    std::fs::create_dir_all(path).with_context(|| format!("creating {}", path.display()))
}

/// The program called `name` on the PATH or in the system folders that a plain user's PATH lacks.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/lib/qemu", "/usr/libexec"].map(PathBuf::from);
    env::split_paths(&path).chain(system).map(|dir| dir.join(name)).find(|candidate| candidate.is_file())
}
