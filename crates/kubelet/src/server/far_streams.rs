//! Exec, attach and port-forward on a runtime in another process, by the URL that it answers.
//!
//! ```text
//! client ── WebSocket or SPDY ─▶ stream_routes ─▶ FarStreams ── CRI: exec ─▶ runtime answers http://127.0.0.1:P/exec/TOKEN
//!                                                     └── POST, Upgrade: SPDY/3.1, one stream per direction ─▶ that URL
//! ```
//!
//! Upstream's agent hands the client's connection on as it is, so a client can use only what the runtime's library knows. Here
//! the client speaks with us in any protocol that we have, and we speak SPDY with the runtime, which all runtimes offer.
//!
//! Not built: a runtime that serves its streams by HTTPS.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use base::Tasks;
use bytes::Bytes;
use cri::streaming::{Duplex, RESIZE_QUEUE_MAX, Session, TerminalSize};
use cri::v1::{AttachRequest, ExecRequest, PortForwardRequest};
use cri::{Cri, Error, Streaming};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, UPGRADE};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, DuplexStream, ReadBuf, duplex};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::STREAM_PROTOCOL;
use super::spdy::client::{Opened, open};
use super::streams::{CHUNK_BYTES, Outlet, receive_all, send_all};

const EXEC_PROTOCOL: &str = "v4.channel.k8s.io";
const FORWARD_PROTOCOL: &str = "portforward.k8s.io";
/// How long the runtime's server of streams may take to take the connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// As much of a refusal or a verdict is read.
const WORDS_BYTES_MAX: usize = 64 * 1024;

/// The byte streams of a runtime that serves them itself.
pub struct FarStreams {
    cri: Arc<dyn Cri>,
    tasks: Tasks,
}

impl FarStreams {
    /// For the streams of `cri`; they end with `tasks`.
    pub fn new(cri: Arc<dyn Cri>, tasks: Tasks) -> Self {
        FarStreams { cri, tasks }
    }

    /// The session at a URL.
    async fn session(&self, url: &str, asked: Asked) -> Result<Session, Error> {
        let io = connect(&self.tasks, url, EXEC_PROTOCOL).await?;
        let kinds = asked.kinds();
        let headers: Vec<_> = kinds.iter().map(|kind| [("streamtype", *kind)]).collect();
        let wanted: Vec<&[(&str, &str)]> = headers.iter().map(|headers| headers.as_slice()).collect();
        let (streams, connection) = open(io, &wanted).map_err(broken)?;
        self.keep(connection);
        let mut session =
            Session { stdin: None, stdout: None, stderr: None, resize: None, exit: Box::pin(std::future::pending()) };
        // What we never send on is held open until the end: the runtime takes the end of all of them for ours.
        let mut held = Vec::new();
        let mut verdict = None;
        for (kind, Opened { inbound, outlet }) in kinds.into_iter().zip(streams) {
            match kind {
                "stdin" => session.stdin = Some(Box::new(self.writer(outlet))),
                "resize" => session.resize = Some(self.sizes(outlet)),
                "stdout" => session.stdout = Some(Box::new(self.reader(inbound))),
                "stderr" => session.stderr = Some(Box::new(self.reader(inbound))),
                _ => {
                    verdict = Some(inbound);
                    held.push(outlet);
                    continue;
                }
            }
        }
        let verdict = verdict.ok_or_else(|| Error::unknown("no stream was opened for the verdict"))?;
        session.exit = Box::pin(async move {
            let told = read_all(verdict).await;
            drop(held);
            read_verdict(&told)
        });
        Ok(session)
    }

    /// Keeps a connection going until it ends.
    fn keep(&self, connection: impl Future<Output = io::Result<()>> + Send + 'static) {
        self.tasks.spawn("far-stream", async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the runtime's streams broke off");
            }
        });
    }

    /// What is written to it is sent; its end is the stream's.
    fn writer(&self, outlet: Outlet) -> DuplexStream {
        let (near, far) = duplex(CHUNK_BYTES);
        // Our own end of a pipe in memory does not fail.
        self.tasks.spawn("far-stdin", async move { drop(send_all(far, outlet).await) });
        near
    }

    /// What comes can be read from it.
    fn reader(&self, inbound: mpsc::Receiver<Bytes>) -> DuplexStream {
        let (near, far) = duplex(CHUNK_BYTES);
        self.tasks.spawn("far-output", receive_all(inbound, far));
        near
    }

    fn sizes(&self, outlet: Outlet) -> mpsc::Sender<TerminalSize> {
        let (sender, mut sizes) = mpsc::channel::<TerminalSize>(RESIZE_QUEUE_MAX);
        self.tasks.spawn("far-resize", async move {
            while let Some(size) = sizes.recv().await {
                let size = json!({"Width": size.width, "Height": size.height});
                if !outlet.send(size.to_string().into()).await {
                    return;
                }
            }
        });
        sender
    }
}

