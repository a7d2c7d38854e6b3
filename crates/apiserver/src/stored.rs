//! One object as the server holds it: the stored bytes, a header parsed once, and the serving forms made from them.
//!
//! A `Stored` is immutable and shared: the watch cache, every list, every watch event and every handler hold the same `Arc`.
//! The form that goes over the wire carries the revision as `metadata.resourceVersion`. It is made the first time somebody
//! asks, per API version and encoding, and [`kept`] for a while for whoever asks next; so is an event around it.
//!
//! ```text
//! store entry ─► (decrypt) ─► Stored { bytes, header } ─► serving("v1", Json)      ─► shared bytes
//!                                                     ├─► event("v1", Json, ADDED) ─► shared bytes
//!                                                     ├─► append_json(..)          ─► an item of a list, not kept
//!                                                     └─► object("v1")             ─► a tree, not kept
//! ```

mod alike;
pub mod fields;
pub mod form;
pub mod header;
mod kept;

use std::sync::Arc;

use api::codec::sink::JsonText;
use api::{Kind, codec};
use bytes::Bytes;
use meta::{Media, Object, ObjectKey, Status};
use parking_lot::Mutex;

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
    forms: Mutex<Vec<Form>>,
}

/// Which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FormKey<'a> {
    api_version: &'a str,
    media: Media,
    /// The type of the event around the object; empty for the object alone.
    event: &'static str,
}

#[derive(Clone, Debug)]
struct Form {
    api_version: Box<str>,
    media: Media,
    event: &'static str,
    bytes: Bytes,
}

impl Form {
    fn is(&self, key: FormKey<'_>) -> bool {
        self.media == key.media && self.event == key.event && *self.api_version == *key.api_version
    }
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

    /// The bytes to send for `api_version` in `media`, with `resourceVersion`; shared.
    pub fn serving(self: &Arc<Self>, api_version: &str, media: Media) -> Result<Bytes, Status> {
        let key = FormKey { api_version, media, event: "" };
        self.form(key, || form::serve(self, api_version, media))
    }

    /// The bytes of a watch event of a type, which `wrap` makes of those of the object; shared.
    pub fn event(
        self: &Arc<Self>,
        api_version: &str,
        media: Media,
        event: &'static str,
        wrap: impl FnOnce(Bytes) -> Bytes,
    ) -> Result<Bytes, Status> {
        self.form(FormKey { api_version, media, event }, || self.unkept(api_version, media).map(wrap))
    }

    /// As [`Stored::serving`], for what is not asked for again soon: kept if it was, else made and not kept.
    pub fn unkept(&self, api_version: &str, media: Media) -> Result<Bytes, Status> {
        match self.known_form(FormKey { api_version, media, event: "" }) {
            Some(bytes) => Ok(bytes),
            None => form::serve(self, api_version, media),
        }
    }

    fn known_form(&self, key: FormKey<'_>) -> Option<Bytes> {
        self.forms.lock().iter().find(|form| form.is(key)).map(|form| form.bytes.clone())
    }

    fn form(self: &Arc<Self>, key: FormKey<'_>, make: impl FnOnce() -> Result<Bytes, Status>) -> Result<Bytes, Status> {
        if let Some(bytes) = self.known_form(key) {
            return Ok(bytes);
        }
        // Made outside the lock: two askers may both make it, and the first one's is kept.
        let bytes = make()?;
        {
            let mut forms = self.forms.lock();
            if let Some(form) = forms.iter().find(|form| form.is(key)) {
                return Ok(form.bytes.clone());
            }
            let FormKey { api_version, media, event } = key;
            forms.push(Form { api_version: api_version.into(), media, event, bytes: bytes.clone() });
        }
        kept::KEPT.add(self, bytes.len());
        Ok(bytes)
    }

    fn forget_oldest_form(&self) {
        let mut forms = self.forms.lock();
        if !forms.is_empty() {
            forms.remove(0);
        }
    }

    /// Adds the object to a list in JSON. `repeated` is what its text starts with and the list leaves out. The text is not
    /// kept: lists are long, and seldom asked for twice while nothing changes.
    pub fn append_json(&self, api_version: &str, repeated: &str, text: &mut JsonText) -> Result<(), Status> {
        if let Some(bytes) = self.known_form(FormKey { api_version, media: Media::Json, event: "" }) {
            form::append(&bytes, repeated, text);
            return Ok(());
        }
        if self.media == Media::Protobuf && form::is_own_version(&self.kind, api_version) {
            return codec::serve_json_item(&self.kind.schema, &self.bytes, &self.revision.to_string(), text);
        }
        form::append(&form::serve(self, api_version, Media::Json)?, repeated, text);
        Ok(())
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
