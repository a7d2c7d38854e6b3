//! Namespace: one that is being deleted is emptied, and goes when nothing is left in it.
//!
//! The graph of all objects says what is left, so the controller is woken by an object's going instead of asking again and
//! again, and lists only the kinds that are there. The graph may lag behind: before the namespace is let go, every kind is listed
//! once to be sure. What holds it up is in its conditions.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{Client, Deletion, ListQuery, Lister, Next, Outcome, Queue, Typed};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use meta::{GroupVersionResource, Object, ObjectKey, Status, time};
use serde_json::{Value, json};

use crate::graph::{Graph, Moved, Resource};
use crate::views::Whole;
use crate::{Context, WORKERS, views};

const NAME: &str = "namespace-controller";
const FINALIZER: &str = "kubernetes";

/// Wakes the namespace of an object that went or changed its finalizers. Handed to the graph as a listener.
pub fn listener(queue: &Queue<ObjectKey>) -> crate::graph::Listener {
    let queue = queue.clone();
    Box::new(move |_, moved| {
        let item = match moved {
            Moved::Gone(item) => item,
            Moved::Put { new, .. } if new.deleting => new,
            Moved::Put { .. } => return,
        };
        if !item.key.namespace.is_empty() {
            queue.add(ObjectKey::cluster(&item.key.namespace));
        }
    })
}

#[derive(Clone)]
struct Namespaces {
    cx: Context,
    client: Client,
    graph: Graph,
    /// One entry: what is emptied first.
    pods: Vec<Arc<Resource>>,
    namespaces: Lister<Whole<Namespace>>,
}

/// `queue` is the one that [`listener`] fills.
pub fn start(cx: &Context, graph: &Graph, queue: &Queue<ObjectKey>) {
    let (client, _) = cx.identity(NAME);
    let namespaces = views::whole::<Namespace>(&cx.informers);
    let wake = queue.clone();
    namespaces.subscribe(move |change| wake.add(change.key().clone()));
    let pods = graph.resources().iter().filter(|resource| resource.gvr == Pod::gvr()).cloned().collect();
    let controller = Namespaces { cx: cx.clone(), client, graph: graph.clone(), pods, namespaces: namespaces.lister() };
    cx.run_workers(NAME, WORKERS, queue, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    });
}

/// What is still in a namespace.
#[derive(Debug, Default)]
struct Remains {
    content: BTreeMap<GroupVersionResource, usize>,
    finalizers: BTreeMap<String, usize>,
    failure: Option<String>,
}

impl Remains {
    fn is_nothing(&self) -> bool {
        self.content.is_empty() && self.failure.is_none()
    }
}

impl Namespaces {
    async fn sync(&self, key: &ObjectKey) -> Result<Next, Status> {
        let Some(namespace) = self.namespaces.get(key) else { return Ok(Next::Wait) };
        if views::is_alive(&namespace.view) {
            return Ok(Next::Wait);
        }
        let object = namespace.object()?;
        if object.str_at(&["status", "phase"]) != "Terminating" {
            // The event of this write brings us back.
            self.write_status(&object, json!({"phase": "Terminating"})).await?;
            return Ok(Next::Wait);
        }
        let held_by_us = object.list_at(&["spec", "finalizers"]).iter().any(|finalizer| finalizer == FINALIZER);
        if !held_by_us {
            return Ok(Next::Wait);
        }
        let remains = self.empty(&key.name).await?;
        if remains.is_nothing() {
            return self.let_go(&object).await;
        }
        let conditions =
            conditions(object.list_at(&["status", "conditions"]), &remains, &time::rfc3339(self.cx.clock.now()));
        if object.list_at(&["status", "conditions"]) != conditions {
            self.write_status(&object, json!({"phase": "Terminating", "conditions": conditions})).await?;
        }
        match remains.failure {
            Some(why) => Err(Status::internal(why)),
            None => Ok(Next::Wait),
        }
    }

    /// Deletes everything and answers what is left. Pods go first and all the way: what they use, and the policies that hold
    /// them back, must outlive them.
    async fn empty(&self, namespace: &str) -> Result<Remains, Status> {
        let pods = self.empty_of(self.pods.as_slice(), namespace).await?;
        if !pods.is_nothing() {
            return Ok(pods);
        }
        let known = self.empty_of(&self.graph.kinds_in(namespace), namespace).await?;
        if known.is_nothing() { self.empty_of(self.graph.resources(), namespace).await } else { Ok(known) }
    }

