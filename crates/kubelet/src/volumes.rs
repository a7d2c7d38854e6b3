//! The volumes of a pod: made before its containers, kept up to date while it runs, taken away when it ends.
//!
//! ```text
//! <pod dir>/volumes/<plugin>/<name>        the volume
//! <pod dir>/volume-subpaths/<name>/...     what subPath mounts bind
//! ```
//!
//! `prepare` is the same at the first start and at every later look: what is there already is left as it is, changed ConfigMaps,
//! Secrets, labels and due tokens are written anew in one step ([`atomic_writer`]). Claims, CSI and network file systems are not
//! built yet and are refused by name.

pub mod atomic_writer;
pub mod host_path;
pub mod mount;
pub mod ownership;
pub mod payload;
pub mod sub_path;
pub mod tokens;

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base::Timestamp;
use cri::v1::{ImageSpec, Mount, MountPropagation};
use k8s_openapi::api::core::v1::{Container, EmptyDirVolumeSource, Pod, Volume, VolumeMount};

use crate::environment::expansion::expand_strictly;
use crate::pod;
use payload::For;

/// Why a volume is not there; the message is the one of the `FailedMount` event.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {why}")]
pub struct VolumeError {
    pub volume: String,
    pub why: String,
}

/// Where a container finds a volume.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    Host(PathBuf),
    /// The runtime mounts the image's files itself.
    Image(String),
}

/// The volumes of a pod that are ready.
#[derive(Clone, Debug, Default)]
pub struct Volumes {
    /// By volume name.
    pub places: HashMap<String, Place>,
    /// Names of those made from objects: containers never write to them.
    pub made_from_objects: HashSet<String>,
    /// When to prepare again although nothing changed.
    pub refresh_at: Option<Timestamp>,
}

/// Makes all volumes of a pod, or brings them up to date.
pub async fn prepare(wanted: &For<'_>) -> Result<Volumes, VolumeError> {
    let mut volumes = Volumes::default();
    for volume in pod::spec(wanted.pod).volumes.iter().flatten() {
        let failed = |why: String| VolumeError { volume: volume.name.clone(), why };
        let place = prepare_one(wanted, volume, &mut volumes.refresh_at).await.map_err(failed)?;
        if volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.downward_api.is_some()
            || volume.projected.is_some()
        {
            volumes.made_from_objects.insert(volume.name.clone());
        }
        volumes.places.insert(volume.name.clone(), place);
    }
    Ok(volumes)
}

async fn prepare_one(wanted: &For<'_>, volume: &Volume, refresh_at: &mut Option<Timestamp>) -> Result<Place, String> {
    let group = fs_group(wanted.pod);
    if let Some(source) = &volume.host_path {
        host_path::check(source)?;
        return Ok(Place::Host(source.path.clone().into()));
    }
    if let Some(source) = &volume.image {
        return Ok(Place::Image(source.reference.clone().unwrap_or_default()));
    }
    let directory = wanted.agent.pod_dir(pod::uid(wanted.pod)).join("volumes").join(plugin(volume)).join(&volume.name);
    if let Some(source) = &volume.empty_dir {
        let on_root_mismatch = change_policy(wanted.pod) == Some("OnRootMismatch");
        let made = empty_dir(&directory, source, group, on_root_mismatch);
        return made.map(|()| Place::Host(directory)).map_err(|error| error.to_string());
    }
    if let Some(gathered) = wanted.gather(volume).await {
        let gathered = gathered?;
        if let Some(at) = gathered.refresh_at {
            *refresh_at = Some(refresh_at.map_or(at, |earlier: Timestamp| earlier.min(at)));
        }
        let in_memory = volume.config_map.is_none();
        let now = wanted.agent.clock.now();
        let written = write_payload(&directory, &gathered.files, in_memory, group, now);
        return written.map(|()| Place::Host(directory)).map_err(|error| error.to_string());
    }
    Err(format!("volumes of this kind ({}) are not supported yet", plugin(volume)))
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let group = pod::spec(pod).security_context.as_ref().and_then(|context| context.fs_group);
    group.and_then(|group| u32::try_from(group).ok())
}

fn change_policy(pod: &Pod) -> Option<&str> {
    pod::spec(pod).security_context.as_ref().and_then(|context| context.fs_group_change_policy.as_deref())
}

