//! Looking into stored protobuf without copying it: the parts are slices of the shared bytes.

use api::codec::Envelope;
use api::codec::wire::{Payload, Reader};
use bytes::Bytes;

/// The message inside an envelope; none when the bytes are no envelope.
pub fn open_envelope(envelope: &Bytes) -> Option<Bytes> {
    let parsed = Envelope::parse(envelope).ok()?;
    Some(envelope.slice_ref(parsed.raw))
}

/// The first occurrence of a length-delimited field, its tag and length included.
pub fn field_slice(message: &Bytes, wanted: u32) -> Option<Bytes> {
    let mut reader = Reader::new(message, 0);
    loop {
        let start = reader.at();
        let (number, payload) = reader.field().ok()??;
        if number == wanted && matches!(payload, Payload::Bytes(_)) {
            return Some(message.slice(start..reader.at()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::codec::envelope;

    #[test]
    fn an_envelope_opens_to_what_was_put_in() {
        for length in [0usize, 1, 127, 128, 20_000] {
            let envelope = envelope::write("apps/v1", "Deployment", &vec![7; length]);
            assert_eq!(open_envelope(&envelope.into()).unwrap().len(), length);
        }
        let message = Bytes::from_static(b"\x08\x96\x01\x0a\x02hi");
        assert_eq!(field_slice(&message, 1).unwrap(), &b"\x0a\x02hi"[..]);
        assert_eq!(field_slice(&message, 3), None);
        assert_eq!(open_envelope(&Bytes::from_static(b"{}")), None);
        assert_eq!(open_envelope(&Bytes::from_static(b"k8s\0\x12\x05a")), None);
    }
}
