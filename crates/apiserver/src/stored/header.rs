//! What the server has to know about an object without decoding it: identity, labels, deletion, and the fields that field
//! selectors read.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use api::Kind;
use base::Timestamp;
use meta::{FieldSelector, LabelSelector, Object, ObjectKey, OwnerReference};

use super::alike::Alike;
use super::fields::{self, Fields};

/// A label's key and value.
type Label = (Box<str>, Box<str>);

static LABELS: LazyLock<Alike<Label>> = LazyLock::new(Alike::new);
static FIELDS: LazyLock<Alike<fields::Field>> = LazyLock::new(Alike::new);

/// Parsed once when an object enters the watch cache; shared by all revisions that only differ in number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    pub uid: Arc<str>,
    pub labels: Arc<[Label]>,
    pub owner_references: Vec<OwnerReference>,
    pub finalizers: Vec<String>,
    pub deletion_timestamp: Option<Timestamp>,
    /// Selectable field and value, besides name and namespace, which the key has.
    pub fields: Fields,
}

impl Header {
    /// Of an object in the storage version.
    pub fn of(kind: &Kind, object: &Object) -> Self {
        Header {
            uid: object.uid().into(),
            labels: LABELS.share(object.labels().map(|(key, value)| (key.into(), value.into())).collect()),
            owner_references: object.owner_references(),
            finalizers: object.finalizers().map(String::from).collect(),
            deletion_timestamp: object.deletion_timestamp(),
            fields: FIELDS.share(fields::read(kind, object)),
        }
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(own, _)| &**own == key).map(|(_, value)| &**value)
    }
}

/// What a list or watch selects by; compiled once per request.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
}

impl Selection {
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    pub fn matches(&self, key: &ObjectKey, header: &Header) -> bool {
        self.labels.matches_labels(|label| header.label(label))
            && self.fields.matches(|field| match field {
                "metadata.name" => Some(Cow::Borrowed(&*key.name)),
                "metadata.namespace" => Some(Cow::Borrowed(&*key.namespace)),
                _ => header.fields.iter().find(|(own, _)| *own == field).map(|(_, value)| Cow::Borrowed(&**value)),
            })
    }
}
