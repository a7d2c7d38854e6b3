//! Both ends together: an API that is a play, resolvers that are tasks instead of processes.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use base::Tasks;
use bytes::Bytes;
use client::door::{Media, WatchEvent};
use client::{Client, Door, Encoded, EventStream, List, Request, Response};
use futures::StreamExt;
use hickory_proto::rr::RecordType;
use meta::{ObjectKey, Status};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::process;
use crate::server::Sockets;
use crate::server::tests::{in_time, question, show, udp};

const SERVICE: &str = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"db","namespace":"default"},
    "spec":{"clusterIP":"None","clusterIPs":["None"],"ports":[{"name":"PG","port":5432}]}}"#;
const SLICE: &str = r#"{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","addressType":"IPv4",
    "metadata":{"name":"db-1","namespace":"default","labels":{"kubernetes.io/service-name":"db"}},
    "ports":[{"name":"PG","port":5432}],
    "endpoints":[{"addresses":["10.42.1.2"],"hostname":"db-0"},
                 {"addresses":["10.42.1.3"],"conditions":{"ready":READY}}]}"#;
const NAMESPACE: &str = r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"default"}}"#;
const DB: &str = "db.default.svc.cluster.local.";

/// Lists a service and its slice; what becomes of the slice is for the test to say.
struct Play {
    slices: Mutex<VecDeque<mpsc::UnboundedReceiver<WatchEvent>>>,
}

fn encoded(namespace: &str, name: &str, revision: u64, json: &str) -> Encoded {
    let bytes = Bytes::from(json.to_owned());
    Encoded { key: ObjectKey::new(namespace, name), revision, media: Media::Json, bytes }
}

fn slice(revision: u64, ready: &str) -> Encoded {
    encoded("default", "db-1", revision, &SLICE.replace("READY", ready))
}

#[async_trait]
impl Door for Play {
    async fn send(&self, request: Request) -> Result<Response, Status> {
        let items = match &*request.resource.resource {
            "services" => vec![encoded("default", "db", 1, SERVICE)],
            "endpointslices" => vec![slice(1, "true")],
            _ => vec![encoded("", "default", 1, NAMESPACE)],
        };
        Ok(Response::List(List { items, revision: 1, ..List::default() }))
    }

    async fn watch(&self, request: Request) -> Result<EventStream, Status> {
        let events =
            (&*request.resource.resource == "endpointslices").then(|| self.slices.lock().pop_front()).flatten();
        let Some(mut events) = events else { return Ok(futures::stream::pending().boxed()) };
        Ok(futures::stream::poll_fn(move |context| events.poll_recv(context)).boxed())
    }
}

/// Starts resolvers as tasks, at an address that the system chose for the first.
#[derive(Default)]
struct InProcess {
    started: Mutex<Vec<JoinHandle<io::Result<()>>>>,
}

#[async_trait]
impl Starter for InProcess {
    async fn start(&self, socket: &Path, settings: &Settings) -> io::Result<()> {
        let sockets = settings.listen.iter().map(|address| Sockets::bind(*address)).collect::<io::Result<_>>()?;
        let listener = process::listen(socket)?;
        self.started.lock().push(tokio::spawn(process::serve(settings.clone(), sockets, listener)));
        Ok(())
    }
}

struct Lab {
    tasks: Tasks,
    starter: Arc<InProcess>,
    config: Config,
    slices: mpsc::UnboundedSender<WatchEvent>,
    answering: watch::Receiver<bool>,
    _dir: Arc<tempfile::TempDir>,
}

fn free_address() -> SocketAddr {
    Sockets::bind("127.0.0.1:0".parse().unwrap()).unwrap().address().unwrap()
}

fn lab() -> Lab {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let config = Config {
        domain: "cluster.local".into(),
        listen: vec![free_address()],
        resolv_conf: "/dev/null".into(),
        socket: dir.path().join("sock"),
    };
    begin(Arc::default(), config, dir)
}

