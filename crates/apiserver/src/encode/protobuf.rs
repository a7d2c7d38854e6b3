//! The little of protobuf's wire format that framing needs: varints, length-delimited fields, and the envelope.
//!
//! ```text
//! "k8s\0"  Unknown { 1: TypeMeta { 1: apiVersion, 2: kind }, 2: raw, 3: contentEncoding, 4: contentType }
//! ```

use bytes::Bytes;

const MAGIC: &[u8] = b"k8s\0";

/// Appends a varint.
pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes a varint takes.
pub fn varint_length(value: u64) -> u64 {
    u64::from((64 - (value | 1).leading_zeros()).div_ceil(7))
}

/// Appends the tag and length of a length-delimited field; its content follows.
pub fn field_head(out: &mut Vec<u8>, number: u32, length: u64) {
    varint(out, u64::from(number) << 3 | 2);
    varint(out, length);
}

/// Appends a text field.
pub fn text_field(out: &mut Vec<u8>, number: u32, text: &str) {
    field_head(out, number, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// What precedes `raw_length` bytes of message in an envelope.
pub fn envelope_head(api_version: &str, kind: &str, raw_length: u64) -> Vec<u8> {
    let mut type_meta = Vec::with_capacity(api_version.len() + kind.len() + 4);
    text_field(&mut type_meta, 1, api_version);
    text_field(&mut type_meta, 2, kind);
    let mut out = Vec::with_capacity(type_meta.len() + 16);
    out.extend_from_slice(MAGIC);
    field_head(&mut out, 1, type_meta.len() as u64);
    out.extend_from_slice(&type_meta);
    field_head(&mut out, 2, raw_length);
    out
}

/// What follows the message in an envelope: no encoding, no content type.
pub const ENVELOPE_TAIL: &[u8] = &[0x1a, 0, 0x22, 0];

/// The message inside an envelope, without copying it; none when the bytes are no envelope.
pub fn open_envelope(envelope: &Bytes) -> Option<Bytes> {
    if !envelope.starts_with(MAGIC) {
        return None;
    }
    let unknown = envelope.slice(MAGIC.len()..);
    // An empty message is left out by some writers.
    let (_, content) = find_field(&unknown, 2)?.unwrap_or_default();
    Some(unknown.slice(content))
}

/// The first occurrence of a length-delimited field, its tag and length included, without copying it.
pub fn field_slice(message: &Bytes, number: u64) -> Option<Bytes> {
    let (whole, _) = find_field(message, number)??;
    Some(message.slice(whole))
}

type FieldAt = (std::ops::Range<usize>, std::ops::Range<usize>);

/// Where a length-delimited field stands, with and without its head. The outer none means malformed bytes.
fn find_field(message: &[u8], number: u64) -> Option<Option<FieldAt>> {
    let mut at = 0;
    while at < message.len() {
        let (tag, after_tag) = read_varint(message, at)?;
        let (start, end) = match tag & 7 {
            0 => (after_tag, read_varint(message, after_tag)?.1),
            1 => (after_tag, after_tag.checked_add(8)?),
            2 => {
                let (length, start) = read_varint(message, after_tag)?;
                (start, start.checked_add(usize::try_from(length).ok()?)?)
            }
            5 => (after_tag, after_tag.checked_add(4)?),
            _ => return None,
        };
        if end > message.len() {
            return None;
        }
        if tag >> 3 == number && tag & 7 == 2 {
            return Some(Some((at..end, start..end)));
        }
        at = end;
    }
    Some(None)
}

fn read_varint(bytes: &[u8], mut at: usize) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(at)?;
        at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, at));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_opens_to_what_was_put_in() {
        for length in [0usize, 1, 127, 128, 20_000] {
            let mut envelope = envelope_head("apps/v1", "Deployment", length as u64);
            envelope.extend(vec![7; length]);
            envelope.extend_from_slice(ENVELOPE_TAIL);
            assert_eq!(open_envelope(&envelope.into()).unwrap().len(), length);
        }
        let message = Bytes::from_static(b"\x08\x96\x01\x0a\x02hi");
        assert_eq!(field_slice(&message, 1).unwrap(), &b"\x0a\x02hi"[..]);
        assert_eq!(field_slice(&message, 3), None);
        assert_eq!(open_envelope(&Bytes::from_static(b"{}")), None);
        assert_eq!(open_envelope(&Bytes::from_static(b"k8s\0\x12\x05a")), None);
    }

    #[test]
    fn varint_lengths_are_what_is_written() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::MAX] {
            let mut out = Vec::new();
            varint(&mut out, value);
            assert_eq!(out.len() as u64, varint_length(value), "{value}");
            assert_eq!(read_varint(&out, 0), Some((value, out.len())));
        }
    }
}
