//! `cargo xtask`: every chore of this repository as one program, so that a laptop and the build server do the same.
//!
//! Data flow: one subcommand is one module; what they share is `process` (run another program, show what it said when
//! it fails), `paths` (where things are) and `progress` (say what takes long). The program is synchronous and has one
//! thread on purpose: `lab` enters namespaces, which the kernel allows to single threads only.
//!
//! It does not decide what is right: that is in the tests, in `tidy.toml` and in the crates.

// `lab` clones processes into namespaces of their own; each block there says why it is sound.
#![allow(unsafe_code)]

mod apt;
mod bench;
mod conformance;
mod demo;
mod gen_tables;
mod images;
mod lab;
mod paths;
mod process;
mod progress;
mod pull_plug;
mod stories;
mod test;
mod tidy;
mod upstream;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The chores of Coracle", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Start a throwaway cluster, run a command in it, and clean up
    Lab(lab::LabArguments),
    /// Act on one node of the lab this shell is in (`lab-node` on the PATH of a lab)
    #[command(hide = true)]
    LabNode(lab::NodeArguments),
    /// Process 1 of a lab
    #[command(hide = true, name = "__lab-init")]
    LabInit(lab::InitArguments),
    /// Process 1 of a node of a lab
    #[command(hide = true, name = "__node-init")]
    NodeInit(lab::NodeInitArguments),
    /// Process 1 of the machine that `lab --vm` boots
    #[command(hide = true, name = "__vm-init")]
    VmInit,
    /// Show a cluster at work from a fresh clone: deploy, break, heal, roll out, undo
    Demo(demo::DemoArguments),
    /// Everything the build server runs
    Test(test::TestArguments),
    /// The black-box stories of `tests/stories`, in a lab
    Stories(stories::StoriesArguments),
    /// Measure the binary beside its peers; nothing fails on time
    Bench(bench::BenchArguments),
    /// Upstream's conformance suite, in a lab
    Conformance(conformance::ConformanceArguments),
    /// What `conformance` runs in its lab
    #[command(hide = true, name = "__conformance")]
    ConformanceRun(conformance::RunArguments),
    /// Asks the suite for its specs
    #[command(hide = true, name = "__conformance-list")]
    ConformanceList(conformance::ListArguments),
    /// The rules of the house that a compiler does not know
    Tidy,
    /// Power cuts in a write burst: what was acknowledged is there after reboot
    PullPlug(pull_plug::PullPlugArguments),
    /// Write the data of the API tables from upstream's public types
    Gen(gen_tables::GenArguments),
    /// Make the test images from Debian packages and upstream's programs (cached; `lab` does it by itself)
    Images(images::ImagesArguments),
    /// Build upstream programs from the pinned Go module under `tests/upstream`
    Upstream(upstream::UpstreamArguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Lab(arguments) => lab::run(&arguments),
        Task::LabNode(arguments) => lab::run_on_node(&arguments),
        Task::LabInit(arguments) => lab::run_init(&arguments),
        Task::NodeInit(arguments) => lab::run_node_init(&arguments),
        Task::VmInit => lab::run_vm_init(),
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Stories(arguments) => stories::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Conformance(arguments) => conformance::run(&arguments),
        Task::ConformanceRun(arguments) => conformance::run_in_lab(&arguments),
        Task::ConformanceList(arguments) => conformance::run_list(&arguments),
        Task::Tidy => tidy::run(),
        Task::PullPlug(arguments) => pull_plug::run(&arguments),
        Task::Gen(arguments) => gen_tables::run(&arguments),
        Task::Images(arguments) => images::run(&arguments),
        Task::Upstream(arguments) => upstream::run(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
