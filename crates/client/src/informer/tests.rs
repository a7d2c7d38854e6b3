//! The informer against a scripted door.

use super::*;
use crate::door::{Door, EventStream, List, Media, Request, Response, WatchEvent};
use async_trait::async_trait;
use base::Clock;
use bytes::Bytes;
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use tokio::sync::mpsc;

/// Answers lists and watches from scripts, in order; waits when a script has run out.
struct Scripted {
    lists: tokio::sync::Mutex<mpsc::UnboundedReceiver<List>>,
    watches: tokio::sync::Mutex<mpsc::UnboundedReceiver<Vec<WatchEvent>>>,
    asked: mpsc::UnboundedSender<String>,
}

struct Script {
    lists: mpsc::UnboundedSender<List>,
    watches: mpsc::UnboundedSender<Vec<WatchEvent>>,
    asked: mpsc::UnboundedReceiver<String>,
}

fn scripted() -> (Client, Script) {
    let (lists, list_script) = mpsc::unbounded_channel();
    let (watches, watch_script) = mpsc::unbounded_channel();
    let (asked, asked_log) = mpsc::unbounded_channel();
    let door =
        Scripted { lists: tokio::sync::Mutex::new(list_script), watches: tokio::sync::Mutex::new(watch_script), asked };
    (Client::new(Arc::new(door)), Script { lists, watches, asked: asked_log })
}

#[async_trait]
impl Door for Scripted {
    async fn send(&self, _: Request) -> Result<Response, Status> {
        self.asked.send("list".into()).unwrap();
        let list = self.lists.lock().await.recv().await;
        Ok(Response::List(list.unwrap()))
    }

    async fn watch(&self, request: Request) -> Result<EventStream, Status> {
        self.asked.send(format!("watch {}", request.options.resource_version)).unwrap();
        let events = self.watches.lock().await.recv().await.unwrap();
        Ok(futures::stream::iter(events).boxed())
    }
}

fn item(name: &str, revision: u64, value: &str) -> Encoded {
    let json = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","namespace":"n"}},"data":{{"v":"{value}"}}}}"#
    );
    Encoded { key: ObjectKey::new("n", name), revision, media: Media::Json, bytes: Bytes::from(json) }
}

fn list(revision: u64, items: Vec<Encoded>) -> List {
    List { items, revision, ..List::default() }
}

async fn told(log: &mut mpsc::UnboundedReceiver<String>, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for _ in 0..count {
        lines.push(log.recv().await.unwrap());
    }
    lines
}

fn follow(client: &Client, tasks: &Tasks) -> (Informer<ConfigMap>, mpsc::UnboundedReceiver<String>) {
    let informer = Informer::<ConfigMap>::start(client, tasks, Watched::all_of::<ConfigMap>(), &[]);
    let (log, lines) = mpsc::unbounded_channel();
    informer.subscribe(move |change| {
        let word = match change {
            Change::Added { .. } => "added",
            Change::Updated { .. } => "updated",
            Change::Deleted { .. } => "deleted",
        };
        log.send(format!("{word} {}", change.key())).unwrap();
    });
    (informer, lines)
}

