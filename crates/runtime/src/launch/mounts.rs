//! A container's file systems, made in its own mount namespace and gone with it.
//!
//! Nothing is ever mounted where the host can see it, so nothing has to be unmounted: the overlay, `/proc`, `/dev` and every
//! volume live and die with the namespace. Targets are resolved inside the container's root by the kernel
//! (`RESOLVE_IN_ROOT`), so links in a hostile image stay inside.
//!
//! Order: clone the trees to be bound while the host's propagation still holds, make the namespace private, mount the root,
//! attach everything, hide and protect paths, pivot.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
        UnmountFlags,
    },
};

use super::{
    Doing, Failure,
    plan::{DevicePlan, LaunchPlan, MountPlan, MountSource, Propagation, RootPlan},
};
use crate::{cgroup::Hierarchies, syscalls};

const NOSUID_NODEV_NOEXEC: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV).union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Device nodes every container has: name, minor, major 1 except `tty`.
const STANDARD_DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Links every container has in `/dev`.
const STANDARD_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Builds the container's file systems and makes them the root. Runs in a new mount namespace.
pub fn enter_root(plan: &LaunchPlan, hierarchies: &Hierarchies) -> Result<(), Failure> {
    let trees = plan.mounts.iter().map(clone_source).collect::<Result<Vec<_>, _>>()?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).doing("make mounts private")?;
    let root = mount_root(&plan.root)?;
    for (mount, tree) in plan.mounts.iter().zip(trees) {
        let what = || format!("mount {}", mount.target);
        attach_mount(plan, root.as_fd(), mount, tree, hierarchies)
            .map_err(|Failure(why)| Failure(format!("{}: {why}", what())))?;
    }
    for device in &plan.devices {
        make_device(root.as_fd(), device)?;
    }
    for path in &plan.readonly_paths {
        protect(root.as_fd(), path)?;
    }
    for path in &plan.masked_paths {
        mask(root.as_fd(), path)?;
    }
    pivot(&root)?;
    if plan.root.readonly {
        let root = open_tree_here("/")?;
        syscalls::mount_setattr(root.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, false).doing("make root read-only")?;
    }
    Ok(())
}

/// For binds: a detached copy of the source's mounts, taken while the host's propagation is still in force.
fn clone_source(mount: &MountPlan) -> Result<Option<OwnedFd>, Failure> {
    let MountSource::Bind(source) = &mount.source else { return Ok(None) };
    clone_tree(source).map(Some)
}

fn clone_tree(source: &Path) -> Result<OwnedFd, Failure> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(CWD, source, flags).doing(format!("bind {}", source.display()))
}

fn open_tree_here(path: &str) -> Result<OwnedFd, Failure> {
    rustix::mount::open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLOEXEC).doing(format!("open {path}"))
}

fn mount_root(root: &RootPlan) -> Result<OwnedFd, Failure> {
    let (upper, work) = (root.upper.display(), root.work.display());
    // A container's changes go with it, and it does not outlive the machine: nothing of them has to reach the disk. Without
    // `volatile` the kernel would write out the host's whole file system when the container ends.
    let options = format!("lowerdir={},upperdir={upper},workdir={work},volatile", root.layers.join(":"));
    mount_overlay(&root.layers_folder, &root.target, &options, MountFlags::NODEV)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(&root.target, flags, Mode::empty()).doing("open root file system")
}

/// Mounts an overlay whose lower layers are named relative to `folder`.
fn mount_overlay(folder: &Path, target: &Path, options: &str, flags: MountFlags) -> Result<(), Failure> {
    std::env::set_current_dir(folder).doing("enter layers folder")?;
    let options = std::ffi::CString::new(options).map_err(|_| Failure("overlay options hold a zero byte".into()))?;
    rustix::mount::mount("overlay", target, "overlay", flags, Some(options.as_c_str())).doing("mount root file system")
}

