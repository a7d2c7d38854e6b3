//! Images: named, pulled, imported, kept and removed.
//!
//! ```text
//! registry --pull--+                      +--> blobs/sha256/   manifests and configurations, by digest
//!                  +--> verify, unpack ---+--> layers/<n>/     one folder per chain id, shared
//! archive --import-+                      +--> images.json     names, written last: an image is there or it is not
//! ```
//!
//! Layers are unpacked while they stream; their compressed form is never written down. A half-unpacked layer lives under a
//! name that the next start sweeps away.
//!
//! - `reference`: names; `registry`: talking to one; `pull`, `import`: the two ways in.
//! - `unpack`: a tar stream to a folder, whatever the stream's author had in mind.
//! - `store`: what is there.

pub mod import;
mod manifest;
pub mod pull;
pub mod reference;
pub mod registry;
pub mod store;
pub mod unpack;

pub use manifest::ProcessDefaults;
pub use pull::Progress;
pub use registry::{Mirror, Registries};
pub use store::{ImageRecord, Images};

/// Why an image could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The name is not one.
    #[error("invalid reference format: {0}")]
    Reference(String),
    /// There is no such image, here or in the registry.
    #[error("{0}: not found")]
    NotFound(String),
    /// The registry did not let us; in its words.
    #[error("{reference}: {words}")]
    Registry {
        /// What was asked for.
        reference: String,
        /// What the registry, or the way to it, said.
        words: String,
    },
    /// What was received is not what its digest says, or not an image.
    #[error("{0}")]
    Corrupt(String),
    /// The archive is hostile or over a limit.
    #[error("unpack layer: {0}")]
    Unpack(#[from] unpack::UnpackError),
    /// The disk failed us.
    #[error("{doing}: {source}")]
    Disk {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl ImageError {
    /// What went wrong, without repeating what was asked for.
    fn words(&self) -> String {
        match self {
            ImageError::Registry { words, .. } => words.clone(),
            other => other.to_string(),
        }
    }

    /// For `map_err`.
    fn disk(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| ImageError::Disk { doing, source }
    }
}
