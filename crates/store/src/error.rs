//! What can go wrong in a store, as data that the API server turns into a `Status`.

use crate::Revision;

/// Why a call or a watch failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// History no longer reaches `requested`: list again (upstream's 410, `Expired`). For a running watch it means that its
    /// consumer was too slow. `compacted` is the oldest revision that still works.
    #[error("required revision {requested} has been compacted, history starts at {compacted}")]
    Compacted { requested: Revision, compacted: Revision },
    /// `requested` has not been reached yet.
    #[error("required revision {requested} is a future revision, current is {current}")]
    FutureRevision { requested: Revision, current: Revision },
    /// The transaction is over a limit of [`crate::limits`].
    #[error("{what} of {actual} is over the limit of {limit}")]
    TooLarge { what: &'static str, actual: usize, limit: usize },
    /// The transaction makes no sense: an empty key, or two operations on one key.
    #[error("invalid transaction: {reason}: {key}")]
    Invalid { reason: &'static str, key: String },
    /// As many watches as there may be are open.
    #[error("too many watches, at most {limit}")]
    TooManyWatches { limit: usize },
    /// The engine has stopped or cannot be reached. A write's outcome is unknown.
    #[error("store is unavailable: {reason}")]
    Unavailable { reason: String },
}

impl StoreError {
    /// The engine was shut down.
    pub(crate) fn stopped() -> Self {
        StoreError::Unavailable { reason: "it has been stopped".to_string() }
    }
}
