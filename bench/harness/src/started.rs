//! A server that a round starts and that ends with the round, however that ends.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long an orderly end may take before the process is killed.
const STOP_MS_MAX: u64 = 20_000;
const LOOK_AGAIN_MS: u64 = 5;
/// How long a server may take to be ready.
const READY_S_MAX: u64 = 120;
/// How many lines of a failed server's output are told.
const TOLD_LINES_MAX: usize = 30;

pub struct Started {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Started {
    /// Starts `program`, with its output going to a file named after `name` in the working folder (see
    /// [`crate::RoundArguments::scratch`]); dies with this process.
    pub fn start(name: &str, program: &Path, with: impl FnOnce(&mut Command) -> &mut Command) -> Result<Self> {
        let log = std::env::current_dir()?.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        // keeps its process id over both executions; what it starts is told when this process is gone
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        with(&mut command);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { name: name.into(), child, log })
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(i32::MAX)
    }

    /// Asks again and again until `ready` says so. An opened port raises no event anywhere.
    pub fn wait_until(&mut self, mut ready: impl FnMut() -> bool) -> Result<()> {
        let begun = Instant::now();
        while !ready() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}:\n{}", self.name, self.said());
            }
            if begun.elapsed() > Duration::from_secs(READY_S_MAX) {
                bail!("{} is not ready within {READY_S_MAX} s:\n{}", self.name, self.said());
            }
            std::thread::sleep(Duration::from_millis(LOOK_AGAIN_MS));
        }
        Ok(())
    }

    /// The end of what it printed.
    pub fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TOLD_LINES_MAX)..].join("\n")
    }

    /// Ends it in an orderly way.
    pub fn stop(mut self) -> Result<()> {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), nix::sys::signal::Signal::SIGTERM)?;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(STOP_MS_MAX) {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(LOOK_AGAIN_MS));
        }
        // dropping kills it
        Ok(())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // gone already is as good
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_ends_before_it_is_ready_is_told_with_its_words() {
        let words = ["-c", "echo no such folder; exit 3"];
        let mut server = Started::start("teller", Path::new("sh"), |command| command.args(words)).unwrap();
        let error = server.wait_until(|| false).unwrap_err().to_string();
        std::fs::remove_file(&server.log).unwrap();
        assert!(error.contains("exit status: 3") && error.contains("no such folder"), "{error}");
    }
}
