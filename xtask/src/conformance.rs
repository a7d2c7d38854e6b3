//! `cargo xtask conformance`: upstream's conformance suite against Coracle, or against upstream itself, in a lab.
//!
//! ```text
//! specs       what the suite has, asked of the suite itself        choose     which of them this run is about
//! schedule    in which order, for how long: pure                   times      what each takes on upstream, as data
//! protocol    being what processes of the suite report to          worker     one such process
//! in_lab      the lab's command: runs them all, writes `results`   watch      the nodes while they run
//! report      tables, lines, JUnit                                 ledger     what may not be lost
//! ```
//!
//! The suite is upstream's own program, untouched; which specs run when is ours to say (`protocol` tells how). Every
//! result is on the disk as soon as it is known, so a run that broke off goes on with `--resume`, and a run whose
//! cluster broke goes on in another by itself.
//!
//! It decides nothing about what is right: that is in the suite. It leaves nothing out and repeats nothing unasked.

mod choose;
mod in_lab;
mod ledger;
mod live;
mod message;
mod official;
mod plan;
mod protocol;
mod report;
mod results;
mod schedule;
mod specs;
mod times;
mod watch;
mod worker;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use nix::fcntl::{Flock, FlockArg};
use regex::Regex;

use crate::lab::{self, LabArguments, Runtime};
use crate::{images, paths, upstream};
use choose::Choice;
pub use in_lab::{RunArguments, run as run_in_lab};
use ledger::Expected;
use plan::Plan;
use results::{Latest, Outcome, State};
use schedule::Planned;
use specs::Spec;
pub use specs::{ListArguments, run_list};
use times::Times;

/// Two specs need two nodes that take pods.
const NODES: usize = 2;
/// How many clusters a run may break before it stops.
const CLUSTERS_MAX: usize = 5;

const SUITE: &str = "e2e.test";
const NEEDS_GO: &str = "the conformance suite is upstream's and building it needs Go 1.26, which is not installed";
/// What upstream's own results are kept under.
const UPSTREAM: &str = "upstream";

#[derive(Args)]
pub struct ConformanceArguments {
    /// How many specs run at once; those that must run alone come last
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    procs: u16,
    /// Only specs whose names match; can be repeated
    #[arg(long, value_name = "RE")]
    focus: Vec<Regex>,
    /// No specs whose names match; can be repeated
    #[arg(long, value_name = "RE")]
    skip: Vec<Regex>,
    /// Only this group, such as sig-network; can be repeated
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// Only specs that failed when they last ran
    #[arg(long)]
    failed: bool,
    /// Only specs of the ledger, `tests/conformance/expected.toml`
    #[arg(long)]
    ledger: bool,
    /// Only the slice that the build server runs, `tests/conformance/quick.toml`; any failure counts
    #[arg(long)]
    quick: bool,
    /// Go on with a run that broke off
    #[arg(long, conflicts_with_all = ["focus", "skip", "group", "failed", "ledger", "quick", "repeat", "official"])]
    resume: bool,
    /// Run each spec so often and say which do not end alike
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Everything through ginkgo in one go, as a certification run does it
    #[arg(long, conflicts_with = "repeat")]
    official: bool,
    /// Fail when any spec fails, not only when one of the ledger does
    #[arg(long)]
    strict: bool,
    /// Add what passes to the ledger
    #[arg(long)]
    write_ledger: bool,
    /// With upstream's own control plane and nodes: keep what each spec took as its time
    #[arg(long, requires = "upstream")]
    record: bool,
    /// Leave the lab running afterwards
    #[arg(long)]
    keep: bool,
    /// Run this program as Coracle instead of building the one of this clone
    #[arg(long, value_name = "FILE")]
    coracle: Option<PathBuf>,
    /// What runs the nodes' containers
    #[arg(long, value_enum, default_value_t, conflicts_with = "upstream")]
    runtime: Runtime,
    /// Upstream's own Kubernetes instead of Coracle; any failure counts
    #[arg(long)]
    upstream: bool,
    /// Upstream's program in the place of a part of Coracle; can be repeated
    #[arg(long, value_name = "PART", value_parser = lab::swappable, conflicts_with = "upstream")]
    swap: Vec<lab::Part>,
    /// Print the specs and stop
    #[arg(long)]
    list: bool,
}

