//! ServiceAccount: every namespace has one called `default`, so that pods can run without naming any.

use client::{Change, Next, Queue, Typed, run_workers};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use meta::{Object, ObjectKey, Status};

use crate::views::{self, Meta};
use crate::{Context, WORKERS};

const NAME: &str = "service-account-controller";
const DEFAULT: &str = "default";

pub fn start(cx: &Context) {
    let (client, _) = cx.identity(NAME);
    let queue: Queue<ObjectKey> = Queue::default();
    let namespaces = views::whole::<Namespace>(&cx.informers);
    let accounts = cx.informers.of::<Meta>(views::watched_named::<ServiceAccount>(DEFAULT), &[]);
    let wake = queue.clone();
    namespaces.subscribe(move |change| wake.add(change.key().clone()));
    let wake = queue.clone();
    accounts.subscribe(move |change| {
        if let Change::Deleted { key, .. } = change {
            wake.add(ObjectKey::cluster(&key.namespace));
        }
    });
    let (namespaces, accounts, synced) = (namespaces.lister(), accounts.lister(), cx.informers.clone());
    run_workers(NAME, WORKERS, &cx.tasks, &queue, move |key| {
        let (client, namespaces, accounts) = (client.clone(), namespaces.clone(), accounts.clone());
        let synced = synced.clone();
        async move {
            synced.synced().await;
            let account = ObjectKey::new(&key.name, DEFAULT);
            let wanted = namespaces.get(&key).is_some_and(|namespace| views::is_alive(&namespace.view));
            if !wanted || accounts.get(&account).is_some() {
                return Ok(Next::Wait);
            }
            let mut object = Object::new(&ServiceAccount::gvk());
            object.set_meta("name", DEFAULT);
            object.set_meta("namespace", &*key.name);
            created(client.create_object(&ServiceAccount::gvr(), object).await)
        }
    });
}

/// Another may have been quicker, and a namespace on its way out needs nothing any more.
pub fn created<T>(outcome: Result<T, Status>) -> Result<Next, Status> {
    match outcome {
        Err(status) if status.is_already_exists() || status.is_not_found() || status.code == 403 => Ok(Next::Wait),
        Err(status) => Err(status),
        Ok(_) => Ok(Next::Wait),
    }
}