/// Which streams a session has.
struct Asked {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Asked {
    fn kinds(&self) -> Vec<&'static str> {
        let Asked { stdin, stdout, stderr, tty } = *self;
        let all = [("error", true), ("stdin", stdin), ("stdout", stdout), ("stderr", stderr && !tty), ("resize", tty)];
        all.into_iter().filter_map(|(kind, wanted)| wanted.then_some(kind)).collect()
    }
}

#[async_trait]
impl Streaming for FarStreams {
    async fn open_exec(&self, request: ExecRequest) -> Result<Session, Error> {
        let ExecRequest { stdin, stdout, stderr, tty, .. } = request;
        let url = self.cri.exec(request).await?.url;
        self.session(&url, Asked { stdin, stdout, stderr, tty }).await
    }

    async fn open_attach(&self, request: AttachRequest) -> Result<Session, Error> {
        let AttachRequest { stdin, stdout, stderr, tty, .. } = request;
        let url = self.cri.attach(request).await?.url;
        self.session(&url, Asked { stdin, stdout, stderr, tty }).await
    }

    async fn open_port_forward(&self, pod_sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>, Error> {
        let request = PortForwardRequest { pod_sandbox_id: pod_sandbox_id.to_string(), port: vec![i32::from(port)] };
        let url = self.cri.port_forward(request).await?.url;
        let io = connect(&self.tasks, &url, FORWARD_PROTOCOL).await?;
        let port = port.to_string();
        let of = |kind| [("streamtype", kind), ("port", port.as_str()), ("requestid", "0")];
        let (mut streams, connection) = open(io, &[&of("error"), &of("data")]).map_err(broken)?;
        let (Some(data), Some(error)) = (streams.pop(), streams.pop()) else {
            return Err(Error::unknown("no streams were opened"));
        };
        self.keep(connection);
        let from_runtime = Forwarded { data: data.inbound, left: Bytes::new(), error, told: Vec::new() };
        Ok(Box::new(tokio::io::join(from_runtime, self.writer(data.outlet))))
    }
}

/// What a forwarded connection says, and why it ended where the runtime says so.
struct Forwarded {
    data: mpsc::Receiver<Bytes>,
    left: Bytes,
    /// Its outlet is held open with it: the runtime takes the end of all outlets for ours.
    error: Opened,
    told: Vec<u8>,
}

impl AsyncRead for Forwarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.left.is_empty() {
                let size = self.left.len().min(to.remaining());
                to.put_slice(&self.left.split_to(size));
                return Poll::Ready(Ok(()));
            }
            if let Some(bytes) = ready!(self.data.poll_recv(cx)) {
                self.left = bytes;
                continue;
            }
            // Why there is no more was told before the end.
            match ready!(self.error.inbound.poll_recv(cx)) {
                Some(bytes) => self.told.extend(bytes.iter().take(WORDS_BYTES_MAX)),
                None if self.told.is_empty() => return Poll::Ready(Ok(())),
                None => {
                    let told = std::mem::take(&mut self.told);
                    return Poll::Ready(Err(io::Error::other(String::from_utf8_lossy(&told).into_owned())));
                }
            }
        }
    }
}

fn broken(error: io::Error) -> Error {
    Error::unavailable(format!("the runtime's streams broke off: {error}"))
}

