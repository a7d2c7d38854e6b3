//! Prints what the embedded engine does on this machine: opening, loading, single writes, group commit, memory.
//!
//! `cargo run --release -p store --example measure [FOLDER]`. For people; nothing asserts these numbers here.

use std::time::Instant;

use base::{Clock, Tasks};
use bytes::Bytes;
use store::{Embedded, Key, Options, Span, Store, Txn};

const WRITERS: usize = 128;
const WRITES_PER_WRITER: usize = 400;
const VALUE_BYTES: usize = 1024;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let temporary = tempfile::tempdir()?;
    let dir = std::env::args_os().nth(1).map_or_else(|| temporary.path().to_path_buf(), Into::into);
    let open = || Embedded::open(Options::new(&dir, Clock::system(), Tasks::root()));
    let value = Bytes::from(vec![7; VALUE_BYTES]);

    let start = Instant::now();
    let store = open()?;
    println!("open, new folder: {:?}, resident {} KiB", start.elapsed(), resident_kib());

    let start = Instant::now();
    for i in 0..200 {
        commit(&store, format!("/alone/{i}"), &value).await;
    }
    println!("one writer: {:?} per durable put", start.elapsed() / 200);

    let start = Instant::now();
    let writers = (0..WRITERS).map(|writer| {
        let (store, value) = (&store, &value);
        async move {
            for i in 0..WRITES_PER_WRITER {
                commit(store, format!("/many/{writer}/{i}"), value).await;
            }
        }
    });
    futures::future::join_all(writers).await;
    let count = WRITERS * WRITES_PER_WRITER;
    println!("{WRITERS} writers: {:.0} durable puts/s", count as f64 / start.elapsed().as_secs_f64());

    let start = Instant::now();
    let page = store.range(&Span::prefix(&Key::from("/many/")), None, 0).await;
    println!("range of {}: {:?}", page.map_or(0, |page| page.entries.len()), start.elapsed());
    println!("resident with history: {} KiB", resident_kib());

    drop(store);
    let start = Instant::now();
    let store = open()?;
    println!("open, {count} entries: {:?}, revision {}", start.elapsed(), store.revision());
    Ok(())
}

async fn commit(store: &Embedded, key: String, value: &Bytes) {
    if let Err(error) = store.commit(Txn::default().put(Key::from(key), value.clone())).await {
        eprintln!("not committed: {error}");
    }
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