pub fn run(arguments: &ConformanceArguments) -> Result<ExitCode> {
    if !upstream::can_offer(SUITE) {
        if !arguments.quick {
            bail!("{NEEDS_GO}");
        }
        println!("skipped: {NEEDS_GO}\ntest result: ok. 0 passed; 0 failed; 1 ignored");
        return Ok(ExitCode::SUCCESS);
    }
    let suite = upstream::program(SUITE)?;
    let all = specs::of(&suite)?;
    let side = Side::of(arguments)?;
    if arguments.list {
        let chosen = choice(arguments, &side, &all)?.of(&all)?;
        chosen.iter().for_each(|spec| println!("{}{}", spec.name, if spec.runs_alone() { "  (alone)" } else { "" }));
        return Ok(ExitCode::SUCCESS);
    }
    let _alone = side.lock()?;
    let mut latest = results::read_latest(&side.latest());
    let plan = if arguments.resume {
        resumed_plan(arguments, &side, &all, suite)?
    } else {
        // what a run found that was killed before it could tell
        results::merge(&mut latest, &results::read(&Plan::results_in(&side.dir)));
        results::write_latest(&side.latest(), &latest)?;
        new_plan(arguments, &side, &all, suite)?
    };
    plan.write()?;
    let begun = Instant::now();
    let broken = in_labs(arguments, &plan)?;
    let outcomes = results::read(&plan.results());
    let before = latest.clone();
    results::merge(&mut latest, &outcomes);
    results::write_latest(&side.latest(), &latest)?;
    tell(&side, &plan, &outcomes, &before, begun)?;
    if arguments.record {
        record(&outcomes)?;
    }
    if let Some(broken) = &broken {
        println!("{broken}");
    }
    let verdict = judge(arguments, &side, &outcomes)?;
    let sums = report::Sums::of(results::worst_of_rounds(&outcomes).into_values());
    if arguments.quick {
        println!("test result: {} passed; {} failed; {} ignored", sums.passed, sums.failed, sums.skipped);
    }
    println!("{} passed, {} failed, {} skipped", sums.passed, sums.failed, sums.skipped);
    Ok(if broken.is_some() { ExitCode::FAILURE } else { verdict })
}

/// What the specs run against, and where its results are kept.
struct Side {
    dir: PathBuf,
    /// The ledger is about Coracle as it is shipped.
    has_ledger: bool,
}

impl Side {
    fn of(arguments: &ConformanceArguments) -> Result<Self> {
        let mut name = String::from(if arguments.upstream { UPSTREAM } else { "coracle" });
        if arguments.runtime == Runtime::Containerd {
            name.push_str("-containerd");
        }
        arguments.swap.iter().for_each(|part| name.push_str(&format!("-with-{part}")));
        let dir = paths::target()?.join("conformance").join(&name);
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        Ok(Self { dir, has_ledger: name == "coracle" })
    }

    fn latest(&self) -> PathBuf {
        latest_in(&self.dir)
    }

    /// Two runs at once would write each other's results.
    fn lock(&self) -> Result<Flock<File>> {
        let file = File::options().create(true).append(true).open(self.dir.join("lock")).context("opening the lock")?;
        let held = Flock::lock(file, FlockArg::LockExclusiveNonblock);
        held.map_err(|_| anyhow!("another run writes its results to {}; wait for its end", self.dir.display()))
    }
}

fn latest_in(dir: &Path) -> PathBuf {
    dir.join("latest.jsonl")
}

fn choice(arguments: &ConformanceArguments, side: &Side, all: &[Spec]) -> Result<Choice> {
    let mut only = None;
    let mut narrow = |names: std::collections::BTreeSet<String>| {
        let kept = only.take().map_or(names.clone(), |only| &only & &names);
        only = Some(kept);
    };
    if arguments.failed {
        let latest = results::read_latest(&side.latest());
        narrow(
            latest.into_values().filter(|outcome| outcome.state == State::Failed).map(|outcome| outcome.name).collect(),
        );
    }
    if arguments.ledger {
        narrow(Expected::read(&Expected::path())?.names().map(String::from).collect());
    }
    if arguments.quick {
        narrow(choose::quick(&paths::root().join("tests/conformance/quick.toml"), all)?);
    }
    let (focus, skip, groups) = (arguments.focus.clone(), arguments.skip.clone(), arguments.group.clone());
    Ok(Choice { focus, skip, groups, only })
}

fn new_plan(arguments: &ConformanceArguments, side: &Side, all: &[Spec], suite: PathBuf) -> Result<Plan> {
    let chosen = choice(arguments, side, all)?.of(all)?;
    let ginkgo = if arguments.official { Some(upstream::program("ginkgo")?) } else { None };
    let times = Times::read(&Times::path())?;
    let whole = chosen.len() == all.len();
    let planned = |spec: Spec| Planned { expected_s: times.or_guess(&spec.name), spec };
    let plan = Plan {
        dir: side.dir.clone(),
        suite,
        ginkgo,
        procs: arguments.procs.into(),
        rounds: arguments.repeat,
        nodes: NODES,
        whole,
        specs: chosen.into_iter().map(planned).collect(),
    };
    // what a run that broke off has found is in the last results only when it was told
    for old in [plan.results(), plan.troubles()].iter().filter(|old| old.exists()) {
        fs::remove_file(old).with_context(|| format!("removing {}", old.display()))?;
    }
    paths::fresh_dir(&plan.output())?;
    Ok(plan)
}

/// The plan of the last run, for the suite as it is now.
fn resumed_plan(arguments: &ConformanceArguments, side: &Side, all: &[Spec], suite: PathBuf) -> Result<Plan> {
    let mut plan = Plan::read(&Plan::path(&side.dir)).context("there is no run to resume")?;
    if plan.ginkgo.is_some() {
        bail!("a run in one go cannot be resumed");
    }
    for planned in &mut plan.specs {
        let now = all.iter().find(|spec| spec.name == planned.spec.name);
        planned.spec = now.with_context(|| format!("the suite has no {} any more", planned.spec.name))?.clone();
    }
    Ok(Plan { procs: arguments.procs.into(), suite, ..plan })
}

