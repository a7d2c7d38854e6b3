//! Where runtimes look for networks and plugins, and what of ours is there while a runtime of others is used.

use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{PLUGIN_NAME, VERSIONS};

/// Runtimes take the first configuration in the order of names: one that sorts before ours is somebody's wish.
const CONFIG_NAME: &str = "10-coracle.conflist";

/// The folders that CNI is looked for in.
#[derive(Clone, Debug)]
pub struct Place {
    pub conf_dir: PathBuf,
    pub bin_dir: PathBuf,
}

impl Default for Place {
    fn default() -> Self {
        Place { conf_dir: "/etc/cni/net.d".into(), bin_dir: "/opt/cni/bin".into() }
    }
}

impl Place {
    /// The folders that [`Place::install`] would have to make, outermost first.
    pub fn missing_folders(&self) -> Vec<PathBuf> {
        let mut missing = Vec::new();
        for dir in [&self.conf_dir, &self.bin_dir] {
            let mut new: Vec<PathBuf> =
                dir.ancestors().take_while(|dir| !dir.exists()).map(Path::to_path_buf).collect();
            new.reverse();
            missing.extend(new);
        }
        missing
    }

    /// Links the plugin to `program` and then tells runtimes of it; the agent listens at `socket`.
    pub fn install(&self, program: &Path, socket: &Path) -> io::Result<()> {
        std::fs::create_dir_all(&self.bin_dir)?;
        std::fs::create_dir_all(&self.conf_dir)?;
        put(&self.bin_dir.join(PLUGIN_NAME), |draft| symlink(program, draft))?;
        put(&self.conf_dir.join(CONFIG_NAME), |draft| std::fs::write(draft, config(socket)))
    }

    /// The configuration of somebody else that runtimes take instead of ours.
    pub fn preferred(&self) -> Option<PathBuf> {
        let entries = std::fs::read_dir(&self.conf_dir).into_iter().flatten().filter_map(Result::ok);
        let known = |path: &PathBuf| {
            path.extension()
                .is_some_and(|extension| ["conf", "conflist", "json"].iter().any(|known| extension == *known))
        };
        let first = entries.map(|entry| entry.path()).filter(known).min();
        first.filter(|first| *first < self.conf_dir.join(CONFIG_NAME))
    }

    /// Takes both away, and those of `folders` that nobody else has put anything in.
    pub fn remove(&self, folders: &[PathBuf]) -> io::Result<()> {
        for file in [self.conf_dir.join(CONFIG_NAME), self.bin_dir.join(PLUGIN_NAME)] {
            match std::fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        for folder in folders.iter().rev() {
            match std::fs::remove_dir(folder) {
                Err(error) if ![io::ErrorKind::NotFound, io::ErrorKind::DirectoryNotEmpty].contains(&error.kind()) => {
                    return Err(error);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Runtimes watch the folders: what they see there has to be whole.
fn put(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let draft = path.with_extension("new");
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    make(&draft)?;
    std::fs::rename(draft, path)
}

/// A runtime that knows the newer version takes it from the list; the others find what they know.
fn config(socket: &Path) -> String {
    let plugin = json!({"type": PLUGIN_NAME, "socket": socket, "capabilities": {"portMappings": true}});
    let config = json!({"cniVersion": VERSIONS[0], "cniVersions": VERSIONS, "name": "coracle", "plugins": [plugin]});
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_is_removed_and_what_is_others_stays() {
        let root = tempfile::tempdir().unwrap();
        let place = Place { conf_dir: root.path().join("etc/cni/net.d"), bin_dir: root.path().join("opt/cni/bin") };
        std::fs::create_dir_all(root.path().join("etc")).unwrap();
        let folders = place.missing_folders();
        assert_eq!(folders.len(), 5, "{folders:?}");
        for _ in 0..2 {
            place.install(Path::new("/usr/bin/coracle"), Path::new("/data/cni.sock")).unwrap();
        }
        let config = std::fs::read(place.conf_dir.join(CONFIG_NAME)).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["plugins"][0]["socket"], "/data/cni.sock");
        assert_eq!(std::fs::read_link(place.bin_dir.join("coracle-cni")).unwrap(), Path::new("/usr/bin/coracle"));
        assert_eq!(place.preferred(), None);
        let other = place.conf_dir.join("05-other.conflist");
        std::fs::write(&other, "{}").unwrap();
        assert_eq!(place.preferred().as_ref(), Some(&other));
        place.remove(&folders).unwrap();
        assert!(other.exists() && !place.conf_dir.join(CONFIG_NAME).exists() && !root.path().join("opt").exists());
        std::fs::remove_file(other).unwrap();
        place.remove(&folders).unwrap();
        assert!(root.path().join("etc").exists() && !root.path().join("etc/cni").exists());
    }
}
