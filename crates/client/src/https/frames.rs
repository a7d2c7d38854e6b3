//! A watch's body, cut into events as it arrives: lines of JSON, or protobuf messages with their lengths before them.

use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, stream};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use meta::{Media, Reason, Status};

use super::{EVENT_BYTES_MAX, answer, envelope};
use crate::door::WatchEvent;

/// The length before a protobuf frame, big end first.
const LENGTH_BYTES: usize = 4;

/// The events of a body. Ends after the first error.
pub fn events(body: Incoming, media: Media) -> impl Stream<Item = WatchEvent> + Send {
    let state = Some((body, Cutter { media, buffer: BytesMut::new(), searched: 0 }));
    stream::unfold(state, |state| async move {
        let (mut body, mut cutter) = state?;
        match next(&mut body, &mut cutter).await? {
            Ok(event) => Some((event, Some((body, cutter)))),
            Err(status) => Some((WatchEvent::Error(status), None)),
        }
    })
}

async fn next(body: &mut Incoming, cutter: &mut Cutter) -> Option<Result<WatchEvent, Status>> {
    loop {
        match cutter.cut() {
            Ok(Some(frame)) => return Some(cutter.read(&frame)),
            Ok(None) => {}
            Err(status) => return Some(Err(status)),
        }
        match body.frame().await? {
            Ok(frame) => {
                if let Ok(data) = frame.into_data() {
                    cutter.buffer.extend_from_slice(&data);
                }
            }
            Err(error) => {
                let why = format!("the watch broke off: {error}");
                return Some(Err(Status::new(Reason::ServiceUnavailable, why)));
            }
        }
    }
}

/// What has arrived and is not a whole event yet.
struct Cutter {
    media: Media,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no newline.
    searched: usize,
}

impl Cutter {
    /// The next event's bytes, once all of them are there.
    fn cut(&mut self) -> Result<Option<Bytes>, Status> {
        let whole = match self.media {
            Media::Json => self.line(),
            Media::Protobuf => self.message(),
        };
        match whole {
            Some(length) if length <= EVENT_BYTES_MAX => {
                self.searched = 0;
                Ok(Some(self.buffer.split_to(length).freeze()))
            }
            None if self.buffer.len() <= EVENT_BYTES_MAX => Ok(None),
            _ => Err(Status::too_large("a watch event is too large")),
        }
    }

    fn line(&mut self) -> Option<usize> {
        let end = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        let line = end.map(|at| self.searched + at + 1);
        self.searched = self.buffer.len();
        line
    }

    /// Length and message together. A length that is too long is told at once, before all of it has come.
    fn message(&self) -> Option<usize> {
        let length = u32::from_be_bytes(self.buffer.get(..LENGTH_BYTES)?.try_into().ok()?);
        let whole = LENGTH_BYTES + usize::try_from(length).ok()?;
        (whole <= self.buffer.len() || whole > EVENT_BYTES_MAX).then_some(whole)
    }

    fn read(&self, frame: &Bytes) -> Result<WatchEvent, Status> {
        match self.media {
            Media::Json => answer::event(frame),
            Media::Protobuf => {
                let mut message = frame.clone();
                message.advance(LENGTH_BYTES);
                envelope::event(&message)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(media: Media, pieces: &[&[u8]]) -> Vec<Bytes> {
        let mut cutter = Cutter { media, buffer: BytesMut::new(), searched: 0 };
        let mut found = Vec::new();
        for piece in pieces {
            cutter.buffer.extend_from_slice(piece);
            while let Some(frame) = cutter.cut().unwrap() {
                found.push(frame);
            }
        }
        found
    }

    #[test]
    fn events_are_whole_however_they_arrive() {
        assert_eq!(cut(Media::Json, &[b"{", b"}\n{}", b"\n{}\n"]), [&b"{}\n"[..], b"{}\n", b"{}\n"]);
        let lengths: &[&[u8]] = &[b"\0", b"\0\0\x02a", b"b\0\0\0\0\0\0\0", b"\x01c\0"];
        assert_eq!(cut(Media::Protobuf, lengths), [&b"\0\0\0\x02ab"[..], b"\0\0\0\0", b"\0\0\0\x01c"]);
    }

    #[test]
    fn a_length_out_of_bounds_is_refused_before_the_bytes_have_come() {
        let mut cutter = Cutter { media: Media::Protobuf, buffer: BytesMut::from(&b"\xff\0\0\0"[..]), searched: 0 };
        assert!(cutter.cut().is_err());
    }
}
