//! The resolver's life: informers fill the zone, the sockets answer from it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use base::Tasks;
use client::{Change, Informers, Watched};
use hickory_proto::rr::Name;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use parking_lot::RwLock;

use crate::forward::Forwarder;
use crate::server::{self, Resolver, Sockets};
use crate::view::{Service, Slice};
use crate::zone::Zone;

/// What the resolver has to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The cluster's domain, `cluster.local`.
    pub domain: String,
    /// Where to answer: the DNS service's address on every node, port 53.
    pub listen: Vec<SocketAddr>,
    /// Whose name servers answer for everything else.
    pub resolv_conf: PathBuf,
}

/// What is known of a namespace: that it exists.
struct Exists;

impl client::Projection for Exists {
    fn project(_: &client::Encoded) -> Result<Self, meta::Status> {
        Ok(Exists)
    }
}

/// Binds, then answers until `tasks` are told to stop. Questions are answered once all names are known; until then they wait in the
/// sockets, so that nobody is told that a name does not exist only because we have just started.
///
/// # Errors
/// The domain is no name, or an address cannot be bound.
pub async fn run(informers: Informers, tasks: Tasks, config: Config) -> io::Result<()> {
    let domain = Name::from_ascii(&config.domain).map_err(io::Error::other)?;
    let sockets: Vec<Sockets> =
        config.listen.iter().map(|address| Sockets::bind(*address)).collect::<Result<_, _>>()?;
    let own: Vec<IpAddr> = config.listen.iter().map(SocketAddr::ip).collect();
    let zone = Arc::new(RwLock::new(Zone::new(&domain, own.clone())));
    if !follow(&informers, &zone).await {
        return Ok(());
    }
    let resolv_conf = std::fs::read(&config.resolv_conf).unwrap_or_else(|error| {
        tracing::warn!(path = %config.resolv_conf.display(), %error, "names outside the cluster are refused");
        Vec::new()
    });
    let mut server = server::serve(Resolver::new(zone, Forwarder::new(&resolv_conf, &own)), sockets);
    tasks.cancelled().await;
    server.shutdown_gracefully().await.map_err(io::Error::other)
}

/// Keeps the zone like the API; true once it holds everything.
async fn follow(informers: &Informers, zone: &Arc<RwLock<Zone>>) -> bool {
    let services = informers.of::<Service>(Watched::all_of::<core::Service>(), &[]);
    let slices = informers.of::<Slice>(Watched::all_of::<discovery::EndpointSlice>(), &[]);
    let namespaces = informers.of::<Exists>(Watched::all_of::<core::Namespace>(), &[]);
    let shared = zone.clone();
    services.subscribe(move |change: &Change<Service>| {
        let (_, new) = change.sides();
        shared.write().set_service(change.key(), new.cloned());
    });
    let shared = zone.clone();
    slices.subscribe(move |change: &Change<Slice>| {
        let (old, new) = change.sides();
        shared.write().set_slice(change.key(), old, new.cloned());
    });
    let shared = zone.clone();
    namespaces.subscribe(move |change: &Change<Exists>| {
        shared.write().set_namespace(&change.key().name, change.sides().1.is_some());
    });
    services.synced().await && slices.synced().await && namespaces.synced().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use client::door::{Media, WatchEvent};
    use client::{Client, Door, Encoded, EventStream, List, Request, Response};
    use futures::StreamExt;
    use hickory_proto::rr::RecordType;
    use meta::{ObjectKey, Status};

    /// Lists a service and its slice; the slice then loses its endpoint's readiness.
    struct Play;

    const SERVICE: &str = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"db","namespace":"default"},
        "spec":{"clusterIP":"None","clusterIPs":["None"],"ports":[{"name":"PG","port":5432}]}}"#;
    const SLICE: &str = r#"{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","addressType":"IPv4",
        "metadata":{"name":"db-1","namespace":"default","labels":{"kubernetes.io/service-name":"db"}},
        "ports":[{"name":"PG","port":5432}],
        "endpoints":[{"addresses":["10.42.1.2"],"hostname":"db-0"},
                     {"addresses":["10.42.1.3"],"conditions":{"ready":READY}}]}"#;
    const NAMESPACE: &str = r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"default"}}"#;

    fn encoded(namespace: &str, name: &str, revision: u64, json: &str) -> Encoded {
        let bytes = Bytes::from(json.to_owned());
        Encoded { key: ObjectKey::new(namespace, name), revision, media: Media::Json, bytes }
    }

    #[async_trait::async_trait]
    impl Door for Play {
        async fn send(&self, request: Request) -> Result<Response, Status> {
            let items = match &*request.resource.resource {
                "services" => vec![encoded("default", "db", 1, SERVICE)],
                "endpointslices" => vec![encoded("default", "db-1", 1, &SLICE.replace("READY", "true"))],
                _ => vec![encoded("", "default", 1, NAMESPACE)],
            };
            Ok(Response::List(List { items, revision: 1, ..List::default() }))
        }

        async fn watch(&self, request: Request) -> Result<EventStream, Status> {
            if &*request.resource.resource != "endpointslices" {
                return Ok(futures::stream::pending().boxed());
            }
            let event = WatchEvent::Modified(encoded("default", "db-1", 2, &SLICE.replace("READY", "false")));
            Ok(futures::stream::iter([event]).chain(futures::stream::pending()).boxed())
        }
    }

    #[tokio::test]
    async fn the_zone_follows_the_api() {
        let tasks = Tasks::root();
        let informers = Informers::new(Client::new(Arc::new(Play)), base::Clock::system(), tasks.clone());
        let zone = Arc::new(RwLock::new(Zone::new(&Name::from_ascii("cluster.local").unwrap(), vec![])));
        let (changed, mut changes) = tokio::sync::mpsc::unbounded_channel();
        assert!(follow(&informers, &zone).await);
        let ask = |name: &str, kind| {
            let answer = zone.read().answer(&Name::from_ascii(name).unwrap(), kind).unwrap();
            answer.records.iter().map(|record| record.data.to_string()).collect::<Vec<_>>()
        };
        // Told after the zone was, whichever of the two states it is in now.
        informers.of::<Slice>(Watched::all_of::<discovery::EndpointSlice>(), &[]).subscribe(move |change| {
            changed.send(change.latest().endpoints.len()).unwrap();
        });
        while changes.recv().await != Some(1) {}
        assert_eq!(ask("db.default.svc.cluster.local.", RecordType::A), ["10.42.1.2"]);
        assert_eq!(ask("db-0.db.default.svc.cluster.local.", RecordType::A), ["10.42.1.2"]);
        let srv = ask("_pg._tcp.db.default.svc.cluster.local.", RecordType::SRV);
        assert_eq!(srv, ["0 100 5432 db-0.db.default.svc.cluster.local."]);
        assert_eq!(ask("10-0-0-1.default.pod.cluster.local.", RecordType::A), ["10.0.0.1"]);
        tasks.shutdown().await;
    }
}