#[tokio::test(start_paused = true)]
async fn goes_on_from_the_last_revision_when_a_watch_ends() {
    let (client, mut script) = scripted();
    let tasks = Tasks::root();
    let (informer, mut log) = follow(&client, &tasks);
    script.lists.send(list(10, vec![item("a", 5, "1")])).unwrap();
    let bookmark = WatchEvent::Bookmark { revision: 20, initial_events_end: false };
    script.watches.send(vec![WatchEvent::Added(item("b", 12, "1")), bookmark]).unwrap();
    script.watches.send(vec![WatchEvent::Deleted(item("a", 21, "1"))]).unwrap();
    assert_eq!(told(&mut log, 3).await, ["added n/a", "added n/b", "deleted n/a"]);
    assert_eq!(told(&mut script.asked, 4).await, ["list", "watch 10", "watch 20", "watch 21"]);
    assert_eq!(informer.lister().len(), 1);
    tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_list_after_expiry_tells_exactly_the_differences() {
    let (client, script) = scripted();
    let tasks = Tasks::root();
    let (informer, mut log) = follow(&client, &tasks);
    script.lists.send(list(10, vec![item("a", 5, "1"), item("b", 6, "1"), item("c", 7, "1")])).unwrap();
    script.watches.send(vec![WatchEvent::Error(Status::expired("too old resource version: 10 (30)"))]).unwrap();
    script.lists.send(list(40, vec![item("a", 5, "1"), item("b", 35, "2"), item("d", 36, "1")])).unwrap();
    assert_eq!(told(&mut log, 3).await, ["added n/a", "added n/b", "added n/c"]);
    assert_eq!(told(&mut log, 3).await, ["deleted n/c", "updated n/b", "added n/d"]);
    assert!(informer.synced().await);
    let b = informer.lister().get(&ObjectKey::new("n", "b")).unwrap();
    assert_eq!(b.data.as_ref().unwrap()["v"], "2");
    assert_eq!(b.metadata.resource_version.as_deref(), Some("35"));
    tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_late_handler_hears_of_everything_once() {
    let (client, script) = scripted();
    let tasks = Tasks::root();
    let (informer, mut log) = follow(&client, &tasks);
    script.lists.send(list(10, vec![item("a", 5, "1")])).unwrap();
    told(&mut log, 1).await;
    let (late, mut late_log) = mpsc::unbounded_channel();
    informer.subscribe(move |change| late.send(change.key().to_string()).unwrap());
    assert_eq!(late_log.recv().await.unwrap(), "n/a");
    script.watches.send(vec![WatchEvent::Modified(item("a", 11, "2"))]).unwrap();
    assert_eq!(late_log.recv().await.unwrap(), "n/a");
    tasks.shutdown().await;
}

/// Another projection than the typed view.
struct Named(String);

impl Projection for Named {
    const MEDIA: Media = Media::Protobuf;

    fn project(encoded: &Encoded) -> Result<Self, Status> {
        Ok(Named(encoded.key.name.to_string()))
    }
}

#[tokio::test(start_paused = true)]
async fn projections_of_one_collection_share_its_list_and_watch_while_there_is_time() {
    let (client, mut script) = scripted();
    let tasks = Tasks::root();
    let informers = Informers::new(client, Clock::system(), tasks.child());
    let whole = informers.typed::<ConfigMap>();
    let named = informers.of::<Named>(Watched::all_of::<ConfigMap>(), &[]);
    script.lists.send(list(10, vec![item("a", 5, "1")])).unwrap();
    assert!(informers.synced().await);
    assert_eq!((whole.lister().len(), named.lister().len(), named.lister().revision()), (1, 1, 10));
    let (log, mut lines) = mpsc::unbounded_channel();
    named.subscribe(move |change| log.send(change.latest().0.clone()).unwrap());
    script.watches.send(vec![WatchEvent::Added(item("b", 11, "1"))]).unwrap();
    assert_eq!(told(&mut lines, 2).await, ["a", "b"]);
    assert_eq!(whole.lister().len(), 2);
    assert_eq!(told(&mut script.asked, 3).await, ["list", "watch 10", "watch 11"], "once for both");

    struct Late;
    impl Projection for Late {
        const MEDIA: Media = Media::Protobuf;

        fn project(_: &Encoded) -> Result<Self, Status> {
            Ok(Late)
        }
    }
    let late = informers.of::<Late>(Watched::all_of::<ConfigMap>(), &[]);
    script.lists.send(list(12, vec![item("a", 5, "1"), item("b", 11, "1")])).unwrap();
    assert!(late.synced().await);
    assert_eq!(told(&mut script.asked, 1).await, ["list"], "it was too late to share");
    tasks.shutdown().await;
    let gone = informers.of::<Named>(Watched::all_of::<k8s_openapi::api::core::v1::Secret>(), &[]);
    assert!(!gone.synced().await, "nobody follows any more");
}
