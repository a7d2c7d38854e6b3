//! containerd on a node of a lab: upstream's usual runtime, for our node agent by its socket and for upstream's own.
//!
//! containerd and its shim are built from the pinned Go module, `runc` is Debian's. Configuration, state and log are the
//! node's; images come from the lab's registries under their usual names. It outlives whoever started it: `lab-node stop
//! N containerd` ends it.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cluster::{self, MIRRORED};
use super::state::{HUB, Node};
use crate::apt::Apt;
use crate::{paths, process, upstream};

/// As its log and process number are called.
pub const NAME: &str = "containerd";
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

/// How it is started, once it is configured.
pub fn command(programs: &Programs) -> Result<Command> {
    let mut command = Command::new(&programs.containerd);
    command.args(["--config", &format!("{CONFIG_DIR}/config.toml")]);
    command.env("PATH", path_with_shim(programs)?);
    Ok(command)
}

/// Waits until it answers, looked at from outside the node.
pub fn wait_until_ready(node: &Node) -> Result<()> {
    // through the node's own view of its files
    let socket = format!("/proc/{}/root{SOCKET}", node.init_pid()?);
    cluster::while_runs(node, &[NAME], START_MS_MAX, || UnixStream::connect(&socket).is_ok())
        .context("containerd does not answer")
}

/// containerd looks its shim up on the PATH.
fn path_with_shim(programs: &Programs) -> Result<std::ffi::OsString> {
    let dir = programs.shim.parent().context("the shim has a folder")?;
    let old = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::join_paths(std::iter::once(dir.to_path_buf()).chain(std::env::split_paths(&old)))?)
}

/// Writes the node's configuration, and for every mirrored registry where its images are. `network` is a template of the
/// pod network's configuration; without one, somebody else writes that. To be called by a process that has entered the node.
pub fn configure(programs: &Programs, network: Option<&Value>) -> Result<()> {
    let dir = Path::new(CONFIG_DIR);
    if dir.metadata().is_ok_and(|dir| !dir.is_dir()) {
        bail!("{CONFIG_DIR} is not a folder");
    }
    fs::create_dir_all(dir.join("certs.d")).with_context(|| format!("making {CONFIG_DIR}"))?;
    let template = dir.join("network.template");
    if let Some(network) = network {
        fs::write(&template, format!("{network:#}\n")).context("writing the template of the pod network")?;
    }
    let config = config(&programs.runc, network.map(|_| template.as_path()));
    fs::write(dir.join("config.toml"), config).context("writing containerd's configuration")?;
    for (registry, port) in MIRRORED {
        let of_registry = dir.join("certs.d").join(registry);
        fs::create_dir_all(&of_registry)?;
        fs::write(of_registry.join("hosts.toml"), hosts(HUB, port)).context("writing a registry's mirrors")?;
    }
    Ok(())
}

/// This machine lets nobody lower `oom_score_adj`, has no loopback plugin, and no systemd to ask for groups.
fn config(runc: &Path, network: Option<&Path>) -> String {
    let network = network.map_or_else(String::new, |path| format!("conf_template = \"{}\"\n", path.display()));
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
{network}use_internal_loopback = true

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
        let config: toml::Table = config(Path::new("/x/runc"), Some(Path::new("/x/network"))).parse().unwrap();
        let runtime = &config["plugins"]["io.containerd.cri.v1.runtime"];
        assert_eq!(runtime["containerd"]["runtimes"]["runc"]["options"]["BinaryName"].as_str(), Some("/x/runc"));
        assert_eq!(runtime["cni"]["conf_template"].as_str(), Some("/x/network"));
        let hosts: toml::Table = hosts(HUB, 5000).parse().unwrap();
        assert!(hosts["host"].as_table().unwrap().contains_key("http://192.0.2.1:5000"), "{hosts}");
    }
}
