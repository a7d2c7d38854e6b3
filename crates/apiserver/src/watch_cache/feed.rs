//! Keeps the cache up with the store: load everything, then apply what the one watch yields, in order.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use meta::{Media, Status};
use store::{EventKind, Key, Revision, Span, StoreError, Watch, WatchEvent, WatchItem};

use super::{KindCache, ROOT, WatchCache};
use crate::stored::Stored;

/// Runs until the store stops.
pub(super) async fn run(cache: Arc<WatchCache>, mut watch: Watch) {
    loop {
        *cache.progress.lock() = Some(watch.progress_handle());
        let error = follow(&cache, &mut watch).await;
        // The cache lags further than history reaches, or the store is gone.
        tracing::warn!(%error, "watch of the store ended; loading again");
        match cache.load().await {
            Ok(revision) => watch = cache.store.watch(&Key::from(ROOT), revision),
            Err(error) => {
                tracing::error!(%error, "the store cannot be read; the watch cache stops");
                return;
            }
        }
    }
}

async fn follow(cache: &WatchCache, watch: &mut Watch) -> StoreError {
    while let Some(item) = watch.next().await {
        match item {
            Ok(WatchItem::Events(events)) => cache.apply(events),
            Ok(WatchItem::Progress(revision)) => cache.advance(revision),
            Err(error) => return error,
        }
    }
    StoreError::Unavailable { reason: "the watch ended".into() }
}

impl WatchCache {
    /// Reads the whole store and replaces all indexes. Returns the revision they are of.
    pub(super) async fn load(&self) -> Result<Revision, Status> {
        let page = self.store.range(&Span::prefix(&Key::from(ROOT)), None, 0).await.map_err(status)?;
        let mut loaded: HashMap<String, BTreeMap<Box<str>, Arc<Stored>>> = HashMap::new();
        for entry in page.entries {
            let Some((kind, path)) = self.locate(&entry.key) else { continue };
            if let Some(stored) = self.read(&kind, &path, &entry.key, entry.mod_revision, &entry.value) {
                loaded.entry(kind.prefix.clone()).or_default().insert(path.into(), stored);
            }
        }
        for kind in self.kinds.read().values() {
            kind.reset(loaded.remove(&kind.prefix).unwrap_or_default(), page.revision);
        }
        self.advance(page.revision);
        Ok(page.revision)
    }

    fn advance(&self, revision: Revision) {
        self.applied.send_if_modified(|applied| {
            let moved = revision > *applied;
            *applied = revision.max(*applied);
            moved
        });
    }

    fn apply(&self, events: Vec<WatchEvent>) {
        let Some(revision) = events.last().map(WatchEvent::revision) else { return };
        let mut of_kind: Option<Arc<KindCache>> = None;
        let mut changes = Vec::new();
        for event in events {
            let Some((kind, path)) = self.locate(&event.entry.key) else { continue };
            if let Some(earlier) = of_kind.replace(kind.clone())
                && !Arc::ptr_eq(&earlier, &kind)
            {
                earlier.apply(std::mem::take(&mut changes));
            }
            let current = match event.kind {
                EventKind::Put => self.read(&kind, &path, &event.entry.key, event.revision(), &event.entry.value),
                EventKind::Delete => None,
            };
            changes.push((event.revision(), path.into_boxed_str(), current));
        }
        if let Some(kind) = of_kind {
            kind.apply(changes);
        }
        self.advance(revision);
    }

    /// The index that a key belongs to and what follows its prefix. Resources have one or two segments.
    fn locate(&self, key: &Key) -> Option<(Arc<KindCache>, String)> {
        let rest = key.as_str()?.strip_prefix(ROOT)?;
        let first = rest.find('/')?;
        let kinds = self.kinds.read();
        let ends = [Some(first), rest[first + 1..].find('/').map(|second| first + 1 + second)];
        ends.into_iter().flatten().find_map(|end| Some((kinds.get(&rest[..end])?.clone(), rest[end + 1..].to_string())))
    }

    /// An entry that cannot be read is left out, and said: one broken object must not take the server down.
    fn read(
        &self,
        kind: &KindCache,
        path: &str,
        key: &Key,
        revision: Revision,
        value: &bytes::Bytes,
    ) -> Option<Arc<Stored>> {
        let object_key = kind.object_key(path)?;
        if let Some(known) = self.expected.find(value) {
            let media = Media::sniff(&known.plain);
            let row = kind.kind.clone();
            return Some(Arc::new(Stored::new(row, object_key, revision, media, known.plain, known.header)));
        }
        let opened = self.transformer.open(&kind.kind, key, value);
        match opened.and_then(|bytes| Stored::read(&kind.kind, object_key, revision, bytes)) {
            Ok(stored) => Some(Arc::new(stored)),
            Err(error) => {
                tracing::error!(%key, %error, "a stored object cannot be read");
                None
            }
        }
    }
}

/// A store's failure as an answer to a request.
pub fn status(error: StoreError) -> Status {
    match error {
        StoreError::TooLarge { .. } => Status::too_large(format!("Request is too large: {error}")),
        StoreError::Unavailable { .. } => Status::unavailable(error.to_string()),
        _ => Status::internal(error),
    }
}
