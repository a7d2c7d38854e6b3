//! Get and list: from memory, as fresh as the request asks; from the store only for a moment in the past.

use std::sync::Arc;

use api::Kind;
use meta::{LabelSelector, ObjectKey, Reason, Status};
use store::{Key, Span, StoreError};

use super::continue_token::ContinueToken;
use super::freshness::Freshness;
use super::{Outcome, Page, Registry, Target};
use crate::context::Context;
use crate::stored::header::Selection;
use crate::stored::{Stored, fields};
use crate::watch_cache::{KindCache, Scope, feed};

/// How many entries are read from the store at a time while a page of the past is gathered.
const STORE_PAGE_ENTRIES: usize = 500;

const CONTINUE_EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";
const VERSION_EXPIRED: &str = "The resourceVersion for the provided list is too old.";

/// A list of exactly one revision of the future is not worth another try, as far as upstream says.
fn without_retry(mut status: Status) -> Status {
    if let Some(details) = &mut status.details {
        details.retry_after_seconds = 0;
    }
    status
}

impl Registry {
    pub(super) fn cache_of(&self, target: &Target, verb: &str) -> Result<Arc<KindCache>, Status> {
        let storage = target.kind.stored.as_ref().ok_or_else(|| target.method_not_allowed(verb))?;
        self.cache.of(&storage.key_segment).ok_or_else(Status::no_such_resource)
    }

    pub(super) async fn read_one(&self, cx: &Context, target: &Target) -> Result<Arc<Stored>, Status> {
        let cache = self.cache_of(target, "get")?;
        self.be_as_fresh_as(Freshness::of(&cx.options)?).await?;
        cache.get(&target.key()).ok_or_else(|| target.not_found())
    }

    /// The object as of now, whatever the request's options say.
    pub(crate) async fn read_latest(&self, target: &Target) -> Result<Arc<Stored>, Status> {
        let cache = self.cache_of(target, "get")?;
        self.cache.be_current().await?;
        cache.get(&target.key()).ok_or_else(|| target.not_found())
    }

    pub(super) async fn be_as_fresh_as(&self, freshness: Freshness) -> Result<(), Status> {
        match freshness {
            Freshness::Latest => self.cache.be_current().await,
            Freshness::Any => Ok(()),
            Freshness::AtLeast(revision) | Freshness::Exact(revision) => self.cache.reach(revision).await,
        }
    }

    pub(super) fn selection(&self, cx: &Context, target: &Target, stored: &Kind) -> Result<Selection, Status> {
        let selection = Selection {
            labels: LabelSelector::parse(&cx.options.label_selector)?,
            fields: fields::selector(&target.kind, stored, &cx.options.field_selector)?,
        };
        Ok(selection)
    }

    pub(super) fn scope(target: &Target, selection: &Selection) -> Scope {
        let selected = selection.fields.required_value("metadata.name").unwrap_or_default();
        let name = if target.name.is_empty() { selected } else { &target.name };
        Scope { namespace: target.namespace.clone(), name: name.to_string() }
    }

