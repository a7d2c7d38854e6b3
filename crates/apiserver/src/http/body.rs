//! Response bodies: nothing, shared slices, chunks that are made when they can be sent, or a stream.
//!
//! A list of thousands of objects is made a chunk at a time while it goes out, so it is never held whole.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http_body::{Frame, SizeHint};

/// Why a stream broke off; hyper then resets the connection so that the client notices.
pub type StreamError = Box<dyn std::error::Error + Send + Sync>;

/// A large body in the making. A chunk is made when there is room to send it.
pub type Chunks = Box<dyn Iterator<Item = Result<Bytes, StreamError>> + Send>;

pub enum Body {
    /// Slices in order, with their total length in bytes.
    Slices(VecDeque<Bytes>, u64),
    Chunks(Chunks),
    /// Sent as it comes.
    Stream(BoxStream<'static, Result<Bytes, StreamError>>),
}

impl Body {
    pub fn empty() -> Self {
        Body::Slices(VecDeque::new(), 0)
    }

    /// The length in bytes, when it is known before sending.
    pub fn known_length(&self) -> Option<u64> {
        match self {
            Body::Slices(_, length) => Some(*length),
            Body::Chunks(_) | Body::Stream(_) => None,
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Body::from(vec![bytes])
    }
}

impl From<Vec<Bytes>> for Body {
    fn from(slices: Vec<Bytes>) -> Self {
        let length = slices.iter().map(|slice| slice.len() as u64).sum();
        Body::Slices(slices.into(), length)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        match self.get_mut() {
            Body::Slices(slices, left) => {
                let next = slices.pop_front();
                if let Some(slice) = &next {
                    *left = left.saturating_sub(slice.len() as u64);
                }
                Poll::Ready(next.map(|slice| Ok(Frame::data(slice))))
            }
            Body::Chunks(chunks) => Poll::Ready(chunks.next().map(|chunk| chunk.map(Frame::data))),
            Body::Stream(stream) => stream.poll_next_unpin(cx).map(|next| next.map(|chunk| chunk.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Slices(slices, _) if slices.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        self.known_length().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
