//! How every TCP connection of ours is set: small messages go at once, and a peer that is gone without a word is noticed.
//!
//! HTTP/2 asks its peers whether they live. A watch, a log that is followed or a session over HTTP/1.1 may be silent for hours:
//! without the kernel's questions the connection of a machine that lost its power would keep its place for as long.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Silence before the kernel asks, and between its questions. The figures of Go's network library, and so upstream's.
const QUESTION_EVERY: Duration = Duration::from_secs(15);
/// Questions without an answer that end the connection.
const QUESTIONS_MAX: u32 = 9;

/// Sets `stream`, one of either end. An error is the kernel's; a connection that could not be set still works.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let questions =
        TcpKeepalive::new().with_time(QUESTION_EVERY).with_interval(QUESTION_EVERY).with_retries(QUESTIONS_MAX);
    SockRef::from(stream).set_tcp_keepalive(&questions)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_silent_peer_is_asked_whether_it_lives() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        tune(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(stream.nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), QUESTION_EVERY);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), QUESTION_EVERY);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), QUESTIONS_MAX);
    }
}
