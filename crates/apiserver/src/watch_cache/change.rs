//! One change of one object, shared by all watchers that see it.

use std::sync::{Arc, OnceLock};

use store::Revision;

use crate::registry::Event;
use crate::stored::Stored;
use crate::stored::header::Selection;

/// What was there before a revision and what is there since.
#[derive(Debug)]
pub struct Change {
    pub revision: Revision,
    pub current: Option<Arc<Stored>>,
    pub previous: Option<Arc<Stored>>,
    /// The object as it last was, under the revision at which it went: made when the first watcher needs it.
    gone: OnceLock<Arc<Stored>>,
}

impl Change {
    pub fn new(revision: Revision, current: Option<Arc<Stored>>, previous: Option<Arc<Stored>>) -> Self {
        Change { revision, current, previous, gone: OnceLock::new() }
    }

    /// The object that changed, as it is or as it last was.
    pub fn object(&self) -> Option<&Arc<Stored>> {
        self.current.as_ref().or(self.previous.as_ref())
    }

    /// What a watcher with this selection sees: an object that begins to match is added, one that ceases to is deleted.
    pub fn seen_by(&self, selection: &Selection) -> Option<Event> {
        let matching = |stored: &Option<Arc<Stored>>| {
            stored.as_ref().filter(|stored| selection.matches(&stored.key, &stored.header)).cloned()
        };
        match (matching(&self.previous), matching(&self.current)) {
            (None, Some(current)) => Some(Event::Added(current)),
            (Some(_), Some(current)) => Some(Event::Modified(current)),
            (Some(previous), None) => {
                Some(Event::Deleted(self.gone.get_or_init(|| Arc::new(previous.at_revision(self.revision))).clone()))
            }
            (None, None) => None,
        }
    }
}
