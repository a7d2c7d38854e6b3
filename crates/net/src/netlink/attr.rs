//! Netlink attributes: a writer that nests by closure and an iterator over received bytes.
//!
//! An attribute is `u16 length, u16 kind, payload`, padded to four bytes; the length of a nested attribute is filled in when
//! its closure returns. Numbers in netfilter attributes are big-endian, which the method names say.

/// The flag that marks an attribute as containing attributes.
const NESTED: u16 = 0x8000;
const KIND_MASK: u16 = 0x3fff;
const HEADER_LEN: usize = 4;

/// Appends attributes to a message under construction.
#[derive(Debug, Default, Clone)]
pub struct Writer {
    buffer: Vec<u8>,
}

impl Writer {
    /// A writer with no bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// What has been written so far.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// How many bytes have been written.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Bytes as they are, without an attribute around them; the caller keeps the alignment.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Overwrites four bytes at `offset` in host order, for a length that is known only afterwards.
    pub fn patch_u32(&mut self, offset: usize, value: u32) {
        if let Some(place) = self.buffer.get_mut(offset..offset + 4) {
            place.copy_from_slice(&value.to_ne_bytes());
        }
    }

    /// One attribute with `payload`.
    pub fn bytes_attr(&mut self, kind: u16, payload: &[u8]) {
        let length = (HEADER_LEN + payload.len()) as u16;
        self.buffer.extend_from_slice(&length.to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(payload);
        self.pad();
    }

    /// A one-byte number.
    pub fn u8(&mut self, kind: u16, value: u8) {
        self.bytes_attr(kind, &[value]);
    }

    /// A big-endian `u32`.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.bytes_attr(kind, &value.to_be_bytes());
    }

    /// A big-endian `u64`.
    pub fn be64(&mut self, kind: u16, value: u64) {
        self.bytes_attr(kind, &value.to_be_bytes());
    }

    /// A NUL-terminated string.
    pub fn string(&mut self, kind: u16, value: &str) {
        let length = (HEADER_LEN + value.len() + 1) as u16;
        self.buffer.extend_from_slice(&length.to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(value.as_bytes());
        self.buffer.push(0);
        self.pad();
    }

    /// An attribute that contains what `fill` writes.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Writer)) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0, 0]);
        self.buffer.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        let length = (self.buffer.len() - start) as u16;
        self.buffer[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn pad(&mut self) {
        while !self.buffer.len().is_multiple_of(4) {
            self.buffer.push(0);
        }
    }
}

/// Iterates `(kind, payload)` over received attributes; stops at the first malformed one.
#[derive(Debug, Clone)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// The payload of the first attribute of this kind.
    pub fn find(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone().find_map(|(found, payload)| (found == kind).then_some(payload))
    }

    /// The attributes inside the first attribute of this kind; none when it is absent.
    pub fn inside(&self, kind: u16) -> Attributes<'a> {
        Attributes(self.find(kind).unwrap_or_default())
    }

    /// A NUL-terminated string.
    pub fn string(&self, kind: u16) -> Option<&'a str> {
        let payload = self.find(kind)?;
        std::str::from_utf8(payload.strip_suffix(&[0]).unwrap_or(payload)).ok()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(self.0.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(self.0.get(2..4)?.try_into().ok()?) & KIND_MASK;
        let payload = self.0.get(HEADER_LEN..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_was_written() {
        let mut writer = Writer::new();
        writer.string(1, "ab");
        writer.nest(2, |inner| {
            inner.be32(1, 7);
            inner.u8(2, 9);
        });
        assert_eq!(writer.len() % 4, 0);
        let attributes = Attributes(writer.bytes());
        assert_eq!(attributes.string(1), Some("ab"));
        assert_eq!(attributes.inside(2).find(1), Some(&[0, 0, 0, 7][..]));
        assert_eq!(attributes.inside(2).find(2), Some(&[9][..]));
        assert_eq!(attributes.find(3), None);
    }

    #[test]
    fn a_length_that_lies_ends_the_iteration() {
        assert_eq!(Attributes(&[200, 0, 1, 0, 1, 2]).count(), 0);
        assert_eq!(Attributes(&[2, 0, 1, 0, 1, 2, 3, 4]).count(), 0);
    }
}
