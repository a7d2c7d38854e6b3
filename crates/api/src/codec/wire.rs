//! The protobuf wire: tags, varints and length-delimited payloads, read without copying and written in place.

/// Why bytes are not a protobuf message of the type they claim to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("unexpected EOF")]
    Truncated,
    #[error("proto: integer overflow")]
    Overflow,
    #[error("proto: illegal tag or wire type {0}")]
    WireType(u64),
    #[error("proto: wrong wireType for field {0}")]
    FieldType(String),
    #[error("proto: field {0} is not UTF-8")]
    NotText(String),
    #[error("proto: field {0} is not JSON")]
    NotJson(String),
    #[error("proto: nested deeper than {0} messages")]
    TooDeep(usize),
    #[error("proto: field {0} stands in several places")]
    Scattered(String),
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NotEnvelope,
    #[error("encoding {0} cannot be written: {1} is not a {2}")]
    Tree(String, String, &'static str),
}

/// One field's value as it stands on the wire.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// Reads fields one after another.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], at: usize) -> Self {
        Reader { bytes, at }
    }

    pub fn at(&self) -> usize {
        self.at
    }

    #[inline(always)]
    fn varint(&mut self) -> Result<u64, WireError> {
        // Nearly all tags, and most lengths.
        if let Some(byte) = self.bytes.get(self.at).filter(|byte| **byte < 0x80) {
            self.at += 1;
            return Ok(u64::from(*byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or(WireError::Truncated)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::Overflow)
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], WireError> {
        let count = usize::try_from(count).map_err(|_| WireError::Truncated)?;
        let end = self.at.checked_add(count).ok_or(WireError::Truncated)?;
        let taken = self.bytes.get(self.at..end).ok_or(WireError::Truncated)?;
        self.at = end;
        Ok(taken)
    }

    /// The next of numbers that stand without tags; none at the end.
    pub fn packed(&mut self) -> Result<Option<Payload<'a>>, WireError> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        self.varint().map(Payload::Varint).map(Some)
    }

    /// The next field's number and value; none at the end.
    // As a call, its result goes through memory in pieces that are read back as a whole, for which a processor has to wait.
    #[inline(always)]
    pub fn field(&mut self) -> Result<Option<(u32, Payload<'a>)>, WireError> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| WireError::WireType(tag))?;
        let payload = match tag & 7 {
            0 => Payload::Varint(self.varint()?),
            1 => Payload::Fixed64(u64::from_le_bytes(array(self.take(8)?))),
            2 => {
                let count = self.varint()?;
                Payload::Bytes(self.take(count)?)
            }
            5 => Payload::Fixed32(u32::from_le_bytes(array(self.take(4)?))),
            _ => return Err(WireError::WireType(tag)),
        };
        if number == 0 {
            return Err(WireError::WireType(tag));
        }
        Ok(Some((number, payload)))
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(bytes);
    out
}

/// The first payload of this number in a message; none when there is none.
pub fn find(bytes: &[u8], wanted: u32) -> Result<Option<Payload<'_>>, WireError> {
    let mut reader = Reader::new(bytes, 0);
    while let Some((number, payload)) = reader.field()? {
        if number == wanted {
            return Ok(Some(payload));
        }
    }
    Ok(None)
}

impl<'a> Payload<'a> {
    /// The payload of a length-delimited field; empty for any other.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Payload::Bytes(bytes) => bytes,
            _ => &[],
        }
    }

    /// The number of a varint field; 0 for any other.
    pub fn number(self) -> u64 {
        match self {
            Payload::Varint(number) => number,
            _ => 0,
        }
    }
}

pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn put_tag(out: &mut Vec<u8>, number: u32, wire_type: u8) {
    put_varint(out, u64::from(number) << 3 | u64::from(wire_type));
}

/// How many bytes [`put_varint`] writes.
pub fn varint_length(value: u64) -> u64 {
    u64::from((64 - (value | 1).leading_zeros()).div_ceil(7))
}

/// The tag and length of a length-delimited field whose content follows.
pub fn put_head(out: &mut Vec<u8>, number: u32, length: u64) {
    put_tag(out, number, 2);
    put_varint(out, length);
}

pub fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_head(out, number, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub fn put_int(out: &mut Vec<u8>, number: u32, value: i64) {
    put_tag(out, number, 0);
    put_varint(out, value as u64);
}

/// Writes a nested message whose length is not known before it is written.
pub fn put_message<E>(
    out: &mut Vec<u8>,
    number: u32,
    fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    put_tag(out, number, 2);
    let length_at = out.len();
    out.push(0);
    fill(out)?;
    let length = out.len() - length_at - 1;
    if let Some(place) = out.get_mut(length_at).filter(|_| length < 0x80) {
        *place = length as u8;
        return Ok(());
    }
    let mut prefix = Vec::with_capacity(5);
    put_varint(&mut prefix, length as u64);
    out.splice(length_at..=length_at, prefix);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varint_lengths_are_what_is_written() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len() as u64, varint_length(value), "{value}");
            assert_eq!(Reader::new(&out, 0).varint(), Ok(value));
        }
    }
}
