//! The forms that objects keep of themselves, within one budget for the whole process.
//!
//! A form is made when somebody asks and kept for whoever asks next: usually the watchers of the same change, all within
//! moments. So what was made first goes first; an object whose form has gone makes it anew.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Stored;

/// Most bytes of forms that are kept.
const FORMS_BYTES_MAX: usize = 8 << 20;
/// What a form counts besides its bytes.
const FORM_BYTES_MIN: usize = 256;

/// Who has a form, the oldest first.
pub struct Kept {
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    owners: VecDeque<(Weak<Stored>, usize)>,
    bytes: usize,
}

/// The process's own.
pub static KEPT: Kept = Kept::new(FORMS_BYTES_MAX);

impl Kept {
    const fn new(bytes_max: usize) -> Self {
        Kept { bytes_max, state: Mutex::new(State { owners: VecDeque::new(), bytes: 0 }) }
    }

    /// Notes that an object keeps one form more, of so many bytes; takes away what is too much.
    pub fn add(&self, owner: &Arc<Stored>, bytes: usize) {
        for owner in self.note(owner, FORM_BYTES_MIN + bytes) {
            owner.forget_oldest_form();
        }
    }

    /// Those whose oldest form has to go.
    fn note(&self, owner: &Arc<Stored>, bytes: usize) -> Vec<Arc<Stored>> {
        let mut state = self.state.lock();
        state.owners.push_back((Arc::downgrade(owner), bytes));
        state.bytes += bytes;
        let mut over = Vec::new();
        while state.bytes > self.bytes_max
            && let Some((owner, bytes)) = state.owners.pop_front()
        {
            state.bytes -= bytes;
            over.extend(owner.upgrade());
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use meta::{GroupVersionKind, Media, ObjectKey};

    fn stored(name: &str) -> Arc<Stored> {
        let kind = api::builtin().by_gvk(&GroupVersionKind::new("", "v1", "ConfigMap")).unwrap().clone();
        let key = ObjectKey::new("a", name);
        Arc::new(Stored::new(kind, key, 1, Media::Json, Bytes::from_static(b"{}"), Arc::default()))
    }

    #[test]
    fn the_oldest_forms_go_first_and_only_when_there_are_too_many() {
        let kept = Kept::new(3 * FORM_BYTES_MIN + 30);
        let objects: Vec<_> = ["a", "b", "c", "d"].map(stored).into();
        for object in &objects[..3] {
            assert!(kept.note(object, FORM_BYTES_MIN + 10).is_empty());
        }
        let over = kept.note(&objects[3], FORM_BYTES_MIN + 11);
        assert_eq!(over.iter().map(|gone| &*gone.key.name).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_form_that_has_gone_is_made_again() {
        let object = stored("a");
        let first = object.serving("v1", Media::Json).unwrap();
        assert_eq!(first.as_ptr(), object.serving("v1", Media::Json).unwrap().as_ptr());
        object.forget_oldest_form();
        assert_eq!(first, object.serving("v1", Media::Json).unwrap());
    }
}
