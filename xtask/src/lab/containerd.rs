//! containerd on a node of a lab: upstream's usual runtime, for our node agent by its socket and for upstream's own.
//!
//! containerd and its shim are built from the pinned Go module, `runc` is Debian's. Configuration, state and log are the
//! node's; images come from the lab's registries under their usual names. It outlives whoever started it: its process
//! number is in `<node>/containerd.pid`, and `lab-node exec N -- kill` ends it.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::cluster::MIRRORED;
use super::enter::{is_alive, wait_for};
use super::spawn;
use super::state::{HUB, Node, read_pid};
use crate::apt::Apt;
use crate::{paths, process, upstream};

/// Where it listens, on every node.
pub const SOCKET: &str = "/run/containerd/containerd.sock";
const CONFIG_DIR: &str = "/etc/containerd";
const SANDBOX_IMAGE: &str = "registry.k8s.io/pause:3.10";
const START_MS_MAX: u64 = 30_000;

/// What it takes, found or built before any namespace is made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Programs {
    containerd: PathBuf,
    shim: PathBuf,
    runc: PathBuf,
}

/// Builds and fetches what this machine lacks. Needs Go.
pub fn programs() -> Result<Programs> {
    Ok(Programs {
        containerd: upstream::program("containerd")?,
        shim: upstream::program("containerd-shim-runc-v2")?,
        runc: runc()?,
    })
}

/// The machine's own runc, or Debian's taken from its package without installing it.
fn runc() -> Result<PathBuf> {
    if let Some(installed) = paths::find_program("runc") {
        return Ok(installed);
    }
    let dir = paths::cache().join("runc");
    let program = dir.join("usr/sbin/runc");
    if !program.exists() {
        let package = Apt::at(&paths::cache().join("images"))?.packages(&["runc"])?;
        let package = package.first().context("apt delivered no runc")?;
        process::quiet(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&dir))?;
    }
    Ok(program)
}

/// Starts containerd and waits until it answers. To be called by a process that has entered the node; containerd that
/// runs already is left alone.
pub fn start(programs: &Programs, node: &Node) -> Result<()> {
    if read_pid(&pid_file(node)).is_ok_and(is_alive) {
        return Ok(());
    }
    configure(programs)?;
    let log = File::options().create(true).append(true).open(log_file(node))?;
    let mut command = Command::new(&programs.containerd);
    command.args(["--config", &format!("{CONFIG_DIR}/config.toml")]);
    command.env("PATH", path_with_shim(programs)?);
    for proxy in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
        command.env_remove(proxy);
    }
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let child = spawn::in_own_session(&mut command).spawn().context("starting containerd")?;
    fs::write(pid_file(node), child.id().to_string()).context("writing containerd's process number")?;
    wait_for(START_MS_MAX, || UnixStream::connect(SOCKET).is_ok()).with_context(|| {
        let text = fs::read(log_file(node)).unwrap_or_default();
        format!("containerd does not answer:\n{}", process::last_lines(&String::from_utf8_lossy(&text), 40))
    })
}

/// As the node's own processes count.
fn pid_file(node: &Node) -> PathBuf {
    node.run.join("containerd.pid")
}

fn log_file(node: &Node) -> PathBuf {
    node.run.join("containerd.log")
}

/// containerd looks its shim up on the PATH.
fn path_with_shim(programs: &Programs) -> Result<std::ffi::OsString> {
    let dir = programs.shim.parent().context("the shim has a folder")?;
    let old = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::join_paths(std::iter::once(dir.to_path_buf()).chain(std::env::split_paths(&old)))?)
}

/// Writes the node's configuration, and for every mirrored registry where its images are.
fn configure(programs: &Programs) -> Result<()> {
    let dir = Path::new(CONFIG_DIR);
    if dir.metadata().is_ok_and(|dir| !dir.is_dir()) {
        bail!("{CONFIG_DIR} is not a folder");
    }
    fs::create_dir_all(dir.join("certs.d")).with_context(|| format!("making {CONFIG_DIR}"))?;
    fs::write(dir.join("config.toml"), config(&programs.runc)).context("writing containerd's configuration")?;
    for (registry, port) in MIRRORED {
        let of_registry = dir.join("certs.d").join(registry);
        fs::create_dir_all(&of_registry)?;
        fs::write(of_registry.join("hosts.toml"), hosts(HUB, port)).context("writing a registry's mirrors")?;
    }
    Ok(())
}

/// This machine lets nobody lower `oom_score_adj`, has no loopback plugin, and no systemd to ask for groups.
fn config(runc: &Path) -> String {
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "{SOCKET}"

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/opt/cni/bin", "/usr/lib/cni"]
conf_dir = "/etc/cni/net.d"
use_internal_loopback = true

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "{runc}"
SystemdCgroup = false

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{SANDBOX_IMAGE}"

[plugins."io.containerd.cri.v1.images".registry]
config_path = "{CONFIG_DIR}/certs.d"
"#,
        runc = runc.display()
    )
}

fn hosts(hub: Ipv4Addr, port: u16) -> String {
    let mirror = format!("http://{hub}:{port}");
    format!("server = \"{mirror}\"\n\n[host.\"{mirror}\"]\ncapabilities = [\"pull\", \"resolve\"]\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_configuration_is_toml_and_names_the_lab_s_registries() {
        let config: toml::Table = config(Path::new("/x/runc")).parse().unwrap();
        let runtime = &config["plugins"]["io.containerd.cri.v1.runtime"];
        assert_eq!(runtime["containerd"]["runtimes"]["runc"]["options"]["BinaryName"].as_str(), Some("/x/runc"));
        let hosts: toml::Table = hosts(HUB, 5000).parse().unwrap();
        assert!(hosts["host"].as_table().unwrap().contains_key("http://192.0.2.1:5000"), "{hosts}");
    }
}
