//! The stories: what a user does with a cluster and what they then see, each as one black-box test of the shipped
//! binary.
//!
//! A story is told through `kubectl` and the network only, in a lab (`cargo xtask stories` starts one and runs this
//! program in it). It waits on conditions with a deadline and never sleeps; each has a namespace of its own, so that
//! most can run side by side. The ones marked `alone` break the cluster itself.
//!
//! The `bNN_*` are the suite of bad input and bad ends: requests and images that must be refused without a trace, and a
//! machine that must be as it was. The `cNN_*` are about runtimes of others.
//!
//! `harness` knows how to ask and how to wait; the files `sNN_*` know what must be true; this table knows them all.

mod b01_bad_requests;
mod b02_hostile_images;
mod b03_nothing_is_left;
mod b04_commands_refused;
mod c01_the_runtime_dies;
mod harness;
mod s01_two_containers_share_a_pod;
mod s02_memory_hog;
mod s03_self_healing;
mod s04_rollout_that_stands_still;
mod s05_crash_loop;
mod s06_image_trouble;
mod s07_missing_configuration;
mod s08_pending_and_why;
mod s09_exit_codes;
mod s10_configuration;
mod s12_dying_well;
mod s13_probes;
mod s14_qos_and_limits;
mod s15_security_context;
mod s17_identity;
mod s22_death_of_the_control_plane;
mod s30_pods_talk;
mod s31_a_node_dies;

use std::process::ExitCode;

use harness::{Story, run_all};

const STORIES: &[Story] = &[
    Story::new("s01_two_containers_share_a_pod", s01_two_containers_share_a_pod::story),
    Story::new("s02_memory_hog", s02_memory_hog::story),
    Story::new("s03_self_healing", s03_self_healing::story),
    Story::new("s04_rollout_that_stands_still", s04_rollout_that_stands_still::story),
    Story::new("s05_crash_loop", s05_crash_loop::story),
    Story::new("s06_image_trouble", s06_image_trouble::story),
    Story::new("s07_missing_configuration", s07_missing_configuration::story),
    Story::new("s08_pending_and_why", s08_pending_and_why::story).alone(),
    Story::new("s09_exit_codes", s09_exit_codes::story),
    Story::new("s10_configuration", s10_configuration::story),
    Story::new("s12_dying_well", s12_dying_well::story),
    Story::new("s13_probes", s13_probes::story),
    Story::new("s14_qos_and_limits", s14_qos_and_limits::story),
    Story::new("s15_security_context", s15_security_context::story),
    Story::new("s17_identity", s17_identity::story),
    Story::new("s22_death_of_the_control_plane", s22_death_of_the_control_plane::story).alone(),
    Story::new("s30_pods_talk", s30_pods_talk::story).nodes(2),
    Story::new("s31_a_node_dies", s31_a_node_dies::story).nodes(2).alone(),
    Story::new("b01_bad_requests", b01_bad_requests::story),
    Story::new("b02_hostile_images", b02_hostile_images::story),
    Story::new("b03_nothing_is_left", b03_nothing_is_left::story).alone(),
    Story::new("b04_commands_refused", b04_commands_refused::story),
    Story::new("c01_the_runtime_dies", c01_the_runtime_dies::story).alone().on("containerd"),
];

fn main() -> ExitCode {
    run_all(STORIES)
}
