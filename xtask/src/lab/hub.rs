//! What the hub is besides its links: its view of the file system, the registry, and the command's environment.

use std::fs::{self, File};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use super::enter::wait_for;
use super::spawn;
use super::state::{DIR_VARIABLE, HUB, PRIVATE_REGISTRY_PORT, Plan, REGISTRY_PORT};
use crate::paths;

const REGISTRY_START_MS_MAX: u64 = 20_000;
/// Ways out of a network that has none.
pub const PROXY_VARIABLES: [&str; 6] =
    ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"];

/// Cuts this namespace's mounts off from the machine's, and gives it the /proc and /sys of its own namespaces.
pub fn own_view(scratch: &Path) -> Result<()> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("making the mounts private")?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none).context("mounting /proc")?;
    own_sys(scratch)
}

/// /sys shows the links of the namespace that mounted it; the control groups under it are carried over.
fn own_sys(scratch: &Path) -> Result<()> {
    let none: Option<&str> = None;
    let kept = scratch.join("cgroup");
    fs::create_dir_all(&kept)?;
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some("/sys/fs/cgroup"), &kept, none, bind, none).context("keeping the control groups")?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).context("mounting /sys")?;
    mount(Some(&kept), "/sys/fs/cgroup", none, bind, none).context("bringing back the control groups")?;
    nix::mount::umount2(&kept, nix::mount::MntFlags::MNT_DETACH).context("letting go of the kept control groups")
}

/// Lays `content` over a file under /etc, for this mount namespace only.
pub fn overlay_file(scratch: &Path, target: &str, content: &str) -> Result<()> {
    // the machine's may be a link into /run: what programs read is where it leads
    let Ok(real) = Path::new(target).canonicalize() else { return Ok(()) };
    let source = scratch.join(real.file_name().context("a file has a name")?);
    fs::write(&source, content).with_context(|| format!("writing {}", source.display()))?;
    let none: Option<&str> = None;
    mount(Some(&source), &real, none, MsFlags::MS_BIND, none).with_context(|| format!("covering {}", real.display()))
}

/// /etc/hosts of everything in the lab.
pub fn hosts(plan: &Plan, own_name: &str) -> Result<String> {
    let mut text = format!("127.0.0.1 localhost {own_name}\n::1 localhost\n{HUB} hub registry.lab private.lab\n");
    for node in plan.all_nodes()? {
        text.push_str(&format!("{} {}\n", node.address, node.name));
    }
    Ok(text)
}

/// What the private registry asks for: user `captain`, password `lighthouse`, as `htpasswd -B` writes it.
const PRIVATE_ACCOUNT: &str = "captain:$2y$05$abcdefghijklmnopqrstuuOYH8BVNQIUH.BPepBWz.zkNhYx0I29W\n";

/// Starts the registries on the hub's address, one open and one that asks who is there, and waits until they answer.
/// Both serve the same images.
pub fn start_registries(plan: &Plan) -> Result<()> {
    let accounts = plan.dir().join("htpasswd");
    fs::write(&accounts, PRIVATE_ACCOUNT).context("writing the private registry's accounts")?;
    let asks = format!("auth:\n  htpasswd: {{realm: private, path: {}}}\n", accounts.display());
    start_registry(plan, "registry", REGISTRY_PORT, "")?;
    start_registry(plan, "private-registry", PRIVATE_REGISTRY_PORT, &asks)?;
    wait_for_registry(plan, "registry", REGISTRY_PORT)?;
    wait_for_registry(plan, "private-registry", PRIVATE_REGISTRY_PORT)
}

fn start_registry(plan: &Plan, name: &str, port: u16, auth: &str) -> Result<()> {
    let config = plan.dir().join(format!("{name}.yml"));
    let storage = plan.registry_storage();
    fs::create_dir_all(&storage)?;
    let text = format!(
        "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp:\n  addr: {HUB}:{port}\n{auth}",
        storage.display()
    );
    fs::write(&config, text).context("writing the registry's configuration")?;
    let log = File::create(plan.dir().join(format!("{name}.log")))?;
    let program = paths::find_program("docker-registry")
        .context("the lab's registry is Debian's: install it with `apt-get install docker-registry`")?;
    let mut command = Command::new(program);
    command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    spawn::in_own_session(&mut command).spawn().context("starting the registry").map(drop)
}

fn wait_for_registry(plan: &Plan, name: &str, port: u16) -> Result<()> {
    let address = SocketAddr::V4(SocketAddrV4::new(HUB, port));
    wait_for(REGISTRY_START_MS_MAX, || TcpStream::connect(address).is_ok()).with_context(|| {
        let log = fs::read_to_string(plan.dir().join(format!("{name}.log"))).unwrap_or_default();
        format!("the registry does not answer:\n{log}")
    })
}

/// A folder for the PATH: the pinned kubectl, and `lab-node`.
pub fn make_bin(plan: &Plan) -> Result<()> {
    let bin = plan.dir().join("bin");
    paths::fresh_dir(&bin)?;
    symlink(&plan.kubectl, bin.join("kubectl")).context("linking kubectl")?;
    if !plan.coracle.as_os_str().is_empty() {
        symlink(&plan.coracle, bin.join("coracle")).context("linking coracle")?;
    }
    let script = bin.join("lab-node");
    fs::write(&script, format!("#!/bin/sh\nexec '{}' lab-node \"$@\"\n", plan.xtask.display()))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).context("making lab-node executable")
}

/// What a command in the lab finds in its environment.
pub fn environment(plan: &Plan, command: &mut Command) -> Result<()> {
    let old = std::env::var_os("PATH").unwrap_or_default();
    let with_bin = std::iter::once(plan.dir().join("bin")).chain(std::env::split_paths(&old));
    command.env("PATH", std::env::join_paths(with_bin)?);
    command.env("KUBECONFIG", plan.kubeconfig()).env(DIR_VARIABLE, plan.dir());
    command.env("CORACLE_LAB_NODES", plan.nodes.to_string());
    command.env("CORACLE_LAB_RUNTIME", plan.runtime().name());
    command.env("CORACLE_LAB_REGISTRY", format!("{HUB}:{REGISTRY_PORT}"));
    for proxy in PROXY_VARIABLES {
        command.env_remove(proxy);
    }
    Ok(())
}
