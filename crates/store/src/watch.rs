//! Watches: a stream of batches of events that ends, if it ends, with the reason.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;

use crate::{Entry, Result, Revision, StoreError};

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Put,
    Delete,
}

/// One change of one key. Events of one transaction share its revision. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    pub kind: EventKind,
    /// The key as it is since. For a delete: no value, `create_revision` and `version` 0, `mod_revision` that of the delete.
    pub entry: Entry,
    /// The key as it was before; none when it was absent.
    pub previous: Option<Entry>,
}

impl WatchEvent {
    /// The revision of the transaction.
    pub fn revision(&self) -> Revision {
        self.entry.mod_revision
    }

    /// Whether the key was absent before.
    pub fn is_create(&self) -> bool {
        self.kind == EventKind::Put && self.previous.is_none()
    }
}

/// What a watch yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchItem {
    /// Events in revision order, at least one; whole transactions only (its part under the watched prefix).
    Events(Vec<WatchEvent>),
    /// Everything up to and including this revision has been yielded. Comes only after [`ProgressHandle::request`].
    Progress(Revision),
}

/// The engine's side of a watch. After an error it is not polled again.
pub trait WatchSource: Send {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<WatchItem>>;
    fn progress_handle(&self) -> ProgressHandle;
}

/// Asks a watch, from anywhere, to say how far it has come.
#[derive(Clone)]
pub struct ProgressHandle(Arc<dyn Fn() + Send + Sync>);

impl ProgressHandle {
    pub fn new(request: impl Fn() + Send + Sync + 'static) -> Self {
        ProgressHandle(Arc::new(request))
    }

    /// The watch will yield one [`WatchItem::Progress`] with a revision that is at least the store's of this moment.
    /// Requests that come before it was yielded are answered by that one.
    pub fn request(&self) {
        (self.0)();
    }
}

/// A running watch. Dropping it ends it. After an error it yields nothing more.
pub struct Watch {
    source: Option<Box<dyn WatchSource>>,
    progress: ProgressHandle,
}

impl Watch {
    pub fn new(source: Box<dyn WatchSource>) -> Self {
        let progress = source.progress_handle();
        Watch { source: Some(source), progress }
    }

    /// A watch that only yields why it could not start.
    pub fn failed(error: StoreError) -> Self {
        Watch::new(Box::new(Failed(error)))
    }

    /// The next item; none after an error. Nothing is lost when the future is dropped before it is done.
    pub async fn next(&mut self) -> Option<Result<WatchItem>> {
        std::future::poll_fn(|cx| self.poll_item(cx)).await
    }

    /// A handle for asking how far this watch has come.
    pub fn progress_handle(&self) -> ProgressHandle {
        self.progress.clone()
    }

    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<WatchItem>>> {
        let Some(source) = self.source.as_mut() else { return Poll::Ready(None) };
        let polled = source.poll(cx);
        if matches!(polled, Poll::Ready(Err(_))) {
            self.source = None;
        }
        polled.map(Some)
    }
}

impl Stream for Watch {
    type Item = Result<WatchItem>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_item(cx)
    }
}

struct Failed(StoreError);

impl WatchSource for Failed {
    fn poll(&mut self, _: &mut Context<'_>) -> Poll<Result<WatchItem>> {
        Poll::Ready(Err(self.0.clone()))
    }

    fn progress_handle(&self) -> ProgressHandle {
        ProgressHandle::new(|| {})
    }
}