    /// As [`Namespaces::empty`], of the kinds given.
    async fn empty_of(&self, resources: &[Arc<Resource>], namespace: &str) -> Result<Remains, Status> {
        let mut remains = Remains::default();
        let query = ListQuery::in_namespace(namespace);
        for resource in resources.iter().filter(|resource| resource.namespaced) {
            let listed = match self.client.list_encoded(&resource.gvr, &query).await {
                Ok(listed) => listed,
                Err(status) if status.is_not_found() || status.code == 405 => continue,
                Err(status) => {
                    remains.failure = Some(status.to_string());
                    continue;
                }
            };
            if listed.items.is_empty() {
                continue;
            }
            if let Err(status) = self.client.delete_collection(&resource.gvr, &query, Deletion::default()).await {
                remains.failure = Some(status.to_string());
            }
            let left = self.client.list_encoded(&resource.gvr, &query).await?;
            if !left.items.is_empty() {
                remains.content.insert(resource.gvr.clone(), left.items.len());
            }
            for item in &left.items {
                for finalizer in item.object()?.finalizers() {
                    *remains.finalizers.entry(finalizer.to_string()).or_default() += 1;
                }
            }
        }
        Ok(remains)
    }

    async fn let_go(&self, namespace: &Object) -> Result<Next, Status> {
        let mut object = namespace.clone();
        let kept = object.list_at(&["spec", "finalizers"]).iter().filter(|finalizer| *finalizer != FINALIZER).cloned();
        let kept: Vec<Value> = kept.collect();
        object.set(&["spec", "finalizers"], kept);
        self.client.update_object(&Namespace::gvr(), "finalize", object).await.unless_gone()?;
        Ok(Next::Wait)
    }

    async fn write_status(&self, namespace: &Object, status: Value) -> Result<(), Status> {
        let change = json!({"status": status});
        self.client.amend_object(&Namespace::gvr(), "status", namespace, change).await.unless_gone().map(drop)
    }
}

/// The five conditions of a namespace on its way out.
fn conditions(current: &[Value], remains: &Remains, now: &str) -> Vec<Value> {
    let listed = |words: Vec<String>| words.join(", ");
    let content = remains.content.iter().map(|(gvr, count)| {
        let name = gvr.group_resource();
        // Upstream writes `pods.` for the core group, with its dot.
        format!("{}.{} has {count} resource instances", name.resource, name.group)
    });
    let finalizers = remains.finalizers.iter().map(|(name, count)| format!("{name} in {count} resource instances"));
    let (content, finalizers) = (listed(content.collect()), listed(finalizers.collect()));
    let failed = |message: &Option<String>| message.clone().map(|message| ("ContentDeletionFailed", message));
    let found = |text: String, reason: &'static str, words: &str| {
        (!text.is_empty()).then(|| (reason, format!("{words}: {text}")))
    };
    let all = [
        ("NamespaceDeletionDiscoveryFailure", None, ("ResourcesDiscovered", "All resources successfully discovered")),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        (
            "NamespaceDeletionContentFailure",
            failed(&remains.failure),
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        (
            "NamespaceContentRemaining",
            found(content, "SomeResourcesRemain", "Some resources are remaining"),
            ("ContentRemoved", "All content successfully removed"),
        ),
        (
            "NamespaceFinalizersRemaining",
            found(finalizers, "SomeFinalizersRemain", "Some content in the namespace has finalizers remaining"),
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ];
    let condition = |(name, trouble, fine): (&str, Option<(&str, String)>, (&str, &str))| {
        let status = if trouble.is_some() { "True" } else { "False" };
        let (reason, message) = trouble.unwrap_or((fine.0, fine.1.to_string()));
        let same = current.iter().find(|known| known["type"] == name && known["status"] == status);
        let since = same.map_or_else(|| now.into(), |known| known["lastTransitionTime"].clone());
        json!({"type": name, "status": status, "reason": reason, "message": message, "lastTransitionTime": since})
    };
    all.into_iter().map(condition).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_name_what_is_left_and_what_it_waits_for() {
        let remains = Remains {
            content: [(GroupVersionResource::new("", "v1", "pods"), 2)].into(),
            finalizers: [("example.com/hold".to_string(), 1)].into(),
            failure: None,
        };
        let first = conditions(&[], &remains, "t1");
        assert_eq!(first[3]["message"], "Some resources are remaining: pods. has 2 resource instances");
        let expected =
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances";
        assert_eq!(first[4]["message"], expected);
        let second = conditions(&first, &remains, "t2");
        assert_eq!(second, first, "times move only with the status");
    }
}
