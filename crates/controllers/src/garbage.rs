//! Garbage collector: what nobody owns any more goes, in the order its owner's deletion asked for.
//!
//! ```text
//! owner gone (background)          -> dependents with no other living owner are deleted
//! owner has `foregroundDeletion`   -> dependents go first; the finalizer goes when none that blocks is left
//! owner has `orphan`               -> dependents lose their reference to it; then the finalizer goes
//! ```
//!
//! The graph may lag, so before anything is deleted the object and each owner that the graph does not know are read from the
//! API; a deletion names the uid, so that a new object of the same name is never hit.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use client::{Client, Deletion, Next, Outcome, Patch, Propagation, Queue};
use meta::{Object, ObjectKey, OwnerReference, Status};
use serde_json::{Value, json};

use crate::graph::{Graph, Item, Moved, Resource};
use crate::{Context, WORKERS};

const NAME: &str = "generic-garbage-collector";
const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// What to look at: one object by its uid.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Suspect {
    uid: String,
}

impl fmt::Display for Suspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uid)
    }
}

/// Which change makes which objects worth a look. Handed to the graph as a listener.
pub fn listener(queue: &Queue<Suspect>) -> crate::graph::Listener {
    let queue = queue.clone();
    Box::new(move |graph, moved| {
        let suspect = |item: &Item| Suspect { uid: item.uid.clone() };
        match moved {
            Moved::Put { old, new } => {
                let absent = new.owners.iter().any(|owner| graph.get(&owner.uid).is_none_or(|owner| owner.deleting));
                let finalized = new.deleting && new.finalizers.iter().any(|it| it == FOREGROUND || it == ORPHAN);
                if absent || finalized {
                    queue.add(suspect(new));
                }
                if new.deleting {
                    queue.add_all(graph.dependents(&new.uid).iter().map(suspect));
                }
                // An owner in foreground deletion need not wait for this one any longer.
                let blocked = old.iter().flat_map(blocking).filter(|uid| !blocking(new).any(|now| now == *uid));
                queue.add_all(blocked.map(|uid| Suspect { uid: uid.to_owned() }));
            }
            Moved::Gone(item) => {
                queue.add_all(graph.dependents(&item.uid).iter().map(suspect));
                // An owner in foreground deletion may have waited for this one.
                queue.add_all(item.owners.iter().map(|owner| Suspect { uid: owner.uid.clone() }));
            }
        }
    })
}

/// The owners whose foreground deletion waits for the item.
fn blocking(item: &Item) -> impl Iterator<Item = &str> {
    let blocking = item.owners.iter().filter(|owner| owner.block_owner_deletion == Some(true));
    blocking.map(|owner| owner.uid.as_str())
}

fn foreground(item: &Item) -> bool {
    item.deleting && item.finalizers.iter().any(|finalizer| finalizer == FOREGROUND)
}

struct Collector {
    client: Client,
    graph: Graph,
    by_kind: HashMap<(String, String), Arc<Resource>>,
}

/// `queue` is the one that [`listener`] fills.
pub fn start(cx: &Context, graph: &Graph, queue: &Queue<Suspect>) {
    let (client, _) = cx.identity(NAME);
    let kinds = graph.resources().iter().map(|resource| {
        let group = resource.gvr.group.to_string();
        ((group, resource.kind.clone()), resource.clone())
    });
    let collector = Arc::new(Collector { client, graph: graph.clone(), by_kind: kinds.collect() });
    cx.run_workers(NAME, WORKERS, queue, move |suspect| {
        let collector = collector.clone();
        async move {
            let Some(item) = collector.graph.get(&suspect.uid) else { return Ok(Next::Wait) };
            collector.sync(&item).await
        }
    });
}

/// An owner as the cluster shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnerState {
    Alive,
    /// It waits, in foreground deletion, for this very dependent.
    WaitsForUs,
    Gone,
}

impl Collector {
    async fn sync(&self, item: &Item) -> Result<Next, Status> {
        let live = self.client.get_object(&item.resource.gvr, &item.key).await.unless_gone()?;
        let Some(live) = live.filter(|live| live.uid() == item.uid) else { return Ok(Next::Wait) };
        if live.is_being_deleted() {
            return self.finish_deletion(item, &live).await;
        }
        let owners = live.owner_references();
        if owners.is_empty() {
            return Ok(Next::Wait);
        }
        let mut states = Vec::new();
        for owner in &owners {
            states.push(self.owner_state(item, owner).await?);
        }
        self.settle(item, &live, &owners, &states).await
    }

    async fn owner_state(&self, item: &Item, owner: &OwnerReference) -> Result<OwnerState, Status> {
        let waits = |foreground: bool| foreground && owner.block_owner_deletion == Some(true);
        if let Some(known) = self.graph.get(&owner.uid) {
            return Ok(if waits(foreground(&known)) { OwnerState::WaitsForUs } else { OwnerState::Alive });
        }
        let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let Some(resource) = self.by_kind.get(&(group.to_string(), owner.kind.clone())) else {
            // A kind that is not served (any more) may come back: never delete on such a guess.
            return Ok(OwnerState::Alive);
        };
        if resource.namespaced && item.key.namespace.is_empty() {
            // A cluster-wide object cannot be owned by a namespaced one.
            return Ok(OwnerState::Alive);
        }
        let namespace = if resource.namespaced { &*item.key.namespace } else { "" };
        let live =
            self.client.get_object(&resource.gvr, &ObjectKey::new(namespace, &owner.name)).await.unless_gone()?;
        let Some(live) = live.filter(|live| live.uid() == owner.uid) else { return Ok(OwnerState::Gone) };
        let foreground = live.is_being_deleted() && live.finalizers().any(|finalizer| finalizer == FOREGROUND);
        Ok(if waits(foreground) { OwnerState::WaitsForUs } else { OwnerState::Alive })
    }

