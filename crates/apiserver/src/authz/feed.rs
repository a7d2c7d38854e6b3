//! Keeps the authorizers' indexes up to date: one list and watch per kind, straight from the registry's cache.
//!
//! ```text
//! roles, bindings ─► Rbac        pods, volumes, certificate requests ─► NodeGraph
//! ```
//!
//! A watch that ends goes on where it was; one whose revision is gone lists again and drops what vanished in between. Until
//! every index has been filled once the server is not ready.
//!
//! An index is a moment behind the writes. Whoever is refused in that moment is asked about again when it has passed
//! ([`Indexes::catch_up`]), so that a role, a binding or a pod on a node counts from the answer to its write on.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use base::{Backoff, BackoffPolicy, Clock, Tasks};
use client::Verb;
use futures::StreamExt;
use futures::future::join_all;
use meta::{GroupResource, Object, ObjectKey, Status};
use store::Revision;
use tokio::sync::watch;

use super::node::NodeAuthorizer;
use super::rbac::Rbac;
use crate::context::Context;
use crate::reader::server_identity;
use crate::registry::{Event, Registry, Target};

/// How failures of the registry are waited out.
const RETRY: BackoffPolicy = BackoffPolicy::doubling(Duration::from_millis(10), Duration::from_secs(10));

/// How long a refusal waits at most for indexes that are behind.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);

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

/// One index from outside: what it is made of, and the revision it has come to, none before it is filled.
struct Progress {
    resource: GroupResource,
    reached: Arc<watch::Sender<Option<Revision>>>,
}

impl Progress {
    async fn reach(&self, revision: Option<Revision>) {
        // The sender is ours, so the wait can only end well.
        drop(self.reached.subscribe().wait_for(|reached| reached.is_some() && *reached >= revision).await);
    }
}

/// All indexes from outside.
#[derive(Clone)]
pub struct Indexes {
    registry: Arc<Registry>,
    all: Arc<[Progress]>,
}

impl Indexes {
    pub fn is_synced(&self) -> bool {
        self.all.iter().all(|index| index.reached.borrow().is_some())
    }

    /// Resolves when all are filled.
    pub async fn synced(&self) {
        for index in &*self.all {
            index.reach(None).await;
        }
    }

    /// Waits until the indexes know what was written before this call, but not for long.
    pub async fn catch_up(&self) {
        if let Err(status) = self.registry.be_current().await {
            tracing::warn!(%status, "the authorization indexes may be behind");
        }
        let all = self.all.iter().map(|index| index.reach(Some(self.registry.latest_change(&index.resource))));
        if tokio::time::timeout(CATCH_UP_MAX, join_all(all)).await.is_err() {
            tracing::warn!("an authorization index is more than {CATCH_UP_MAX:?} behind");
        }
    }
}

/// Starts the watches.
pub fn start(
    registry: &Arc<Registry>,
    rbac: &Arc<Rbac>,
    node: &Arc<NodeAuthorizer>,
    clock: &Clock,
    tasks: &Tasks,
) -> Indexes {
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
    let mut all = Vec::new();
    for (resource, index) in indexes {
        let reached = Arc::new(watch::Sender::new(None));
        all.push(Progress { resource: resource.clone(), reached: reached.clone() });
        let feed = Feed { registry: registry.clone(), resource, index, known: HashSet::new(), reached };
        tasks.spawn("authorization index", feed.run(clock.clone()));
    }
    Indexes { registry: registry.clone(), all: all.into() }
}

struct Feed {
    registry: Arc<Registry>,
    resource: GroupResource,
    index: Box<dyn Index>,
    known: HashSet<ObjectKey>,
    reached: Arc<watch::Sender<Option<Revision>>>,
}

impl Feed {
    async fn run(mut self, clock: Clock) {
        let mut backoff = Backoff::new(RETRY);
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
        self.reached.send_replace(Some(page.revision));
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
            self.reached.send_replace(Some(reached));
        }
        Ok(reached)
    }
}
