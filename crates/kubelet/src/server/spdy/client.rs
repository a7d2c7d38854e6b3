//! The other side of SPDY: all streams are opened at once, as an exec, attach or port-forward needs them.

use std::collections::HashMap;
use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufWriter, ReadHalf};
use tokio::sync::mpsc;

use super::frame::{self, Compressor, Frame, Reader};
use super::write_with;
use crate::server::streams::{INBOUND_MAX, OUTBOUND_MAX, Outgoing, Outlet};

/// A stream that we opened.
pub struct Opened {
    /// Ends when the other side is done sending.
    pub inbound: mpsc::Receiver<Bytes>,
    pub outlet: Outlet,
}

/// Opens a stream for each set of headers, in order. The future is the connection; it ends when the other side goes, or when all
/// outlets have been dropped and everything is sent.
pub fn open<S>(
    io: S,
    wanted: &[&[(&str, &str)]],
) -> io::Result<(Vec<Opened>, impl Future<Output = io::Result<()>> + Send + use<S>)>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut compressor = Compressor::new()?;
    let (outgoing, mut queue) = mpsc::channel(OUTBOUND_MAX);
    let (mut first, mut streams, mut senders) = (Vec::new(), Vec::new(), HashMap::new());
    // A client's streams have odd numbers.
    for (number, headers) in (1..).step_by(2).zip(wanted) {
        first.extend(frame::syn_stream(number, headers, &mut compressor)?);
        let (sender, inbound) = mpsc::channel(INBOUND_MAX);
        senders.insert(number, sender);
        streams.push(Opened { inbound, outlet: Outlet::new(number, outgoing.clone()) });
    }
    let (reader, writer) = tokio::io::split(io);
    // Pings are answered as long as there is something to send; the outlets alone hold the queue open.
    let pongs = outgoing.downgrade();
    drop(outgoing);
    let connection = async move {
        let writing = async move {
            let mut writer = BufWriter::new(writer);
            writer.write_all(&first).await?;
            writer.flush().await?;
            write_with(&mut writer, &mut queue, &mut compressor).await
        };
        tokio::select! {
            ended = read(Reader::new(reader), senders, pongs) => ended,
            written = writing => written,
        }
    };
    Ok((streams, connection))
}

async fn read<S: AsyncRead>(
    mut reader: Reader<ReadHalf<S>>,
    mut senders: HashMap<u32, mpsc::Sender<Bytes>>,
    pongs: mpsc::WeakSender<Outgoing>,
) -> io::Result<()> {
    loop {
        match reader.next().await? {
            None | Some(Frame::GoAway) => return Ok(()),
            Some(Frame::Data { stream, bytes, fin }) => {
                if let Some(sender) = senders.get(&stream)
                    && !bytes.is_empty()
                {
                    // Nobody reads any more: the other side may go on sending.
                    drop(sender.send(bytes).await);
                }
                if fin {
                    senders.remove(&stream);
                }
            }
            Some(Frame::Reset { stream }) => drop(senders.remove(&stream)),
            Some(Frame::Ping { id }) => {
                if let Some(queue) = pongs.upgrade() {
                    // The writer ends the connection itself when it cannot write.
                    drop(queue.send(Outgoing::Pong(id)).await);
                }
            }
            Some(Frame::SynStream { .. }) => return Err(io::Error::other("a server of streams opened one itself")),
            Some(Frame::Other) => {}
        }
    }
}
