//! Delete of a whole collection: each object as a delete of its own, several at a time so that they share commits.

use std::sync::Arc;

use client::door::DeleteOptions;
use futures::{StreamExt, TryStreamExt};
use meta::Status;

use super::{Answer, Outcome, Page, Registry, Target};
use crate::context::Context;
use crate::stored::Stored;

/// How many deletes are under way at a time.
const DELETES_AT_ONCE: usize = 64;

impl Registry {
    pub(super) async fn delete_all(
        &self,
        cx: &Context,
        target: &Target,
        options: &DeleteOptions,
    ) -> Result<Page, Status> {
        let page = self.read_page(cx, target).await?;
        let deletes: Vec<_> =
            page.items.iter().map(|stored| self.delete_item(cx, target, options, stored.clone())).collect();
        let deleted: Vec<Option<Arc<Stored>>> =
            futures::stream::iter(deletes).buffered(DELETES_AT_ONCE).try_collect().await?;
        Ok(Page { items: deleted.into_iter().flatten().collect(), ..page })
    }

    /// None when it is gone already.
    async fn delete_item(
        &self,
        cx: &Context,
        target: &Target,
        options: &DeleteOptions,
        stored: Arc<Stored>,
    ) -> Result<Option<Arc<Stored>>, Status> {
        let one = Target::object(&target.kind, &stored.key);
        match self.delete_stored(cx, &one, options).await {
            Ok(Outcome::Object { answer: Answer::Stored(last), .. }) => Ok(Some(last)),
            Ok(_) => Ok(Some(stored)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}
