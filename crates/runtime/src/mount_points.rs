//! The mount points that images lack, as a layer below the image's.
//!
//! A mount needs something to be mounted on. Images rarely have all of `/proc`, `/etc/hosts` and the folders of volumes; made in each
//! container's own folder they are most of what its start writes to the disk. Containers with the same mounts share one
//! read-only folder that has them. What an image has or hides itself stays as the image says, and what is missing even then is made
//! when it is mounted on, as before ([`crate::launch`]). What a container sees is the same either way.
//!
//! A folder stays until the next start of the runtime, which removes those that no container stands on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Component, Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{
    disk,
    launch::plan::{MountPlan, MountSource},
    state::new_id,
};

/// Below the runtime's root, beside the layers.
const FOLDER: &str = "mount-points";

/// How many letters name a set of mount points.
const NAME_LEN: usize = 16;

/// How layers, which are named relative to their own folder, name one of ours.
fn layer_name(name: &str) -> String {
    format!("../{FOLDER}/{name}")
}

/// The layer with the mount points of `mounts`, made when there is none yet. Sources that are paths of the host exist already.
pub fn layer(root: &Path, mounts: &[MountPlan]) -> io::Result<String> {
    let points = points(mounts);
    let name = name(&points);
    let folder = root.join(FOLDER).join(&name);
    if !folder.is_dir() {
        let making = root.join(FOLDER).join(format!(".{}", new_id()));
        make(&making, &points)?;
        if let Err(error) = fs::rename(&making, &folder) {
            // Another container with the same mounts was first.
            disk::remove_folder(&making)?;
            if !folder.is_dir() {
                return Err(error);
            }
        }
    }
    Ok(layer_name(&name))
}

/// Makes the place for them, and removes those that none of `in_use` is.
pub fn open(root: &Path, in_use: &BTreeSet<String>) -> io::Result<()> {
    let folder = root.join(FOLDER);
    fs::create_dir_all(&folder)?;
    disk::private(&folder)?;
    disk::remove_all_but(&folder, |name| in_use.contains(&layer_name(name)))
}

/// Path inside the container, and whether it is a folder. Those inside of other mounts are not the root's.
fn points(mounts: &[MountPlan]) -> BTreeMap<PathBuf, bool> {
    let targets: BTreeSet<&Path> = mounts.iter().map(|mount| Path::new(&mount.target)).collect();
    let mut points = BTreeMap::new();
    for mount in mounts {
        let path = Path::new(&mount.target);
        let is_folder = match &mount.source {
            MountSource::Bind(source) => source.is_dir(),
            MountSource::Layers { .. } => continue,
            _ => true,
        };
        let plain = path.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
        let nested = path.ancestors().skip(1).any(|above| targets.contains(above));
        if let Ok(inside) = path.strip_prefix("/")
            && plain
            && !nested
            && inside != Path::new("")
        {
            points.insert(inside.to_owned(), is_folder);
        }
    }
    points
}

fn name(points: &BTreeMap<PathBuf, bool>) -> String {
    let mut digest = Sha256::new();
    for (path, is_folder) in points {
        digest.update(path.as_os_str().as_encoded_bytes());
        digest.update([0, u8::from(*is_folder)]);
    }
    let digest = digest.finalize();
    digest.iter().take(NAME_LEN / 2).map(|byte| format!("{byte:02x}")).collect()
}

fn make(folder: &Path, points: &BTreeMap<PathBuf, bool>) -> io::Result<()> {
    make_folder(folder)?;
    for (path, is_folder) in points {
        let mut above = folder.to_owned();
        for part in path.parent().into_iter().flat_map(Path::components) {
            above.push(part);
            make_folder(&above)?;
        }
        let point = folder.join(path);
        if *is_folder {
            make_folder(&point)?;
        } else {
            fs::File::create_new(&point)?;
            disk::set_mode(&point, 0o644)?;
        }
    }
    Ok(())
}

fn make_folder(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => disk::set_mode(folder, 0o755),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::plan::Propagation;

    fn mount(target: &str, source: MountSource) -> MountPlan {
        let propagation = Propagation::default();
        MountPlan { target: target.into(), source, readonly: false, readonly_recursive: false, propagation }
    }

    fn mounts() -> Vec<MountPlan> {
        vec![
            mount("/proc", MountSource::Proc),
            mount("/dev", MountSource::Dev),
            mount("/dev/pts", MountSource::Devpts),
            mount("/etc/hosts", MountSource::Bind("/etc/hosts".into())),
            mount("/data/deep/", MountSource::Bind("/tmp".into())),
            mount("/a/../b", MountSource::Proc),
            mount("/", MountSource::Proc),
        ]
    }

    #[test]
    fn has_what_is_mounted_on_the_root_itself() {
        // A mount on the root makes everything else its own.
        assert!(points(&mounts()).is_empty());
        let points = points(&mounts()[..6]);
        let expected = [("data/deep", true), ("dev", true), ("etc/hosts", false), ("proc", true)];
        assert_eq!(points, expected.map(|(path, is_folder)| (PathBuf::from(path), is_folder)).into());
    }

    #[test]
    fn containers_with_the_same_mounts_share_one_until_none_stands_on_it() {
        let root = tempfile::tempdir().unwrap();
        open(root.path(), &BTreeSet::new()).unwrap();
        let mounts = &mounts()[..6];
        let first = layer(root.path(), mounts).unwrap();
        assert_eq!(layer(root.path(), mounts).unwrap(), first);
        let other = layer(root.path(), &mounts[..2]).unwrap();
        assert_ne!(other, first);
        let folder = root.path().join("layers").join(&first);
        fs::create_dir(root.path().join("layers")).unwrap();
        assert!(folder.join("etc/hosts").is_file() && folder.join("data/deep").is_dir());
        assert!(!folder.join("dev/pts").exists());
        open(root.path(), &BTreeSet::from([other])).unwrap();
        assert!(!folder.exists());
        assert_eq!(fs::read_dir(root.path().join(FOLDER)).unwrap().count(), 1);
    }
}
