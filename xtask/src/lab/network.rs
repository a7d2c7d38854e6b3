//! Links, addresses and routes of a lab, set with `ip` inside its namespaces; nothing is ever set outside them.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

use super::state::{DEAD_NEIGHBOUR, HUB, Node};
use crate::process;

const BRIDGE: &str = "lab0";
const PREFIX_LENGTH: u8 = 24;
/// A hardware address that nobody has: what is sent to it ends at the bridge.
const DEAD_HARDWARE_ADDRESS: &str = "02:00:00:00:00:fe";

/// The hub: a bridge that carries the hub's own address. Called inside the hub's namespace.
pub fn make_hub() -> Result<()> {
    ip(&["link", "set", "lo", "up"])?;
    ip(&["link", "add", BRIDGE, "type", "bridge"])?;
    ip(&["address", "add", &with_prefix(HUB), "dev", BRIDGE])?;
    ip(&["link", "set", BRIDGE, "up"])?;
    dead_default_route(&mut |arguments| ip(arguments), BRIDGE)
}

/// Joins a node to the hub with a veth pair. Called inside the hub's namespace; `init` is the node's process 1.
pub fn connect(node: &Node, init: i32) -> Result<()> {
    let (port, pid) = (node.port(), init.to_string());
    // left from a life of the node that ended a moment ago
    let _ = ip(&["link", "delete", &port]);
    ip(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &pid])?;
    ip(&["link", "set", &port, "master", BRIDGE, "up"])?;
    let mut inside = |arguments: &[&str]| ip_inside(init, arguments);
    inside(&["link", "set", "lo", "up"])?;
    inside(&["address", "add", &with_prefix(node.address), "dev", "eth0"])?;
    inside(&["link", "set", "eth0", "up"])?;
    dead_default_route(&mut inside, "eth0")
}

/// Pulls a node's cable, or plugs it in again.
pub fn set_cable(node: &Node, plugged: bool) -> Result<()> {
    ip(&["link", "set", &node.port(), if plugged { "up" } else { "down" }])
}

/// Routing comes before address translation, so a packet to a service needs a route to begin with; where it leads
/// nobody is.
fn dead_default_route(ip: &mut dyn FnMut(&[&str]) -> Result<()>, link: &str) -> Result<()> {
    let neighbour = DEAD_NEIGHBOUR.to_string();
    ip(&["neighbour", "replace", &neighbour, "lladdr", DEAD_HARDWARE_ADDRESS, "nud", "permanent", "dev", link])?;
    ip(&["route", "replace", "default", "via", &neighbour, "dev", link])
}

fn with_prefix(address: Ipv4Addr) -> String {
    format!("{address}/{PREFIX_LENGTH}")
}

fn ip(arguments: &[&str]) -> Result<()> {
    process::quiet(Command::new("ip").args(arguments))
}

fn ip_inside(pid: i32, arguments: &[&str]) -> Result<()> {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).context("opening the node's network namespace")?;
    let mut command = Command::new("ip");
    command.args(arguments);
    // SAFETY: setns is a bare system call and allowed between fork and exec.
    unsafe {
        command.pre_exec(move || setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from))
    };
    process::quiet(&mut command)
}
