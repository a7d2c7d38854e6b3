//! The serving side of WebSocket, for the API server and the node agent: the handshake, the connection with its limits, and
//! streams that go one way.
//!
//! ```text
//! request ─▶ Handshake::read ─▶ choose (protocol) ─▶ 101 with Handshake::headers ─▶ serve(io) ─▶ WebSocketStream
//!                                                                                 └▶ send_all(io, messages)
//! ```
//!
//! Frames are the library's. What a protocol's messages mean is its server's affair: channels of exec are the node agent's, logs
//! and watches the API server's.

mod handshake;
mod one_way;

pub use handshake::{Handshake, Refused};
pub use one_way::{Ended, WRITE_MAX, send_all};
pub use tokio_tungstenite::WebSocketStream;
pub use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
pub use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
pub use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// The longest message taken from a client, in bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Speaks WebSocket on a connection that has been upgraded. Pings are answered while it is read.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(io: S) -> WebSocketStream<S> {
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// The message of an end that is none of an error. Clients take an end without it for a break.
pub fn normal_close() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::from_static("") }))
}
