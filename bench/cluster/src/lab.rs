//! The lab around this program: where its nodes' files are, and its `lab-node` tool.

use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};

const API_PORT: u16 = 6443;
/// How much of each log is shown when something fails.
const SHOWN_LINES_MAX: usize = 15;
/// The node that the control plane runs on.
pub const SERVER: usize = 1;

pub struct Lab {
    run: PathBuf,
    id: String,
}

impl Lab {
    pub fn find() -> Result<Self> {
        let run = std::env::var_os("CORACLE_LAB").map(PathBuf::from).context("this runs in a lab only")?;
        let id = run.file_name().and_then(OsStr::to_str).context("a lab has a name")?.to_owned();
        Ok(Self { run, id })
    }

    /// Where the first node serves the API.
    pub fn api(&self) -> Result<SocketAddr> {
        Ok(SocketAddr::new(self.address(SERVER)?, API_PORT))
    }

    /// By which the other nodes and the hub reach a node.
    pub fn address(&self, node: usize) -> Result<IpAddr> {
        Ok((name(node), API_PORT).to_socket_addrs()?.next().context("the node has no address")?.ip())
    }

    /// Coracle's data folder on a node, seen from outside it.
    pub fn data(&self, node: usize) -> PathBuf {
        Path::new("/var/lib/coracle-lab").join(&self.id).join(name(node)).join("var-lib/coracle")
    }

    /// Contained in the path of every control group of a node.
    pub fn cgroup(&self, node: usize) -> String {
        format!("/coracle-lab-{}/{}", self.id, name(node))
    }

    /// Starts all that a node runs. Returns when Coracle, if it is alone, was executed; upstream's programs wait for each
    /// other, so that the node is Ready.
    pub fn start(&self, node: usize) -> Result<()> {
        self.act("start", node, &[])
    }

    /// Starts one program with further flags; returns when it was executed, not when it is ready.
    pub fn start_program(&self, node: usize, program: &str, flags: &[&str]) -> Result<()> {
        let words: Vec<&str> = [program, "--"].into_iter().chain(flags.iter().copied()).collect();
        self.act("start", node, &words)
    }

    /// Ends one program in an orderly way and waits for that.
    pub fn stop_program(&self, node: usize, program: &str) -> Result<()> {
        self.act("stop", node, &[program])
    }

    /// The number of the process that a node runs as `program`.
    pub fn pid(&self, node: usize, program: &str) -> Result<i32> {
        let path = self.run.join(name(node)).join(format!("{program}.pid"));
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        text.trim().parse().with_context(|| format!("{} holds no process number", path.display()))
    }

    /// Waits until the API of a node is ready; from then on `KUBECONFIG` names its administrator.
    pub fn wait(&self, node: usize) -> Result<()> {
        self.act("wait", node, &[])
    }

    /// Kills all that a node runs, except what outlives its makers.
    pub fn crash(&self, node: usize) -> Result<()> {
        self.act("crash", node, &[])
    }

    /// The moment just before a program was executed last.
    pub fn executed_at(&self, node: usize, program: &str) -> Result<Instant> {
        let path = self.run.join(name(node)).join(format!("{program}.executed"));
        moment(&std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?)
    }

    fn act(&self, action: &str, node: usize, more: &[&str]) -> Result<()> {
        let mut command = Command::new("lab-node");
        command.arg(action).arg(node.to_string()).args(more).stdin(Stdio::null());
        if !command.status().context("starting lab-node")?.success() {
            bail!("lab-node {action} {node} failed; there was said:\n{}", self.log_tail(node));
        }
        Ok(())
    }

    /// A command that runs on a node, in all its namespaces and control groups.
    pub fn on_node(&self, node: usize, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("lab-node");
        command.arg("exec").arg(node.to_string()).arg("--").arg(program).stdin(Stdio::null());
        command
    }

    /// Runs this very program on a node; what it prints can be read.
    pub fn self_on_node(&self, node: usize, arguments: &[&str]) -> Result<Child> {
        let mut command = self.on_node(node, std::env::current_exe()?);
        command.args(arguments).stdout(Stdio::piped()).spawn().context("starting lab-node")
    }

    /// The ends of what the programs of a node said.
    pub fn log_tail(&self, node: usize) -> String {
        let entries = std::fs::read_dir(self.run.join(name(node))).into_iter().flatten().filter_map(Result::ok);
        let logs = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "log"));
        let tail = |path: PathBuf| {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            format!("{}:\n{}\n", path.display(), lines[lines.len().saturating_sub(SHOWN_LINES_MAX)..].join("\n"))
        };
        logs.map(tail).collect()
    }
}

/// What a node is called.
pub fn name(node: usize) -> String {
    format!("node{node}")
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
