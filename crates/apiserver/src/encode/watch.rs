//! Watch events as frames: a small prefix, the object's bytes, a small suffix, in one piece that all watchers share.
//!
//! JSON frames are lines; protobuf frames are preceded by their length in [`LENGTH_BYTES`], big end first.

use api::codec::wire::{put_bytes, put_head, varint_length};
use bytes::Bytes;

/// The length before a protobuf frame.
pub const LENGTH_BYTES: usize = 4;

/// The type of an event as the wire names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

impl EventType {
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Added => "ADDED",
            EventType::Modified => "MODIFIED",
            EventType::Deleted => "DELETED",
            EventType::Bookmark => "BOOKMARK",
            EventType::Error => "ERROR",
        }
    }

    fn json_prefix(self) -> &'static [u8] {
        match self {
            EventType::Added => br#"{"type":"ADDED","object":"#,
            EventType::Modified => br#"{"type":"MODIFIED","object":"#,
            EventType::Deleted => br#"{"type":"DELETED","object":"#,
            EventType::Bookmark => br#"{"type":"BOOKMARK","object":"#,
            EventType::Error => br#"{"type":"ERROR","object":"#,
        }
    }
}

/// A JSON frame around an object's JSON.
pub fn json(kind: EventType, object: &[u8]) -> Bytes {
    [kind.json_prefix(), object, b"}\n"].concat().into()
}

/// A protobuf frame around an object's envelope.
pub fn protobuf(kind: EventType, envelope: &[u8]) -> Bytes {
    // WatchEvent { 1: type, 2: RawExtension { 1: raw } }
    let raw = 1 + varint_length(envelope.len() as u64) + envelope.len() as u64;
    let name = kind.as_str();
    let total = 2 + name.len() as u64 + 1 + varint_length(raw) + raw;
    let mut frame = Vec::with_capacity(LENGTH_BYTES + total as usize);
    frame.extend_from_slice(&u32::try_from(total).unwrap_or(u32::MAX).to_be_bytes());
    put_bytes(&mut frame, 1, name.as_bytes());
    put_head(&mut frame, 2, raw);
    put_head(&mut frame, 1, envelope.len() as u64);
    frame.extend_from_slice(envelope);
    frame.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_lines_or_length_prefixed() {
        let line = json(EventType::Added, b"{}");
        assert_eq!(line, &b"{\"type\":\"ADDED\",\"object\":{}}\n"[..]);
        for length in [0usize, 10, 120, 130, 40_000] {
            let frame = protobuf(EventType::Modified, &vec![1; length]);
            let told = u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize;
            assert_eq!(told, frame.len() - 4, "{length}");
            assert_eq!(&frame[4..14], b"\x0a\x08MODIFIED");
        }
    }
}
