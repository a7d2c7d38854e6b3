//! What a killed lab leaves to the machine: nothing, once the next lab has started.
//!
//! `lab.rs` looks for what carries a lab's name; here the whole machine is listed before and after, so that what carries no
//! name is found too. A file of its own, as tests of one file run side by side and would see each other's labs.

// all of this file is test code, which the lint cannot see
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

/// One lab at a time: each sees the whole machine.
static MACHINE: Mutex<()> = Mutex::new(());

/// Prints links, packet rules, named namespaces, mounts, control groups, files and kernel settings that could be a lab's, a
/// line each.
const LISTING: &str = r#"
ip -o link | while read -r _ device _; do printf 'link %s\n' "$device"; done
for family in -4 -6; do
    ip -o $family address show | while read -r _ device _ address _; do printf 'address %s %s\n' "$device" "$address"; done
    ip $family route show table all | while read -r line; do printf 'route %s\n' "$line"; done
done
ip netns list | while read -r line; do printf 'namespace %s\n' "$line"; done
nft list tables 2>/dev/null | while read -r line; do printf 'packets %s\n' "$line"; done
while read -r _ _ _ root point _; do printf 'mount %s %s\n' "$root" "$point"; done < /proc/self/mountinfo
find /sys/fs/cgroup -type d -name '*coracle*' 2>/dev/null | while read -r line; do printf 'group %s\n' "$line"; done
find /run /var/lib /var/log /etc /dev/shm -xdev -maxdepth 2 2>/dev/null | while read -r line; do printf 'file %s\n' "$line"; done
find /opt /usr/libexec -xdev -maxdepth 3 2>/dev/null | while read -r line; do printf 'file %s\n' "$line"; done
grep -r . /proc/sys/vm /proc/sys/kernel/panic /proc/sys/kernel/panic_on_oops /proc/sys/kernel/keys 2>/dev/null |
    while read -r line; do printf 'setting %s\n' "$line"; done
"#;

/// What labs lock while they start; it stays until the machine is started again.
const LOCK: [&str; 2] = ["file /run/coracle-lab", "file /run/coracle-lab/.lock"];

fn listing() -> BTreeSet<String> {
    let output = Command::new("sh").args(["-c", LISTING]).output().unwrap();
    let mut lines: BTreeSet<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        if words.contains("/run/coracle-lab/")
            || words.contains("lab-node")
            || words.contains("__lab-init")
            || words.contains("__node-init")
        {
            lines.insert(format!("process {words}"));
        }
    }
    lines.retain(|line| !LOCK.contains(&line.as_str()));
    lines
}

#[test]
fn after_a_lab_that_was_killed_and_another_one_the_machine_is_as_before() {
    machine_is_as_before_a_killed_lab(&["--bare", "--nodes=2"]);
}

#[test]
fn a_killed_lab_of_upstreams_programs_leaves_the_machine_as_it_was_too() {
    let built = Path::new(XTASK).ancestors().nth(2).unwrap().join("upstream/kubelet");
    if !built.exists() {
        return eprintln!("skipped: upstream's kubelet is not built; `cargo xtask upstream kubelet` does it");
    }
    machine_is_as_before_a_killed_lab(&["--upstream"]);
}

fn machine_is_as_before_a_killed_lab(arguments: &[&str]) {
    let root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root {
        return eprintln!("skipped: a lab needs root");
    }
    let _alone = MACHINE.lock().unwrap();
    let before = listing();
    let mut tool = Command::new(XTASK)
        .arg("lab")
        .args(arguments)
        .args(["--", "sh", "-c", "echo up; sleep 10000"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(tool.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    let during = listing();
    for sort in ["process", "group", "file"] {
        assert!(during.difference(&before).any(|line| line.starts_with(sort)), "a lab shows no {sort}");
    }
    // the whole family at once, so that nobody is left to clean up
    let janitors = Command::new("pgrep").args(["-P", &tool.id().to_string()]).output().unwrap();
    for process in String::from_utf8(janitors.stdout).unwrap().split_whitespace() {
        Command::new("kill").args(["-9", process]).status().unwrap();
    }
    tool.kill().unwrap();
    tool.wait().unwrap();
    std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();

    let next = Command::new(XTASK).args(["lab", "--bare", "--", "true"]).stdin(Stdio::null()).status().unwrap();
    assert!(next.success());
    let left: Vec<String> = listing().difference(&before).cloned().collect();
    assert_eq!(left, Vec::<String>::new());
}
