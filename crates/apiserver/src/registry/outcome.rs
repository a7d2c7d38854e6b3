//! What the registry answers: shared stored objects where it can, trees where nothing is stored.

use std::sync::Arc;

use futures::stream::BoxStream;
use meta::status::StatusDetails;
use meta::{Object, Status};

use crate::stored::Stored;

/// One object to show.
#[derive(Clone, Debug)]
pub enum Answer {
    /// As it is in the store, in the storage version; [`Stored::serving`] makes the requested form.
    Stored(Arc<Stored>),
    /// A tree in the requested version that is not stored as such: a review, a scale, a token, a dry run. It carries
    /// `apiVersion` and `kind`, and `metadata.resourceVersion` where it has one.
    Made(Object),
}

impl Answer {
    /// The tree in the given `apiVersion`, with its `resourceVersion`.
    pub fn object(&self, api_version: &str) -> Result<Object, Status> {
        match self {
            Answer::Stored(stored) => stored.object(api_version),
            Answer::Made(object) => Ok(object.clone()),
        }
    }
}

/// The result of a verb on one object.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// `created` makes the answer a 201.
    Object { answer: Answer, created: bool },
    /// A `Status` that says `Success`: most deletes, bindings, evictions. `created` makes it a 201.
    Success { details: Option<Box<StatusDetails>>, created: bool },
}

impl Outcome {
    pub fn found(stored: Arc<Stored>) -> Self {
        Outcome::Object { answer: Answer::Stored(stored), created: false }
    }

    pub fn made(object: Object) -> Self {
        Outcome::Object { answer: Answer::Made(object), created: false }
    }

    /// The same answer, as that of a request that made something.
    pub fn as_created(mut self) -> Self {
        match &mut self {
            Outcome::Object { created, .. } | Outcome::Success { created, .. } => *created = true,
        }
        self
    }

    /// The tree that is shown, in the given `apiVersion`; none for a mere success.
    pub fn object(&self, api_version: &str) -> Result<Option<Object>, Status> {
        match self {
            Outcome::Object { answer, .. } => answer.object(api_version).map(Some),
            Outcome::Success { .. } => Ok(None),
        }
    }
}

/// A list or one page of it, all of it as of `revision`.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub items: Vec<Arc<Stored>>,
    pub revision: u64,
    /// Empty on the last page.
    pub continue_token: String,
    /// How many items follow; unknown when a selector is in play.
    pub remaining: Option<u64>,
}

/// What a watch delivers, in order and without gaps. The revision of an event is that of its object: for `Deleted` it is the
/// revision of the delete, with the object as it last was.
#[derive(Clone, Debug)]
pub enum Event {
    Added(Arc<Stored>),
    Modified(Arc<Stored>),
    Deleted(Arc<Stored>),
    Bookmark {
        revision: u64,
        /// Ends the initial events that `sendInitialEvents` asked for.
        initial_events_end: bool,
    },
    /// The last event of a watch that cannot go on.
    Error(Status),
}

/// Ends after an error, when the time limit of the request is over, and when the watcher was too slow; dropping it ends the
/// watch.
pub type Events = BoxStream<'static, Event>;
