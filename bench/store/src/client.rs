//! A client of etcd's API: connections that many callers share, as its own clients do.

use std::net::SocketAddr;
use std::pin::pin;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Method, Request, Uri};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::etcd::{self, PutRequest, PutResponse, RangeRequest, RangeResponse, WatchCreateRequest, WatchRequest};
use crate::grpc::{self, Outgoing, Reader};

/// Windows that let a range of everything flow without waiting, as etcd's own client asks for.
const WINDOW_BYTES: u32 = 16 << 20;
/// Watches that are created on one stream.
const WATCHES_MAX: usize = 64;

/// One connection. Clones share it.
#[derive(Clone)]
pub struct Etcd {
    sender: SendRequest<Outgoing>,
    base: String,
}

impl Etcd {
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(address).await.context("connecting")?;
        socket.set_nodelay(true)?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
        // requests of many callers that are ready together go out together, whoever serves them
        let (socket, mut turns) = cork::cork(socket);
        let (sender, connection) = builder.handshake(TokioIo::new(socket)).await?;
        // its end is told to every caller
        tokio::spawn(async move { turns.drive(pin!(connection)).await });
        Ok(Self { sender, base: format!("http://{address}") })
    }

    /// `count` connections.
    pub async fn connections(address: SocketAddr, count: usize) -> Result<Vec<Self>> {
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            connections.push(Self::connect(address).await?);
        }
        Ok(connections)
    }

    pub async fn put(&mut self, key: Bytes, value: Bytes) -> Result<PutResponse> {
        self.unary(etcd::PUT, &PutRequest { key, value }).await
    }

    pub async fn range(&mut self, request: &RangeRequest) -> Result<RangeResponse> {
        self.unary(etcd::RANGE, request).await
    }

    /// A stream of watches, at most [`WATCHES_MAX`]; it ends when the sender is dropped.
    pub async fn watch(&mut self, wanted: Vec<WatchCreateRequest>) -> Result<(mpsc::Sender<Bytes>, Reader)> {
        let (requests, outgoing) = mpsc::channel(WATCHES_MAX);
        // before the headers are awaited: servers send them along with their first response
        for create in wanted {
            requests.try_send(grpc::framed(&WatchRequest { create_request: Some(create) }))?;
        }
        let reader = self.call(etcd::WATCH, Outgoing::many(outgoing)).await?;
        Ok((requests, reader))
    }

    async fn unary<M: Message + Default>(&mut self, path: &str, message: &impl Message) -> Result<M> {
        let mut reader = self.call(path, Outgoing::one(grpc::framed(message))).await?;
        let answer = reader.next().await?.context("an answer without a message")?;
        // to the trailers, which have the status
        ensure!(reader.next::<M>().await?.is_none(), "two answers to one call");
        Ok(answer)
    }

    async fn call(&mut self, path: &str, body: Outgoing) -> Result<Reader> {
        let uri: Uri = format!("{}{path}", self.base).parse()?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header("content-type", grpc::CONTENT_TYPE)
            .header("te", "trailers")
            .body(body)?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        ensure!(response.status() == http::StatusCode::OK, "answered with {}", response.status());
        grpc::check_status(Some(response.headers()))?;
        Ok(Reader::new(response.into_body()))
    }
}
