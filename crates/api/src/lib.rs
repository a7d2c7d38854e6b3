//! The kinds of the API as tables, and everything that walks them: codecs, patches, defaults, documents.

pub mod codec;
pub mod typed;
