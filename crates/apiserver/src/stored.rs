//! One object as the server holds it: the stored bytes, a header parsed once, and the serving forms made from them.
//!
//! A `Stored` is immutable and shared: the watch cache, every list, every watch event and every handler hold the same `Arc`.
//! The form that goes over the wire carries the revision as `metadata.resourceVersion` and is made at most once per API
//! version and encoding, the first time somebody asks.
//!
//! ```text
//! store entry ─► (decrypt) ─► Stored { bytes, header } ─► serving("v1", Json) ─► shared bytes
//!                                                     └─► object("v1")       ─► a tree, not kept
//! ```

pub mod fields;
pub mod form;
pub mod header;

use std::sync::Arc;

use api::Kind;
use bytes::Bytes;
use meta::{Media, Object, ObjectKey, Status};
use parking_lot::Mutex;
use smallvec::SmallVec;

pub use header::Header;

/// See the module.
#[derive(Debug)]
pub struct Stored {
    /// The row in the storage version.
    pub kind: Arc<Kind>,
    pub key: ObjectKey,
    pub revision: u64,
    pub media: Media,
    /// In the storage version, decrypted, without `resourceVersion`.
    pub bytes: Bytes,
    pub header: Arc<Header>,
    forms: Mutex<SmallVec<[Form; 1]>>,
}

#[derive(Clone, Debug)]
struct Form {
    api_version: Arc<str>,
    media: Media,
    bytes: Bytes,
}

impl Stored {
    pub fn new(
        kind: Arc<Kind>,
        key: ObjectKey,
        revision: u64,
        media: Media,
        bytes: Bytes,
        header: Arc<Header>,
    ) -> Self {
        Stored { kind, key, revision, media, bytes, header, forms: Mutex::default() }
    }

    /// Reads what the store holds under `key`; the bytes are decrypted already.
    pub fn read(kind: &Arc<Kind>, key: ObjectKey, revision: u64, bytes: Bytes) -> Result<Self, Status> {
        let media = Media::sniff(&bytes);
        let object = form::decode(kind, media, &bytes)?;
        let header = Header::of(kind, &object);
        Ok(Self::new(kind.clone(), key, revision, media, bytes, Arc::new(header)))
    }

    /// Of a tree in the storage version, as it is or would be stored.
    pub fn made(kind: &Arc<Kind>, key: ObjectKey, revision: u64, object: &mut Object) -> Result<Self, Status> {
        let bytes = form::encode(kind, object)?;
        let header = Arc::new(Header::of(kind, object));
        Ok(Self::new(kind.clone(), key, revision, Media::sniff(&bytes), bytes, header))
    }

    /// The same object under another revision: how a delete event shows what was deleted.
    pub fn at_revision(&self, revision: u64) -> Self {
        Self::new(self.kind.clone(), self.key.clone(), revision, self.media, self.bytes.clone(), self.header.clone())
    }

    /// The bytes to send for `api_version` in `media`, with `resourceVersion`; made once and shared.
    pub fn serving(&self, api_version: &str, media: Media) -> Result<Bytes, Status> {
        let known = |forms: &[Form]| {
            forms
                .iter()
                .find(|form| form.media == media && &*form.api_version == api_version)
                .map(|form| form.bytes.clone())
        };
        if let Some(bytes) = known(&self.forms.lock()) {
            return Ok(bytes);
        }
        // Made outside the lock: two askers may both make it, and the first one's is kept.
        let bytes = form::serve(self, api_version, media)?;
        let mut forms = self.forms.lock();
        if let Some(bytes) = known(&forms) {
            return Ok(bytes);
        }
        forms.push(Form { api_version: api_version.into(), media, bytes: bytes.clone() });
        Ok(bytes)
    }

    /// The tree in `api_version`, with `resourceVersion`. Made anew each time: trees are many times as large as bytes.
    pub fn object(&self, api_version: &str) -> Result<Object, Status> {
        let object = form::decode(&self.kind, self.media, &self.bytes)?;
        let mut object = form::convert(&self.kind, object, api_version)?;
        object.set_meta("resourceVersion", self.revision.to_string());
        Ok(object)
    }

    /// The tree in the storage version.
    pub fn stored_object(&self) -> Result<Object, Status> {
        self.object(&self.kind.group_version().to_string())
    }

    /// The bytes as they are, for a reader in the same process.
    pub fn encoded(&self) -> client::Encoded {
        client::Encoded { key: self.key.clone(), revision: self.revision, media: self.media, bytes: self.bytes.clone() }
    }
}
