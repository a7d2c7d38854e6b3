//! The protobuf envelope: `k8s\0` and a message with the object's `apiVersion` and `kind` around the object's own message.

use super::wire::{Payload, Reader, WireError, put_bytes, put_head};

const MAGIC: &[u8] = b"k8s\0";

/// The parts of an envelope, borrowed from it.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    /// The object's message.
    pub raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let unknown = bytes.strip_prefix(MAGIC).ok_or(WireError::NotEnvelope)?;
        let mut envelope = Envelope { api_version: "", kind: "", raw: &[] };
        let mut reader = Reader::new(unknown, 0);
        while let Some((number, payload)) = reader.field()? {
            match (number, payload) {
                (1, Payload::Bytes(type_meta)) => envelope.read_type_meta(type_meta)?,
                (2, Payload::Bytes(raw)) => envelope.raw = raw,
                _ => {}
            }
        }
        Ok(envelope)
    }

    fn read_type_meta(&mut self, bytes: &'a [u8]) -> Result<(), WireError> {
        let mut reader = Reader::new(bytes, 0);
        while let Some((number, payload)) = reader.field()? {
            let text = std::str::from_utf8(payload.bytes()).map_err(|_| WireError::NotText("typeMeta".into()))?;
            match number {
                1 => self.api_version = text,
                2 => self.kind = text,
                _ => {}
            }
        }
        Ok(())
    }
}

/// What precedes `raw_length` bytes of message in an envelope; [`TAIL`] follows them.
pub fn head(api_version: &str, kind: &str, raw_length: u64) -> Vec<u8> {
    let mut type_meta = Vec::with_capacity(api_version.len() + kind.len() + 4);
    put_bytes(&mut type_meta, 1, api_version.as_bytes());
    put_bytes(&mut type_meta, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(type_meta.len() + 16);
    out.extend_from_slice(MAGIC);
    put_bytes(&mut out, 1, &type_meta);
    put_head(&mut out, 2, raw_length);
    out
}

/// The end of an envelope: no encoding, no content type.
pub const TAIL: &[u8] = &[0x1a, 0, 0x22, 0];

/// An envelope around a message.
pub fn write(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = head(api_version, kind, raw.len() as u64);
    out.reserve_exact(raw.len() + TAIL.len());
    out.extend_from_slice(raw);
    out.extend_from_slice(TAIL);
    out
}
