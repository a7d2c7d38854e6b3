//! Which stories run, in what order, and what is said about them, in the words of Rust's own test runner.

use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;

use super::kube::Kube;
use super::watch::seconds;

/// Stories at the same time: they mostly wait for the cluster, and two processors should be kept busy.
const SIDE_BY_SIDE: usize = 3;

/// One test.
#[derive(Clone, Copy)]
pub struct Story {
    name: &'static str,
    run: fn(&Kube) -> Result<()>,
    nodes: usize,
    alone: bool,
    /// None for any.
    runtime: Option<&'static str>,
}

impl Story {
    /// A story on one node that does not mind others beside it.
    pub const fn new(name: &'static str, run: fn(&Kube) -> Result<()>) -> Self {
        Self { name, run, nodes: 1, alone: false, runtime: None }
    }

    /// It breaks or fills the cluster: nothing else may run meanwhile.
    pub const fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    /// It is about this container runtime.
    pub const fn on(self, runtime: &'static str) -> Self {
        Self { runtime: Some(runtime), ..self }
    }

    /// It needs a lab of this many nodes.
    pub const fn nodes(self, nodes: usize) -> Self {
        Self { nodes, ..self }
    }
}

#[derive(Parser)]
#[command(about = "The stories, to be run in a lab")]
struct Arguments {
    /// Only stories whose names contain one of these
    names: Vec<String>,
    /// Print the stories, and the nodes each needs
    #[arg(long)]
    list: bool,
    /// What runs the containers
    #[arg(long, env = "CORACLE_LAB_RUNTIME", default_value = "coracle")]
    runtime: String,
}

/// Runs what the command line asks for on the lab this program is in.
pub fn run_all(stories: &[Story]) -> ExitCode {
    let arguments = Arguments::parse();
    let wanted = |story: &&Story| {
        let named = |name: &String| story.name.contains(name.as_str());
        story.runtime.is_none_or(|runtime| runtime == arguments.runtime)
            && (arguments.names.is_empty() || arguments.names.iter().any(named))
    };
    if arguments.list {
        stories.iter().filter(wanted).for_each(|story| println!("{} {}", story.nodes, story.name));
        return ExitCode::SUCCESS;
    }
    let Some(nodes) = std::env::var("CORACLE_LAB_NODES").ok().and_then(|nodes| nodes.parse::<usize>().ok()) else {
        eprintln!("stories are told in a lab: run `cargo xtask stories`");
        return ExitCode::FAILURE;
    };
    let chosen: Vec<Story> = stories.iter().filter(wanted).filter(|story| story.nodes == nodes).copied().collect();
    println!("\nrunning {} stories on {nodes} node(s)", chosen.len());
    let begun = Instant::now();
    let (alone, together): (Vec<Story>, Vec<Story>) = chosen.into_iter().partition(|story| story.alone);
    // where every second counts as several, one story at a time is as much as the machine can do well
    let side_by_side = if seconds(1) > 1 { 1 } else { SIDE_BY_SIDE };
    let mut outcomes = tell(together, side_by_side);
    outcomes.extend(tell(alone, 1));
    conclude(&outcomes, begun.elapsed())
}

struct Outcome {
    name: &'static str,
    failure: Option<String>,
}

fn tell(stories: Vec<Story>, side_by_side: usize) -> Vec<Outcome> {
    let waiting = Mutex::new(VecDeque::from(stories));
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..side_by_side {
            scope.spawn(|| {
                while let Some(story) = next(&waiting) {
                    let outcome = tell_one(story);
                    done.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(outcome);
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn next(waiting: &Mutex<VecDeque<Story>>) -> Option<Story> {
    waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop_front()
}

fn tell_one(story: Story) -> Outcome {
    let begun = Instant::now();
    let short = story.name.split('_').next().unwrap_or(story.name);
    let kube = Kube::in_namespace(&format!("{short}-{}", std::process::id()));
    let told = kube.make_namespace().and_then(|()| {
        // a story that panics is a failed story, and its namespace is cleaned up like any other's
        let run = std::panic::AssertUnwindSafe(|| (story.run)(&kube));
        std::panic::catch_unwind(run).unwrap_or_else(|_| Err(anyhow::anyhow!("the story panicked; see above")))
    });
    let failure = told.err().map(|error| format!("{error:#}\n{}", kube.first_look()));
    kube.forget_namespace();
    let word = if failure.is_some() { "FAILED" } else { "ok" };
    println!("test {} ... {word} ({:.1} s)", story.name, begun.elapsed().as_secs_f64());
    Outcome { name: story.name, failure }
}

fn conclude(outcomes: &[Outcome], took: Duration) -> ExitCode {
    for outcome in outcomes {
        if let Some(failure) = &outcome.failure {
            println!("\n---- {} ----\n{failure}", outcome.name);
        }
    }
    let failed = outcomes.iter().filter(|outcome| outcome.failure.is_some()).count();
    let (word, passed, seconds) =
        (if failed == 0 { "ok" } else { "FAILED" }, outcomes.len() - failed, took.as_secs_f64());
    println!("\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; finished in {seconds:.2}s\n");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
