//! SPDY/3.1 as Kubernetes' clients speak it for exec, attach and port-forward: streams over one connection.
//!
//! ```text
//! client ── SYN_STREAM(headers) ─▶ accepted stream ── data ─▶ its reader
//!        ◀─ SYN_REPLY, data, FIN ─ Outlet (bounded queue, one writer task)
//! ```
//!
//! Only what those clients use: the server never opens streams ([`client`] is the other side, as runtimes serve it). Their library neither sends nor heeds WINDOW_UPDATE, so there is no
//! flow control beyond the bounded queues here and TCP below: a stream that is not read holds up its connection.

pub mod client;
pub mod dictionary;
pub mod frame;

use std::collections::HashMap;
use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufWriter, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::streams::{INBOUND_MAX, OUTBOUND_MAX, Outgoing, Outlet};
use frame::{Compressor, Frame, Headers, Reader};

/// Streams that one connection may have open.
const STREAMS_MAX: usize = 256;

/// A stream the client opened.
pub struct Accepted {
    pub headers: Headers,
    /// Ends when the client is done sending.
    pub inbound: mpsc::Receiver<Bytes>,
    pub outlet: Outlet,
}

impl Accepted {
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    }
}

/// Serves one connection: streams come out of the receiver until the client goes. The future is the connection; it ends when
/// the client goes, or when the receiver and all outlets have been dropped and everything is sent.
pub fn serve<S>(io: S) -> (mpsc::Receiver<Accepted>, impl Future<Output = io::Result<()>> + Send)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (accepted, streams) = mpsc::channel(STREAMS_MAX);
    let (reader, writer) = tokio::io::split(io);
    let (outgoing, queue) = mpsc::channel(OUTBOUND_MAX);
    let connection = async move {
        let reading = read(Reader::new(reader), accepted, outgoing);
        let writing = write(BufWriter::new(writer), queue);
        tokio::pin!(reading, writing);
        tokio::select! {
            ended = &mut reading => ended,
            written = &mut writing => written,
        }
    };
    (streams, connection)
}

async fn read<S: AsyncRead>(
    mut reader: Reader<ReadHalf<S>>,
    accepted: mpsc::Sender<Accepted>,
    outgoing: mpsc::Sender<Outgoing>,
) -> io::Result<()> {
    let mut inbound: HashMap<u32, mpsc::Sender<Bytes>> = HashMap::new();
    // The queue is held open for streams to come as long as somebody takes them; after that by the outlets alone.
    let queue = outgoing.downgrade();
    let mut held = Some(outgoing);
    loop {
        let frame = {
            let mut next = std::pin::pin!(reader.next());
            loop {
                tokio::select! {
                    frame = &mut next => break frame?,
                    () = accepted.closed(), if held.is_some() => held = None,
                }
            }
        };
        match frame {
            None | Some(Frame::GoAway) => return Ok(()),
            Some(Frame::SynStream { stream, headers, fin }) => {
                if inbound.len() >= STREAMS_MAX {
                    return Err(io::Error::other("the client opened too many streams"));
                }
                // Nobody takes streams any more.
                let Some(queue) = held.as_ref() else { continue };
                let (sender, receiver) = mpsc::channel(INBOUND_MAX);
                if !fin {
                    inbound.insert(stream, sender);
                }
                let outlet = Outlet::new(stream, queue.clone());
                if queue.send(Outgoing::Accept(stream)).await.is_err() {
                    return Ok(());
                }
                // As above, if it happens just now.
                drop(accepted.send(Accepted { headers, inbound: receiver, outlet }).await);
            }
            Some(Frame::Data { stream, bytes, fin }) => {
                if let Some(sender) = inbound.get(&stream)
                    && !bytes.is_empty()
                {
                    // Nobody reads any more: the client may go on sending.
                    drop(sender.send(bytes).await);
                }
                if fin {
                    inbound.remove(&stream);
                }
            }
            Some(Frame::Reset { stream }) => drop(inbound.remove(&stream)),
            Some(Frame::Ping { id }) => {
                if let Some(queue) = queue.upgrade() {
                    // The writer ends the connection itself when it cannot write.
                    drop(queue.send(Outgoing::Pong(id)).await);
                }
            }
            Some(Frame::Other) => {}
        }
    }
}

async fn write<S: AsyncWrite>(
    mut writer: BufWriter<WriteHalf<S>>,
    mut queue: mpsc::Receiver<Outgoing>,
) -> io::Result<()> {
    let mut compressor = Compressor::new()?;
    write_with(&mut writer, &mut queue, &mut compressor).await
}

async fn write_with<S: AsyncWrite>(
    writer: &mut BufWriter<WriteHalf<S>>,
    queue: &mut mpsc::Receiver<Outgoing>,
    compressor: &mut Compressor,
) -> io::Result<()> {
    while let Some(first) = queue.recv().await {
        let mut next = Some(first);
        while let Some(outgoing) = next {
            let bytes = match &outgoing {
                Outgoing::Accept(stream) => frame::syn_reply(*stream, compressor)?,
                Outgoing::Data(stream, bytes) => {
                    writer.write_all(&frame::data_head(*stream, bytes.len(), false)).await?;
                    writer.write_all(bytes).await?;
                    Vec::new()
                }
                Outgoing::Close(stream) => frame::data_head(*stream, 0, true).to_vec(),
                Outgoing::Pong(id) => frame::ping(*id),
            };
            writer.write_all(&bytes).await?;
            next = queue.try_recv().ok();
        }
        writer.flush().await?;
    }
    writer.shutdown().await
}

#[cfg(test)]
mod tests;
