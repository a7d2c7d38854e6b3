//! WebSocket as Kubernetes' clients speak it: numbered channels for exec and attach, or a tunnel for SPDY.
//!
//! A message of a channel is the channel's number and the bytes (in the `base64.` protocols: its digit and their base64). Version 5
//! adds a message that closes a channel, so that standard input can end.

use std::io;
use std::pin::pin;

use base64::Engine;
use bytes::{Bytes, BytesMut};
use futures::{Sink, SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use websocket::{Error, Message, WebSocketStream, normal_close};

use super::streams::{CHUNK_BYTES, INBOUND_MAX, OUTBOUND_MAX, Outgoing, Outlet};

/// What the first byte of a version 5 message that closes a channel is.
const CLOSE: u8 = 255;
/// Channels of exec and attach.
pub const CHANNELS: usize = 5;

/// The protocols of exec and attach, as clients name them.
pub const EXEC_PROTOCOLS: [&str; 6] = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "v3.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
];
/// Port-forward with SPDY inside.
pub const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";

/// The channels of one connection.
pub struct Channels {
    pub inbound: [Option<mpsc::Receiver<Bytes>>; CHANNELS],
    pub outlets: [Option<Outlet>; CHANNELS],
}

/// Serves the channels; the future is the connection, which ends when the client goes or all outlets are closed.
pub fn serve<S>(socket: WebSocketStream<S>, base64: bool) -> (Channels, impl Future<Output = io::Result<()>> + Send)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (outgoing, queue) = mpsc::channel(OUTBOUND_MAX);
    let (mut senders, mut channels) =
        (Vec::new(), Channels { inbound: Default::default(), outlets: Default::default() });
    for channel in 0..CHANNELS {
        let (sender, receiver) = mpsc::channel(INBOUND_MAX);
        senders.push(Some(sender));
        channels.inbound[channel] = Some(receiver);
        channels.outlets[channel] = Some(Outlet::new(channel as u32, outgoing.clone()));
    }
    let (sink, stream) = socket.split();
    let connection = async move {
        let (reading, writing) = (pin!(read(stream, senders, base64)), pin!(write(sink, queue, base64)));
        tokio::select! {
            ended = reading => ended,
            written = writing => written,
        }
    };
    (channels, connection)
}

async fn read(
    mut stream: impl Stream<Item = Result<Message, Error>> + Unpin,
    mut senders: Vec<Option<mpsc::Sender<Bytes>>>,
    base64: bool,
) -> io::Result<()> {
    while let Some(message) = stream.next().await {
        let bytes = match message.map_err(io::Error::other)? {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
            Message::Close(_) => return Ok(()),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        let Some(first) = bytes.first().copied() else { continue };
        let rest = bytes.slice(1..);
        if first == CLOSE && !base64 {
            if let Some(sender) = rest.first().and_then(|channel| senders.get_mut(usize::from(*channel))) {
                *sender = None;
            }
            continue;
        }
        let (channel, data) = if base64 {
            let decoded = base64::engine::general_purpose::STANDARD.decode(&rest).map_err(io::Error::other)?;
            (usize::from(first.wrapping_sub(b'0')), Bytes::from(decoded))
        } else {
            (usize::from(first), rest)
        };
        if let Some(Some(sender)) = senders.get(channel)
            && !data.is_empty()
        {
            // A channel that nobody reads: the client may go on sending.
            drop(sender.send(data).await);
        }
    }
    Ok(())
}

async fn write(
    mut sink: impl Sink<Message, Error = Error> + Unpin,
    mut queue: mpsc::Receiver<Outgoing>,
    base64: bool,
) -> io::Result<()> {
    while let Some(outgoing) = queue.recv().await {
        let Outgoing::Data(channel, bytes) = outgoing else { continue };
        let channel = channel as u8;
        let message = if base64 {
            let text = base64::engine::general_purpose::STANDARD.encode(&bytes);
            Message::text(format!("{}{text}", char::from(b'0' + channel)))
        } else {
            let mut framed = BytesMut::with_capacity(bytes.len() + 1);
            framed.extend_from_slice(&[channel]);
            framed.extend_from_slice(&bytes);
            Message::Binary(framed.freeze())
        };
        sink.send(message).await.map_err(io::Error::other)?;
    }
    // Clients take an end without a status for a break.
    match sink.send(normal_close()).await {
        Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => Ok(()),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// The bytes inside the messages as one stream, and the future that moves them.
pub fn tunnel<S>(socket: WebSocketStream<S>) -> (DuplexStream, impl Future<Output = io::Result<()>> + Send)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (ours, theirs) = tokio::io::duplex(4 * CHUNK_BYTES);
    let pump = async move {
        let (mut sink, mut stream) = socket.split();
        let (mut reader, mut writer) = tokio::io::split(theirs);
        let inward = async {
            while let Some(message) = stream.next().await {
                match message.map_err(io::Error::other)? {
                    Message::Binary(bytes) => writer.write_all(&bytes).await?,
                    Message::Close(_) => break,
                    Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                }
            }
            writer.shutdown().await
        };
        let outward = async {
            let mut buffer = vec![0; CHUNK_BYTES];
            loop {
                let read = reader.read(&mut buffer).await?;
                if read == 0 {
                    break;
                }
                let message = Message::Binary(Bytes::copy_from_slice(&buffer[..read]));
                sink.send(message).await.map_err(io::Error::other)?;
            }
            // The client may have closed first.
            drop(sink.send(normal_close()).await);
            Ok(())
        };
        tokio::select! {
            ended = inward => ended,
            ended = outward => ended,
        }
    };
    (ours, pump)
}

#[cfg(test)]
mod tests {
    use super::*;
    use websocket::{CloseCode, Role};

    #[tokio::test]
    async fn channels_carry_bytes_and_version_5_closes_them() {
        let (client, server) = tokio::io::duplex(1 << 16);
        let (mut channels, connection) = serve(websocket::serve(server).await, false);
        let connection = tokio::spawn(connection);
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        client.send(Message::binary(vec![0, b'h', b'i'])).await.unwrap();
        client.send(Message::binary(vec![9, 1])).await.unwrap();
        client.send(Message::binary(vec![CLOSE, 0])).await.unwrap();
        let mut stdin = channels.inbound[0].take().unwrap();
        assert_eq!(stdin.recv().await.unwrap(), "hi");
        assert_eq!(stdin.recv().await, None);
        channels.outlets[1].take().unwrap().send(Bytes::from_static(b"out")).await;
        assert_eq!(client.next().await.unwrap().unwrap(), Message::binary(vec![1, b'o', b'u', b't']));
        drop(channels);
        let Some(Ok(Message::Close(Some(end)))) = client.next().await else { panic!("a close") };
        assert_eq!(end.code, CloseCode::Normal);
        connection.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn the_base64_protocol_is_text() {
        let (client, server) = tokio::io::duplex(1 << 16);
        let (mut channels, connection) = serve(websocket::serve(server).await, true);
        tokio::spawn(connection);
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        client.send(Message::text("0aGk=")).await.unwrap();
        assert_eq!(channels.inbound[0].take().unwrap().recv().await.unwrap(), "hi");
        channels.outlets[3].take().unwrap().send(Bytes::from_static(b"hi")).await;
        assert_eq!(client.next().await.unwrap().unwrap(), Message::text("3aGk="));
    }
}
