//! Many requests at once: a few connections that share a list of work.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Result, anyhow};

use crate::https::{Access, Connection};

/// Connections that requests are spread over: enough that many share one sync of the disk, few enough not to be throttled.
pub const CONNECTIONS: usize = 64;

/// Does `work` for every number below `count`; the first failure ends it.
pub fn each(access: &Access, count: usize, work: impl Fn(&mut Connection, usize) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let one = || -> Result<()> {
        let mut connection = access.connect()?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            // the others stop too: nobody waits for work that is given up
            work(&mut connection, number).inspect_err(|_| next.store(count, Ordering::Relaxed))?;
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..CONNECTIONS.min(count)).map(|_| scope.spawn(one)).collect();
        let ended = workers.into_iter().map(|worker| worker.join().map_err(|_panic| anyhow!("a worker failed"))?);
        ended.collect::<Result<Vec<()>>>().map(drop)
    })
}