fn attach_mount(
    plan: &LaunchPlan,
    root: BorrowedFd<'_>,
    mount: &MountPlan,
    tree: Option<OwnedFd>,
    hierarchies: &Hierarchies,
) -> Result<(), Failure> {
    let tree = match (&mount.source, tree) {
        (_, Some(tree)) => {
            let propagation = match mount.propagation {
                Propagation::Private => libc::MS_PRIVATE,
                Propagation::HostToContainer => libc::MS_SLAVE,
                Propagation::Bidirectional => libc::MS_SHARED,
            };
            syscalls::mount_setattr(tree.as_fd(), 0, propagation, true).doing("set propagation")?;
            tree
        }
        (MountSource::Bind(source), None) => clone_tree(source)?,
        (MountSource::Layers { layers, sub_path, staging }, None) => {
            image_tree(&plan.root.layers_folder, layers, sub_path, staging)?
        }
        (MountSource::Proc, None) => new_mount("proc", &[], NOSUID_NODEV_NOEXEC)?,
        (MountSource::Sysfs, None) => new_mount("sysfs", &[], NOSUID_NODEV_NOEXEC)?,
        (MountSource::Mqueue, None) => new_mount("mqueue", &[], NOSUID_NODEV_NOEXEC)?,
        (MountSource::Devpts, None) => {
            let options = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
            let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            new_mount("devpts", &options, attributes)?
        }
        (MountSource::Tmpfs(options), None) => {
            let options: Vec<(&str, &str)> =
                options.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            new_mount("tmpfs", &options, MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV)?
        }
        (MountSource::Cgroup, None) if hierarchies.is_unified() => new_mount("cgroup2", &[], NOSUID_NODEV_NOEXEC)?,
        (MountSource::Cgroup, None) => return attach_cgroup_v1(plan, root, mount, hierarchies),
        (MountSource::Dev, None) => {
            let tree = new_mount("tmpfs", &[("mode", "755"), ("size", "65536k")], MountAttrFlags::MOUNT_ATTR_NOSUID)?;
            fill_dev(tree.as_fd())?;
            tree
        }
    };
    if mount.readonly {
        let recursive = mount.readonly_recursive;
        syscalls::mount_setattr(tree.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, recursive).doing("make read-only")?;
    }
    attach(root, &mount.target, tree.as_fd())
}

/// A new file system, attached nowhere yet.
fn new_mount(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> Result<OwnedFd, Failure> {
    let make = || -> rustix::io::Result<OwnedFd> {
        let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(context.as_fd(), "source", kind)?;
        for (key, value) in options {
            if value.is_empty() {
                rustix::mount::fsconfig_set_flag(context.as_fd(), *key)?;
            } else {
                rustix::mount::fsconfig_set_string(context.as_fd(), *key, *value)?;
            }
        }
        rustix::mount::fsconfig_create(context.as_fd())?;
        rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    make().doing(format!("make {kind}"))
}

/// An image's layers as one read-only tree.
fn image_tree(folder: &Path, layers: &[String], sub_path: &str, staging: &Path) -> Result<OwnedFd, Failure> {
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::RDONLY;
    match layers {
        [only] => rustix::mount::mount_bind(folder.join(only), staging).doing("bind image")?,
        many => mount_overlay(folder, staging, &format!("lowerdir={}", many.join(":")), flags)?,
    }
    let base = open_tree_here(&staging.display().to_string())?;
    let inside = open_inside(base.as_fd(), sub_path).doing(format!("image path {sub_path}"))?;
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = rustix::mount::open_tree(inside.as_fd(), "", clone).doing("clone image mount")?;
    syscalls::mount_setattr(tree.as_fd(), libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV, 0, false)
        .doing("make image read-only")?;
    Ok(tree)
}

/// Old cgroups are one tree per controller: each container sees its own folder of each.
fn attach_cgroup_v1(
    plan: &LaunchPlan,
    root: BorrowedFd<'_>,
    mount: &MountPlan,
    hierarchies: &Hierarchies,
) -> Result<(), Failure> {
    let top = new_mount("tmpfs", &[("mode", "755")], NOSUID_NODEV_NOEXEC)?;
    let folders = hierarchies.folders(&plan.cgroup);
    for (name, _) in &folders {
        rustix::fs::mkdirat(top.as_fd(), *name, Mode::from_raw_mode(0o755)).doing("make cgroup folder")?;
    }
    attach(root, &mount.target, top.as_fd())?;
    for (name, folder) in folders {
        let tree = clone_tree(&folder)?;
        if mount.readonly {
            syscalls::mount_setattr(tree.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, true).doing("make read-only")?;
        }
        attach(root, &format!("{}/{name}", mount.target), tree.as_fd())?;
    }
    Ok(())
}

fn fill_dev(dev: BorrowedFd<'_>) -> Result<(), Failure> {
    for (name, major, minor) in STANDARD_DEVICES {
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(dev, name, FileType::CharacterDevice, Mode::from_raw_mode(0o666), device)
            .doing(format!("make /dev/{name}"))?;
    }
    for (name, target) in STANDARD_LINKS {
        rustix::fs::symlinkat(target, dev, name).doing(format!("link /dev/{name}"))?;
    }
    for name in ["pts", "shm", "mqueue"] {
        rustix::fs::mkdirat(dev, name, Mode::from_raw_mode(0o755)).doing(format!("make /dev/{name}"))?;
    }
    Ok(())
}

fn make_device(root: BorrowedFd<'_>, device: &DevicePlan) -> Result<(), Failure> {
    let path = Path::new(&device.path);
    let what = format!("make device {}", device.path);
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Failure(format!("{what}: not a path of a file")));
    };
    let folder = ensure_target(root, folder, true)?;
    let kind = if device.kind == 'b' { FileType::BlockDevice } else { FileType::CharacterDevice };
    let number = rustix::fs::makedev(device.major, device.minor);
    match rustix::fs::mknodat(folder.as_fd(), name, kind, Mode::from_raw_mode(device.mode), number) {
        Err(rustix::io::Errno::EXIST) => return Ok(()),
        other => other.doing(&what)?,
    }
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    rustix::fs::chownat(folder.as_fd(), name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).doing(what)
}

