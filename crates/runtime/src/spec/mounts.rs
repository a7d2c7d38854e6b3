//! What is mounted into a container, and in which order.

use std::path::{Path, PathBuf};

use cri::{
    Error,
    v1::{LinuxContainerSecurityContext, Mount, MountPropagation, NamespaceMode},
};

use super::Source;
use crate::launch::plan::{MountPlan, MountSource, Propagation};

/// Everything to mount: what every container has, what its pod has, what it asks for. What is asked for replaces what would be
/// there anyway, and comes in order of depth so that nothing is covered.
pub fn plan(source: &Source<'_>, security: &LinuxContainerSecurityContext) -> Result<Vec<MountPlan>, Error> {
    let asked = asked(source)?;
    let replaced = |mount: &MountPlan| asked.iter().any(|other| Path::new(&other.target) == Path::new(&mount.target));
    let mut mounts = standard(source, security);
    mounts.retain(|mount| !replaced(mount));
    let (mut mounts, mut asked) = (mounts, asked);
    asked.sort_by_key(|mount| Path::new(&mount.target).components().count());
    mounts.extend(asked);
    Ok(mounts)
}

fn mount(target: &str, source: MountSource, readonly: bool) -> MountPlan {
    MountPlan {
        target: target.to_owned(),
        source,
        readonly,
        readonly_recursive: false,
        propagation: Propagation::Private,
    }
}

fn standard(source: &Source<'_>, security: &LinuxContainerSecurityContext) -> Vec<MountPlan> {
    let host_ipc = security.namespace_options.as_ref().is_some_and(|options| options.ipc() == NamespaceMode::Node);
    let shared_memory = if host_ipc { PathBuf::from("/dev/shm") } else { source.sandbox_folder.join("shm") };
    let restricted = !security.privileged;
    let file = |name: &str| MountSource::Bind(source.sandbox_folder.join(name));
    vec![
        mount("/proc", MountSource::Proc, false),
        mount("/dev", MountSource::Dev, false),
        mount("/dev/pts", MountSource::Devpts, false),
        mount("/dev/mqueue", MountSource::Mqueue, false),
        mount("/sys", MountSource::Sysfs, restricted),
        mount("/sys/fs/cgroup", MountSource::Cgroup, restricted),
        mount("/dev/shm", MountSource::Bind(shared_memory), false),
        mount("/etc/hostname", file("hostname"), security.readonly_rootfs),
        mount("/etc/resolv.conf", file("resolv.conf"), security.readonly_rootfs),
        mount("/etc/hosts", file("hosts"), security.readonly_rootfs),
    ]
}

fn asked(source: &Source<'_>) -> Result<Vec<MountPlan>, Error> {
    let mut images = source.image_mounts.iter();
    let mut mounts = Vec::new();
    for (index, asked) in source.config.mounts.iter().enumerate() {
        let from = match asked.image.as_ref().filter(|image| !image.image.is_empty()) {
            Some(_) => MountSource::Layers {
                layers: images.next().cloned().unwrap_or_default(),
                sub_path: asked.image_sub_path.clone(),
                staging: source.folder.join(format!("image-{index}")),
            },
            None => MountSource::Bind(PathBuf::from(&asked.host_path)),
        };
        mounts.push(one(asked, from)?);
    }
    Ok(mounts)
}

fn one(asked: &Mount, source: MountSource) -> Result<MountPlan, Error> {
    if !asked.mount_options.is_empty() {
        return Err(Error::new(cri::Code::Unimplemented, "mount options are not supported by this runtime yet"));
    }
    if asked.recursive_read_only && !asked.readonly {
        return Err(Error::invalid("recursive read-only mounts must be read-only"));
    }
    let target = if asked.container_path.starts_with('/') {
        asked.container_path.clone()
    } else {
        format!("/{}", asked.container_path)
    };
    Ok(MountPlan {
        target,
        readonly: asked.readonly || matches!(source, MountSource::Layers { .. }),
        source,
        readonly_recursive: asked.recursive_read_only,
        propagation: match asked.propagation() {
            MountPropagation::PropagationPrivate => Propagation::Private,
            MountPropagation::PropagationHostToContainer => Propagation::HostToContainer,
            MountPropagation::PropagationBidirectional => Propagation::Bidirectional,
        },
    })
}
