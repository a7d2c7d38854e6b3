//! `cargo xtask tidy`: the rules of the house that a compiler does not know.
//!
//! Data flow: `arrows` reads the crates' manifests; `source` reads one Rust file into facts (sizes, attributes, calls);
//! this file judges the facts against the limits and against `tidy.toml`, the list of what may still pass. It reads
//! what git tracks and what it would track, so nothing escapes by not being committed yet.
//!
//! It judges shape, never taste: what clippy can say, clippy says.

mod arrows;
mod exceptions;
mod source;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::{paths, process};
use exceptions::Exceptions;
use source::Facts;

/// A file should not be longer than this; above it, it is mentioned.
const FILE_LINES_AIM: usize = 400;
/// A file must not be longer than this.
const FILE_LINES_MAX: usize = 1000;
/// A function must not be longer than this, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 80;
/// Names that say nothing about what is inside.
const BANNED_NAMES: [&str; 8] = ["mod", "util", "utils", "common", "helpers", "misc", "manager", "types"];
const WHERE_RUST_IS: [&str; 4] = ["crates", "xtask", "tests", "bench"];

pub fn run() -> Result<ExitCode> {
    let root = paths::root();
    let mut found = arrows::check(&root)?;
    let mut exceptions = Exceptions::read(&root.join("xtask/tidy.toml"))?;
    let files = rust_files(&root)?;
    let mut long = 0;
    for path in &files {
        // deleted, but not committed as such yet
        let Ok(text) = fs::read_to_string(root.join(path)) else { continue };
        long += usize::from(text.lines().count() > FILE_LINES_AIM && !exceptions.is_table(path));
        found.extend(judge(path, &text, &mut exceptions));
    }
    found.extend(exceptions.not_needed());
    for line in &found {
        eprintln!("{line}");
    }
    println!(
        "tidy: {} files, {} found, {long} files above the aim of {FILE_LINES_AIM} lines",
        files.len(),
        found.len()
    );
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn rust_files(root: &Path) -> Result<Vec<String>> {
    let mut command = Command::new("git");
    command
        .current_dir(root)
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "--"])
        .args(WHERE_RUST_IS);
    let listed = process::output(&mut command).context("listing the files of the repository")?;
    let mut files: Vec<String> = listed.lines().filter(|path| path.ends_with(".rs")).map(str::to_owned).collect();
    files.sort();
    files.dedup();
    Ok(files)
}

/// Everything that is wrong with one file, as `path:line: what`.
fn judge(path: &str, text: &str, exceptions: &mut Exceptions) -> Vec<String> {
    let mut found = Vec::new();
    let stem = Path::new(path).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if BANNED_NAMES.contains(&stem) {
        found.push(format!("{path}: a module called `{stem}` says nothing about what is in it"));
    }
    if !text.starts_with("//!") {
        found.push(format!("{path}:1: begins without `//!` and what this file is"));
    }
    let facts = match Facts::of(text, path_is_test(path)) {
        Ok(facts) => facts,
        Err(error) => {
            found.push(format!("{path}: cannot be read as Rust: {error}"));
            return found;
        }
    };
    found.extend(facts.banned.iter().map(|(line, what)| format!("{path}:{line}: {what}")));
    if !exceptions.is_table(path) {
        found.extend(too_long(path, text, &facts, exceptions));
    }
    found
}

fn too_long(path: &str, text: &str, facts: &Facts, exceptions: &mut Exceptions) -> Vec<String> {
    let mut found = Vec::new();
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX && !exceptions.allows_file(path, lines) {
        found.push(format!("{path}: {lines} lines; {FILE_LINES_MAX} is the limit"));
    }
    for function in &facts.functions {
        let (name, lines) = (&function.name, function.lines);
        if lines > FUNCTION_LINES_MAX && !exceptions.allows_function(path, name, lines) {
            found.push(format!(
                "{path}:{}: fn {name} has {lines} lines; {FUNCTION_LINES_MAX} is the limit",
                function.line
            ));
        }
    }
    found
}

/// Whether the whole file is test code, as opposed to a module inside it.
fn path_is_test(path: &str) -> bool {
    let mut parts = path.split('/');
    match parts.next() {
        Some("tests") => matches!(parts.next(), Some("stories" | "public-client")),
        Some("crates") => parts.nth(1) == Some("tests"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(path: &str, text: &str) -> Vec<String> {
        judge(path, text, &mut Exceptions::default())
    }

    #[test]
    fn a_plain_file_passes() {
        assert_eq!(judged("crates/x/src/queue.rs", "//! A queue.\nfn f() {}\n"), Vec::<String>::new());
    }

    #[test]
    fn every_file_says_what_it_is() {
        assert_eq!(judged("a.rs", "fn f() {}").len(), 1);
    }

    #[test]
    fn names_that_say_nothing_are_refused() {
        for name in BANNED_NAMES {
            assert_eq!(judged(&format!("crates/x/src/{name}.rs"), "//! x\n").len(), 1, "{name}");
        }
    }

    #[test]
    fn long_files_and_functions_are_refused_at_their_limits() {
        let function = |lines: usize| format!("//! x\nfn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2));
        assert_eq!(judged("a.rs", &function(FUNCTION_LINES_MAX)), Vec::<String>::new());
        let found = judged("a.rs", &function(FUNCTION_LINES_MAX + 1));
        assert_eq!(found, ["a.rs:2: fn f has 81 lines; 80 is the limit"]);
        let file = |lines: usize| format!("//! x\n{}", "const A: u8 = 1;\n".repeat(lines - 1));
        assert_eq!(judged("a.rs", &file(FILE_LINES_MAX)), Vec::<String>::new());
        assert_eq!(judged("a.rs", &file(FILE_LINES_MAX + 1)), ["a.rs: 1001 lines; 1000 is the limit"]);
    }

    #[test]
    fn sleeping_is_for_programs_and_never_for_tests() {
        let text = "//! x\nfn f() { std::thread::sleep(D); }\n#[cfg(test)]\nmod tests {\n    fn g() { sleep(D); }\n}\n";
        assert_eq!(
            judged("crates/x/src/a.rs", text),
            ["crates/x/src/a.rs:5: a test sleeps: wait on a condition instead"]
        );
        assert_eq!(judged("crates/x/tests/a.rs", text).len(), 2);
        assert_eq!(judged("tests/stories/src/a.rs", text).len(), 2);
    }
}
