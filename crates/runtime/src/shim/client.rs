//! Coracle's end of a shim's socket.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use tokio::net::UnixStream;

use super::protocol::{Reply, Request, read_message, write_message};

/// Reaches the shim of one sandbox. Every call is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    folder: PathBuf,
}

/// Why a call to a shim failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The shim cannot be reached: it has ended, or was never there.
    #[error("shim: {0}")]
    Gone(#[from] io::Error),
    /// The container is not there or does not run.
    #[error("container is not running")]
    NotRunning,
    /// The shim could not do it.
    #[error("{0}")]
    Failed(String),
}

impl Client {
    /// For the sandbox in `folder`.
    pub fn new(folder: &Path) -> Self {
        Client { folder: folder.to_owned() }
    }

    async fn connect(&self) -> io::Result<UnixStream> {
        // A socket's path may have 107 bytes, a data folder's may be longer: go through a descriptor.
        let folder = File::open(&self.folder)?;
        UnixStream::connect(format!("/proc/self/fd/{}/{}", folder.as_raw_fd(), super::SOCKET)).await
    }

    /// One request, one answer.
    pub async fn call(&self, request: &Request) -> Result<Reply, Error> {
        self.open(request).await.map(|(reply, _)| reply)
    }

    /// One request whose answer begins a stream.
    pub async fn open(&self, request: &Request) -> Result<(Reply, UnixStream), Error> {
        let mut connection = self.connect().await?;
        write_message(&mut connection, request).await?;
        match read_message(&mut connection).await? {
            Reply::Failed(why) => Err(Error::Failed(why)),
            Reply::NotRunning => Err(Error::NotRunning),
            reply => Ok((reply, connection)),
        }
    }
}
