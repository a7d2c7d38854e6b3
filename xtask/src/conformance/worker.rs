//! One process of the suite: starting it, ending it with everything that it started, and removing what it left in the
//! cluster.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::Value;

use super::in_lab::Event;
use super::plan::Plan;
use super::protocol;
use crate::{lab, process};

/// A process that was asked to end gives the spec's own cleaning up half a minute per step.
const GRACE: Duration = Duration::from_secs(90);
/// Preparing takes seconds; a process that has no spec for so long is stuck.
const IDLE_MAX: Duration = Duration::from_secs(300);
const LOG_LINES_SHOWN: usize = 6;

pub struct Worker {
    pid: Pid,
    log: PathBuf,
    idle_since: Instant,
    asked_to_end: Option<Instant>,
    /// How many specs it has run.
    pub ran: usize,
}

impl Worker {
    /// Starts process number `process`, which runs what it is told to at `port`, of what matches `focus`.
    pub fn start(plan: &Plan, port: u16, process: usize, focus: &[String], events: Sender<Event>) -> Result<Self> {
        let log = plan.dir.join(format!("process-{process}.log"));
        let out = File::create(&log).context("making a log for a process of the suite")?;
        let home = plan.dir.join("home");
        fs::create_dir_all(&home)?;
        let mut command = Command::new(&plan.suite);
        command.args(protocol::arguments(port, process, plan.procs + 1)).args(plan.suite_arguments());
        command.args(focus.iter().map(|pattern| format!("--ginkgo.focus={pattern}"))).arg("--ginkgo.timeout=48h");
        command.env(protocol::PROTOCOL.0, protocol::PROTOCOL.1);
        // what a kubectl remembers of another cluster at the same address is wrong
        command.env("HOME", &home).env("KUBECACHEDIR", home.join("kube-cache")).current_dir(&home);
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).process_group(0);
        let mut child = lab::dying_with_parent(&mut command).spawn().context("starting a process of the suite")?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        thread::spawn(move || {
            let status = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
            // nobody listens when the run is over
            let _ = events.send(Event::Ended { process, status });
        });
        Ok(Self { pid, log, idle_since: Instant::now(), asked_to_end: None, ran: 0 })
    }

    /// Asks it to stop what it is at, clean up, and end.
    pub fn ask_to_end(&mut self) {
        // one that has ended by itself is what was asked for
        let _ = kill(self.pid, Signal::SIGTERM);
        self.asked_to_end.get_or_insert_with(Instant::now);
    }

    /// Ends it and what it started, at once.
    pub fn kill(&self) {
        let _ = killpg(self.pid, Signal::SIGKILL);
    }

    /// Kills it when it was asked to end and does not, or has nothing to do and does not end.
    pub fn kill_if_stuck(&mut self, is_at_something: bool) {
        if is_at_something {
            self.idle_since = Instant::now();
        }
        let ignores = self.asked_to_end.is_some_and(|asked| asked.elapsed() > GRACE);
        if ignores || self.idle_since.elapsed() > IDLE_MAX {
            self.kill();
        }
    }

    /// It was ended in the middle of something.
    pub fn may_have_left_things(&self) -> bool {
        self.asked_to_end.is_some()
    }

    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        process::last_lines(&String::from_utf8_lossy(&text), LOG_LINES_SHOWN)
    }

    /// Removes what a process that was stopped left in the cluster, so that it is not in the way of other specs.
    pub fn clean_up_after(&self) -> Result<()> {
        // what it started may outlive it
        self.kill();
        let log = fs::read(&self.log).unwrap_or_default();
        match run_id(&String::from_utf8_lossy(&log)) {
            Some(id) => remove_namespaces(&id),
            None => Ok(()),
        }
    }
}

/// What the suite marks the namespaces of one process with, as the process logs it when it starts.
fn run_id(log: &str) -> Option<String> {
    let (_, rest) = log.split_once("Starting e2e run \"")?;
    rest.split_once('"').map(|(id, _)| id.to_owned())
}

fn kubectl(arguments: &[&str]) -> Result<String> {
    process::output(Command::new("kubectl").args(arguments).arg("--request-timeout=30s"))
}

fn remove_namespaces(run_id: &str) -> Result<()> {
    let mark = format!("--selector=e2e-run={run_id}");
    let found = kubectl(&["get", "namespaces", &mark, "--output=jsonpath={.items[*].metadata.name}"])?;
    let namespaces: BTreeSet<&str> = found.split_whitespace().collect();
    if namespaces.is_empty() {
        return Ok(());
    }
    // a webhook or an API whose server is gone would refuse or delay what others do
    for kind in ["validatingwebhookconfigurations", "mutatingwebhookconfigurations", "apiservices"] {
        let listed: Value = serde_json::from_str(&kubectl(&["get", kind, "--output=json"])?)?;
        for name in served_from(&listed, &namespaces) {
            kubectl(&["delete", kind, &name, "--ignore-not-found", "--wait=false"])?;
        }
    }
    kubectl(&["delete", "namespaces", &mark, "--wait=false", "--ignore-not-found"]).map(drop)
}

/// Those objects of a list that lead to a service in one of `namespaces`.
fn served_from(listed: &Value, namespaces: &BTreeSet<&str>) -> Vec<String> {
    let is_in = |service: &Value| service["namespace"].as_str().is_some_and(|name| namespaces.contains(name));
    let leads = |item: &&Value| {
        let webhooks = item["webhooks"].as_array().into_iter().flatten();
        is_in(&item["spec"]["service"]) || webhooks.into_iter().any(|hook| is_in(&hook["clientConfig"]["service"]))
    };
    let items = listed["items"].as_array().into_iter().flatten().filter(leads);
    items.filter_map(|item| item["metadata"]["name"].as_str()).map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_of_a_process_is_in_its_log() {
        let log = "I1121 18:00:00.1 22 e2e.go:109] Starting e2e run \"0b5e-4f\" on Ginkgo node 2\nmore \"x\"";
        assert_eq!(run_id(log).as_deref(), Some("0b5e-4f"));
        assert_eq!(run_id("nothing yet"), None);
    }

    #[test]
    fn only_what_leads_into_the_namespaces_is_removed() {
        let hook = |name: &str, namespace: &str| {
            serde_json::json!({"metadata": {"name": name}, "webhooks": [
                {"clientConfig": {"url": "https://x"}}, {"clientConfig": {"service": {"namespace": namespace}}}]})
        };
        let api = serde_json::json!({"metadata": {"name": "v1.x"}, "spec": {"service": {"namespace": "webhook-1"}}});
        let built_in = serde_json::json!({"metadata": {"name": "v1.apps"}, "spec": {}});
        let listed =
            serde_json::json!({"items": [hook("mine", "webhook-1"), hook("other", "webhook-2"), api, built_in]});
        assert_eq!(served_from(&listed, &BTreeSet::from(["webhook-1"])), ["mine", "v1.x"]);
    }
}