/// Opens the connection at a URL that the runtime answered.
async fn connect(tasks: &Tasks, url: &str, protocol: &str) -> Result<TokioIo<Upgraded>, Error> {
    let target: Uri =
        url.parse().map_err(|_| Error::unknown(format!("the runtime answered {url:?}, which is no URL")))?;
    let (Some("http"), Some(authority)) = (target.scheme_str(), target.authority()) else {
        return Err(Error::unimplemented(&format!("streams at {url:?} (a runtime has to serve them by http)")));
    };
    let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
    let upgrading = async {
        let stream = TcpStream::connect(&address).await?;
        base::connection::tune(&stream)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tasks.spawn("far-stream-http", async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to the runtime's streams was not upgraded");
            }
        });
        let request = Request::post(target.path_and_query().map_or("/", |path| path.as_str()))
            .header(HOST, authority.as_str())
            .header(CONTENT_LENGTH, 0)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "SPDY/3.1")
            .header(STREAM_PROTOCOL, protocol)
            .body(Empty::<Bytes>::new())
            .map_err(io::Error::other)?;
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = answer.status();
            let words = Limited::new(answer.into_body(), WORDS_BYTES_MAX).collect().await.map_err(io::Error::other)?;
            let words = String::from_utf8_lossy(&words.to_bytes()).trim().to_string();
            return Err(io::Error::other(format!("unable to upgrade connection: {status}: {words}")));
        }
        hyper::upgrade::on(answer).await.map_err(io::Error::other)
    };
    match tokio::time::timeout(CONNECT_LIMIT, upgrading).await {
        Ok(Ok(upgraded)) => Ok(TokioIo::new(upgraded)),
        Ok(Err(error)) => Err(broken(error)),
        Err(_) => Err(Error::deadline_exceeded(format!("the runtime's streams at {address} did not answer"))),
    }
}

async fn read_all(mut inbound: mpsc::Receiver<Bytes>) -> Vec<u8> {
    let mut told = Vec::new();
    while let Some(bytes) = inbound.recv().await {
        let room = WORDS_BYTES_MAX.saturating_sub(told.len());
        told.extend(bytes.iter().take(room));
    }
    told
}

