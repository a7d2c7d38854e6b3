//! The lab itself, without a cluster on it (`--bare`): wiring, what nodes have for themselves, and that nothing is left.
//!
//! Black box: these start the program as a person does. They need root, and say so where they have none.

// all of this file is test code, which the lint cannot see
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

/// Whether labs can be made here.
fn is_root() -> bool {
    let root = Path::new("/proc/self").metadata().is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root {
        eprintln!("skipped: a lab needs root");
    }
    root
}

fn lab(arguments: &[&str], script: &str) -> Output {
    let mut command = Command::new(XTASK);
    command.args(["lab", "--bare"]).args(arguments).args(["--", "sh", "-c", script]).stdin(Stdio::null());
    command.output().unwrap()
}

fn printed(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A lab whose command prints the lab's folder and then waits for ever.
fn waiting_lab() -> (Child, BufReader<ChildStdout>, String) {
    let mut command = Command::new(XTASK);
    let script = "lab-node exec 1 -- sleep 10000 & echo $CORACLE_LAB; sleep 10000";
    command.args(["lab", "--bare", "--", "sh", "-c", script]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut tool = command.spawn().unwrap();
    let mut stdout = BufReader::new(tool.stdout.take().unwrap());
    let mut dir = String::new();
    stdout.read_line(&mut dir).unwrap();
    let id = Path::new(dir.trim()).file_name().unwrap().to_str().unwrap().to_owned();
    (tool, stdout, id)
}

/// Everything on this machine that belongs to lab `id`: processes, mounts, control groups, files.
fn traces(id: &str) -> Vec<String> {
    let mut found = Vec::new();
    let dirs = [format!("/run/coracle-lab/{id}"), format!("/var/lib/coracle-lab/{id}")];
    found.extend(dirs.iter().filter(|dir| Path::new(dir).exists()).cloned());
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    found.extend(mounts.lines().filter(|line| dirs.iter().any(|dir| line.contains(dir.as_str()))).map(str::to_owned));
    for line in mounts.lines().filter(|line| line.contains(" cgroup")) {
        let group = Path::new(line.split(' ').nth(1).unwrap()).join(format!("coracle-lab-{id}"));
        found.extend(group.exists().then(|| group.display().to_string()));
    }
    for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        found.extend(words.contains(&dirs[0]).then_some(words));
    }
    found
}

#[test]
fn a_lab_ends_with_the_status_of_its_command_and_leaves_nothing() {
    if !is_root() {
        return;
    }
    let output = lab(&[], "echo $CORACLE_LAB; exit 7");
    assert_eq!(output.status.code(), Some(7));
    let dir = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let id = Path::new(&dir).file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(traces(&id), Vec::<String>::new());
}

#[test]
fn nodes_reach_each_other_and_the_registry_and_nothing_else() {
    if !is_root() {
        return;
    }
    let script = "ip -o link | wc -l
        lab-node exec 1 -- sh -c 'hostname; ip -o -4 address show eth0 | grep -o 192.0.2.11/24; ip route | grep -c default'
        lab-node exec 2 -- sh -c 'curl -s http://192.0.2.1:5000/v2/library/busybox/tags/list'
        lab-node exec 1 -- sh -c 'getent hosts node2'
        lab-node exec 2 -- curl -s -m 1 http://198.51.100.7 || echo unreachable";
    let printed = printed(&lab(&["--nodes=2"], script));
    let lines: Vec<&str> = printed.lines().collect();
    // loopback, the bridge, a port per node: no way out
    assert_eq!(lines[0], "4", "{printed}");
    assert_eq!(lines[1..4], ["node1", "192.0.2.11/24", "1"], "{printed}");
    assert_eq!(lines[4], r#"{"name":"library/busybox","tags":["1.36"]}"#, "{printed}");
    assert!(lines[5].starts_with("192.0.2.12"), "{printed}");
    assert_eq!(lines[6], "unreachable", "{printed}");
}

#[test]
fn a_node_has_folders_and_processes_of_its_own_and_its_disk_outlives_it() {
    if !is_root() {
        return;
    }
    let script = "lab-node exec 1 -- sh -c 'echo one > /var/lib/mark; echo two > /run/mark; sleep 10000 & ps -e | grep -c sleep'
        lab-node exec 2 -- sh -c 'ls /var/lib/mark /run/mark 2>/dev/null | wc -l; ps -e | grep -c sleep'
        lab-node lose 1; lab-node exec 1 -- true 2>/dev/null || echo gone
        lab-node boot 1; lab-node exec 1 -- sh -c 'cat /var/lib/mark; ls /run/mark 2>/dev/null; curl -so /dev/null http://registry.lab:5000/v2/ && echo wired'
        ls /var/lib/mark 2>/dev/null || echo ours is clean";
    let printed = printed(&lab(&["--nodes=2"], script));
    assert_eq!(printed.split_whitespace().collect::<Vec<_>>().join(" "), "1 0 0 gone one wired ours is clean");
}

#[test]
fn a_cable_can_be_pulled_and_plugged_in_again() {
    if !is_root() {
        return;
    }
    let ask = "curl -s -m 1 -o /dev/null http://192.0.2.1:5000/v2/ && echo connected || echo cut";
    let script = format!(
        "lab-node cut 1; lab-node exec 1 -- sh -c '{ask}'; lab-node heal 1; lab-node exec 1 -- curl -s --retry 20 --retry-all-errors --retry-delay 1 -m 60 -o /dev/null http://192.0.2.1:5000/v2/ && echo healed"
    );
    assert_eq!(printed(&lab(&[], &script)), "cut\nhealed\n");
}

#[test]
fn a_lab_whose_tool_and_janitor_are_killed_is_cleaned_up_by_the_next_lab() {
    if !is_root() {
        return;
    }
    let (mut tool, mut stdout, id) = waiting_lab();
    assert!(traces(&id).len() > 4, "{:?}", traces(&id));
    for process in children_of(tool.id(), "janitor") {
        Command::new("kill").args(["-9", &process]).status().unwrap();
    }
    tool.kill().unwrap();
    tool.wait().unwrap();
    // the end of the output is the end of the last process that could write to it
    std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
    assert!(!traces(&id).is_empty());
    printed(&lab(&[], "true"));
    assert_eq!(traces(&id), Vec::<String>::new());
}

#[test]
fn a_kept_lab_can_be_entered_and_ended() {
    if !is_root() {
        return;
    }
    let output = lab(&["--keep"], "echo $CORACLE_LAB");
    let dir = printed(&output);
    let id = Path::new(dir.trim()).file_name().unwrap().to_str().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&format!("cargo xtask lab --enter {id}")) && said.contains(&format!("--end {id}")), "{said}");
    // another lab's start must not reap it
    printed(&lab(&[], "true"));
    let inside = Command::new(XTASK)
        .args(["lab", "--enter", id, "--", "lab-node", "exec", "1", "--", "hostname"])
        .output()
        .unwrap();
    assert_eq!(printed(&inside), "node1\n");
    printed(&Command::new(XTASK).args(["lab", "--end", id]).output().unwrap());
    assert_eq!(traces(id), Vec::<String>::new());
}

/// Processes whose parent is `parent` and whose command line contains `word`.
fn children_of(parent: u32, word: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let is_child = |entry: &fs::DirEntry| {
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        status.contains(&format!("PPid:\t{parent}\n")) && String::from_utf8_lossy(&words).contains(word)
    };
    entries.filter(is_child).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
