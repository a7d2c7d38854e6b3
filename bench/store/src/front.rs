//! The embedded engine behind etcd's gRPC API: one message in, one call of the engine, one message out.
//!
//! Only what the client here asks for is served: ranges, puts, deletes of one key, watches of a prefix. Everything else is
//! answered as unimplemented.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use anyhow::{Context, Result};
use base::{Clock, Tasks};
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use store::{Committed, Embedded, Entry, EventKind, Key, Op, Options, Span, Store, Txn, WatchItem};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::etcd::{
    self, DeleteRangeRequest, DeleteRangeResponse, Event, Header, KeyValue, PutRequest, PutResponse, RangeRequest,
    RangeResponse, WatchCreateRequest, WatchRequest, WatchResponse,
};
use crate::grpc::{self, Outgoing, Reader};

const OK: HeaderValue = HeaderValue::from_static("0");
const UNIMPLEMENTED: HeaderValue = HeaderValue::from_static("12");
const INTERNAL: HeaderValue = HeaderValue::from_static("13");
/// Responses of one stream of watches that wait to be sent.
const RESPONSES_MAX: usize = 64;
const WINDOW_BYTES: u32 = 16 << 20;

/// Serves until the process is ended.
pub async fn serve(dir: &Path, listen: SocketAddr) -> Result<()> {
    let store = Embedded::open(Options::new(dir, Clock::system(), Tasks::root())).context("opening the engine")?;
    let store = Arc::new(store);
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let store = store.clone();
        let service = service_fn(move |request| answer(store.clone(), request));
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
        let (socket, mut turns) = cork::cork(socket);
        let connection = builder.serve_connection(TokioIo::new(socket), service);
        tokio::spawn(async move {
            if let Err(error) = turns.drive(pin!(connection)).await {
                eprintln!("a connection ended: {error}");
            }
        });
    }
}

async fn answer(store: Arc<Embedded>, request: Request<Incoming>) -> Result<Response<Outgoing>, Infallible> {
    let path = request.uri().path().to_owned();
    let mut reader = Reader::new(request.into_body());
    let answered = match path.as_str() {
        etcd::PUT => put(&store, &mut reader).await,
        etcd::RANGE => range(&store, &mut reader).await,
        etcd::DELETE_RANGE => delete(&store, &mut reader).await,
        etcd::WATCH => Ok(watch(store, reader)),
        _ => Ok(Outgoing::none().with_status(UNIMPLEMENTED)),
    };
    let body = answered.unwrap_or_else(|error| {
        eprintln!("{path}: {error:#}");
        Outgoing::none().with_status(INTERNAL)
    });
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", grpc::CONTENT_TYPE);
    Ok(response)
}

async fn request<M: Message + Default>(reader: &mut Reader) -> Result<M> {
    reader.next().await?.context("a request without a message")
}

fn unary(message: &impl Message) -> Outgoing {
    Outgoing::one(grpc::framed(message)).with_status(OK)
}

async fn put(store: &Embedded, reader: &mut Reader) -> Result<Outgoing> {
    let PutRequest { key, value } = request(reader).await?;
    let revision = match store.commit(Txn::default().put(Key::new(key), value)).await? {
        Committed::Done { revision, .. } | Committed::Conflict { revision, .. } => revision,
    };
    Ok(unary(&PutResponse { header: header(revision) }))
}

async fn delete(store: &Embedded, reader: &mut Reader) -> Result<Outgoing> {
    let DeleteRangeRequest { key } = request(reader).await?;
    let txn = Txn { compares: Vec::new(), ops: vec![Op::Delete { key: Key::new(key) }] };
    let (revision, previous) = match store.commit(txn).await? {
        Committed::Done { revision, previous } => (revision, previous),
        Committed::Conflict { revision, current } => (revision, current),
    };
    let deleted = signed(previous.iter().flatten().count() as u64);
    Ok(unary(&DeleteRangeResponse { header: header(revision), deleted }))
}

async fn range(store: &Embedded, reader: &mut Reader) -> Result<Outgoing> {
    let asked: RangeRequest = request(reader).await?;
    let at = u64::try_from(asked.revision).ok().filter(|revision| *revision > 0);
    let (kvs, remaining, revision) = if asked.range_end.is_empty() {
        let found = store.get(&Key::new(&asked.key), at).await?;
        (found.iter().map(key_value).collect::<Vec<_>>(), 0, store.revision())
    } else {
        let span = Span { start: Key::new(&asked.key), end: Some(Key::new(&asked.range_end)) };
        let page = store.range(&span, at, usize::try_from(asked.limit)?).await?;
        (page.entries.iter().map(key_value).collect(), page.remaining, page.revision)
    };
    let count = signed(kvs.len() as u64 + remaining);
    Ok(unary(&RangeResponse { header: header(revision), more: remaining > 0, count, kvs }))
}

/// A stream of watches: each request to create one starts a task that fills the shared response.
fn watch(store: Arc<Embedded>, mut reader: Reader) -> Outgoing {
    let (responses, outgoing) = mpsc::channel(RESPONSES_MAX);
    tokio::spawn(async move {
        while let Ok(Some(asked)) = reader.next::<WatchRequest>().await {
            if let Some(create) = asked.create_request {
                tokio::spawn(run_watch(store.clone(), create, responses.clone()));
            }
        }
    });
    Outgoing::many(outgoing).with_status(OK)
}

async fn run_watch(store: Arc<Embedded>, asked: WatchCreateRequest, responses: mpsc::Sender<Bytes>) {
    let started = u64::try_from(asked.start_revision).ok().filter(|revision| *revision > 0);
    let after = started.map_or_else(|| store.revision(), |revision| revision - 1);
    let mut watch = store.watch(&Key::new(&asked.key), after);
    let id = asked.watch_id;
    let created = WatchResponse { header: header(after), watch_id: id, created: true, ..WatchResponse::default() };
    let mut next = created;
    // until nobody listens any more
    while responses.send(grpc::framed(&next)).await.is_ok() {
        next = match watch.next().await {
            Some(Ok(WatchItem::Events(events))) => {
                let revision = events.last().map_or(0, store::WatchEvent::revision);
                let events = events.iter().map(|event| Event {
                    kind: i32::from(event.kind == EventKind::Delete),
                    kv: Some(key_value(&event.entry)),
                });
                let events = events.collect();
                WatchResponse { header: header(revision), watch_id: id, events, ..WatchResponse::default() }
            }
            Some(Ok(WatchItem::Progress(revision))) => {
                WatchResponse { header: header(revision), watch_id: id, ..WatchResponse::default() }
            }
            Some(Err(error)) => {
                eprintln!("a watch ended: {error}");
                WatchResponse { watch_id: id, canceled: true, ..WatchResponse::default() }
            }
            None => return,
        };
    }
}

fn header(revision: u64) -> Option<Header> {
    Some(Header { revision: signed(revision) })
}

fn key_value(entry: &Entry) -> KeyValue {
    KeyValue {
        key: Bytes::copy_from_slice(entry.key.as_bytes()),
        create_revision: signed(entry.create_revision),
        mod_revision: signed(entry.mod_revision),
        version: signed(entry.version),
        value: entry.value.clone(),
    }
}

/// Counters of etcd's API are signed; ours never get that far.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
