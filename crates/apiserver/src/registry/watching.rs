//! Watch: the present or the recent past first, then every change, with bookmarks in between.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use meta::Status;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use super::freshness;
use super::{Event, Events, Registry, Target};
use crate::context::Context;
use crate::stored::header::Selection;
use crate::watch_cache::{Change, Subscription, WatchCache};

/// How long a watch lasts when the client does not say; up to twice as long, so that not all come back at once.
const DURATION_MIN: Duration = Duration::from_secs(1800);

/// How often an idle watcher that wants bookmarks gets one.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// How long before its end a watch gets a last bookmark.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);

impl Registry {
    pub(super) async fn start_watch(&self, cx: &Context, target: &Target) -> Result<Events, Status> {
        let cache = self.cache_of(target, "watch")?;
        let selection = Arc::new(self.selection(cx, target, &cache.kind)?);
        let scope = Self::scope(target, &selection);
        let after = freshness::parse(&cx.options.resource_version)?;
        let initial = cx.options.send_initial_events;
        let applied = || self.cache.revision();
        let subscription = match (after.unwrap_or(0), initial) {
            (revision, Some(true)) => {
                match after {
                    Some(_) => self.cache.reach(revision).await?,
                    None => self.cache.be_current().await?,
                }
                cache.subscribe_now(&scope, &selection, applied)
            }
            (0, Some(false)) => {
                let mut subscription = cache.subscribe_now(&scope, &selection, applied);
                subscription.initial.clear();
                subscription
            }
            (0, None) => {
                if after.is_none() {
                    self.cache.be_current().await?;
                }
                cache.subscribe_now(&scope, &selection, applied)
            }
            (revision, _) => match cache.subscribe_after(revision, &scope, &selection) {
                Ok(subscription) => subscription,
                Err(too_old) => {
                    let message = format!("too old resource version: {revision} ({})", too_old.oldest);
                    return Ok(futures::stream::iter([Event::Error(Status::expired(message))]).boxed());
                }
            },
        };
        let ends_initial = initial == Some(true);
        Ok(Watching::new(cx, self.cache.clone(), selection, subscription, ends_initial).into_stream())
    }
}

struct Watching {
    ready: VecDeque<Event>,
    live: mpsc::Receiver<Arc<Change>>,
    selection: Arc<Selection>,
    cache: Arc<WatchCache>,
    /// Changes up to here were delivered or are not asked for.
    seen: u64,
    /// Whether the timer is for a bookmark; else it is for the end.
    bookmark_is_next: bool,
    /// One for the whole watch: an event costs no timer.
    timer: Pin<Box<Sleep>>,
    end: Instant,
}

impl Watching {
    fn new(
        cx: &Context,
        cache: Arc<WatchCache>,
        selection: Arc<Selection>,
        subscription: Subscription,
        ends_initial: bool,
    ) -> Self {
        let now = Instant::now();
        let duration = match cx.options.timeout_seconds {
            0 => DURATION_MIN.mul_f64(1.0 + base::chance::fraction()),
            seconds => Duration::from_secs(seconds),
        };
        let Subscription { initial, revision, backlog, live } = subscription;
        let mut ready: VecDeque<Event> = initial.into_iter().map(Event::Added).collect();
        ready.extend(backlog.iter().filter_map(|change| change.seen_by(&selection)));
        if ends_initial && cx.options.allow_watch_bookmarks {
            ready.push_back(Event::Bookmark { revision, initial_events_end: true });
        }
        let end = now + duration;
        let timer = Box::pin(tokio::time::sleep_until(end));
        let mut watching =
            Watching { ready, live, selection, cache, seen: revision, bookmark_is_next: false, timer, end };
        if cx.options.allow_watch_bookmarks {
            watching.schedule_bookmark(now);
        }
        watching
    }

    fn into_stream(self) -> Events {
        futures::stream::unfold(self, |mut watching| async move {
            let event = watching.next().await?;
            Some((event, watching))
        })
        .boxed()
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            tokio::select! {
                biased;
                // Closed when this watcher was too slow or the cache was loaded anew.
                change = self.live.recv() => {
                    let change = change?;
                    if Instant::now() >= self.end {
                        return None;
                    }
                    self.take(&change);
                }
                () = self.timer.as_mut() => {
                    if !self.bookmark_is_next {
                        return None;
                    }
                    self.bookmark();
                }
            }
        }
    }

    fn take(&mut self, change: &Change) {
        if change.revision <= self.seen {
            return;
        }
        self.ready.extend(change.seen_by(&self.selection));
    }

    /// Everything up to the cache's revision is in the queue by now; behind it a bookmark may say so.
    fn bookmark(&mut self) {
        let reached = self.cache.revision();
        let mut latest = 0;
        while let Ok(change) = self.live.try_recv() {
            latest = change.revision;
            self.take(&change);
        }
        // With changes after it in the queue, `reached` would go back.
        if latest <= reached && reached >= self.seen {
            self.ready.push_back(Event::Bookmark { revision: reached, initial_events_end: false });
        }
        self.schedule_bookmark(Instant::now());
    }

    fn schedule_bookmark(&mut self, now: Instant) {
        let last = self.end.checked_sub(BOOKMARK_BEFORE_END).unwrap_or(now);
        let bookmark_at = match now + BOOKMARK_INTERVAL {
            next if next < last => Some(next),
            _ if now < last => Some(last),
            _ => None,
        };
        self.bookmark_is_next = bookmark_at.is_some();
        self.timer.as_mut().reset(bookmark_at.unwrap_or(self.end));
    }
}
