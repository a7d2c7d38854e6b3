//! ServiceAccount: every namespace has one called `default`, so that pods can run without naming any.

use client::{Change, Next, Queue, Typed};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use meta::{Object, ObjectKey};

use crate::views::{self, Meta};
use crate::{Context, WORKERS, created};

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
    let (namespaces, accounts) = (namespaces.lister(), accounts.lister());
    cx.run_workers(NAME, WORKERS, &queue, move |key| {
        let (client, namespaces, accounts) = (client.clone(), namespaces.clone(), accounts.clone());
        async move {
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
