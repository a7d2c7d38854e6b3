//! Who owns whom: the metadata of every object in the cluster, kept by one informer per kind.
//!
//! The garbage collector walks it; the namespace controller learns from it what is in a namespace. Only what those two need
//! is kept of each object. An object whose owner cannot be seen (yet) points to an owner that is merely expected: whether it
//! really exists is asked of the API before anything is done about it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use client::{Change, Encoded, Projection, Watched};
use meta::{GroupVersionResource, ObjectKey, OwnerReference, Status};
use parking_lot::Mutex;

use crate::Context;

/// A kind of object that the API serves, as far as these controllers care.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Resource {
    pub gvr: GroupVersionResource,
    pub kind: String,
    pub namespaced: bool,
}

/// One object.
#[derive(Clone, Debug)]
pub struct Item {
    pub resource: Arc<Resource>,
    pub key: ObjectKey,
    pub uid: String,
    pub owners: Vec<OwnerReference>,
    pub finalizers: Vec<String>,
    pub deleting: bool,
}

/// The fields the graph keeps.
#[derive(Debug)]
struct Node {
    uid: String,
    owners: Vec<OwnerReference>,
    finalizers: Vec<String>,
    deleting: bool,
}

impl Projection for Node {
    fn project(encoded: &Encoded) -> Result<Self, Status> {
        let object = encoded.object()?;
        Ok(Node {
            uid: object.uid().to_string(),
            owners: object.owner_references(),
            finalizers: object.finalizers().map(String::from).collect(),
            deleting: object.is_being_deleted(),
        })
    }
}

/// What changed, told after the graph shows it.
#[derive(Clone, Debug)]
pub enum Moved {
    Put { old: Option<Item>, new: Item },
    Gone(Item),
}

/// Called for each change.
pub type Listener = Box<dyn Fn(&Graph, &Moved) + Send + Sync>;

#[derive(Default)]
struct State {
    items: HashMap<String, Item>,
    dependents: HashMap<String, HashSet<String>>,
    /// How many objects of which kind a namespace holds.
    namespaces: HashMap<String, HashMap<Arc<Resource>, usize>>,
}

/// The graph. Cheap to clone.
#[derive(Clone)]
pub struct Graph {
    state: Arc<Mutex<State>>,
    resources: Arc<Vec<Arc<Resource>>>,
    listeners: Arc<Vec<Listener>>,
}

impl Graph {
    /// Follows all of `resources`; `listeners` are told of every change.
    pub fn start(cx: &Context, resources: Vec<Resource>, listeners: Vec<Listener>) -> Self {
        let resources: Arc<Vec<Arc<Resource>>> = Arc::new(resources.into_iter().map(Arc::new).collect());
        let graph = Graph { state: Arc::default(), resources: resources.clone(), listeners: Arc::new(listeners) };
        for resource in resources.iter() {
            let informer = cx.informers.of::<Node>(Watched::all(resource.gvr.clone()), &[]);
            let (graph, resource) = (graph.clone(), resource.clone());
            informer.subscribe(move |change| graph.changed(&resource, change));
        }
        graph
    }

    pub fn resources(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    fn changed(&self, resource: &Arc<Resource>, change: &Change<Node>) {
        let item = |node: &Arc<Node>| Item {
            resource: resource.clone(),
            key: change.key().clone(),
            uid: node.uid.clone(),
            owners: node.owners.clone(),
            finalizers: node.finalizers.clone(),
            deleting: node.deleting,
        };
        match change.sides() {
            (old, Some(new)) => {
                let (old, new) = (old.map(item), item(new));
                // Deleted and made anew between two lists.
                if let Some(before) = old.as_ref().filter(|old| old.uid != new.uid) {
                    self.gone(before.clone());
                }
                let old = old.filter(|old| old.uid == new.uid);
                self.state.lock().put(new.clone());
                self.tell(&Moved::Put { old, new });
            }
            (Some(old), None) => self.gone(item(old)),
            (None, None) => {}
        }
    }

    fn gone(&self, item: Item) {
        self.state.lock().remove(&item.uid);
        self.tell(&Moved::Gone(item));
    }

    fn tell(&self, moved: &Moved) {
        self.listeners.iter().for_each(|listener| listener(self, moved));
    }

    pub fn get(&self, uid: &str) -> Option<Item> {
        self.state.lock().items.get(uid).cloned()
    }

    /// The kinds of the objects that a namespace is known to hold.
    pub fn kinds_in(&self, namespace: &str) -> Vec<Arc<Resource>> {
        self.state.lock().namespaces.get(namespace).into_iter().flat_map(HashMap::keys).cloned().collect()
    }

    /// The objects that name `uid` as an owner.
    pub fn dependents(&self, uid: &str) -> Vec<Item> {
        let state = self.state.lock();
        let uids = state.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| state.items.get(uid)).cloned().collect()
    }
}

impl State {
    fn put(&mut self, item: Item) {
        self.remove(&item.uid);
        for owner in &item.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(item.uid.clone());
        }
        if item.resource.namespaced {
            let kinds = self.namespaces.entry(item.key.namespace.to_string()).or_default();
            *kinds.entry(item.resource.clone()).or_default() += 1;
        }
        self.items.insert(item.uid.clone(), item);
    }

    fn remove(&mut self, uid: &str) {
        let Some(item) = self.items.remove(uid) else { return };
        self.leave_namespace(&item);
        for owner in &item.owners {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }
    fn leave_namespace(&mut self, item: &Item) {
        let Some(kinds) = self.namespaces.get_mut(&*item.key.namespace) else { return };
        if let Some(count) = kinds.get_mut(&item.resource) {
            *count -= 1;
            if *count == 0 {
                kinds.remove(&item.resource);
            }
        }
        if kinds.is_empty() {
            self.namespaces.remove(&*item.key.namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_known_to_hold_a_kind_until_its_last_object_goes() {
        let graph = Graph { state: Arc::default(), resources: Arc::default(), listeners: Arc::default() };
        let pods = Arc::new(Resource {
            gvr: GroupVersionResource::new("", "v1", "pods"),
            kind: "Pod".to_string(),
            namespaced: true,
        });
        let item = |name: &str, deleting: bool| Item {
            resource: pods.clone(),
            key: ObjectKey::new("n", name),
            uid: name.to_string(),
            owners: Vec::new(),
            finalizers: Vec::new(),
            deleting,
        };
        assert!(graph.kinds_in("n").is_empty());
        for put in [item("a", false), item("b", false), item("a", true)] {
            graph.state.lock().put(put);
        }
        graph.gone(item("a", true));
        assert_eq!(graph.kinds_in("n"), std::slice::from_ref(&pods));
        graph.gone(item("b", false));
        assert!(graph.kinds_in("n").is_empty() && graph.state.lock().namespaces.is_empty());
    }
}
