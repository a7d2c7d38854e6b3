//! Keys and spans of keys, in byte order.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

/// A key: a path such as `/registry/pods/default/web-0`. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<[u8]>);

impl Key {
    pub fn new(bytes: impl AsRef<[u8]>) -> Self {
        Key(bytes.as_ref().into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key as text; none when it is not UTF-8, which no key of the API server is.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    pub fn starts_with(&self, prefix: &Key) -> bool {
        self.0.starts_with(&prefix.0)
    }

    /// The first key after this one in byte order.
    fn successor(&self) -> Key {
        let mut bytes = Vec::with_capacity(self.0.len() + 1);
        bytes.extend_from_slice(&self.0);
        bytes.push(0);
        Key(bytes.into())
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Key::new(text)
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Key::new(text)
    }
}

impl std::borrow::Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// The keys from `start` (included) up to `end` (excluded; none for no end).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub start: Key,
    pub end: Option<Key>,
}

impl Span {
    /// All keys that start with `prefix`. End a directory with `/`, or `/registry/pods` takes `/registry/podtemplates` along.
    pub fn prefix(prefix: &Key) -> Self {
        let mut end = prefix.as_bytes().to_vec();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                return Span { start: prefix.clone(), end: Some(Key(end.into())) };
            }
        }
        Span { start: prefix.clone(), end: None }
    }

    /// What is left of this span after `key`: the next page after one that ended with `key`.
    pub fn after(mut self, key: &Key) -> Self {
        self.start = self.start.max(key.successor());
        self
    }

    pub fn contains(&self, key: &Key) -> bool {
        *key >= self.start && self.end.as_ref().is_none_or(|end| key < end)
    }

    /// Whether no key can be in it.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// The bounds for an ordered map. Only for a span that is not empty: maps refuse bounds that cross.
    pub(crate) fn bounds(&self) -> (Bound<&Key>, Bound<&Key>) {
        (Bound::Included(&self.start), self.end.as_ref().map_or(Bound::Unbounded, Bound::Excluded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_span_holds_exactly_the_keys_with_the_prefix() {
        let span = Span::prefix(&Key::from("/a/"));
        for (key, inside) in [("/a/", true), ("/a/b", true), ("/a/\u{10FFFF}", true), ("/a", false), ("/a0", false)] {
            assert_eq!(span.contains(&Key::from(key)), inside, "{key}");
        }
        assert!(Span::prefix(&Key::new([0xff, 0xff])).contains(&Key::new([0xff, 0xff, 0xff])));
        assert!(!Span::prefix(&Key::new([1, 0xff])).contains(&Key::new([2])));
    }

    #[test]
    fn a_span_continues_right_after_a_key() {
        let rest = Span::prefix(&Key::from("/a/")).after(&Key::from("/a/b"));
        for (key, inside) in [("/a/b", false), ("/a/b\0", true), ("/a/b/c", true), ("/a/a", false), ("/b", false)] {
            assert_eq!(rest.contains(&Key::from(key)), inside, "{key}");
        }
        assert!(Span::prefix(&Key::from("/a/")).after(&Key::from("/b")).is_empty());
        assert_eq!(Span::prefix(&Key::from("/a/")).after(&Key::from("/")), Span::prefix(&Key::from("/a/")));
    }
}