/// A life of Coracle.
fn begin(starter: Arc<InProcess>, config: Config, dir: Arc<tempfile::TempDir>) -> Lab {
    let tasks = Tasks::root();
    let (slices, events) = mpsc::unbounded_channel();
    let play = Play { slices: Mutex::new([events].into()) };
    let informers = Informers::new(Client::new(Arc::new(play)), base::Clock::system(), tasks.clone());
    let (set_answering, answering) = watch::channel(false);
    let (own, shared) = (config.clone(), starter.clone());
    tasks.spawn("dns", async move { run(informers, own, &*shared, &set_answering).await });
    Lab { tasks, starter, config, slices, answering, _dir: dir }
}

impl Lab {
    async fn ready(&mut self) {
        in_time(self.answering.wait_for(|answering| *answering)).await.unwrap();
    }

    async fn ask(&self, name: &str, kind: RecordType) -> String {
        show(&udp(self.config.listen[0], &question(name, kind)).await)
    }

    /// The next life, on the same folder.
    async fn again(self, config: Config) -> Lab {
        self.tasks.shutdown().await;
        begin(self.starter, config, self._dir)
    }
}

#[tokio::test]
async fn the_zone_follows_the_api() {
    let mut lab = lab();
    lab.ready().await;
    let (a, srv) = (RecordType::A, RecordType::SRV);
    assert!(lab.ask(DB, a).await.contains("10.42.1.3"));
    assert_eq!(lab.ask("10-0-0-1.default.pod.cluster.local.", a).await, "No Error 10.0.0.1");
    lab.slices.send(WatchEvent::Modified(slice(2, "false"))).unwrap();
    in_time(async { while lab.ask(DB, a).await.contains("10.42.1.3") {} }).await;
    assert_eq!(lab.ask(DB, a).await, "No Error 10.42.1.2");
    assert_eq!(lab.ask(&format!("db-0.{DB}"), a).await, "No Error 10.42.1.2");
    let answer = lab.ask(&format!("_pg._tcp.{DB}"), srv).await;
    assert_eq!(answer, "No Error 0 100 5432 db-0.db.default.svc.cluster.local.");
    lab.slices.send(WatchEvent::Deleted(slice(3, "false"))).unwrap();
    in_time(async { while lab.ask(DB, a).await.contains("10.42") {} }).await;
}

#[tokio::test]
async fn a_resolver_that_died_is_started_anew() {
    let mut lab = lab();
    lab.ready().await;
    lab.starter.started.lock()[0].abort();
    in_time(lab.answering.wait_for(|answering| !*answering)).await.unwrap();
    lab.ready().await;
    assert!(lab.ask(DB, RecordType::A).await.contains("10.42.1.3"));
    assert_eq!(lab.starter.started.lock().len(), 2);
}

#[tokio::test]
async fn the_next_life_finds_the_resolver_and_it_never_stopped_answering() {
    let mut lab = lab();
    lab.ready().await;
    lab.tasks.shutdown().await;
    assert!(lab.ask(DB, RecordType::A).await.contains("10.42.1.3"));
    let config = lab.config.clone();
    let mut lab = lab.again(config).await;
    lab.ready().await;
    assert_eq!(lab.starter.started.lock().len(), 1, "it is the same one");
    lab.slices.send(WatchEvent::Modified(slice(2, "false"))).unwrap();
    in_time(async { while lab.ask(DB, RecordType::A).await.contains("10.42.1.3") {} }).await;
}

#[tokio::test]
async fn a_resolver_with_other_settings_is_replaced() {
    let mut lab = lab();
    lab.ready().await;
    let config = Config { domain: "example.org".into(), ..lab.config.clone() };
    let mut lab = lab.again(config).await;
    lab.ready().await;
    assert!(lab.ask("db.default.svc.example.org.", RecordType::A).await.contains("10.42.1.3"));
    let mut started = std::mem::take(&mut *lab.starter.started.lock());
    assert_eq!(started.len(), 2);
    started.remove(0).await.unwrap().unwrap();
}

#[tokio::test]
async fn it_is_ended_and_its_socket_removed() {
    let mut lab = lab();
    lab.ready().await;
    lab.tasks.shutdown().await;
    keeper::end(&lab.config.socket).await.unwrap();
    assert!(!lab.config.socket.exists());
    Sockets::bind(lab.config.listen[0]).unwrap();
    keeper::end(&lab.config.socket).await.unwrap();
}
