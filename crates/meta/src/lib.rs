//! What every Kubernetes object has in common: names, kinds, metadata, selectors, quantities and the API error.
//!
//! Nothing here does I/O, knows a particular kind or reads the clock. The [`Object`] is the tree form that the API server
//! works on while a write is in flight; at rest objects are bytes and in components they are typed views.

pub mod field_error;
pub mod field_selector;
pub mod key;
pub mod kind;
pub mod label_selector;
pub mod media;
pub mod name;
pub mod object;
pub mod quantity;
pub mod quote;
pub mod status;
pub mod time;

pub use field_error::{FieldError, FieldErrorKind, FieldPath};
pub use field_selector::FieldSelector;
pub use key::ObjectKey;
pub use kind::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource};
pub use label_selector::LabelSelector;
pub use media::Media;
pub use object::{Object, OwnerReference};
pub use quantity::Quantity;
pub use status::{Reason, Status, StatusCause};
