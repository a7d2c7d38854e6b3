//! Keeps the authorizers' indexes up to date: one list and watch per kind, straight from the registry's cache.
//!
//! ```text
//! roles, bindings ─► Rbac        pods, volumes, certificate requests ─► NodeGraph
//! ```
//!
//! A watch that ends goes on where it was; one whose revision is gone lists again and drops what vanished in between. Until
//! every index has been filled once the server is not ready.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use base::{Backoff, BackoffPolicy, Clock, Tasks};
use client::Verb;
use futures::StreamExt;
use meta::{GroupResource, Object, ObjectKey, Status};
use tokio::sync::watch;

use super::node::NodeAuthorizer;
use super::rbac::Rbac;
use crate::context::Context;
use crate::reader::server_identity;
use crate::registry::{Event, Registry, Target};

/// How failures of the registry are waited out.
const RETRY: BackoffPolicy = BackoffPolicy::doubling(Duration::from_millis(10), Duration::from_secs(10));

/// Takes changes of one kind into an index.
trait Index: Send + Sync + 'static {
    fn put(&self, object: &Object);
    fn remove(&self, key: &ObjectKey);
}

struct Roles(Arc<Rbac>);
struct Bindings(Arc<Rbac>);
struct Pods(Arc<NodeAuthorizer>);
struct Volumes(Arc<NodeAuthorizer>);
struct CertificateRequests(Arc<NodeAuthorizer>);

impl Index for Roles {
    fn put(&self, object: &Object) {
        self.0.put_role(object);
    }
    fn remove(&self, key: &ObjectKey) {
        self.0.remove_role(key);
    }
}

impl Index for Bindings {
    fn put(&self, object: &Object) {
        self.0.put_binding(object);
    }
    fn remove(&self, key: &ObjectKey) {
        self.0.remove_binding(key);
    }
}

impl Index for Pods {
    fn put(&self, object: &Object) {
        self.0.graph.put_pod(object);
    }
    fn remove(&self, key: &ObjectKey) {
        self.0.graph.remove_pod(key);
    }
}

impl Index for Volumes {
    fn put(&self, object: &Object) {
        self.0.graph.put_volume(object);
    }
    fn remove(&self, key: &ObjectKey) {
        self.0.graph.remove_volume(&key.name);
    }
}

impl Index for CertificateRequests {
    fn put(&self, object: &Object) {
        self.0.graph.put_certificate_request(object);
    }
    fn remove(&self, key: &ObjectKey) {
        self.0.graph.remove_certificate_request(key);
    }
}

/// How many indexes have yet to be filled for the first time.
#[derive(Clone)]
pub struct Pending(Arc<watch::Sender<usize>>);

impl Pending {
    pub fn is_synced(&self) -> bool {
        *self.0.borrow() == 0
    }

    /// Resolves when all are filled.
    pub async fn synced(&self) {
        // The sender is ours, so the wait can only end well.
        drop(self.0.subscribe().wait_for(|pending| *pending == 0).await);
    }
}

/// Starts the watches.
pub fn start(
    registry: &Arc<Registry>,
    rbac: &Arc<Rbac>,
    node: &Arc<NodeAuthorizer>,
    clock: &Clock,
    tasks: &Tasks,
) -> Pending {
    const RBAC: &str = "rbac.authorization.k8s.io";
    let indexes: [(GroupResource, Box<dyn Index>); 7] = [
        (GroupResource::new(RBAC, "clusterroles"), Box::new(Roles(rbac.clone()))),
        (GroupResource::new(RBAC, "roles"), Box::new(Roles(rbac.clone()))),
        (GroupResource::new(RBAC, "clusterrolebindings"), Box::new(Bindings(rbac.clone()))),
        (GroupResource::new(RBAC, "rolebindings"), Box::new(Bindings(rbac.clone()))),
        (GroupResource::new("", "pods"), Box::new(Pods(node.clone()))),
        (GroupResource::new("", "persistentvolumes"), Box::new(Volumes(node.clone()))),
        (
            GroupResource::new("certificates.k8s.io", "podcertificaterequests"),
            Box::new(CertificateRequests(node.clone())),
        ),
    ];
    let pending = Pending(Arc::new(watch::Sender::new(indexes.len())));
    for (resource, index) in indexes {
        let feed = Feed { registry: registry.clone(), resource, index, known: HashSet::new() };
        tasks.spawn("authorization index", feed.run(clock.clone(), pending.clone()));
    }
    pending
}

struct Feed {
    registry: Arc<Registry>,
    resource: GroupResource,
    index: Box<dyn Index>,
    known: HashSet<ObjectKey>,
}

impl Feed {
    async fn run(mut self, clock: Clock, pending: Pending) {
        let mut backoff = Backoff::new(RETRY);
        let mut filled = false;
        let mut revision = None;
        loop {
            let round = match revision {
                None => self.list().await,
                Some(from) => self.watch(from).await,
            };
            match round {
                Ok(reached) => {
                    backoff.reset();
                    revision = Some(reached);
                    if !filled {
                        filled = true;
                        pending.0.send_modify(|pending| *pending -= 1);
                    }
                }
                Err(status) => {
                    if !status.is_expired() {
                        tracing::warn!(resource = %self.resource, %status, "cannot keep an authorization index");
                    }
                    revision = None;
                    clock.sleep(backoff.next(clock.instant())).await;
                }
            }
        }
    }

    fn target(&self) -> Result<Target, Status> {
        let kinds = self.registry.kinds();
        let kind = kinds.by_group_resource(&self.resource).next().ok_or_else(Status::no_such_resource)?;
        Ok(Target::collection(kind, ""))
    }

    async fn list(&mut self) -> Result<u64, Status> {
        let page = self.registry.list(&Context::of(server_identity(), Verb::List), &self.target()?).await?;
        let mut gone = std::mem::take(&mut self.known);
        for stored in &page.items {
            self.index.put(&stored.stored_object()?);
            gone.remove(&stored.key);
            self.known.insert(stored.key.clone());
        }
        gone.iter().for_each(|key| self.index.remove(key));
        Ok(page.revision)
    }

    /// Follows changes until the watch ends; returns how far it came.
    async fn watch(&mut self, from: u64) -> Result<u64, Status> {
        let mut cx = Context::of(server_identity(), Verb::Watch);
        cx.options.resource_version = from.to_string();
        cx.options.allow_watch_bookmarks = true;
        let mut events = self.registry.watch(&cx, &self.target()?).await?;
        let mut reached = from;
        while let Some(event) = events.next().await {
            match event {
                Event::Added(stored) | Event::Modified(stored) => {
                    reached = stored.revision;
                    self.index.put(&stored.stored_object()?);
                    self.known.insert(stored.key.clone());
                }
                Event::Deleted(stored) => {
                    reached = stored.revision;
                    self.index.remove(&stored.key);
                    self.known.remove(&stored.key);
                }
                Event::Bookmark { revision, .. } => reached = revision,
                Event::Error(status) => return Err(status),
            }
        }
        Ok(reached)
    }
}
