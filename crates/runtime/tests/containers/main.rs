//! Real containers: images made from the host's static busybox, run through CRI in throwaway folders, and looked at from outside.
//!
//! This test is its own shim (`runtime::reexec`), so it has its own `main` instead of the usual harness: single-threaded until the
//! runtime has had its chance. `cargo test -p runtime --test containers -- name` runs those whose name contains `name`.
//! After each test the host is compared with before: no mount, cgroup, process or file may be left.

// A test without the usual harness is not recognized as one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cases;
mod image;
mod node;
mod registry;

use std::panic::AssertUnwindSafe;

fn main() {
    runtime::reexec();
    let filters: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    if std::env::args().any(|argument| argument == "--list") {
        cases::ALL.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    if let Some(missing) = node::missing() {
        println!("skipped: {missing}");
        return;
    }
    let mut failed = Vec::new();
    for (name, case) in cases::ALL.iter().filter(|(name, _)| wanted(name)) {
        let started = std::time::Instant::now();
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| node::run(*case)));
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {verdict} ({} ms)", started.elapsed().as_millis());
        if result.is_err() {
            failed.push(*name);
        }
    }
    println!("{} failed {failed:?}", failed.len());
    if !failed.is_empty() {
        std::process::exit(1);
    }
}
