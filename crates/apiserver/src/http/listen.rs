//! The socket: accept, shake hands, and hand requests to the chain, over HTTP/1.1 and HTTP/2.
//!
//! Every connection is a task of the server's branch of the shutdown tree. On shutdown the listener closes first, open
//! connections finish their current requests, and streams end because they watch the same token.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::Tasks;
use base::tasks::CancellationToken;
use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::{Peer, Response};

/// Connections that may be open at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 16_384;
/// How long a client may take to shake hands.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long a client may take to send the head of a request.
const HEADER_READ_MAX: Duration = Duration::from_secs(32);
/// Requests that one HTTP/2 connection may have open at once.
const STREAMS_PER_CONNECTION_MAX: u32 = 250;
/// The largest request head over HTTP/2, in bytes.
const HEADER_BYTES_MAX: u32 = 1024 * 1024;
/// How often an idle HTTP/2 connection is asked whether it lives, and how long it may take to say so.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(30);
const KEEP_ALIVE_ANSWER_MAX: Duration = Duration::from_secs(15);
/// How long a failing `accept` (out of file descriptors, for one) is left alone.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What answers requests.
pub trait Service: Send + Sync + 'static {
    fn call(self: Arc<Self>, request: http::Request<Incoming>, peer: Arc<Peer>) -> BoxFuture<'static, Response>;

    /// Told of each handshake that failed.
    fn handshake_failed(&self);
}

/// Accepts connections until `tasks` is told to stop.
pub fn serve(listener: TcpListener, tls: Arc<rustls::ServerConfig>, service: Arc<dyn Service>, tasks: &Tasks) {
    let acceptor = TlsAcceptor::from(tls);
    let connections = tasks.child();
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tasks.spawn("accept", async move {
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let (socket, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (acceptor, service, token) = (acceptor.clone(), service.clone(), connections.token());
            connections.spawn_graceful("connection", async move {
                connection(socket, address, acceptor, service, token).await;
                drop(slot);
            });
        }
    });
}

async fn connection(
    socket: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    service: Arc<dyn Service>,
    token: CancellationToken,
) {
    if let Err(error) = base::connection::tune(&socket) {
        tracing::debug!(%address, %error, "a connection keeps the kernel's settings");
    }
    let handshake = tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(socket));
    let stream = match token.run_until_cancelled(handshake).await {
        Some(Ok(Ok(stream))) => stream,
        Some(Ok(Err(error))) => {
            tracing::debug!(%address, %error, "TLS handshake failed");
            return service.handshake_failed();
        }
        Some(Err(_)) => return service.handshake_failed(),
        None => return,
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let certificates = certificates.unwrap_or_default().iter().map(|der| der.clone().into_owned()).collect();
    let peer = Arc::new(Peer { address, certificates });
    let answer = service_fn(move |request| {
        let answer = service.clone().call(request, peer.clone());
        async move { Ok::<_, std::convert::Infallible>(answer.await) }
    });
    let builder = builder();
    // Answers and events of many streams that are ready together go out together.
    let (stream, mut turns) = cork::cork(stream);
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), answer);
    tokio::pin!(serving);
    let outcome = tokio::select! {
        outcome = turns.drive(serving.as_mut()) => Some(outcome),
        () = token.cancelled() => None,
    };
    let outcome = match outcome {
        Some(outcome) => outcome,
        None => {
            serving.as_mut().graceful_shutdown();
            turns.drive(serving.as_mut()).await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%address, %error, "connection ended");
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_READ_MAX).half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER_MAX)
        .adaptive_window(true);
    builder
}
