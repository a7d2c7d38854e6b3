//! The stories: what a user does with a cluster and what they then see, each as one black-box test of the shipped
//! binary.
//!
//! A story is told through `kubectl` and the network only, in a lab (`cargo xtask stories` starts one and runs this
//! program in it). It waits on conditions with a deadline and never sleeps; each has a namespace of its own, so that
//! most can run side by side. The ones marked `alone` break the cluster itself.
//!
//! `harness` knows how to ask and how to wait; the files `sNN_*` know what must be true; this table knows them all.

mod harness;
mod s01_two_containers_share_a_pod;
mod s02_memory_hog;
mod s03_self_healing;
mod s05_crash_loop;
mod s07_missing_configuration;
mod s09_exit_codes;

use std::process::ExitCode;

use harness::{Story, run_all};

const STORIES: &[Story] = &[
    Story::new("s01_two_containers_share_a_pod", s01_two_containers_share_a_pod::story),
    Story::new("s02_memory_hog", s02_memory_hog::story),
    Story::new("s03_self_healing", s03_self_healing::story),
    Story::new("s05_crash_loop", s05_crash_loop::story),
    Story::new("s07_missing_configuration", s07_missing_configuration::story),
    Story::new("s09_exit_codes", s09_exit_codes::story),
];

fn main() -> ExitCode {
    run_all(STORIES)
}
