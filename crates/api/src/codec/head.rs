//! Who a protobuf message is about: the few fields of its metadata that those who only pass it on look at.

use super::wire::{Reader, WireError};

/// The field of every kind's message that holds its metadata.
pub(super) const METADATA: u32 = 1;
/// Fields of the metadata of objects.
const NAME: u32 = 1;
const NAMESPACE: u32 = 3;
pub(super) const RESOURCE_VERSION: u32 = 6;
const ANNOTATIONS: u32 = 12;

/// A part of an object's metadata, borrowed from its message. Empty where the message says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head<'a> {
    pub name: &'a str,
    pub namespace: &'a str,
    pub resource_version: &'a str,
    /// The metadata's message, for [`Head::annotation`].
    metadata: &'a [u8],
}

impl<'a> Head<'a> {
    /// Of an object's message, without the envelope.
    pub fn parse(message: &'a [u8]) -> Result<Self, WireError> {
        let metadata = super::wire::find(message, METADATA)?.map_or(&[][..], |payload| payload.bytes());
        let mut head = Head { metadata, ..Head::default() };
        let mut reader = Reader::new(metadata, 0);
        while let Some((number, payload)) = reader.field()? {
            let place = match number {
                NAME => &mut head.name,
                NAMESPACE => &mut head.namespace,
                RESOURCE_VERSION => &mut head.resource_version,
                _ => continue,
            };
            *place = text(payload.bytes())?;
        }
        Ok(head)
    }

    /// The value of an annotation; none when there is none.
    pub fn annotation(&self, wanted: &str) -> Result<Option<&'a str>, WireError> {
        let mut reader = Reader::new(self.metadata, 0);
        while let Some((number, payload)) = reader.field()? {
            let entry = payload.bytes();
            let part =
                |number| super::wire::find(entry, number).map(|found| found.map_or(&[][..], |part| part.bytes()));
            if number == ANNOTATIONS && part(1)? == wanted.as_bytes() {
                return text(part(2)?).map(Some);
            }
        }
        Ok(None)
    }
}

fn text(bytes: &[u8]) -> Result<&str, WireError> {
    std::str::from_utf8(bytes).map_err(|_| WireError::NotText("metadata".into()))
}
