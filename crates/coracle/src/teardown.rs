//! `down` and `uninstall`: stop the process, end what outlives it, and leave the machine as it was found.
//!
//! ```text
//! signal the process, wait for its end ─▶ resolver ─▶ sandboxes ─▶ volume mounts ─▶ network ─▶ control groups ─▶ (uninstall) files
//! ```
//!
//! Every step is carried out even when an earlier one failed, and a second `down` finishes what a first one could not.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use base::{Clock, Tasks};
use cri::Cri;
use cri::v1::{ListPodSandboxRequest, RemovePodSandboxRequest, StopPodSandboxRequest};
use net::pod::Pods;
use net::pod::network::Network;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime::Runtime;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};

use crate::arguments::{DataArguments, UninstallArguments};
use crate::foreign_runtime;
use crate::instance::{self, Traces};
use crate::node;
use crate::settings::PREFIX;

/// How long the process may take to wind down before it is killed.
const WIND_DOWN_S_MAX: i64 = 20;

pub fn down(arguments: &DataArguments) -> Result<()> {
    let dir = std::path::absolute(&arguments.data_dir)?;
    take_down(&dir)?;
    if dir.exists() {
        println!(
            "Coracle is down; its data is in {}. `coracle up` starts it again, `coracle uninstall` removes it.",
            dir.display()
        );
    } else {
        println!("There is nothing of Coracle in {}.", dir.display());
    }
    Ok(())
}

fn take_down(dir: &Path) -> Result<()> {
    stop_process(dir)?;
    if !dir.exists() {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("only root can end containers and remove what they leave: run it with sudo");
    }
    let threads = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let traces = Traces::read(dir)?;
    let mut troubles = Vec::new();
    let mut step = |what: &str, outcome: Result<()>| {
        if let Err(error) = outcome {
            troubles.push(format!("{what}: {error:#}"));
        }
    };
    let resolver = threads.block_on(dns::end(&node::resolver_socket(dir)));
    step("ending the resolver", resolver.map_err(Into::into));
    step("ending containers", threads.block_on(end_containers(dir)));
    step("ending containers of the other runtime", threads.block_on(end_foreign_containers(dir, &traces)));
    step("unmounting volumes", unmount_below(dir));
    step("removing network devices and rules", remove_network(&traces));
    step("removing control groups", remove_cgroups(&traces));
    if troubles.is_empty() {
        Ok(())
    } else {
        bail!("not everything could be removed; run it again\n  {}", troubles.join("\n  "))
    }
}

pub fn uninstall(arguments: &UninstallArguments) -> Result<()> {
    let dir = std::path::absolute(&arguments.data.data_dir)?;
    if !arguments.yes && !confirmed(&dir)? {
        bail!("nothing was removed; answer yes, or give --yes");
    }
    take_down(&dir)?;
    let traces = Traces::read(&dir)?;
    for folder in traces.log_dir.iter().chain([&dir]) {
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", folder.display()));
            }
            _ => {}
        }
    }
    println!("Nothing of Coracle is left in {}.", dir.display());
    Ok(())
}

fn confirmed(dir: &Path) -> Result<bool> {
    print!("This removes the cluster and all its data in {}. Type yes to go on: ", dir.display());
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

fn stop_process(dir: &Path) -> Result<()> {
    let Some(number) = instance::running(dir)? else { return Ok(()) };
    let pid = rustix::process::Pid::from_raw(number).context("the lock file names no process")?;
    let handle = pidfd_open(pid, PidfdFlags::empty()).context("cannot watch the process")?;
    kill(Pid::from_raw(number), Signal::SIGTERM).context("cannot signal the process; run as root")?;
    let mut ended = [PollFd::new(&handle, PollFlags::IN)];
    let limit = Timespec { tv_sec: WIND_DOWN_S_MAX, tv_nsec: 0 };
    if poll(&mut ended, Some(&limit))? == 0 {
        kill(Pid::from_raw(number), Signal::SIGKILL)?;
        poll(&mut ended, Some(&limit))?;
    }
    Ok(())
}

async fn end_containers(dir: &Path) -> Result<()> {
    if !dir.join("runtime").exists() {
        return Ok(());
    }
    let options = runtime::Options {
        root: dir.join("runtime"),
        registries: runtime::image::Registries::default(),
        layer_limits: runtime::image::unpack::UnpackLimits::default(),
        hierarchies: None,
        network: Arc::new(network(dir)?),
        clock: Clock::system(),
        tasks: Tasks::root(),
    };
    let runtime = Runtime::open(options).await?;
    for sandbox in runtime.list_pod_sandbox(ListPodSandboxRequest::default()).await?.items {
        runtime.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: sandbox.id.clone() }).await?;
        runtime.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: sandbox.id }).await?;
    }
    Ok(())
}

/// The pod network, to take pods out of it.
fn network(dir: &Path) -> Result<Network> {
    let config = net::pod::Config {
        prefix: PREFIX.to_string(),
        folder: dir.join("net/sandboxes"),
        cluster_cidrs: Vec::new(),
        service_cidrs: Vec::new(),
        mtu: 1500,
    };
    Ok(Network::new(Pods::open(config)?))
}

async fn end_foreign_containers(dir: &Path, traces: &Traces) -> Result<()> {
    let Some(socket) = &traces.runtime_socket else { return Ok(()) };
    foreign_runtime::end_pods(socket, dir, Arc::new(network(dir)?)).await?;
    foreign_runtime::remove_files(dir, &traces.cni_folders)?;
    Traces::forget_runtime(dir)
}

/// Mount points below a folder, innermost first.
fn mounts_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| PathBuf::from(unescaped(point)));
    let mut points: Vec<PathBuf> = points.filter(|point| point.starts_with(dir) && point != dir).collect();
    points.reverse();
    Ok(points)
}

/// The kernel writes spaces and the like as octal numbers.
fn unescaped(point: &str) -> String {
    point.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

fn unmount_below(dir: &Path) -> Result<()> {
    for point in mounts_below(dir)? {
        nix::mount::umount2(&point, nix::mount::MntFlags::MNT_DETACH)
            .with_context(|| format!("cannot unmount {}", point.display()))?;
    }
    Ok(())
}

/// Removes the groups that the node agent made, in every hierarchy.
fn remove_cgroups(traces: &Traces) -> Result<()> {
    let cgroups = kubelet::cgroups::Cgroups::detect(&traces.cgroup_parent)?;
    cgroups.remove().context("cannot remove the groups of pods")
}

/// Takes the devices, rules, routes and addresses away.
fn remove_network(traces: &Traces) -> Result<()> {
    net::cleanup(PREFIX)?;
    let routes = net::route::Config {
        prefix: PREFIX.to_string(),
        node_address: std::net::Ipv4Addr::LOCALHOST.into(),
        cluster_cidrs: Vec::new(),
        service_cidrs: Vec::new(),
        own_addresses: traces.own_addresses.clone(),
        overlay: net::route::Overlay::Auto,
        vxlan_id: 0,
        vxlan_port: 0,
    };
    net::route::Routes::open(routes)?.remove().context("cannot remove routes and addresses")
}
