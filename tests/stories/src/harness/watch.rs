//! Waiting without polling: a `kubectl` that keeps printing, read by a thread, with a deadline on what it prints.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Deserializer, Value};

/// What a reader may be ahead of the story; then whoever prints is held up.
const READ_AHEAD_MAX: usize = 1024;

/// A deadline in seconds on a machine like ours, stretched where the lab says that this one is slower.
pub fn seconds(plain: u64) -> u64 {
    let slowness = std::env::var("CORACLE_LAB_SLOWNESS").ok().and_then(|text| text.parse().ok());
    plain * slowness.unwrap_or(1)
}

/// A child that ends with its owner.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // it may have ended by itself, and then there is nothing to wait for either
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn reading<T: Send + 'static>(
    mut command: Command,
    read: fn(ChildStdout, &SyncSender<T>),
) -> Result<(Reaped, Receiver<T>, Receiver<String>)> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Reaped(command.spawn().context("starting kubectl")?);
    let stdout = child.0.stdout.take().context("kubectl has no output")?;
    let mut stderr = child.0.stderr.take().context("kubectl has no error output")?;
    let (sender, receiver) = sync_channel(READ_AHEAD_MAX);
    let (complaint, complaints) = sync_channel(1);
    thread::spawn(move || read(stdout, &sender));
    thread::spawn(move || {
        let mut text = String::new();
        // what could not be read cannot be told; nobody may be listening any more
        let _ = stderr.read_to_string(&mut text);
        let _ = complaint.send(text);
    });
    Ok((child, receiver, complaints))
}

/// Objects as `kubectl get --watch -o json` prints them.
pub struct Watch {
    _child: Reaped,
    objects: Receiver<Value>,
    complaints: Receiver<String>,
}

