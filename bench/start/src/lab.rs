//! The lab around this program: where its node's files are, and its `lab-node` tool.

use std::ffi::OsStr;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};

const API_PORT: u16 = 6443;
/// The only node's number and name.
const NODE: &str = "1";
pub const NODE_NAME: &str = "node1";

pub struct Lab {
    run: PathBuf,
    /// Coracle's data folder, seen from outside the node.
    pub data: PathBuf,
    /// Contained in the path of every control group of the node.
    pub cgroup: String,
    pub api: SocketAddr,
}

impl Lab {
    pub fn find() -> Result<Self> {
        let run = std::env::var_os("CORACLE_LAB").map(PathBuf::from).context("this runs in a lab only")?;
        let id = run.file_name().and_then(OsStr::to_str).context("a lab has a name")?.to_owned();
        let data = Path::new("/var/lib/coracle-lab").join(&id).join(NODE_NAME).join("var-lib/coracle");
        let api = (NODE_NAME, API_PORT).to_socket_addrs()?.next().context("the node has no address")?;
        Ok(Self { run: run.join(NODE_NAME), data, cgroup: format!("/coracle-lab-{id}/{NODE_NAME}"), api })
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.data.join("admin.kubeconfig")
    }

    /// Starts Coracle; returns when it was executed, not when it is ready.
    pub fn start(&self) -> Result<()> {
        self.lab_node("start")
    }

    /// Ends Coracle in an orderly way and waits for that.
    pub fn stop(&self) -> Result<()> {
        self.lab_node("stop")
    }

    /// The moment just before Coracle was executed last.
    pub fn executed_at(&self) -> Result<Instant> {
        let path = self.run.join("coracle.executed");
        moment(&std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?)
    }

    /// The process that the node's other processes are children of; it is the lab's, not ours.
    pub fn init_pid(&self) -> Result<i32> {
        Ok(std::fs::read_to_string(self.run.join("init.pid"))?.trim().parse()?)
    }

    fn lab_node(&self, action: &str) -> Result<()> {
        let status = Command::new("lab-node").args([action, NODE]).stdin(Stdio::null()).status();
        if !status.context("starting lab-node")?.success() {
            bail!("lab-node {action} failed");
        }
        Ok(())
    }

    /// Runs this very program on the node; what it prints can be read.
    pub fn on_node(&self, arguments: &[&str]) -> Result<Child> {
        let own = std::env::current_exe()?;
        let mut command = Command::new("lab-node");
        command.args(["exec", NODE, "--"]).arg(own).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.spawn().context("starting lab-node")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.run.join("coracle.log")).unwrap_or_default()
    }
}

/// A moment written by another process (nanoseconds of the epoch) as one of this process.
pub fn moment(text: &str) -> Result<Instant> {
    let written = SystemTime::UNIX_EPOCH + Duration::from_nanos(text.trim().parse()?);
    let (now, ago) = (Instant::now(), SystemTime::now().duration_since(written));
    now.checked_sub(ago.context("the clock went back")?).context("that was before this machine started")
}

/// This moment, for another process to read.
pub fn written_now() -> Result<String> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos().to_string())
}

/// Milliseconds from one moment to a later one, to the microsecond.
pub fn ms_between(from: Instant, to: Instant) -> f64 {
    (to.saturating_duration_since(from).as_secs_f64() * 1e6).round() / 1e3
}
