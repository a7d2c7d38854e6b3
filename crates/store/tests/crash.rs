//! `kill -9` in the middle of a write burst, over and over on one folder: what was acknowledged is there, nothing is torn.
//!
//! The test runs itself again as the writer (a child process that is told its folder by [`WRITER_DIR`]). The writer's tasks
//! each put their own key and, in the same transaction, its twin, with a counter that only grows, and print each
//! acknowledged write. After the kill the parent opens the folder and compares.
//!
//! A killed process keeps the page cache, so this checks order and atomicity, not the fsync itself.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use base::{Clock, Tasks};
use bytes::Bytes;
use store::{Committed, Embedded, Key, Options, Span, Store, Txn};

const WRITER_DIR: &str = "CORACLE_CRASH_WRITER_DIR";
const ROUNDS: usize = 50;
const WRITERS: u64 = 16;

fn open(dir: &Path) -> Embedded {
    Embedded::open(Options::new(dir, Clock::system(), Tasks::root())).unwrap()
}

/// `count` and enough bytes that depend on it to see a torn value.
fn value(count: u64) -> Bytes {
    let length = 100 + (count as usize * 37) % 3000;
    let filler = (0..length).map(|i| (count as usize + i) as u8);
    count.to_le_bytes().into_iter().chain(filler).collect()
}

fn count(stored: &[u8]) -> u64 {
    let count = u64::from_le_bytes(stored[..8].try_into().unwrap());
    assert_eq!(stored, value(count), "value of count {count} is torn");
    count
}

/// The child: writes until it is killed.
#[test]
fn writer() {
    let Some(dir) = std::env::var_os(WRITER_DIR) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(Path::new(&dir));
        futures::future::join_all((0..WRITERS).map(|writer| write_on(&store, writer))).await;
    });
}

async fn write_on(store: &Embedded, writer: u64) {
    let (key, twin) = (Key::from(format!("/w/{writer}")), Key::from(format!("/twin/{writer}")));
    let stored = store.get(&key, None).await.unwrap();
    let mut next = stored.map_or(1, |entry| count(&entry.value) + 1);
    loop {
        let txn = Txn::default().put(key.clone(), value(next));
        // Now and then the twin goes, so that deletes are in the burst too.
        let txn = if next.is_multiple_of(5) { txn.delete(twin.clone()) } else { txn.put(twin.clone(), value(next)) };
        let Committed::Done { revision, .. } = store.commit(txn).await.unwrap() else { panic!("no compares") };
        let mut out = std::io::stdout().lock();
        writeln!(out, "ack {writer} {next} {revision}").unwrap();
        out.flush().unwrap();
        drop(out);
        next += 1;
    }
}

#[test]
fn every_acknowledged_write_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = HashMap::new();
    let mut revision = 0;
    for round in 0..ROUNDS {
        // Different moments of the burst, the first ones included.
        burst(dir.path(), 1 + (round * 61) % 150, &mut acknowledged, &mut revision);
        check(dir.path(), &mut acknowledged, revision);
    }
    assert_eq!(acknowledged.len() as u64, WRITERS, "every writer was heard of");
}

/// Runs a writer, kills it after `acks` acknowledged writes, and notes all it told.
fn burst(dir: &Path, acks: usize, acknowledged: &mut HashMap<u64, u64>, revision: &mut u64) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer", "--nocapture", "--test-threads=1"])
        .env(WRITER_DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut heard = 0;
    for line in lines.map_while(Result::ok) {
        // The test harness may put its own words in front.
        let Some((_, ack)) = line.split_once("ack ") else { continue };
        let numbers: Vec<u64> = ack.split(' ').filter_map(|number| number.parse().ok()).collect();
        // The last line may be cut short by the kill.
        let [writer, next, at] = numbers[..] else { continue };
        acknowledged.insert(writer, next);
        *revision = at.max(*revision);
        heard += 1;
        if heard == acks {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(heard >= acks, "the writer ended by itself after {heard}");
}

/// Opens the folder and compares. What a reader has seen counts as acknowledged from then on.
fn check(dir: &Path, acknowledged: &mut HashMap<u64, u64>, revision: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(dir);
        assert!(store.revision() >= revision, "revision went back from {revision} to {}", store.revision());
        for (writer, last) in acknowledged {
            let entry = store.get(&Key::from(format!("/w/{writer}")), None).await.unwrap();
            let entry = entry.unwrap_or_else(|| panic!("writer {writer} lost everything"));
            let found = count(&entry.value);
            // The next write may have become durable without its answer getting out.
            assert!((*last..=*last + 1).contains(&found), "writer {writer}: acknowledged {last}, found {found}");
            let twin = store.get(&Key::from(format!("/twin/{writer}")), None).await.unwrap();
            let twin = twin.map(|twin| (count(&twin.value), twin.mod_revision));
            let expected = (!found.is_multiple_of(5)).then_some((found, entry.mod_revision));
            assert_eq!(twin, expected, "writer {writer}: half a transaction");
            *last = found;
        }
        let all = store.range(&Span::prefix(&Key::from("/")), None, 0).await.unwrap();
        assert!(all.entries.iter().all(|entry| entry.mod_revision <= store.revision()));
    });
}
