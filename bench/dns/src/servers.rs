//! The resolvers that are asked: Coracle's, which runs on the node already, and two peers that are started here.
//!
//! Every server is held to one core: its own process with all threads it has or makes.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::domain_name;

const OURS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 43, 0, 10)), 53);
/// The name that Coracle's resolver gives its process.
const OUR_PROCESS: &str = "coracle-dns";
const UNBOUND_PORT: u16 = 5301;
const COREDNS_PORT: u16 = 5302;
const SERVER_CORE: usize = 0;
pub const CLIENT_CORE: usize = 1;
/// On the node, where it ends with the node.
const FOLDER: &str = "/run/bench-dns";

pub struct Server {
    pub name: &'static str,
    /// What its figures' names begin with.
    pub against: &'static [&'static str],
    pub address: SocketAddr,
    pub pid: i32,
    /// Whether it learns of new services by itself.
    pub follows_api: bool,
    child: Option<Child>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // gone already is as good
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Server {
    /// The resolver that Coracle started on this node.
    pub fn ours() -> Result<Self> {
        let entries = fs::read_dir("/proc").context("listing processes")?.filter_map(Result::ok);
        let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let is_ours = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == OUR_PROCESS)
        };
        let pid = pids.find(is_ours).context("Coracle's resolver does not run on this node")?;
        for task in fs::read_dir(format!("/proc/{pid}/task"))?.filter_map(Result::ok) {
            hold(task.file_name().to_string_lossy().parse()?, SERVER_CORE)?;
        }
        let against = &["coredns", "unbound"];
        Ok(Self { name: "coracle", against, address: OURS, pid, follows_api: true, child: None })
    }

    /// unbound with one thread, told all names as local data, with nobody to forward to.
    pub fn unbound(program: &Path, names: &[(String, Ipv4Addr)]) -> Result<Self> {
        fs::create_dir_all(FOLDER)?;
        let folder = program.ancestors().nth(2).context("unbound is in a folder usr/sbin")?;
        let config = Path::new(FOLDER).join("unbound.conf");
        fs::write(&config, unbound_config(names)).context("writing unbound's configuration")?;
        let mut command = Command::new(program);
        command.args(["-d", "-c"]).arg(&config).env("LD_LIBRARY_PATH", folder.join("lib/x86_64-linux-gnu"));
        Self::started("unbound", &["unbound"], UNBOUND_PORT, false, command)
    }

    /// CoreDNS with the plugins of upstream's own deployment, following the same API.
    pub fn coredns(program: &Path) -> Result<Self> {
        fs::create_dir_all(FOLDER)?;
        let kubeconfig = std::env::var("KUBECONFIG").context("KUBECONFIG is not set")?;
        let config = Path::new(FOLDER).join("Corefile");
        fs::write(&config, corefile(&kubeconfig)).context("writing CoreDNS' configuration")?;
        let mut command = Command::new(program);
        command.arg("-conf").arg(&config).env("GOMAXPROCS", "1");
        Self::started("coredns", &["coredns"], COREDNS_PORT, true, command)
    }

    fn started(
        name: &'static str,
        against: &'static [&'static str],
        port: u16,
        follows_api: bool,
        mut command: Command,
    ) -> Result<Self> {
        let log = fs::File::create(log(name))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // inherited by what is started now
        hold(0, SERVER_CORE)?;
        let child = command.spawn().with_context(|| format!("starting {name}"));
        hold(0, CLIENT_CORE)?;
        let child = child?;
        let pid = i32::try_from(child.id())?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Ok(Self { name, against, address, pid, follows_api, child: Some(child) })
    }

    /// What it printed, if it was started here.
    pub fn said(&self) -> String {
        fs::read_to_string(log(self.name)).unwrap_or_default()
    }
}

fn log(name: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{name}.log"))
}

/// Holds a thread (0: this one) to a core. Fails on a machine that lacks it: server and client want a core each.
pub fn hold(thread: i32, core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    sched_setaffinity(Pid::from_raw(thread), &cores).with_context(|| format!("holding {thread} to core {core}"))
}

fn unbound_config(names: &[(String, Ipv4Addr)]) -> String {
    let mut text = format!(
        "server:\n  interface: 127.0.0.1@{UNBOUND_PORT}\n  num-threads: 1\n  so-rcvbuf: 4m\n  do-daemonize: no\n  \
         username: \"\"\n  chroot: \"\"\n  directory: \"{FOLDER}\"\n  pidfile: \"\"\n  use-syslog: no\n  \
         module-config: \"iterator\"\n  local-zone: \"cluster.local.\" static\n  \
         local-data: \"cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5\"\n"
    );
    for (name, address) in names {
        text.push_str(&format!("  local-data: \"{}. 5 IN A {address}\"\n", domain_name(name)));
    }
    text.push_str("remote-control:\n  control-enable: no\n");
    text
}

/// As upstream deploys it, less what reports (health, ready, prometheus) and what leads out (forward, loop, reload).
fn corefile(kubeconfig: &str) -> String {
    format!(
        ".:{COREDNS_PORT} {{\n  bind 127.0.0.1\n  errors\n  kubernetes cluster.local in-addr.arpa ip6.arpa {{\n    \
         kubeconfig {kubeconfig}\n    pods insecure\n    ttl 30\n  }}\n  cache 30 {{\n    \
         disable success cluster.local\n    disable denial cluster.local\n  }}\n  loadbalance\n}}\n"
    )
}
