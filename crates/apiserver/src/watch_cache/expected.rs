//! Objects that writes of this process are about to bring: known already, so the feed need not decode them again.
//!
//! A write is recognized by the very bytes it gave to the store, which an engine in this process hands back in its watch
//! without copying. Anything else (a remote store, a write of another server) is simply read.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::stored::Header;

/// See the module.
#[derive(Default)]
pub struct Expected(Mutex<HashMap<usize, Known>>);

/// What is known of a value.
#[derive(Clone)]
pub struct Known {
    /// As given to the store; held so that no other value can have its place in memory.
    value: Bytes,
    /// Before it was sealed.
    pub plain: Bytes,
    pub header: Arc<Header>,
}

/// Keeps one write expected until it is dropped.
pub struct Expectation<'a> {
    expected: &'a Expected,
    place: usize,
}

impl Expected {
    pub fn add(&self, value: &Bytes, plain: Bytes, header: Arc<Header>) -> Expectation<'_> {
        let place = place(value);
        self.0.lock().insert(place, Known { value: value.clone(), plain, header });
        Expectation { expected: self, place }
    }

    pub fn find(&self, value: &Bytes) -> Option<Known> {
        self.0.lock().get(&place(value)).filter(|known| known.value.len() == value.len()).cloned()
    }
}

impl Drop for Expectation<'_> {
    fn drop(&mut self) {
        self.expected.0.lock().remove(&self.place);
    }
}

fn place(value: &Bytes) -> usize {
    value.as_ptr() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_bytes_are_recognized_and_only_while_expected() {
        let expected = Expected::default();
        let value = Bytes::from(b"value".to_vec());
        let expectation = expected.add(&value, value.clone(), Arc::default());
        assert!(expected.find(&value.clone()).is_some());
        assert!(expected.find(&Bytes::from(b"value".to_vec())).is_none());
        drop(expectation);
        assert!(expected.find(&value).is_none());
    }
}
