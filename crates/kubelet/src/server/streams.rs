//! What WebSocket and SPDY have in common for those who serve them: numbered streams with bounded queues.

use bytes::Bytes;
use tokio::sync::mpsc;

/// Messages of one stream that may wait to be read.
pub const INBOUND_MAX: usize = 64;
/// Messages of one connection that may wait to be sent.
pub const OUTBOUND_MAX: usize = 64;
/// As much as is read from a process at a time.
pub const CHUNK_BYTES: usize = 16 * 1024;

/// Something on its way to the client.
#[derive(Debug)]
pub enum Outgoing {
    /// A stream of the client's is taken (SPDY).
    Accept(u32),
    Data(u32, Bytes),
    /// Nothing more will be sent on this stream.
    Close(u32),
    Pong(u32),
}

/// The sending side of one stream. Dropping it closes the stream.
pub struct Outlet {
    stream: u32,
    queue: mpsc::Sender<Outgoing>,
    open: bool,
}

impl Outlet {
    pub fn new(stream: u32, queue: mpsc::Sender<Outgoing>) -> Self {
        Outlet { stream, queue, open: true }
    }

    /// Sends, waiting for room. False when the client is gone.
    pub async fn send(&self, bytes: Bytes) -> bool {
        self.queue.send(Outgoing::Data(self.stream, bytes)).await.is_ok()
    }

    /// Closes the stream, waiting for room.
    pub async fn close(mut self) {
        self.open = false;
        // A client that is gone needs no close.
        drop(self.queue.send(Outgoing::Close(self.stream)).await);
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        let (stream, queue) = (self.stream, self.queue.clone());
        if let Err(mpsc::error::TrySendError::Full(close)) = queue.try_send(Outgoing::Close(stream))
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // The queue is full for now; the close must not be lost.
            runtime.spawn(async move { drop(queue.send(close).await) });
        }
    }
}

/// Sends all that is read, then closes the stream. An error is why there was no more to read.
pub async fn send_all(mut from: impl tokio::io::AsyncRead + Unpin, outlet: Outlet) -> std::io::Result<()> {
    use tokio::io::AsyncReadExt;
    let mut buffer = vec![0; CHUNK_BYTES];
    let ended = loop {
        match from.read(&mut buffer).await {
            Ok(0) => break Ok(()),
            Ok(read) => {
                if !outlet.send(Bytes::copy_from_slice(&buffer[..read])).await {
                    return Ok(());
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a stream broke off");
                break Err(error);
            }
        }
    };
    outlet.close().await;
    ended
}

/// Writes all that comes, then shuts the writer down.
pub async fn receive_all(mut inbound: mpsc::Receiver<Bytes>, mut to: impl tokio::io::AsyncWrite + Unpin) {
    use tokio::io::AsyncWriteExt;
    while let Some(bytes) = inbound.recv().await {
        let written = async {
            to.write_all(&bytes).await?;
            to.flush().await
        };
        if let Err(error) = written.await {
            return tracing::debug!(%error, "a stream is not read any more");
        }
    }
    // The other side may have closed first.
    drop(to.shutdown().await);
}
