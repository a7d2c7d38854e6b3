//! What goes over a shim's socket: frames of a kind, a length and a payload.
//!
//! ```text
//! client: Request                        shim: Reply                        most calls; then the connection closes
//! client: Request::Events                shim: Reply::State, Reply::Exited...   for as long as the client listens
//! client: Request::Exec / Attach         shim: Reply::Done, then Output frames, Reply::ExitCode; client: Input, InputEnd, Resize
//! client: Request::Dial                  shim: Reply::Done, then bare bytes both ways
//! ```
//!
//! Both ends are the same program, though maybe of different versions: unknown fields are ignored, new ones need defaults.

use std::{io, path::PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::launch::{plan::ProcessPlan, status::RunsAs};

/// The longest frame taken, in bytes.
pub const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What Coracle asks.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// The present state and then every container's end.
    Events,
    /// Starts the container whose folder this is.
    Start {
        /// The container's folder, with its `plan.json`.
        folder: PathBuf,
    },
    /// Sends a signal to a container's first process.
    Signal {
        /// Which container.
        container: String,
        /// Its number.
        signal: i32,
    },
    /// Kills every process of a container.
    KillAll {
        /// Which container.
        container: String,
    },
    /// Runs a command in a container.
    Exec {
        /// Which container.
        container: String,
        /// What to run.
        process: Box<ProcessPlan>,
        /// Input is wanted.
        stdin: bool,
        /// The command is killed when this connection closes.
        kill_on_close: bool,
    },
    /// Joins a container's standard streams.
    Attach {
        /// Which container.
        container: String,
        /// Input is wanted.
        stdin: bool,
    },
    /// Opens a container's log anew, after it was renamed.
    Reopen {
        /// Which container.
        container: String,
    },
    /// Connects to a TCP port on the pod's loopback.
    Dial {
        /// The port.
        port: u16,
    },
    /// Drops what is known of a container that has ended.
    Forget {
        /// Which container.
        container: String,
    },
    /// Ends the shim and the process that holds shared process ids.
    Stop,
}

/// What the shim answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// It is done, or (for streams) it begins.
    Done,
    /// It could not be done.
    Failed(String),
    /// There is no such container, or it does not run.
    NotRunning,
    /// A container runs.
    Started(StartRecord),
    /// Everything the shim has.
    State(Vec<Report>),
    /// A container ended.
    Exited(Report),
    /// A command, or the container attached to, ended.
    ExitCode(i32),
}

/// A container as its shim knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Its id.
    pub container: String,
    /// How it started.
    pub started: StartRecord,
    /// How it ended.
    pub exited: Option<ExitRecord>,
}

/// A container's start, also `start.json` in its folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRecord {
    /// Its first process as the host numbers it.
    pub pid: i32,
    /// Nanoseconds since the epoch.
    pub at_ns: i64,
    /// Who it runs as.
    pub user: RunsAs,
}

/// A container's end, also `exit.json` in its folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Its id.
    pub container: String,
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// Nanoseconds since the epoch.
    pub at_ns: i64,
    /// The kernel killed one of its processes for want of memory.
    pub out_of_memory: bool,
}

/// A frame.
#[derive(Debug)]
pub enum Frame {
    /// A request or reply as JSON.
    Message(Bytes),
    /// For standard input.
    Input(Bytes),
    /// Standard input's end.
    InputEnd,
    /// From standard output.
    Stdout(Bytes),
    /// From standard error.
    Stderr(Bytes),
    /// Columns and rows.
    Resize(u16, u16),
}

const MESSAGE: u8 = 0;
const INPUT: u8 = 1;
const STDOUT: u8 = 2;
const STDERR: u8 = 3;
const INPUT_END: u8 = 4;
const RESIZE: u8 = 5;

fn malformed(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Reads one frame; `None` at the end.
pub async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Frame>> {
    let Some((kind, payload)) = base::frame::read(from, FRAME_BYTES_MAX).await? else { return Ok(None) };
    let length = payload.len();
    let payload = Bytes::from(payload);
    Ok(Some(match (kind, length) {
        (MESSAGE, _) => Frame::Message(payload),
        (INPUT, _) => Frame::Input(payload),
        (STDOUT, _) => Frame::Stdout(payload),
        (STDERR, _) => Frame::Stderr(payload),
        (INPUT_END, _) => Frame::InputEnd,
        (RESIZE, 4) => {
            Frame::Resize(u16::from_be_bytes([payload[0], payload[1]]), u16::from_be_bytes([payload[2], payload[3]]))
        }
        _ => return Err(malformed(format!("frame of kind {kind} and {length} bytes"))),
    }))
}

/// Writes one frame.
pub async fn write_frame(to: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    let size;
    let (kind, payload): (u8, &[u8]) = match frame {
        Frame::Message(bytes) => (MESSAGE, bytes),
        Frame::Input(bytes) => (INPUT, bytes),
        Frame::Stdout(bytes) => (STDOUT, bytes),
        Frame::Stderr(bytes) => (STDERR, bytes),
        Frame::InputEnd => (INPUT_END, &[]),
        Frame::Resize(width, height) => {
            size = [width.to_be_bytes(), height.to_be_bytes()].concat();
            (RESIZE, &size)
        }
    };
    base::frame::write(to, kind, payload).await
}

/// Writes a request or reply.
pub async fn write_message(to: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> io::Result<()> {
    write_frame(to, &Frame::Message(serde_json::to_vec(message)?.into())).await
}

/// Reads a request or reply; the end of the connection is an error.
pub async fn read_message<T: for<'a> Deserialize<'a>>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    match read_frame(from).await? {
        Some(Frame::Message(bytes)) => Ok(serde_json::from_slice(&bytes)?),
        Some(other) => Err(malformed(format!("{other:?} instead of a message"))),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn frames_come_out_as_they_went_in() {
        let (mut near, mut far) = tokio::io::duplex(64 * 1024);
        write_message(&mut near, &Request::Dial { port: 80 }).await.unwrap();
        write_frame(&mut near, &Frame::Resize(80, 24)).await.unwrap();
        write_frame(&mut near, &Frame::Stdout(Bytes::from_static(b"hi"))).await.unwrap();
        near.write_all(&[INPUT, 0xff, 0, 0, 0]).await.unwrap();
        drop(near);
        assert!(matches!(read_message(&mut far).await.unwrap(), Request::Dial { port: 80 }));
        assert!(matches!(read_frame(&mut far).await.unwrap(), Some(Frame::Resize(80, 24))));
        assert!(matches!(read_frame(&mut far).await.unwrap(), Some(Frame::Stdout(bytes)) if bytes == "hi"));
        assert!(read_frame(&mut far).await.unwrap_err().to_string().contains("4278190080 bytes"));
        assert!(read_frame(&mut far).await.unwrap().is_none());
    }
}
