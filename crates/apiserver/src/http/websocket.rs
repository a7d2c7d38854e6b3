//! Streams that a client takes over WebSocket, because browsers read no HTTP answer piece by piece: logs and watches. The client's
//! side of these is silent.
//!
//! ```text
//! request ─► handshake, protocol ─► 101 ─► task: messages one way until they, the client or the server end
//!                             └───► refused: plain text, as upstream's handshake refuses
//! ```

use base::Tasks;
use base64::Engine;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http::StatusCode;
use hyper_util::rt::TokioIo;
use websocket::{Handshake, Message, Refused};

use super::body::StreamError;
use super::{Body, Received, Response, text};

/// The protocol by which browsers, which cannot set headers, send a token. It is for authentication and never spoken.
pub const BEARER_PROTOCOL_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";
/// The protocols of plain bytes; without one it is the first.
pub const BYTES_PROTOCOLS: [&str; 2] = ["binary.k8s.io", BASE64_PROTOCOL];
const BASE64_PROTOCOL: &str = "base64.binary.k8s.io";
/// The longest message of plain bytes.
const PIECE_BYTES_MAX: usize = 16 * 1024;

/// Sends bytes as they come.
pub fn serve_bytes(
    received: &mut Received,
    tasks: &Tasks,
    bytes: BoxStream<'static, Result<Bytes, StreamError>>,
) -> Response {
    let agreed = read(received).and_then(|handshake| {
        let protocol = handshake.choose(&BYTES_PROTOCOLS)?;
        Ok((handshake, protocol))
    });
    match agreed {
        Ok((handshake, protocol)) => {
            let messages = pieces(bytes, protocol == Some(BASE64_PROTOCOL));
            open(received, tasks, &handshake, protocol, messages)
        }
        Err(refused) => refusal(&refused),
    }
}

/// Sends the events of a watch. The client may call the protocol what it likes, but only one name can be the answer; and it has
/// to say on behalf of which page it asks.
pub fn serve_events(received: &mut Received, tasks: &Tasks, events: BoxStream<'static, Message>) -> Response {
    let handshake = match read(received) {
        Ok(handshake) => handshake,
        Err(refused) => return refusal(&refused),
    };
    if !received.header("origin").contains("://") {
        return text(StatusCode::FORBIDDEN, "null origin");
    }
    match handshake.offered.as_slice() {
        [] => open(received, tasks, &handshake, None, events),
        [one] => open(received, tasks, &handshake, Some(one), events),
        _ => text(StatusCode::BAD_REQUEST, "bad protocol"),
    }
}

fn read(received: &Received) -> Result<Handshake, Refused> {
    let mut handshake = Handshake::read(received.headers())?;
    handshake.offered.retain(|protocol| !protocol.starts_with(BEARER_PROTOCOL_PREFIX));
    Ok(handshake)
}

fn refusal(refused: &Refused) -> Response {
    let code = match refused {
        Refused::NoKey | Refused::Version => StatusCode::BAD_REQUEST,
        Refused::Protocol { .. } => StatusCode::FORBIDDEN,
    };
    text(code, refused.to_string())
}

fn open(
    received: &mut Received,
    tasks: &Tasks,
    handshake: &Handshake,
    protocol: Option<&str>,
    messages: BoxStream<'static, Message>,
) -> Response {
    let Some(upgrade) = received.parts.extensions.remove::<hyper::upgrade::OnUpgrade>() else {
        return text(StatusCode::BAD_REQUEST, "the connection cannot be upgraded");
    };
    tasks.spawn("websocket", async move {
        match upgrade.await {
            Ok(io) => {
                let ended = websocket::send_all(TokioIo::new(io), messages).await;
                tracing::debug!(?ended, "a WebSocket stream ended");
            }
            Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
        }
    });
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = handshake.headers(protocol);
    answer
}

/// Bytes as messages of bounded length, after an empty one by which the client sees that the stream is there.
fn pieces(bytes: BoxStream<'static, Result<Bytes, StreamError>>, base64: bool) -> BoxStream<'static, Message> {
    let message = move |piece: Bytes| match base64 {
        true => Message::text(base64::engine::general_purpose::STANDARD.encode(&piece)),
        false => Message::Binary(piece),
    };
    let whole = bytes.scan((), |(), chunk| {
        let chunk = chunk.inspect_err(|error| tracing::debug!(%error, "the source of a WebSocket stream broke off"));
        std::future::ready(chunk.ok())
    });
    let pieces = whole.flat_map(|mut rest| {
        stream::iter(std::iter::from_fn(move || {
            let piece = rest.split_to(rest.len().min(PIECE_BYTES_MAX));
            (!piece.is_empty()).then_some(piece)
        }))
    });
    stream::once(std::future::ready(Bytes::new())).chain(pieces).map(message).boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sent(chunks: Vec<Result<Bytes, StreamError>>, base64: bool) -> Vec<Message> {
        pieces(stream::iter(chunks).boxed(), base64).collect().await
    }

    #[tokio::test]
    async fn bytes_follow_an_empty_message_in_bounded_pieces_until_they_break_off() {
        let long = Bytes::from(vec![7; PIECE_BYTES_MAX + 1]);
        let chunks = vec![Ok(long), Ok(Bytes::new()), Ok("hi".into()), Err("broken".into()), Ok("late".into())];
        let lengths: Vec<usize> = sent(chunks, false).await.iter().map(Message::len).collect();
        assert_eq!(lengths, [0, PIECE_BYTES_MAX, 1, 2]);
        assert_eq!(sent(vec![Ok("hi".into())], true).await, [Message::text(""), Message::text("aGk=")]);
        assert_eq!(sent(vec![Ok("hi".into())], false).await[1], Message::binary("hi"));
    }
}
