//! The engine without any protocol: the same puts, called directly. Printed beside, without a ratio.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use base::{Clock, Tasks};
use bench_harness::{Figure, Round, load};
use store::{Embedded, Key, Options, Store, Txn};

use crate::puts;

const LENGTH_S: u64 = 3;
const LEVELS: [usize; 3] = [1, 32, 1000];

pub fn figures() -> Vec<Figure> {
    let figure = |clients: usize| {
        let title = format!("durable puts in process, {clients} at once");
        Figure::higher(&format!("inside_{clients}_rate"), &title, "1/s").alone()
    };
    LEVELS.map(figure).into()
}

pub async fn measure(dir: &Path, round: &mut Round) -> Result<()> {
    let store = Embedded::open(Options::new(dir, Clock::system(), Tasks::root())).context("opening the engine")?;
    let store = Arc::new(store);
    for count in LEVELS {
        let clients: Vec<_> = (0..count).map(|client| (client, store.clone())).collect();
        let value = puts::value();
        let load = load::run(clients, Duration::from_secs(LENGTH_S), move |number, (client, store)| {
            let txn = Txn::default().put(Key::new(puts::key(count, client, number)), value.clone());
            async move {
                store.commit(txn).await?;
                Ok((client, store))
            }
        });
        round.put(&format!("inside_{count}_rate"), load.await?.rate);
    }
    Ok(())
}