/// The lab that the specs run in.
fn cluster(arguments: &ConformanceArguments, command: Vec<std::ffi::OsString>) -> LabArguments {
    let mut lab = LabArguments::running(command, NODES).kept(arguments.keep).on(arguments.runtime);
    lab.images = images::Set::Suite;
    lab.coracle = arguments.coracle.clone().or(lab.coracle);
    if arguments.upstream { lab.on_upstream(lab::Parts::all()) } else { lab.swapped(arguments.swap.clone()) }
}

/// Runs the plan in a lab; goes on in another when the cluster breaks. What was left undone, if anything.
fn in_labs(arguments: &ConformanceArguments, plan: &Plan) -> Result<Option<String>> {
    let own = paths::own_program()?;
    let all = plan.specs.len() * plan.rounds as usize;
    let done = || results::read(&plan.results()).len();
    for number in 1..=CLUSTERS_MAX {
        let before = done();
        let command = vec![own.clone().into(), "__conformance".into(), Plan::path(&plan.dir).into()];
        let ended = lab::run(&cluster(arguments, command))?;
        if ended == ExitCode::SUCCESS {
            return Ok(None);
        }
        let left = all.saturating_sub(done());
        let may_go_on = ended == ExitCode::from(in_lab::BROKEN) && done() > before && !arguments.keep;
        if left == 0 || !may_go_on || number == CLUSTERS_MAX {
            return Ok(Some(format!("broke off with {left} of {all} left; --resume goes on with them")));
        }
        println!("\n!!!! the cluster broke; {left} of {all} are left and go on in a new one\n");
    }
    Ok(None)
}

fn tell(side: &Side, plan: &Plan, outcomes: &[Outcome], before: &Latest, begun: Instant) -> Result<()> {
    println!("\n{}", report::table(outcomes));
    println!("wall time, with starting the cluster: {} s", begun.elapsed().as_secs());
    print!("{}", report::failures(outcomes));
    let flakes = report::flakes(outcomes);
    let changes = report::changes(outcomes, before);
    for (title, lines) in [("not the same in all rounds", flakes), ("not as the last time", changes)] {
        if !lines.is_empty() {
            println!("\n{title}:\n{}", lines.join("\n"));
        }
    }
    compare(side, outcomes)?;
    let troubles = fs::read_to_string(plan.troubles()).unwrap_or_default();
    if !troubles.is_empty() {
        println!("\n!!!! what went wrong beside the specs ({}):\n{troubles}", plan.troubles().display());
    }
    fs::write(side.dir.join("junit.xml"), report::junit(outcomes)).context("writing junit.xml")?;
    let summary = serde_json::json!({"sums": report::Sums::of(outcomes.iter()), "specs": outcomes});
    fs::write(side.dir.join("summary.json"), serde_json::to_vec(&summary)?).context("writing summary.json")?;
    println!("\nresults, JUnit and what failed specs printed: {}", side.dir.display());
    Ok(())
}

/// The spec time of what passes here and on upstream: as it was on this machine, or else as the repository knows it.
fn compare(side: &Side, outcomes: &[Outcome]) -> Result<()> {
    let upstream = side.dir.with_file_name(UPSTREAM);
    if side.dir == upstream {
        return Ok(());
    }
    let here = results::read_latest(&latest_in(&upstream));
    let times = Times::read(&Times::path())?;
    let passed = |name: &str| here.get(name).filter(|there| there.state == State::Passed).map(|there| there.seconds);
    if let (both @ 1.., here, there) = report::compared(outcomes, |name| passed(name).or_else(|| times.of(name))) {
        println!("\nspec time of the {both} that pass here and on upstream: {here:.0} s, upstream's {there:.0} s");
    }
    Ok(())
}

/// Keeps what passing specs took, as the times that runs are planned by.
fn record(outcomes: &[Outcome]) -> Result<()> {
    let path = Times::path();
    let count = Times::read(&path)?.record(&path, outcomes)?;
    println!("recorded the times of {count} specs in {}", path.display());
    Ok(())
}

/// Whether the run counts as passed, and the ledger's growth.
fn judge(arguments: &ConformanceArguments, side: &Side, outcomes: &[Outcome]) -> Result<ExitCode> {
    if outcomes.is_empty() {
        bail!("no spec was run");
    }
    let mut good = true;
    if side.has_ledger {
        let path = Expected::path();
        let mut expected = Expected::read(&path)?;
        for lost in expected.lost(outcomes) {
            println!("LOST, the ledger says that it passes: {}", lost.name);
            good = false;
        }
        if arguments.write_ledger {
            let grown = expected.grow(outcomes);
            expected.write(&path)?;
            println!("the ledger has {grown} more, {} in all", expected.names().count());
        }
    }
    let failed = outcomes.iter().any(|outcome| outcome.state == State::Failed);
    good &= !(failed && (arguments.strict || arguments.quick || !side.has_ledger));
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
