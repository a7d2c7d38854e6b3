//! Process 1 of a node: gives the node folders of its own, then reaps what is left to it. Killing it is how a node dies.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::state::{HUB, Plan};
use super::{cgroups, hub};

/// Written by this process when the node's folders are its own.
pub const READY_FILE: &str = "ready";

#[derive(Args)]
pub struct NodeInitArguments {
    dir: PathBuf,
    number: usize,
}

/// What every node has for itself, on disk: it survives the node's death as a machine's disk does.
const ON_DISK: [&str; 2] = ["/var/lib", "/var/log"];
/// What a node may write to without the machine's being touched: programs configure themselves here.
const LAYERED: [&str; 2] = ["/etc", "/opt"];
/// What every node has for itself until it dies.
const IN_MEMORY: [&str; 5] = ["/etc/cni", "/opt/cni", "/etc/containerd", "/etc/kubernetes", "/var/cache"];

pub fn run_node_init(arguments: &NodeInitArguments) -> Result<ExitCode> {
    let plan = Plan::read(&arguments.dir)?;
    let node = plan.node(arguments.number)?;
    cgroups::join(&node.host_cgroup())?;
    nix::unistd::sethostname(&node.name).context("naming the node")?;
    let scratch = node.run.join("etc");
    fs::create_dir_all(&scratch)?;
    hub::own_view(&scratch)?;
    for dir in LAYERED {
        own_layer(&node.data, dir)?;
    }
    hub::overlay_file(&scratch, "/etc/hosts", &hub::hosts(&plan, &node.name)?)?;
    hub::overlay_file(&scratch, "/etc/hostname", &format!("{}\n", node.name))?;
    // where nothing answers unless a test makes something answer
    hub::overlay_file(&scratch, "/etc/resolv.conf", &format!("nameserver {HUB}\n"))?;
    own_run(&plan.dir(), &node.data)?;
    for dir in ON_DISK {
        own_disk(&node.data, dir)?;
    }
    for dir in IN_MEMORY.iter().filter(|dir| Path::new(dir).is_dir()) {
        own_memory(dir)?;
    }
    fs::write(node.run.join(READY_FILE), "")?;
    reap_for_ever()
}

/// An empty /run, with only the lab's own folder carried over.
fn own_run(lab: &Path, data: &Path) -> Result<()> {
    let kept = data.join("lab");
    fs::create_dir_all(&kept)?;
    let none: Option<&str> = None;
    mount(Some(lab), &kept, none, MsFlags::MS_BIND, none).context("keeping the lab's folder")?;
    own_memory("/run")?;
    fs::create_dir_all(lab)?;
    mount(Some(&kept), lab, none, MsFlags::MS_BIND, none).context("bringing back the lab's folder")?;
    umount2(&kept, MntFlags::MNT_DETACH).context("letting go of the lab's kept folder")
}

/// The machine's folder as it is, under a layer that takes the node's changes.
fn own_layer(data: &Path, dir: &str) -> Result<()> {
    let name = dir.trim_start_matches('/');
    let (upper, work) = (data.join(name), data.join(format!("{name}.work")));
    fs::create_dir_all(&upper)?;
    fs::create_dir_all(&work)?;
    let options = format!("lowerdir={dir},upperdir={},workdir={}", upper.display(), work.display());
    mount(Some("overlay"), dir, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .with_context(|| format!("giving the node its own layer of {dir}"))
}

fn own_disk(data: &Path, dir: &str) -> Result<()> {
    let source = data.join(dir.trim_start_matches('/').replace('/', "-"));
    fs::create_dir_all(&source)?;
    let none: Option<&str> = None;
    mount(Some(&source), dir, none, MsFlags::MS_BIND, none).with_context(|| format!("giving the node its own {dir}"))
}

fn own_memory(dir: &str) -> Result<()> {
    let options = Some("mode=0755");
    mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), options)
        .with_context(|| format!("giving the node its own {dir}"))
}

fn reap_for_ever() -> Result<ExitCode> {
    let mut woken_by = SigSet::empty();
    woken_by.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&woken_by), None).context("blocking SIGCHLD")?;
    loop {
        while !matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive) | Err(_)) {}
        woken_by.wait().context("waiting for children")?;
    }
}
