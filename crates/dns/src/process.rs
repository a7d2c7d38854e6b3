//! The resolver's process: our own program again, started with [`ARGUMENT`], that answers names whether Coracle lives or not.
//!
//! ```text
//! coracle (any number of lives) ─► <data>/resolver.sock ─► zone in memory ◄─ questions at the DNS service's address
//! ```
//!
//! - It never reads the API: a feeder ([`crate::feed`]) tells it the zone. When the feeder is gone the last zone stands.
//! - A feeder that comes tells a whole zone first, which takes the old one's place in one go, so that no name is missing in between.
//! - Only its own user is listened to; a peer that says what is not of the protocol loses its connection and changes nothing.
//! - One thread, a session of its own, nothing inherited but the log filter.

use std::fs;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::Name;
use parking_lot::RwLock;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::forward::Forwarder;
use crate::resolver::Resolver;
use crate::server::{self, Sockets};
use crate::wire::{Entry, Order, Settings, Word, hear, say};
use crate::zone::Zone;

/// The first argument of our own program when it is to be a resolver; the second is its socket. Its settings come on standard input.
pub const ARGUMENT: &str = "dns-resolver";
/// What it prints once it can be connected to.
pub const READY: &str = "ready";
/// The longest settings taken, in bytes.
const SETTINGS_BYTES_MAX: u64 = 1 << 20;
/// Peers at a time.
const FEEDERS_MAX: usize = 8;
/// How long a peer may be silent before its zone is complete; afterwards it may be for ever.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Objects in a zone.
const ENTRIES_MAX: usize = 1 << 20;
/// After a failure to take a connection, for want of descriptors say.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Turns this process into a resolver if it was started as one; call before any thread is started. Returns when this is an
/// ordinary start.
pub fn reexec() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == ARGUMENT)
        && let Some(socket) = arguments.next()
    {
        let code = match run(socket.as_ref()) {
            Ok(()) => 0,
            Err(why) => {
                println!("{why}");
                1
            }
        };
        std::process::exit(code);
    }
}

fn run(socket: &Path) -> io::Result<()> {
    // Already a session's leader when started by hand; being one is all that counts.
    let _ = rustix::process::setsid();
    // For people who list processes; executed by link it would go by the link's name.
    let _ = rustix::thread::set_name(c"coracle-dns");
    close_inherited()?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    std::env::set_current_dir("/")?;
    base::logging::init();
    allow_descriptors();
    let mut settings = Vec::new();
    io::stdin().take(SETTINGS_BYTES_MAX).read_to_end(&mut settings)?;
    let settings: Settings = serde_json::from_slice(&settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let sockets = settings.listen.iter().map(|address| Sockets::bind(*address)).collect::<io::Result<_>>()?;
        let listener = listen(socket)?;
        announce_ready()?;
        serve(settings, sockets, listener).await
    })
}

/// Whatever was open without close-on-exec in the process that started us, and is none of our business.
fn close_inherited() -> io::Result<()> {
    let open = fs::read_dir("/proc/self/fd")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    for descriptor in open.filter(|number| *number > 2).collect::<Vec<_>>() {
        // The one that listed the folder is closed already.
        let _ = nix::unistd::close(descriptor);
    }
    Ok(())
}

/// Clients over TCP take one each: as many as the machine allows.
fn allow_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// The socket at `path`, whatever was there before.
///
/// # Errors
/// The folder is missing, or not ours to write in.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Tells whoever started us, and lets go of their pipes.
fn announce_ready() -> io::Result<()> {
    println!("{READY}");
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(rustix::stdio::dup2_stdout(&null)?)
}

/// What the connections share.
struct Shared {
    settings: Settings,
    domain: Name,
    own: Vec<IpAddr>,
    live: RwLock<Live>,
    swapped: Notify,
    end: Notify,
}

struct Live {
    zone: Arc<RwLock<Zone>>,
    /// The connection that told it, and may change it.
    feeder: u64,
}