/// Upstream's name of what makes such a volume, which is the name of its folder too.
fn plugin(volume: &Volume) -> &'static str {
    match volume {
        Volume { empty_dir: Some(_), .. } => "kubernetes.io~empty-dir",
        Volume { config_map: Some(_), .. } => "kubernetes.io~configmap",
        Volume { secret: Some(_), .. } => "kubernetes.io~secret",
        Volume { projected: Some(_), .. } => "kubernetes.io~projected",
        Volume { downward_api: Some(_), .. } => "kubernetes.io~downward-api",
        Volume { persistent_volume_claim: Some(_), .. } => "persistentVolumeClaim",
        Volume { csi: Some(_), .. } => "kubernetes.io~csi",
        Volume { nfs: Some(_), .. } => "kubernetes.io~nfs",
        Volume { ephemeral: Some(_), .. } => "ephemeral",
        _ => "unknown",
    }
}

fn empty_dir(
    directory: &Path,
    source: &EmptyDirVolumeSource,
    group: Option<u32>,
    on_root_mismatch: bool,
) -> io::Result<()> {
    if directory.is_dir() {
        // Made before: what the pod has put there since is its own.
        return if source.medium.as_deref() == Some("Memory") { mount::tmpfs(directory, size(source)) } else { Ok(()) };
    }
    std::fs::create_dir_all(directory)?;
    if source.medium.as_deref() == Some("Memory") {
        mount::tmpfs(directory, size(source))?;
    }
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o777))?;
    match group {
        Some(group) if !(on_root_mismatch && ownership::top_matches(directory, group)) => {
            ownership::give_to_group(directory, group, false)
        }
        _ => Ok(()),
    }
}

fn size(source: &EmptyDirVolumeSource) -> i64 {
    source.size_limit.as_ref().and_then(pod::quantity).map_or(0, |limit| limit.units())
}

fn write_payload(
    directory: &Path,
    files: &atomic_writer::Files,
    in_memory: bool,
    group: Option<u32>,
    now: Timestamp,
) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    if in_memory {
        mount::tmpfs(directory, 0)?;
    }
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    std::os::unix::fs::chown(directory, None, group)?;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(mode))?;
    atomic_writer::write(directory, files, group, now).map(drop)
}

/// Unmounts and removes everything of a pod's folder. Blocking.
pub fn remove(pod_dir: &Path) -> io::Result<()> {
    if !pod_dir.exists() {
        return Ok(());
    }
    // Nothing may be removed through a mount: a subPath may lead to a folder of the host.
    mount::unmount_below(pod_dir)?;
    std::fs::remove_dir_all(pod_dir)
}

/// The mounts of one container. Errors are messages of `CreateContainerConfigError`.
pub fn mounts(
    pod_dir: &Path,
    container: &Container,
    volumes: &Volumes,
    environment: &[(String, String)],
) -> Result<Vec<Mount>, String> {
    let listed = container.volume_mounts.as_deref().unwrap_or_default();
    listed
        .iter()
        .enumerate()
        .map(|(index, wanted)| one_mount(pod_dir, container, volumes, environment, index, wanted))
        .collect()
}

fn one_mount(
    pod_dir: &Path,
    container: &Container,
    volumes: &Volumes,
    environment: &[(String, String)],
    index: usize,
    wanted: &VolumeMount,
) -> Result<Mount, String> {
    let lookup = |name: &str| environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let sub_path = match wanted.sub_path_expr.as_deref().filter(|expression| !expression.is_empty()) {
        Some(expression) => expand_strictly(expression, lookup)?,
        None => wanted.sub_path.clone().unwrap_or_default(),
    };
    let container_path =
        if wanted.mount_path.starts_with('/') { wanted.mount_path.clone() } else { format!("/{}", wanted.mount_path) };
    let readonly = wanted.read_only.unwrap_or(false) || volumes.made_from_objects.contains(&wanted.name);
    let propagation = match wanted.mount_propagation.as_deref() {
        Some("Bidirectional") => MountPropagation::PropagationBidirectional,
        Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
        _ => MountPropagation::PropagationPrivate,
    };
    let mut mount = Mount {
        container_path,
        readonly,
        recursive_read_only: matches!(wanted.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible"))
            && readonly,
        propagation: propagation as i32,
        ..Mount::default()
    };
    match volumes.places.get(&wanted.name) {
        None => {
            return Err(format!("cannot find volume {:?} to mount into container {:?}", wanted.name, container.name));
        }
        Some(Place::Image(image)) => {
            mount.image = Some(ImageSpec { image: image.clone(), ..ImageSpec::default() });
            mount.image_sub_path = sub_path;
            mount.readonly = true;
        }
        Some(Place::Host(path)) if sub_path.is_empty() => mount.host_path = path.display().to_string(),
        Some(Place::Host(path)) => {
            let target =
                pod_dir.join("volume-subpaths").join(&wanted.name).join(&container.name).join(index.to_string());
            let bound = sub_path::bind(path, &sub_path, &target, true)?;
            mount.host_path = bound.display().to_string();
        }
    }
    Ok(mount)
}

#[cfg(test)]
mod tests;
