//! The proxy's loop: informers mark services as changed, the loop plans those and syncs.
//!
//! Handlers only note keys; while one batch is being committed, later changes gather in the set and go together in the next. Before
//! all informers have their first list nothing is touched, so that a restart never takes a service away.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use base::{Backoff, BackoffPolicy};
use client::{Change, Informers, Lister, Watched};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use meta::ObjectKey;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::model::{BY_SERVICE, Service, Slice};
use super::plan::{self, Node};
use super::{Config, Plans, Proxy, ProxyError};
use crate::node::{self, NodeView};

/// Waits between attempts after the kernel refused.
const RETRY: BackoffPolicy = BackoffPolicy::doubling(Duration::from_millis(200), Duration::from_secs(30));

/// Which services have to be planned anew.
#[derive(Debug, Default)]
struct Dirty {
    services: Mutex<HashSet<ObjectKey>>,
    /// The node itself changed, which may touch every service.
    node: Mutex<bool>,
    woken: Notify,
}

impl Dirty {
    fn add(&self, service: ObjectKey) {
        self.services.lock().insert(service);
        self.woken.notify_one();
    }
}

/// Serves until the informers' tasks are told to stop; the kernel keeps what it has then.
///
/// # Errors
/// When the netlink sockets cannot be opened. Later failures are logged and retried.
pub async fn run(informers: Informers, config: Config) -> Result<(), ProxyError> {
    let services = informers.of::<Service>(Watched::all_of::<core::Service>(), &[]);
    let slices = informers.of::<Slice>(Watched::all_of::<discovery::EndpointSlice>(), &[BY_SERVICE]);
    let nodes = node::informer(&informers);
    let dirty = Arc::new(Dirty::default());
    mark_changes(&dirty, &services, &slices, &nodes, &config.node);
    if !(services.synced().await && slices.synced().await && nodes.synced().await) {
        return Ok(());
    }
    let mut planner = Planner { services: services.lister(), slices: slices.lister(), node: Node::default() };
    let mut proxy = Proxy::open(config.clone())?;
    let mut backoff = Backoff::new(RETRY);
    loop {
        if std::mem::take(&mut *dirty.node.lock()) {
            let node = read_node(&nodes.lister(), &config);
            if node != planner.node {
                planner.node = node;
                dirty.services.lock().extend(planner.services.entries().into_iter().map(|(key, _)| key));
            }
        }
        let keys = std::mem::take(&mut *dirty.services.lock());
        let plans = planner.plans(keys);
        let (back, result) = commit(proxy, plans).await?;
        proxy = back;
        match result {
            Ok(()) => {
                backoff.reset();
                dirty.woken.notified().await;
            }
            Err(error) => {
                tracing::error!(%error, "services not in step with the kernel, will retry");
                informers.clock().sleep(backoff.next(informers.clock().instant())).await;
            }
        }
    }
}

fn mark_changes(
    dirty: &Arc<Dirty>,
    services: &client::Informer<Service>,
    slices: &client::Informer<Slice>,
    nodes: &client::Informer<NodeView>,
    own: &str,
) {
    let marks = dirty.clone();
    services.subscribe(move |change: &Change<Service>| marks.add(change.key().clone()));
    let marks = dirty.clone();
    slices.subscribe(move |change: &Change<Slice>| {
        let (old, new) = change.sides();
        for owner in [old, new].into_iter().flatten().filter_map(|slice| slice.owner(change.key())) {
            marks.add(owner);
        }
    });
    let marks = dirty.clone();
    let own = ObjectKey::cluster(own);
    node::on_change(nodes, move |key| {
        if *key == own {
            *marks.node.lock() = true;
            marks.woken.notify_one();
        }
    });
}

/// The kernel handles a batch inside the call, up to tenths of a second for a full load: not on a thread of the runtime.
async fn commit(mut proxy: Proxy, plans: Plans) -> Result<(Proxy, Result<(), ProxyError>), ProxyError> {
    let work = tokio::task::spawn_blocking(move || {
        let result = proxy.sync(plans);
        (proxy, result)
    });
    work.await.map_err(|error| ProxyError::Conntrack(std::io::Error::other(error)))
}

fn read_node(nodes: &Lister<NodeView>, config: &Config) -> Node {
    let view = nodes.get(&ObjectKey::cluster(&config.node));
    let internal = view.as_ref().map(|view| view.internal_ips.clone()).unwrap_or_default();
    Node {
        name: config.node.clone(),
        zone: view.map(|view| view.zone.clone()).unwrap_or_default(),
        addresses: if config.node_port_addresses.is_empty() { internal } else { config.node_port_addresses.clone() },
    }
}

struct Planner {
    services: Lister<Service>,
    slices: Lister<Slice>,
    node: Node,
}

impl Planner {
    fn plans(&self, keys: HashSet<ObjectKey>) -> Plans {
        let plan = |key: &ObjectKey| {
            let service = self.services.get(key)?;
            let slices = self.slices.by_index(BY_SERVICE.name, &key.to_string());
            Some(plan::plan(&service, slices.iter().map(|slice| &**slice), &self.node))
        };
        keys.into_iter().map(|key| (key.clone(), plan(&key).unwrap_or_default())).collect()
    }
}
