//! Root CA publisher: every namespace has the certificate authority of the API server in a config map, which pods mount to know
//! whom to trust.

use client::{Next, Queue, Typed};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use meta::{Object, ObjectKey};
use serde_json::json;

use crate::{Context, WORKERS, created, views};

const NAME: &str = "root-ca-cert-publisher";
const CONFIG_MAP: &str = "kube-root-ca.crt";
const DESCRIPTION: &str =
    "The certificate authority to verify the API server with when it is called by its service address.";

/// `bundle`: the authorities in PEM.
pub fn start(cx: &Context, bundle: &str) {
    let (client, _) = cx.identity(NAME);
    let queue: Queue<ObjectKey> = Queue::default();
    let namespaces = views::whole::<Namespace>(&cx.informers);
    let maps = cx.informers.of::<views::Whole<ConfigMap>>(views::watched_named::<ConfigMap>(CONFIG_MAP), &[]);
    let wake = queue.clone();
    namespaces.subscribe(move |change| wake.add(change.key().clone()));
    let wake = queue.clone();
    maps.subscribe(move |change| wake.add(ObjectKey::cluster(&change.key().namespace)));
    let (namespaces, maps) = (namespaces.lister(), maps.lister());
    let bundle = bundle.to_string();
    cx.run_workers(NAME, WORKERS, &queue, move |key| {
        let (client, namespaces, maps, bundle) = (client.clone(), namespaces.clone(), maps.clone(), bundle.clone());
        async move {
            if !namespaces.get(&key).is_some_and(|namespace| views::is_alive(&namespace.view)) {
                return Ok(Next::Wait);
            }
            let map_key = ObjectKey::new(&key.name, CONFIG_MAP);
            let Some(map) = maps.get(&map_key) else {
                let mut object = Object::new(&ConfigMap::gvk());
                object.set_meta("name", CONFIG_MAP);
                object.set_meta("namespace", &*key.name);
                object.set_meta("annotations", json!({"kubernetes.io/description": DESCRIPTION}));
                object.set(&["data"], json!({"ca.crt": bundle}));
                return created(client.create_object(&ConfigMap::gvr(), object).await);
            };
            let right =
                map.view.data.as_ref().is_some_and(|data| data.len() == 1 && data.get("ca.crt") == Some(&bundle));
            if !right {
                let mut object = map.object()?;
                object.set(&["data"], json!({"ca.crt": bundle}));
                client.update_object(&ConfigMap::gvr(), "", object).await?;
            }
            Ok(Next::Wait)
        }
    });
}
