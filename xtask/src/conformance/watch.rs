//! Looking after the nodes while specs run: a process of ours that ended, a node that is not Ready, a panic in a log.
//!
//! Specs would only say that they waited in vain; this says why.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::in_lab::Event;
use crate::lab::{self, Node};
use crate::process;

const READY: &str = r#"jsonpath={.metadata.name}{" "}{.status.conditions[?(@.type=="Ready")].status}{"\n"}"#;
/// When a watch ended, the API may be away.
const WATCH_AGAIN: Duration = Duration::from_secs(5);
/// Who says whether a node is Ready.
const NODE_AGENTS: [&str; 2] = ["coracle", "kubelet"];
const LOG_LINES: usize = 40;
const PANIC: &str = "panicked at";

pub struct Watch {
    nodes: Vec<Node>,
    not_ready: BTreeSet<String>,
}

impl Watch {
    /// Begins to watch the nodes of the lab that this process runs in.
    pub fn begin(events: Sender<Event>) -> Result<Self> {
        thread::spawn(move || {
            loop {
                if watch_once(&events).is_none() {
                    return;
                }
                thread::sleep(WATCH_AGAIN);
            }
        });
        Ok(Self { nodes: lab::nodes_here()?, not_ready: BTreeSet::new() })
    }

    /// What is to be told about a node's change; nothing when it did not change.
    pub fn changed(&mut self, line: &str) -> Option<String> {
        let (name, ready) = line.split_once(' ')?;
        let changed = if ready == "True" {
            self.not_ready.remove(name).then(|| format!("{name} is Ready again"))
        } else {
            self.not_ready.insert(name.to_owned()).then(|| format!("{name} is not Ready"))
        };
        changed.map(|told| match self.nodes.iter().find(|node| node.name == name && ready != "True") {
            Some(node) => format!("{told}; {}", log_tails(node, &NODE_AGENTS)),
            None => told,
        })
    }

    /// The first program of the cluster that has ended, told with the end of its log.
    pub fn dead(&self) -> Option<String> {
        let of = |node: &Node| {
            let program = node.ended_programs().into_iter().next()?;
            Some(format!("{program} has ended on {}; {}", node.name, log_tails(node, &[&program])))
        };
        self.nodes.iter().find_map(of)
    }

    /// Every panic that the nodes' logs speak of.
    pub fn panics(&self) -> Vec<String> {
        let of = |node: &Node| {
            let log = node.log_text("coracle");
            let lines = log.lines().filter(|line| line.contains(PANIC));
            lines.map(|line| format!("{}: {line}", node.name)).collect::<Vec<_>>()
        };
        self.nodes.iter().flat_map(of).collect()
    }
}

/// The ends of the logs of those programs that have one.
fn log_tails(node: &Node, programs: &[&str]) -> String {
    let logs = programs.iter().map(|program| (program, node.log_text(program))).filter(|(_, log)| !log.is_empty());
    logs.map(|(program, log)| format!("the end of {program}'s log:\n{}", process::last_lines(&log, LOG_LINES)))
        .collect()
}

/// Tells every change until the watch ends; nothing when nobody listens any more.
fn watch_once(events: &Sender<Event>) -> Option<()> {
    let mut command = Command::new("kubectl");
    command.args(["get", "nodes", "--watch", "--output", READY]).stdin(Stdio::null()).stdout(Stdio::piped());
    // it says when the API is away, which specs say too
    command.stderr(Stdio::null());
    let Ok(mut child) = lab::dying_with_parent(&mut command).spawn() else { return Some(()) };
    for line in BufReader::new(child.stdout.take()?).lines().map_while(Result::ok) {
        events.send(Event::Node { line }).ok()?;
    }
    // its end is known; this only lets its number go
    let _ = child.wait();
    Some(())
}