impl Watch {
    pub fn start(command: Command) -> Result<Self> {
        let (child, objects, complaints) = reading(command, |stdout, sender| {
            for value in Deserializer::from_reader(stdout).into_iter().map_while(Result::ok) {
                if sender.send(value).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { _child: child, objects, complaints })
    }

    /// The first object from now on that satisfies `holds`.
    pub fn until(&self, within_s: u64, mut holds: impl FnMut(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + Duration::from_secs(seconds(within_s));
        let mut last = Value::Null;
        loop {
            match self.objects.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(object) if holds(&object) => return Ok(object),
                Ok(object) => last = object,
                Err(RecvTimeoutError::Timeout) => {
                    bail!("not within {} s; last seen: {}", seconds(within_s), brief(&last))
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let said = self.complaints.recv_timeout(Duration::from_secs(5)).unwrap_or_default();
                    bail!("the watch ended: {said}; last seen: {}", brief(&last));
                }
            }
        }
    }
}

/// What matters of an object that did not satisfy.
fn brief(object: &Value) -> String {
    let part = if object["status"].is_null() { object } else { &object["status"] };
    let mut text = serde_json::to_string_pretty(part).unwrap_or_default();
    text.truncate(text.floor_char_boundary(4000));
    text
}

/// Lines of something that goes on: `logs --follow`, `port-forward`, `exec` of a loop.
pub struct Follow {
    _child: Reaped,
    lines: Receiver<String>,
    complaints: Receiver<String>,
}

impl Follow {
    pub fn start(command: Command) -> Result<Self> {
        let (child, lines, complaints) = reading(command, |stdout, sender| {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { _child: child, lines, complaints })
    }

    /// The next line.
    pub fn line(&self, within_s: u64) -> Result<String> {
        self.until(within_s, |_| true)
    }

    /// The next line that satisfies `holds`.
    pub fn until(&self, within_s: u64, mut holds: impl FnMut(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + Duration::from_secs(seconds(within_s));
        let mut last = String::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if holds(&line) => return Ok(line),
                Ok(line) => last = line,
                Err(RecvTimeoutError::Timeout) => {
                    bail!("no such line within {} s; the last one: {last}", seconds(within_s))
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let said = self.complaints.recv_timeout(Duration::from_secs(5)).unwrap_or_default();
                    bail!("it ended: {said}; the last line: {last}");
                }
            }
        }
    }

    /// Everything that has been printed and not read yet.
    pub fn so_far(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }
}

/// Different lines that a tally takes; more are a mistake of the story.
const TALLY_MAX: usize = 1024;

/// How often something that never ends has printed each line. Unlike [`Follow`] it takes everything at once, so that whoever
/// prints is never held up by a story that looks seldom.
pub struct Tally {
    _child: Reaped,
    counts: Arc<(Mutex<BTreeMap<String, u64>>, Condvar)>,
}

impl Tally {
    pub fn start(mut command: Command) -> Result<Self> {
        let mut child = Reaped(command.stdout(Stdio::piped()).spawn().context("starting kubectl")?);
        let stdout = child.0.stdout.take().context("kubectl has no output")?;
        let counts = Arc::new((Mutex::default(), Condvar::new()));
        let shared = Arc::clone(&counts);
        thread::spawn(move || count_lines(stdout, &shared));
        Ok(Self { _child: child, counts })
    }

    /// What was printed since the last time, at least one line that satisfies `holds` among it.
    pub fn since(&self, within_s: u64, holds: impl Fn(&str) -> bool) -> Result<BTreeMap<String, u64>> {
        let (counts, printed) = &*self.counts;
        let missing = |counts: &mut BTreeMap<String, u64>| !counts.keys().any(|line| holds(line));
        let counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = printed.wait_timeout_while(counts, Duration::from_secs(seconds(within_s)), missing);
        let (mut counts, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            bail!("no such line within {} s, only {counts:?}", seconds(within_s));
        }
        Ok(std::mem::take(&mut counts))
    }
}

fn count_lines(from: ChildStdout, (counts, printed): &(Mutex<BTreeMap<String, u64>>, Condvar)) {
    for line in BufReader::new(from).lines().map_while(Result::ok) {
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() < TALLY_MAX || counts.contains_key(&line) {
            *counts.entry(line).or_default() += 1;
        }
        printed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_watch_returns_the_first_object_that_satisfies() {
        let watch = Watch::start(shell("echo '{\"n\":1}{\"n\":'; echo '2} {\"n\":3}'; exec sleep 1000")).unwrap();
        assert_eq!(watch.until(10, |object| object["n"].as_i64() >= Some(2)).unwrap()["n"], 2);
        assert_eq!(watch.until(10, |_| true).unwrap()["n"], 3);
    }

    #[test]
    fn a_deadline_tells_what_was_seen_last() {
        let watch = Watch::start(shell("echo '{\"status\":{\"phase\":\"Pending\"}}'; exec sleep 1000")).unwrap();
        let error = watch.until(1, |_| false).unwrap_err().to_string();
        assert!(error.contains("not within") && error.contains("Pending"), "{error}");
    }

    #[test]
    fn a_watch_that_ends_tells_why() {
        let watch = Watch::start(shell("echo 'pods \"x\" not found' >&2; exit 1")).unwrap();
        let error = watch.until(10, |_| true).unwrap_err().to_string();
        assert!(error.contains("pods \"x\" not found"), "{error}");
    }

    #[test]
    fn a_tally_does_not_hold_up_who_prints_more_than_anybody_looks_at() {
        let tally = Tally::start(shell("yes many | head -n 200000; echo last; exec sleep 1000")).unwrap();
        let counts = tally.since(30, |line| line == "last").unwrap();
        assert_eq!((counts["many"], counts["last"]), (200_000, 1));
        assert!(tally.since(1, |_| true).unwrap_err().to_string().contains("no such line"));
    }

    #[test]
    fn lines_are_followed_as_they_come_and_kept_until_they_are_read() {
        let follow = Follow::start(shell("for i in 1 2 3 4; do echo $i; done; exec sleep 1000")).unwrap();
        assert_eq!(follow.until(10, |line| line == "3").unwrap(), "3");
        assert_eq!(follow.line(10).unwrap(), "4");
        assert!(follow.so_far().is_empty());
    }
}
