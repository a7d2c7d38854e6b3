//! What runs in the machine whose plug is pulled (`cargo xtask pull-plug`): tells what it finds in the store, then
//! writes until the power is gone, and tells every write once it is acknowledged.
//!
//! Each writer has a key of its own and a counter that only grows; values differ in length and content, so that a torn
//! one is seen. Lines end with a mark of their own, because the last one may be cut short.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use base::{Clock, Tasks};
use bytes::Bytes;
use store::{Committed, Embedded, Key, Options, Store, Txn};

const WRITERS: u64 = 8;

#[tokio::main]
async fn main() -> Result<()> {
    let folder = std::env::args().nth(1).context("usage: plug FOLDER")?;
    std::fs::create_dir_all(&folder)?;
    let store = Embedded::open(Options::new(Path::new(&folder), Clock::system(), Tasks::root()))?;
    let mut counts = Vec::new();
    for writer in 0..WRITERS {
        counts.push(found(&store, writer).await?);
    }
    let writers = counts.into_iter().enumerate().map(|(writer, count)| write(&store, writer as u64, count));
    futures::future::try_join_all(writers).await.map(drop)
}

/// How far a writer's key has come, told outside.
async fn found(store: &Embedded, writer: u64) -> Result<u64> {
    let count = match store.get(&key(writer), None).await? {
        Some(entry) => count_of(&entry.value)?,
        None => 0,
    };
    tell("found", writer, count)?;
    Ok(count)
}

async fn write(store: &Embedded, writer: u64, mut count: u64) -> Result<()> {
    loop {
        count += 1;
        match store.commit(Txn::default().put(key(writer), value(count))).await? {
            Committed::Done { .. } => tell("ack", writer, count)?,
            _ => bail!("a write without a condition was refused"),
        }
    }
}

fn key(writer: u64) -> Key {
    Key::from(format!("/plug/{writer}"))
}

fn value(count: u64) -> Bytes {
    let length = 100 + (count * 37) % 3000;
    count.to_le_bytes().into_iter().chain((0..length).map(|at| (count + at) as u8)).collect()
}

fn count_of(stored: &[u8]) -> Result<u64> {
    let head = stored.first_chunk::<8>().context("a value is too short")?;
    let count = u64::from_le_bytes(*head);
    ensure!(value(count) == stored, "the value of count {count} is torn");
    Ok(count)
}

fn tell(word: &str, writer: u64, count: u64) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{word} {writer} {count} end")?;
    out.flush().context("telling")
}