/// How a session ended: a `Status` of version 4 of the protocol.
fn read_verdict(told: &[u8]) -> Result<i32, Error> {
    let Ok(status) = serde_json::from_slice::<Value>(told) else {
        return Err(Error::unavailable("the runtime ended the session without saying how"));
    };
    if status["status"] == "Success" {
        return Ok(0);
    }
    let code = status["details"]["causes"].as_array().into_iter().flatten().find(|cause| cause["reason"] == "ExitCode");
    let code = code.and_then(|cause| cause["message"].as_str()?.parse().ok());
    match code {
        Some(code) if status["reason"] == "NonZeroExitCode" => Ok(code),
        _ => {
            let words = status["message"].as_str().unwrap_or("the session failed");
            // Whoever tells it on says so again.
            let words = words.strip_prefix("Internal error occurred: ").unwrap_or(words);
            Err(Error::unknown(words.strip_prefix("error executing command in container: ").unwrap_or(words)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::spdy;
    use cri::v1::{ExecResponse, PortForwardResponse};
    use http::Response;
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers every call with one URL.
    struct Urls(String);

    #[async_trait]
    impl Cri for Urls {
        async fn exec(&self, _: ExecRequest) -> Result<ExecResponse, Error> {
            Ok(ExecResponse { url: self.0.clone() })
        }

        async fn port_forward(&self, _: PortForwardRequest) -> Result<PortForwardResponse, Error> {
            Ok(PortForwardResponse { url: self.0.clone() })
        }
    }

    /// A runtime's server of streams for one connection: `serve` gets what the client opened, once there are `count` of them.
    async fn runtime<F>(
        count: usize,
        serve: impl FnOnce(Vec<spdy::Accepted>) -> F + Clone + Send + 'static,
    ) -> FarStreams
    where
        F: Future<Output = ()> + Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/exec/token", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(move |mut request: Request<Incoming>| {
                let serve = serve.clone();
                async move {
                    assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/exec/token"));
                    assert_eq!(request.headers()[UPGRADE], "SPDY/3.1");
                    let protocol = request.headers()[STREAM_PROTOCOL].clone();
                    let on = hyper::upgrade::on(&mut request);
                    tokio::spawn(async move {
                        let (mut streams, connection) = spdy::serve(TokioIo::new(on.await.unwrap()));
                        let connection = tokio::spawn(connection);
                        let mut accepted = Vec::new();
                        while accepted.len() < count {
                            accepted.push(streams.recv().await.unwrap());
                        }
                        drop(streams);
                        serve(accepted).await;
                        drop(connection.await);
                    });
                    let answer =
                        Response::builder().status(101).header(CONNECTION, "Upgrade").header(UPGRADE, "SPDY/3.1");
                    Ok::<_, std::convert::Infallible>(
                        answer.header(STREAM_PROTOCOL, protocol).body(Empty::<Bytes>::new()).unwrap(),
                    )
                }
            });
            let http = hyper::server::conn::http1::Builder::new();
            drop(http.serve_connection(TokioIo::new(stream), service).with_upgrades().await);
        });
        FarStreams::new(Arc::new(Urls(url)), Tasks::root())
    }

    fn exec(tty: bool) -> ExecRequest {
        ExecRequest { stdin: true, stdout: true, stderr: !tty, tty, ..ExecRequest::default() }
    }

    #[tokio::test]
    async fn a_command_s_streams_and_end_come_from_where_the_runtime_says() {
        let streams = runtime(4, |accepted| async move {
            let kinds: Vec<&str> = accepted.iter().map(|stream| stream.header("streamtype")).collect();
            assert_eq!(kinds, ["error", "stdin", "stdout", "stderr"]);
            let [error, mut stdin, stdout, stderr] = accepted.try_into().ok().unwrap();
            while let Some(bytes) = stdin.inbound.recv().await {
                stdout.outlet.send(bytes).await;
            }
            stderr.outlet.send(Bytes::from_static(b"oh")).await;
            let status = json!({"status": "Failure", "reason": "NonZeroExitCode", "message": "command terminated",
                "details": {"causes": [{"reason": "ExitCode", "message": "7"}]}});
            error.outlet.send(status.to_string().into()).await;
        })
        .await;
        let mut session = streams.open_exec(exec(false)).await.unwrap();
        let mut stdin = session.stdin.take().unwrap();
        stdin.write_all(b"hello").await.unwrap();
        stdin.shutdown().await.unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        session.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
        session.stderr.take().unwrap().read_to_string(&mut err).await.unwrap();
        assert_eq!((out.as_str(), err.as_str(), session.exit.await), ("hello", "oh", Ok(7)));
    }

    #[tokio::test]
    async fn a_terminal_has_one_output_and_sizes_and_ends_when_the_session_is_dropped() {
        let (ended, mut end) = mpsc::channel::<String>(1);
        let streams = runtime(4, move |accepted| async move {
            let [_error, mut stdin, _stdout, mut resize] = accepted.try_into().ok().unwrap();
            let size = resize.inbound.recv().await.unwrap();
            while stdin.inbound.recv().await.is_some() {}
            ended.send(String::from_utf8_lossy(&size).into_owned()).await.unwrap();
        })
        .await;
        let session = streams.open_exec(exec(true)).await.unwrap();
        assert!(session.stderr.is_none());
        session.resize.as_ref().unwrap().send(TerminalSize { width: 80, height: 24 }).await.unwrap();
        drop(session);
        let size: Value = serde_json::from_str(&end.recv().await.unwrap()).unwrap();
        assert_eq!(size, json!({"Width": 80, "Height": 24}));
    }

    #[tokio::test]
    async fn a_forwarded_port_carries_both_ways_and_tells_why_it_failed() {
        let streams = runtime(2, |accepted| async move {
            let [error, mut data] = accepted.try_into().ok().unwrap();
            assert_eq!((error.header("streamtype"), data.header("streamtype")), ("error", "data"));
            assert_eq!((data.header("port"), data.header("requestid")), ("80", "0"));
            let asked = data.inbound.recv().await.unwrap();
            data.outlet.send(asked).await;
            error.outlet.send(Bytes::from_static(b"connection refused")).await;
        })
        .await;
        let mut connection = streams.open_port_forward("s", 80).await.unwrap();
        connection.write_all(b"ping").await.unwrap();
        let mut got = Vec::new();
        let error = connection.read_to_end(&mut got).await.unwrap_err();
        assert_eq!((got.as_slice(), error.to_string().as_str()), (&b"ping"[..], "connection refused"));
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_refused_by_name() {
        let refused = |url: &str| {
            let streams = FarStreams::new(Arc::new(Urls(url.to_owned())), Tasks::root());
            async move { streams.open_exec(exec(false)).await.err().unwrap().to_string() }
        };
        assert!(refused("https://127.0.0.1:1/exec/x").await.contains("https://127.0.0.1:1"));
        assert!(refused("/exec/x").await.contains("/exec/x"));
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert!(refused(&format!("http://{closed}/exec/x")).await.contains("Unavailable"));
    }

    #[test]
    fn verdicts_are_read() {
        let verdict = |value: Value| read_verdict(value.to_string().as_bytes());
        assert_eq!(verdict(json!({"status": "Success"})), Ok(0));
        let failed = verdict(json!({"status": "Failure", "reason": "InternalError",
            "message": "Internal error occurred: error executing command in container: no such file"}));
        assert_eq!(failed.unwrap_err().message(), "no such file");
        assert_eq!(read_verdict(b"").unwrap_err().code(), cri::Code::Unavailable);
    }
}