/// Puts a detached mount at `target` inside `root`, making the mount point when there is none.
fn attach(root: BorrowedFd<'_>, target: &str, tree: BorrowedFd<'_>) -> Result<(), Failure> {
    let is_folder = is_folder(tree).doing("look at mount")?;
    let place = ensure_target(root, Path::new(target), is_folder)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", place.as_fd(), "", flags).doing("attach")
}

fn is_folder(fd: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode);
    Ok(kind == FileType::Directory)
}

/// Opens a path as a program inside the container would see it.
fn open_inside(root: BorrowedFd<'_>, path: impl AsRef<Path>) -> rustix::io::Result<OwnedFd> {
    let path = path.as_ref();
    let relative = path.strip_prefix("/").unwrap_or(path);
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::openat2(root, relative, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// Opens a mount point inside `root`, making it and the folders above it when missing.
fn ensure_target(root: BorrowedFd<'_>, path: &Path, folder: bool) -> Result<OwnedFd, Failure> {
    let what = || format!("mount point {}", path.display());
    match open_inside(root, path) {
        Err(rustix::io::Errno::NOENT) => {}
        other => return other.doing(what()),
    }
    // `..` in a path that does not exist yet cannot be made; the parts before it are looked up by the kernel.
    let clean: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    let name = clean.file_name().ok_or_else(|| Failure(format!("{}: not a path", what())))?.to_owned();
    let parent = ensure_target(root, clean.parent().unwrap_or(Path::new("")), true)?;
    let made = if folder {
        rustix::fs::mkdirat(parent.as_fd(), &*name, Mode::from_raw_mode(0o755))
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
        rustix::fs::openat(parent.as_fd(), &*name, flags, Mode::from_raw_mode(0o644)).map(drop)
    };
    match made {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        other => other.doing(what())?,
    }
    open_inside(root, &clean).doing(what())
}

/// Makes a path read-only by mounting it onto itself; one that does not exist needs no protection.
fn protect(root: BorrowedFd<'_>, path: &str) -> Result<(), Failure> {
    let inside = match open_inside(root, path) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(()),
        other => other.doing(format!("protect {path}"))?,
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(inside.as_fd(), "", flags).doing(format!("protect {path}"))?;
    syscalls::mount_setattr(tree.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, true).doing(format!("protect {path}"))?;
    attach_at(inside.as_fd(), tree.as_fd()).doing(format!("protect {path}"))
}

/// Hides a path; one that does not exist is hidden already.
fn mask(root: BorrowedFd<'_>, path: &str) -> Result<(), Failure> {
    let inside = match open_inside(root, path) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(()),
        other => other.doing(format!("mask {path}"))?,
    };
    let cover = if is_folder(inside.as_fd()).doing(format!("mask {path}"))? {
        new_mount("tmpfs", &[("size", "0k"), ("mode", "755")], NOSUID_NODEV_NOEXEC | MountAttrFlags::MOUNT_ATTR_RDONLY)?
    } else {
        clone_tree(Path::new("/dev/null"))?
    };
    attach_at(inside.as_fd(), cover.as_fd()).doing(format!("mask {path}"))
}

fn attach_at(place: BorrowedFd<'_>, tree: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", place, "", flags)
}

/// Makes `root` the root and lets the host's go.
fn pivot(root: &OwnedFd) -> Result<(), Failure> {
    rustix::process::fchdir(root).doing("enter root")?;
    rustix::process::pivot_root(".", ".").doing("pivot_root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).doing("detach the host's root")?;
    std::env::set_current_dir("/").doing("enter new root")
}
