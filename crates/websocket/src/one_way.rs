//! Streams that only the server sends on: what the client says is read and forgotten, but for pings and its close.
//!
//! One message is on its way at a time, and the next is asked for when the connection has taken it: a client that reads slowly
//! slows the source down, one that takes nothing for [`WRITE_MAX`] is given up.

use std::pin::pin;
use std::time::Duration;

use futures::{Sink, SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::{Error, Message, normal_close, serve};

/// How long a client may take to read one message.
pub const WRITE_MAX: Duration = Duration::from_secs(60);
/// How long a client may take to answer our close.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// How a stream came to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// All was sent, and the connection closed in order.
    All,
    /// The client closed or is gone.
    ClientGone,
    /// The client has not taken a message in time.
    ClientSlow,
}

/// Sends messages on a connection that has been upgraded until they or the client end.
pub async fn send_all<S>(io: S, messages: impl Stream<Item = Message>) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut said) = serve(io).await.split();
    let ended = {
        let (listening, sending) = (pin!(forget(&mut said)), pin!(send(&mut sink, messages)));
        tokio::select! {
            () = listening => Ended::ClientGone,
            ended = sending => ended,
        }
    };
    if ended == Ended::All {
        // Closing before the client has is an end with unread bytes, and could take our last ones along.
        let closing = timeout(CLOSE_MAX, async {
            if sink.send(normal_close()).await.is_ok() {
                forget(&mut said).await;
            }
        });
        // A client that does not close has had everything all the same.
        closing.await.ok();
    }
    ended
}

/// Reads to the end; reading is what answers pings and closes.
async fn forget(said: &mut (impl Stream<Item = Result<Message, Error>> + Unpin)) {
    while let Some(Ok(_)) = said.next().await {}
}

async fn send(sink: &mut (impl Sink<Message, Error = Error> + Unpin), messages: impl Stream<Item = Message>) -> Ended {
    let mut messages = pin!(messages);
    while let Some(message) = messages.next().await {
        match timeout(WRITE_MAX, sink.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Ended::ClientGone,
            Err(_) => return Ended::ClientSlow,
        }
    }
    Ended::All
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CloseCode, Role, WebSocketStream};
    use futures::stream;
    use tokio::io::DuplexStream;

    async fn client(io: DuplexStream) -> WebSocketStream<DuplexStream> {
        WebSocketStream::from_raw_socket(io, Role::Client, None).await
    }

    #[tokio::test]
    async fn all_messages_come_and_then_a_normal_close() {
        let (near, far) = tokio::io::duplex(1 << 10);
        let messages = stream::iter((0..1000).map(|n| Message::text(n.to_string())));
        let serving = tokio::spawn(send_all(far, messages));
        let mut client = client(near).await;
        for n in 0..1000 {
            assert_eq!(client.next().await.unwrap().unwrap(), Message::text(n.to_string()));
        }
        let Some(Ok(Message::Close(Some(end)))) = client.next().await else { panic!("a close") };
        assert_eq!(end.code, CloseCode::Normal);
        assert!(client.next().await.is_none());
        assert_eq!(serving.await.unwrap(), Ended::All);
    }

    #[tokio::test]
    async fn pings_are_answered_while_there_is_nothing_to_send_and_a_close_ends_the_source() {
        let (near, far) = tokio::io::duplex(1 << 10);
        let (source, held) = tokio::sync::oneshot::channel::<()>();
        let messages = stream::once(async move {
            drop(held.await);
            Message::text("never")
        });
        let serving = tokio::spawn(send_all(far, messages));
        let mut client = client(near).await;
        client.send(Message::text("ignored")).await.unwrap();
        client.send(Message::Ping(vec![1, 2].into())).await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), Message::Pong(vec![1, 2].into()));
        client.send(normal_close()).await.unwrap();
        assert!(matches!(client.next().await, Some(Ok(Message::Close(_)))));
        assert_eq!(serving.await.unwrap(), Ended::ClientGone);
        assert!(source.is_closed(), "the source lives on");
    }

    #[tokio::test]
    async fn a_connection_that_breaks_ends_the_stream() {
        let (near, far) = tokio::io::duplex(1 << 10);
        let serving = tokio::spawn(send_all(far, stream::pending()));
        drop(near);
        assert_eq!(serving.await.unwrap(), Ended::ClientGone);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up_and_the_source_is_not_read_ahead() {
        let (_near, far) = tokio::io::duplex(1 << 10);
        let (mut asked, began) = (0, tokio::time::Instant::now());
        let messages = stream::repeat_with(|| {
            asked += 1;
            Message::binary(vec![0; 700])
        });
        assert_eq!(send_all(far, messages).await, Ended::ClientSlow);
        assert_eq!((asked, began.elapsed()), (2, WRITE_MAX));
    }
}