    /// Acts on what became of the owners.
    async fn settle(
        &self,
        item: &Item,
        live: &Object,
        owners: &[OwnerReference],
        states: &[OwnerState],
    ) -> Result<Next, Status> {
        if states.contains(&OwnerState::Alive) {
            let dead = owners.iter().zip(states).filter(|(_, state)| **state != OwnerState::Alive);
            let dead: Vec<&str> = dead.map(|(owner, _)| owner.uid.as_str()).collect();
            if !dead.is_empty() {
                self.drop_owners(item, live, |owner| dead.contains(&owner.uid.as_str())).await?;
            }
            return Ok(Next::Wait);
        }
        let finalizers: Vec<&str> = live.finalizers().collect();
        let dependents = self.graph.dependents(&item.uid);
        let waited_for = states.contains(&OwnerState::WaitsForUs) && !dependents.is_empty();
        let mut version = live.resource_version().to_string();
        if waited_for && dependents.iter().any(foreground) {
            // Whoever waits for us may be waited for by us, round a circle: here it is cut open.
            let Some(freed) = self.stop_blocking(item, live).await? else { return Ok(Next::Wait) };
            version = freed.resource_version().to_string();
        }
        let propagation = if waited_for || finalizers.contains(&FOREGROUND) {
            Propagation::Foreground
        } else if finalizers.contains(&ORPHAN) {
            Propagation::Orphan
        } else {
            Propagation::Background
        };
        let deletion = Deletion {
            uid: Some(item.uid.clone()),
            resource_version: Some(version),
            propagation: Some(propagation),
            ..Deletion::default()
        };
        self.client.delete_object(&item.resource.gvr, &item.key, deletion).await.unless_gone()?;
        Ok(Next::Wait)
    }

    /// Does for an object on its way out what its finalizers of ours ask for.
    async fn finish_deletion(&self, item: &Item, live: &Object) -> Result<Next, Status> {
        let finalizers: Vec<&str> = live.finalizers().collect();
        if finalizers.contains(&ORPHAN) {
            for dependent in self.graph.dependents(&item.uid) {
                let Ok(object) = self.client.get_object(&dependent.resource.gvr, &dependent.key).await else {
                    continue;
                };
                self.drop_owners(&dependent, &object, |owner| owner.uid == item.uid).await?;
            }
            return self.drop_finalizer(item, live, ORPHAN).await;
        }
        if finalizers.contains(&FOREGROUND) {
            let blocks = |dependent: &Item| {
                dependent.owners.iter().any(|owner| owner.uid == item.uid && owner.block_owner_deletion == Some(true))
            };
            if !self.graph.dependents(&item.uid).iter().any(blocks) {
                return self.drop_finalizer(item, live, FOREGROUND).await;
            }
        }
        Ok(Next::Wait)
    }

    async fn drop_owners(
        &self,
        item: &Item,
        live: &Object,
        goes: impl Fn(&OwnerReference) -> bool,
    ) -> Result<(), Status> {
        let kept: Vec<Value> =
            live.owner_references().iter().filter(|owner| !goes(owner)).map(|owner| json!(owner)).collect();
        self.change_metadata(item, live, json!({"ownerReferences": kept})).await.map(drop)
    }

    /// No owner waits for the item any longer. Answers what it is then; none when it is gone.
    async fn stop_blocking(&self, item: &Item, live: &Object) -> Result<Option<Object>, Status> {
        let freed = live
            .owner_references()
            .into_iter()
            .map(|owner| OwnerReference { block_owner_deletion: Some(false), ..owner });
        let freed: Vec<Value> = freed.map(|owner| json!(owner)).collect();
        self.change_metadata(item, live, json!({"ownerReferences": freed})).await
    }

    async fn drop_finalizer(&self, item: &Item, live: &Object, finalizer: &str) -> Result<Next, Status> {
        let kept: Vec<&str> = live.finalizers().filter(|known| *known != finalizer).collect();
        self.change_metadata(item, live, json!({"finalizers": kept})).await?;
        Ok(Next::Wait)
    }

    /// A change that only holds for the very version that was looked at. None when the object is gone.
    async fn change_metadata(&self, item: &Item, live: &Object, mut metadata: Value) -> Result<Option<Object>, Status> {
        metadata["uid"] = live.uid().into();
        metadata["resourceVersion"] = live.resource_version().into();
        let patch = Patch::Merge(json!({"metadata": metadata}));
        let changed = self.client.patch_object(&item.resource.gvr, &item.key, "", patch).await.unless_gone()?;
        changed.map(|changed| changed.object()).transpose()
    }
}