/// Answers from the zone that feeders tell, until one of them ends it. Questions wait in the sockets until there is a zone, so
/// that nobody is told that a name does not exist only because we have just started.
///
/// # Errors
/// The domain is no name.
pub async fn serve(settings: Settings, sockets: Vec<Sockets>, listener: UnixListener) -> io::Result<()> {
    let domain = Name::from_ascii(&settings.domain).map_err(io::Error::other)?;
    let own: Vec<IpAddr> = settings.listen.iter().map(|address| address.ip()).collect();
    let zone = Arc::new(RwLock::new(Zone::new(&domain, own.clone())));
    let resolver = Resolver::new(zone.clone(), Forwarder::new(settings.upstream.as_bytes(), &own));
    let live = RwLock::new(Live { zone, feeder: 0 });
    let shared = Arc::new(Shared { settings, domain, own, live, swapped: Notify::new(), end: Notify::new() });
    let mut waiting = Some((resolver, sockets));
    let mut server = None;
    let mut feeders = JoinSet::new();
    let mut taken = 0;
    loop {
        tokio::select! {
            connection = listener.accept(), if feeders.len() < FEEDERS_MAX => match connection {
                Ok((connection, _)) => {
                    taken += 1;
                    feeders.spawn(attend(shared.clone(), connection, taken));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            },
            Some(_) = feeders.join_next() => {}
            () = shared.swapped.notified() => if let Some((resolver, sockets)) = waiting.take() {
                server = Some(server::serve(resolver, sockets));
            },
            () = shared.end.notified() => break,
        }
    }
    // First the addresses, then the connection on which our end is awaited.
    drop((server, waiting, listener));
    feeders.shutdown().await;
    Ok(())
}

async fn attend(shared: Arc<Shared>, mut connection: UnixStream, number: u64) {
    if let Err(error) = obey(&shared, &mut connection, number).await {
        tracing::warn!(%error, "a feeder was sent away");
    }
}

async fn obey(shared: &Shared, connection: &mut UnixStream, number: u64) -> io::Result<()> {
    if connection.peer_cred()?.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let patience = |_| io::Error::from(io::ErrorKind::TimedOut);
    tokio::time::timeout(SILENCE_MAX, say(connection, &Word::Hello(shared.settings.clone())))
        .await
        .map_err(patience)??;
    let mut fresh = Some(Zone::new(&shared.domain, shared.own.clone()));
    loop {
        let order = match fresh {
            Some(_) => tokio::time::timeout(SILENCE_MAX, hear(connection)).await.map_err(patience)??,
            None => hear(connection).await?,
        };
        match (order, &mut fresh) {
            (None, _) => return Ok(()),
            (Some(Order::Change(entries)), Some(zone)) => change(zone, entries)?,
            (Some(Order::Change(entries)), None) => shared.change(number, entries)?,
            (Some(Order::Swap), _) => {
                let zone = fresh.take().ok_or_else(|| io::Error::other("a second zone on one connection"))?;
                shared.swap(number, zone);
                say(connection, &Word::Serving).await?;
            }
            (Some(Order::End), _) => {
                shared.end.notify_one();
                // Closed with everything else: its end tells that we have ended.
                std::future::pending::<()>().await;
            }
        }
    }
}

fn change(zone: &mut Zone, entries: Vec<Entry>) -> io::Result<()> {
    for entry in entries {
        entry.apply(zone);
    }
    if zone.len() > ENTRIES_MAX {
        return Err(io::Error::other(format!("more than {ENTRIES_MAX} objects")));
    }
    Ok(())
}

impl Shared {
    fn swap(&self, number: u64, mut zone: Zone) {
        let mut live = self.live.write();
        live.feeder = number;
        let mut place = live.zone.write();
        zone.succeed(&place);
        let old = std::mem::replace(&mut *place, zone);
        drop(place);
        drop(old);
        self.swapped.notify_one();
    }

    fn change(&self, number: u64, entries: Vec<Entry>) -> io::Result<()> {
        let live = self.live.read();
        if live.feeder != number {
            return Err(io::Error::other("another feeder has taken over"));
        }
        change(&mut live.zone.write(), entries)
    }
}

#[cfg(test)]
mod tests;
