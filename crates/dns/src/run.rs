//! The feeder's life: a resolver process is there, knows the zone, and is started anew should it die.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::{Backoff, BackoffPolicy};
use client::Informers;
use tokio::sync::watch;

use crate::feed::Feed;
use crate::keeper::{self, Starter};
use crate::wire::Settings;

/// Before a resolver that died, or could not be started, is started anew.
const RESPAWN: BackoffPolicy = BackoffPolicy::doubling(Duration::from_millis(10), Duration::from_secs(10));

/// What the resolver has to know, and where it is.
#[derive(Debug, Clone)]
pub struct Config {
    /// The cluster's domain, `cluster.local`.
    pub domain: String,
    /// Where to answer: the DNS service's address on every node, port 53.
    pub listen: Vec<SocketAddr>,
    /// Whose name servers answer for everything else.
    pub resolv_conf: PathBuf,
    /// The resolver's socket.
    pub socket: PathBuf,
}

/// Sees to it that a resolver answers, for as long as it is polled; the resolver goes on afterwards. `answering` is true while
/// it is known to answer from the zone as it is now.
pub async fn run(informers: Informers, config: Config, starter: &dyn Starter, answering: &watch::Sender<bool>) {
    let feed = Feed::new(&informers);
    let clock = informers.clock();
    let mut backoff = Backoff::new(RESPAWN);
    if !feed.synced().await {
        return;
    }
    loop {
        if let Err(error) = live(&feed, &config, starter, answering).await {
            tracing::error!(%error, "names may not be answered");
        } else {
            tracing::warn!("the resolver has ended and is started again");
        }
        answering.send_replace(false);
        clock.sleep(backoff.next(clock.instant())).await;
    }
}

/// One resolver, from its start or finding to its end.
async fn live(feed: &Feed, config: &Config, starter: &dyn Starter, answering: &watch::Sender<bool>) -> io::Result<()> {
    let settings = settings(config)?;
    let mut connection = keeper::connect(&config.socket, &settings, starter).await?;
    feed.tell(&mut connection, answering).await
}

fn settings(config: &Config) -> io::Result<Settings> {
    Ok(Settings {
        build: keeper::build()?,
        domain: config.domain.clone(),
        listen: config.listen.clone(),
        upstream: resolv_conf(&config.resolv_conf),
    })
}

fn resolv_conf(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "names outside the cluster are refused");
        String::new()
    })
}

#[cfg(test)]
mod tests;
