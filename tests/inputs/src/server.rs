//! A server under test: the real binary as a child process, or another that is to be recorded.
//!
//! The child is ready when it says so in its log, which is read to its end: a panic in it fails the test.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::wire::Wire;

/// Names the administrator's kubeconfig of a server whose answers become the expected ones.
const RECORD_VARIABLE: &str = "INPUTS_RECORD";
/// For a debug binary on a busy machine.
const START_S_MAX: u64 = 60;
/// What the log says once requests are answered.
const READY_WORDS: &str = "the API is served";

/// The server and the administrator's way in. Dropping it ends the child.
pub struct Server {
    pub kubeconfig: PathBuf,
    own: Option<Own>,
}

/// A child of this test.
struct Own {
    child: Child,
    dir: tempfile::TempDir,
    log: Option<JoinHandle<Vec<String>>>,
}

impl Server {
    /// Starts the binary with an empty data folder; or, when recording, only tells where the other server is.
    pub fn start(more: &[&str]) -> Result<Self> {
        match std::env::var_os(RECORD_VARIABLE) {
            Some(kubeconfig) => Ok(Server { kubeconfig: kubeconfig.into(), own: None }),
            None => Self::start_own(more),
        }
    }

    /// Starts the binary even when recording: for what is only true of ours.
    pub fn start_own(more: &[&str]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let data_dir = dir.path().join("data");
        let mut command = Command::new(binary()?);
        command.args(["server", "--listen", "127.0.0.1:0", "--node-name", "n", "--node-ip", "127.0.0.1", "--data-dir"]);
        command.arg(&data_dir).args(more).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting the server")?;
        let stderr = child.stderr.take().context("the server has a log")?;
        let (ready, becomes_ready) = channel();
        let log = Some(std::thread::spawn(move || follow(stderr, &ready)));
        let server = Server { kubeconfig: data_dir.join("admin.kubeconfig"), own: Some(Own { child, dir, log }) };
        wait(&becomes_ready)?;
        Ok(server)
    }

    /// Whether answers are recorded instead of judged.
    pub fn is_recorded(&self) -> bool {
        self.own.is_none()
    }

    /// The administrator's connection.
    pub fn admin(&self) -> Result<Wire> {
        Wire::from_kubeconfig(&self.kubeconfig)
    }

    /// The folder that the child keeps everything in.
    pub fn data_dir(&self) -> Option<PathBuf> {
        self.own.as_ref().map(|own| own.dir.path().join("data"))
    }

    /// Ends the child and gives what it logged; fails when it had ended before, or had panicked.
    pub fn stop(mut self) -> Result<Vec<String>> {
        let Some(mut own) = self.own.take() else { return Ok(Vec::new()) };
        if let Some(status) = own.child.try_wait()? {
            bail!("the server ended by itself: {status}");
        }
        own.child.kill()?;
        own.child.wait()?;
        let log = own.log.take().and_then(|log| log.join().ok()).context("the log cannot be read")?;
        let panics: Vec<&String> = log.iter().filter(|line| line.contains("panicked")).collect();
        ensure!(panics.is_empty(), "the server panicked: {panics:#?}");
        Ok(log)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // It may have ended already, and a test that fails has more to say than that.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Reads the log to its end, and tells when the server is ready.
fn follow(log: ChildStderr, ready: &Sender<()>) -> Vec<String> {
    let mut lines = Vec::new();
    for line in BufReader::new(log).lines().map_while(std::result::Result::ok) {
        if line.contains(READY_WORDS) {
            // Nobody may be waiting any more.
            ready.send(()).ok();
        }
        if line.contains("panicked") || line.contains("ERROR") {
            println!("server: {line}");
        }
        lines.push(line);
    }
    lines
}

fn wait(ready: &Receiver<()>) -> Result<()> {
    ready.recv_timeout(Duration::from_secs(START_S_MAX)).context("the server did not become ready")
}

/// The binary of this clone; built once per test program.
pub fn binary() -> Result<PathBuf> {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    if let Some(given) = std::env::var_os("CORACLE_BINARY") {
        return Ok(given.into());
    }
    BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
}

fn build() -> Result<PathBuf> {
    // target/debug/deps/bad_input-0123456789abcdef
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(3).context("a test program lies in target/debug/deps")?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("this crate lies in tests/inputs")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root).args(["build", "--quiet", "--package", "coracle", "--target-dir"]).arg(target);
    let output = command.output().context("running cargo")?;
    ensure!(output.status.success(), "building coracle: {}", String::from_utf8_lossy(&output.stderr));
    Ok(target.join("debug/coracle"))
}