    pub(super) async fn read_page(&self, cx: &Context, target: &Target) -> Result<Page, Status> {
        let cache = self.cache_of(target, "list")?;
        let selection = self.selection(cx, target, &cache.kind)?;
        let scope = Self::scope(target, &selection);
        let limit = usize::try_from(cx.options.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let asked = Asked { cache: &cache, scope: &scope, selection: &selection, limit };
        if !cx.options.continue_token.is_empty() {
            return self.next_page(cx, &asked).await;
        }
        let freshness = Freshness::of(&cx.options)
            .map_err(|status| Status::bad_request(format!("invalid resource version: {}", status.message)))?;
        match freshness {
            Freshness::Exact(revision) => {
                self.cache.reach(revision).await.map_err(without_retry)?;
                self.past_page(&asked, revision, "").await.map_err(|error| match error {
                    StoreError::Compacted { .. } => Status::expired(VERSION_EXPIRED),
                    other => feed::status(other),
                })
            }
            freshness => {
                self.be_as_fresh_as(freshness).await?;
                Ok(self.present_page(&asked, ""))
            }
        }
    }

    async fn next_page(&self, cx: &Context, asked: &Asked<'_>) -> Result<Page, Status> {
        if !matches!(cx.options.resource_version.as_str(), "" | "0") {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        let token = ContinueToken::decode(&cx.options.continue_token)?;
        let Some(revision) = token.revision else {
            self.cache.be_current().await?;
            return Ok(self.present_page(asked, &token.after));
        };
        self.past_page(asked, revision, &token.after).await.map_err(|error| match error {
            StoreError::Compacted { .. } => {
                let mut status = Status::new(Reason::Expired, CONTINUE_EXPIRED);
                status.continue_token = Some(ContinueToken { revision: None, ..token }.encode());
                status
            }
            StoreError::FutureRevision { .. } => {
                Status::bad_request("continue key is not valid: it is from the future")
            }
            other => feed::status(other),
        })
    }

    fn present_page(&self, asked: &Asked<'_>, after: &str) -> Page {
        let Asked { cache, scope, selection, limit } = *asked;
        let wanted = |stored: &Stored| selection.matches(&stored.key, &stored.header);
        let listed = cache.list(scope, after, limit, || self.cache.revision(), wanted);
        asked.page(listed.items, listed.revision, &listed.last, listed.remaining)
    }

    /// A page as of `revision`. Objects that have not changed since are taken from memory.
    async fn past_page(&self, asked: &Asked<'_>, revision: u64, after: &str) -> Result<Page, StoreError> {
        let Asked { cache, scope, selection, limit } = *asked;
        let prefix = if scope.namespace.is_empty() {
            cache.prefix.clone()
        } else {
            format!("{}{}/", cache.prefix, scope.namespace)
        };
        let mut span = Span::prefix(&Key::from(prefix));
        if !after.is_empty() {
            span = span.after(&Key::from(format!("{}{after}", cache.prefix)));
        }
        let mut items: Vec<Arc<Stored>> = Vec::new();
        loop {
            let page = self.store.range(&span, Some(revision), STORE_PAGE_ENTRIES.min(limit)).await?;
            let Some(last) = page.entries.last().map(|entry| entry.key.clone()) else {
                return Ok(asked.page(items, revision, "", 0));
            };
            let (more, entries) = (page.remaining, page.entries.len());
            for (index, entry) in page.entries.into_iter().enumerate() {
                let Some(stored) = self.stored_at(cache, entry) else { continue };
                if !selection.matches(&stored.key, &stored.header) {
                    continue;
                }
                let path = KindCache::path(&stored.key);
                items.push(stored);
                if items.len() == limit {
                    let remaining = more + (entries - index - 1) as u64;
                    return Ok(asked.page(items, revision, &path, remaining));
                }
            }
            if more == 0 {
                return Ok(asked.page(items, revision, "", 0));
            }
            span = span.after(&last);
        }
    }

    fn stored_at(&self, cache: &KindCache, entry: store::Entry) -> Option<Arc<Stored>> {
        let key: ObjectKey = cache.object_key(entry.key.as_str()?.strip_prefix(&cache.prefix)?)?;
        if let Some(cached) = cache.get(&key).filter(|cached| cached.revision == entry.mod_revision) {
            return Some(cached);
        }
        let opened = self.transformer.open(&cache.kind, &entry.key, &entry.value);
        match opened.and_then(|bytes| Stored::read(&cache.kind, key, entry.mod_revision, bytes)) {
            Ok(stored) => Some(Arc::new(stored)),
            Err(error) => {
                tracing::error!(key = %entry.key, %error, "a stored object cannot be read");
                None
            }
        }
    }

    /// `status` shows the object itself, `scale` a view of it.
    pub(super) async fn read_subresource(&self, cx: &Context, target: &Target) -> Result<Outcome, Status> {
        let stored = self.read_one(cx, target).await?;
        match target.subresource.as_str() {
            "" => Ok(Outcome::found(stored)),
            "scale" => super::scale::read(target, &stored).map(Outcome::made),
            _ => Ok(Outcome::found(stored)),
        }
    }
}

/// A list, taken apart.
#[derive(Clone, Copy)]
struct Asked<'a> {
    cache: &'a KindCache,
    scope: &'a Scope,
    selection: &'a Selection,
    limit: usize,
}

impl Asked<'_> {
    /// The count of what follows is exact only when everything counts.
    fn page(&self, items: Vec<Arc<Stored>>, revision: u64, last: &str, remaining: u64) -> Page {
        let more = remaining > 0 && !last.is_empty();
        let token = ContinueToken { revision: Some(revision), after: last.to_string() };
        Page {
            items,
            revision,
            continue_token: if more { token.encode() } else { String::new() },
            remaining: (more && self.selection.is_everything()).then_some(remaining),
        }
    }
}
