//! What many objects say alike, kept once: the pods of a workload have the same labels, and few different fields to be
//! selected by.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

/// How many sets there are at least before those that nobody has any more are looked for.
const SWEEP_SETS_MIN: usize = 1024;

/// Sets that are shared by all who have the same.
pub struct Alike<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    known: HashSet<Arc<[T]>>,
    /// At so many sets the next sweep is due.
    sweep_at: usize,
}

impl<T: Eq + Hash> Alike<T> {
    pub fn new() -> Self {
        Alike { state: Mutex::new(State { known: HashSet::new(), sweep_at: SWEEP_SETS_MIN }) }
    }

    /// The one of its kind.
    pub fn share(&self, set: Vec<T>) -> Arc<[T]> {
        let state = &mut *self.state.lock();
        if let Some(known) = state.known.get(&*set) {
            return known.clone();
        }
        if state.known.len() >= state.sweep_at {
            state.known.retain(|known| Arc::strong_count(known) > 1);
            state.sweep_at = SWEEP_SETS_MIN.max(state.known.len() * 2);
        }
        let shared: Arc<[T]> = set.into();
        state.known.insert(shared.clone());
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_kept_once_and_only_while_somebody_has_it() {
        let alike = Alike::new();
        let (first, second) = (alike.share(vec![1, 2]), alike.share(vec![1, 2]));
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&first, &alike.share(vec![2, 1])));
        for number in 0..10 * SWEEP_SETS_MIN {
            alike.share(vec![number]);
        }
        assert!(alike.state.lock().known.len() <= SWEEP_SETS_MIN);
        assert!(Arc::ptr_eq(&first, &alike.share(vec![1, 2])));
    }
}
