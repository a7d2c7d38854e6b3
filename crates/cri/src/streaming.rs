//! Exec, attach and port-forward without an HTTP hop, for a runtime in the same process.
//!
//! A [`Session`] is the client's end of a process' stdio. Dropping it ends the session: an exec'd process loses its
//! standard input and its output is discarded; a container attached to runs on.

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

use crate::{
    error::Error,
    v1::{AttachRequest, ExecRequest},
};

/// How many terminal sizes may wait before a sender has to.
pub const RESIZE_QUEUE_MAX: usize = 16;

/// The size of a terminal in character cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// Something read.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// Something written.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// Both directions of a byte stream.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A running exec or attach. Streams that were not asked for are `None`; with a terminal there is no `stderr`.
pub struct Session {
    /// What is written here the process reads; shutting it down is end of file for it.
    pub stdin: Option<Writer>,
    /// Standard output, or the terminal.
    pub stdout: Option<Reader>,
    /// Standard error.
    pub stderr: Option<Reader>,
    /// Terminal sizes; `None` without a terminal.
    pub resize: Option<mpsc::Sender<TerminalSize>>,
    /// Resolves after all output has been delivered: the exit code (128 + signal for a killed process), for exec of the
    /// command and for attach of the container.
    pub exit: futures::future::BoxFuture<'static, Result<i32, Error>>,
}

/// A runtime's in-process byte streams.
#[async_trait]
pub trait Streaming: Send + Sync {
    /// Runs a command in a running container.
    async fn open_exec(&self, request: ExecRequest) -> Result<Session, Error>;

    /// Joins the stdio of a running container.
    async fn open_attach(&self, request: AttachRequest) -> Result<Session, Error>;

    /// Connects to a TCP port on the loopback of a sandbox's network namespace.
    async fn open_port_forward(&self, pod_sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>, Error>;
}
