//! Which device nodes a container gets, and which devices its cgroup may use.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use cri::{Error, v1::ContainerConfig};

use crate::{cgroup::DeviceRule, launch::plan::DevicePlan};

/// Folders of the host's `/dev` that a container has its own of.
const OWN: [&str; 6] = ["/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/console", "/dev/.udev"];

/// How deep a folder of devices is followed.
const DEPTH_MAX: usize = 8;

/// The nodes to make and the rules to set.
pub fn plan(config: &ContainerConfig, privileged: bool) -> Result<(Vec<DevicePlan>, Vec<DeviceRule>), Error> {
    if privileged {
        let mut nodes = Vec::new();
        collect(Path::new("/dev"), Path::new("/dev"), "rwm", 0, &mut nodes).map_err(|error| failed("/dev", &error))?;
        return Ok((nodes, vec![DeviceRule::all()]));
    }
    let mut nodes = Vec::new();
    for device in &config.devices {
        let host = fs::canonicalize(&device.host_path).map_err(|error| failed(&device.host_path, &error))?;
        let target = PathBuf::from(&device.container_path);
        collect(&host, &target, &device.permissions, 0, &mut nodes)
            .map_err(|error| failed(&device.host_path, &error))?;
    }
    let rule = |node: &DevicePlan| DeviceRule {
        kind: node.kind,
        major: Some(node.major),
        minor: Some(node.minor),
        access: node.access.clone(),
    };
    let rules = DeviceRule::standard().into_iter().chain(nodes.iter().map(rule)).collect();
    Ok((nodes, rules))
}

fn failed(path: &str, error: &io::Error) -> Error {
    Error::unknown(format!("failed to add device {path}: {}", crate::launch::os_message(error)))
}

/// The device at `host`, or those in the folder there.
fn collect(host: &Path, target: &Path, access: &str, depth: usize, into: &mut Vec<DevicePlan>) -> io::Result<()> {
    if depth > DEPTH_MAX || OWN.iter().any(|own| host == Path::new(own)) {
        return Ok(());
    }
    let metadata = match fs::symlink_metadata(host) {
        // Devices come and go while we look.
        Err(error) if error.kind() == io::ErrorKind::NotFound && depth > 0 => return Ok(()),
        other => other?,
    };
    let kind = metadata.file_type();
    if kind.is_dir() {
        for entry in fs::read_dir(host)? {
            let name = entry?.file_name();
            collect(&host.join(&name), &target.join(&name), access, depth + 1, into)?;
        }
    } else if kind.is_char_device() || kind.is_block_device() {
        into.push(DevicePlan {
            path: target.display().to_string(),
            kind: if kind.is_block_device() { 'b' } else { 'c' },
            major: rustix::fs::major(metadata.rdev()),
            minor: rustix::fs::minor(metadata.rdev()),
            mode: metadata.mode() & 0o777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            access: access.to_owned(),
        });
    } else if depth == 0 {
        return Err(io::Error::other("not a device node"));
    }
    Ok(())
}
