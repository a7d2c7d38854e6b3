//! Keeps a resolver process: finds the one that an earlier life of Coracle left, or starts one, and ends those that are not wanted.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::process::{ARGUMENT, READY};
use crate::wire::{Order, Settings, Word, hear, say};

/// How long a resolver may take to say who it is.
const HELLO_MAX: Duration = Duration::from_secs(2);
/// How long it may take to end before it is killed, and then again.
const END_MAX: Duration = Duration::from_secs(2);
/// The longest word it has for its failure, in bytes.
const MESSAGE_BYTES_MAX: u64 = 16 * 1024;
/// Passed on to the resolver, alone of all variables.
const LOG_VARIABLE: &str = "CORACLE_LOG";

/// Starts resolvers.
#[async_trait]
pub trait Starter: Send + Sync {
    /// Returns once it can be connected to.
    async fn start(&self, socket: &Path, settings: &Settings) -> io::Result<()>;
}

/// Starts this very program as a resolver.
pub struct Program {
    /// Where it writes what goes wrong; begun anew with every process.
    pub log: PathBuf,
}

/// Tells builds of this program apart, as far as one machine is concerned: which file it is.
pub fn build() -> io::Result<String> {
    let file = std::fs::metadata("/proc/self/exe")?;
    Ok(format!("{:x}-{:x}-{}-{}.{}", file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
}

#[async_trait]
impl Starter for Program {
    async fn start(&self, socket: &Path, settings: &Settings) -> io::Result<()> {
        let log = std::fs::File::create(&self.log)?;
        // The link is followed in the child, so it is this program even after an upgrade in place.
        let mut command = tokio::process::Command::new("/proc/self/exe");
        command.arg0("coracle-resolver").arg(ARGUMENT).arg(socket).env_clear();
        if let Some(filter) = std::env::var_os(LOG_VARIABLE) {
            command.env(LOG_VARIABLE, filter);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        if let Some(mut input) = input {
            input.write_all(&serde_json::to_vec(settings)?).await?;
        }
        let mut said = String::new();
        if let Some(output) = output {
            output.take(MESSAGE_BYTES_MAX).read_to_string(&mut said).await?;
        }
        if said.trim() == READY {
            return Ok(());
        }
        child.wait().await?;
        Err(io::Error::other(if said.is_empty() {
            "it ended without a word".to_owned()
        } else {
            said.trim().to_owned()
        }))
    }
}

/// A connection to a resolver with these settings: one that runs already, or a new one.
///
/// # Errors
/// None could be started, or it is not what was asked for.
pub async fn connect(socket: &Path, settings: &Settings, starter: &dyn Starter) -> io::Result<UnixStream> {
    match UnixStream::connect(socket).await {
        Ok(mut connection) => match hello(&mut connection).await {
            Ok(found) if found == *settings => return Ok(connection),
            found => {
                tracing::info!(?found, "a resolver of another build or with other settings is replaced");
                end_at(connection).await?;
            }
        },
        Err(error) if absent(&error) => {}
        Err(error) => return Err(error),
    }
    starter.start(socket, settings).await?;
    let mut connection = UnixStream::connect(socket).await?;
    let found = hello(&mut connection).await?;
    if found == *settings { Ok(connection) } else { Err(io::Error::other(format!("it has settings {found:?}"))) }
}

/// Ends the resolver at `socket`, if there is one, and removes the socket.
///
/// # Errors
/// It neither ends nor can be killed.
pub async fn end(socket: &Path) -> io::Result<()> {
    match UnixStream::connect(socket).await {
        Ok(connection) => end_at(connection).await?,
        Err(error) if absent(&error) => {}
        Err(error) => return Err(error),
    }
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

async fn hello(connection: &mut UnixStream) -> io::Result<Settings> {
    match tokio::time::timeout(HELLO_MAX, hear(connection)).await {
        Ok(Ok(Some(Word::Hello(settings)))) => Ok(settings),
        Ok(Ok(other)) => Err(io::Error::other(format!("it says {other:?} first"))),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "it says nothing")),
    }
}

/// Returns once the process has ended: the connection is the last thing that it lets go of.
async fn end_at(mut connection: UnixStream) -> io::Result<()> {
    let number = connection.peer_cred()?.pid().and_then(Pid::from_raw);
    let ending = async {
        say(&mut connection, &Order::End).await?;
        gone(&mut connection).await;
        Ok::<(), io::Error>(())
    };
    if let Ok(Ok(())) = tokio::time::timeout(END_MAX, ending).await {
        return Ok(());
    }
    // As long as the connection is open the number is still that process'.
    if let Some(number) = number
        && let Ok(process) = pidfd_open(number, PidfdFlags::empty())
    {
        pidfd_send_signal(&process, Signal::KILL)?;
    }
    let killed = tokio::time::timeout(END_MAX, gone(&mut connection)).await;
    killed.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the resolver does not end"))
}

async fn gone(connection: &mut UnixStream) {
    let mut scrap = [0; 512];
    while connection.read(&mut scrap).await.is_ok_and(|count| count > 0) {}
}
