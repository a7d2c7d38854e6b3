//! How the bytes of an object are to be read.

/// The encodings that objects are stored and exchanged in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Media {
    #[default]
    Json,
    /// The `k8s\0` envelope: magic, then an `Unknown` message with `apiVersion`, `kind` and the object's own message.
    Protobuf,
}

impl Media {
    /// The content type on the wire.
    pub fn content_type(self) -> &'static str {
        match self {
            Media::Json => "application/json",
            Media::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// What stored or received bytes are, by their first bytes.
    pub fn sniff(bytes: &[u8]) -> Self {
        if bytes.starts_with(b"k8s\0") { Media::Protobuf } else { Media::Json }
    }
}
