//! gRPC's framing over hyper's HTTP/2, for client and front: five bytes of prefix, a message, a status in the trailers.
//!
//! A library would do as well. This is a fraction of its cost per call, and what is measured here is servers.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::{Result, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message;
use tokio::sync::mpsc;

pub const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
/// One byte that says whether the message is compressed, four of its length.
const PREFIX_BYTES: usize = 5;
/// Longest message: a range of everything that is loaded here, twice.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A message as it is sent.
pub fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + length);
    frame.put_u8(0);
    // far below 4 GiB: a message is at most MESSAGE_BYTES_MAX
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut frame);
    frame.freeze()
}

/// What is sent: messages, then trailers when there are any.
pub struct Outgoing {
    messages: Messages,
    trailers: Option<HeaderMap>,
}

enum Messages {
    One(Option<Bytes>),
    Many(mpsc::Receiver<Bytes>),
}

impl Outgoing {
    /// One framed message.
    pub fn one(frame: Bytes) -> Self {
        Self { messages: Messages::One(Some(frame)), trailers: None }
    }

    /// Framed messages as they come.
    pub fn many(frames: mpsc::Receiver<Bytes>) -> Self {
        Self { messages: Messages::Many(frames), trailers: None }
    }

    /// Nothing but a status.
    pub fn none() -> Self {
        Self { messages: Messages::One(None), trailers: None }
    }

    /// Ends with a gRPC status.
    pub fn with_status(mut self, code: HeaderValue) -> Self {
        self.trailers = Some(HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), code)]));
        self
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let message = match &mut self.messages {
            Messages::One(message) => message.take(),
            Messages::Many(messages) => match messages.poll_recv(cx) {
                Poll::Ready(message) => message,
                Poll::Pending => return Poll::Pending,
            },
        };
        let frame = message.map(Frame::data).or_else(|| self.trailers.take().map(Frame::trailers));
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.messages, Messages::One(None)) && self.trailers.is_none()
    }
}

/// Messages that arrive.
pub struct Reader {
    body: Incoming,
    buffered: BytesMut,
}

impl Reader {
    pub fn new(body: Incoming) -> Self {
        Self { body, buffered: BytesMut::new() }
    }

    /// The next message; none at the end. A status other than success is an error.
    pub async fn next<M: Message + Default>(&mut self) -> Result<Option<M>> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(M::decode(message)?));
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            match frame?.into_data() {
                Ok(data) => self.buffered.extend_from_slice(&data),
                Err(frame) => check_status(frame.trailers_ref())?,
            }
        }
    }

    /// A whole message out of what has arrived.
    fn take(&mut self) -> Result<Option<Bytes>> {
        let Some(prefix) = self.buffered.get(..PREFIX_BYTES) else { return Ok(None) };
        ensure!(prefix[0] == 0, "a compressed message, which nobody asked for");
        let length = (&prefix[1..]).get_u32() as usize;
        ensure!(length <= MESSAGE_BYTES_MAX, "a message of {length} bytes");
        if self.buffered.len() < PREFIX_BYTES + length {
            self.buffered.reserve(PREFIX_BYTES + length - self.buffered.len());
            return Ok(None);
        }
        self.buffered.advance(PREFIX_BYTES);
        Ok(Some(self.buffered.split_to(length).freeze()))
    }
}

/// Headers or trailers that carry a status other than success are an error.
pub fn check_status(headers: Option<&HeaderMap>) -> Result<()> {
    let text = |name| headers.and_then(|headers| headers.get(name)).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        None | Some("0") => Ok(()),
        Some(code) => bail!("gRPC status {code}: {}", text("grpc-message").unwrap_or_default()),
    }
}
