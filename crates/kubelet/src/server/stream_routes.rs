//! Exec, attach and port-forward: the upgrade, the protocol, the streams.
//!
//! ```text
//! request ─▶ find the container ─▶ 101 (WebSocket or SPDY) ─▶ streams ─▶ session.rs (exec, attach) or a connection per stream pair
//! ```

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cri::streaming::Session;
use cri::v1::{AttachRequest, ExecRequest};
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use websocket::Handshake;

use super::STREAM_PROTOCOL;
use super::channels;
use super::query::Query;
use super::route::{Answer, text};
use super::session::{ClientStreams, relay};
use super::spdy::{self, Accepted};
use super::streams::{receive_all, send_all};
use crate::agent::Agent;

/// How long a client may take to open all the streams of a session.
const STREAMS_LIMIT: Duration = Duration::from_secs(30);
/// How long what a client still says is passed on to a program that has hung up; as in containerd.
const HANG_UP_DELAY: Duration = Duration::from_millis(500);
const SPDY_EXEC_PROTOCOLS: [&str; 4] =
    ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
const SPDY_FORWARD_PROTOCOL: &str = "portforward.k8s.io";

/// What the client asks a container for.
#[derive(Clone, Debug)]
pub struct Asked {
    pub container_id: String,
    /// None attaches.
    pub command: Option<Vec<String>>,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

impl Asked {
    /// From the query; the error is the message of a bad request.
    pub fn parse(container_id: String, query: &Query, attach: bool) -> Result<Self, String> {
        let either = |one: &str, other: &str| query.flag(one) || query.flag(other);
        let tty = query.flag("tty");
        let asked = Asked {
            container_id,
            command: (!attach).then(|| query.all("command")),
            stdin: either("input", "stdin"),
            stdout: either("output", "stdout"),
            // A terminal has one output.
            stderr: either("error", "stderr") && !tty,
            tty,
        };
        if !asked.stdin && !asked.stdout && !asked.stderr {
            return Err("you must specify at least 1 of stdin, stdout, stderr".to_string());
        }
        Ok(asked)
    }

    async fn open(&self, agent: &Agent) -> Result<Session, cri::Error> {
        let streaming = agent.streaming();
        let container_id = self.container_id.clone();
        let (stdin, stdout, stderr, tty) = (self.stdin, self.stdout, self.stderr, self.tty);
        match &self.command {
            Some(cmd) => {
                let request = ExecRequest { container_id, cmd: cmd.clone(), tty, stdin, stdout, stderr };
                streaming.open_exec(request).await
            }
            None => streaming.open_attach(AttachRequest { container_id, stdin, tty, stdout, stderr }).await,
        }
    }
}

/// How a request wants to be upgraded.
enum Upgrade {
    WebSocket { handshake: Handshake, protocol: Option<&'static str> },
    Spdy { protocol: Option<&'static str> },
}

/// Reads the upgrade; the answer is the refusal.
fn upgrade(headers: &HeaderMap, websocket: &[&'static str], spdy: &[&'static str]) -> Result<Upgrade, Box<Answer>> {
    let kind = headers.get(UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.eq_ignore_ascii_case("websocket") {
        let agreed = Handshake::read(headers).and_then(|handshake| {
            let protocol = handshake.choose(websocket)?;
            Ok(Upgrade::WebSocket { handshake, protocol })
        });
        return agreed.map_err(|refused| Box::new(text(StatusCode::BAD_REQUEST, refused.to_string())));
    }
    if kind.eq_ignore_ascii_case("SPDY/3.1") {
        let values = headers.get_all(STREAM_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
        let offered: Vec<&str> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
        // The client's order counts.
        let protocol = offered.iter().find_map(|offer| spdy.iter().find(|known| *known == offer).copied());
        if protocol.is_none() && !offered.is_empty() {
            let message = format!(
                "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts {spdy:?}"
            );
            return Err(Box::new(text(StatusCode::FORBIDDEN, message)));
        }
        return Ok(Upgrade::Spdy { protocol });
    }
    Err(Box::new(text(StatusCode::BAD_REQUEST, "Upgrade request required")))
}

impl Upgrade {
    fn answer(&self) -> Answer {
        let mut answer = http::Response::new(super::route::empty());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *answer.headers_mut() = match self {
            Upgrade::WebSocket { handshake, protocol } => handshake.headers(*protocol),
            Upgrade::Spdy { protocol } => {
                let headers = [(CONNECTION.as_str(), "Upgrade"), (UPGRADE.as_str(), "SPDY/3.1")];
                let protocol = protocol.map(|protocol| (STREAM_PROTOCOL, protocol));
                let headers = headers.into_iter().chain(protocol);
                headers.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
            }
        };
        answer
    }
}

/// Runs `serve` on the connection once it is upgraded, as long as the agent runs.
fn after_upgrade<F>(agent: &Arc<Agent>, on: OnUpgrade, serve: impl FnOnce(TokioIo<Upgraded>) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    agent.tasks.spawn("upgraded", async move {
        match on.await {
            Ok(upgraded) => serve(TokioIo::new(upgraded)).await,
            Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
        }
    });
}

/// Exec and attach.
pub fn session(agent: &Arc<Agent>, mut request: Request<Incoming>, asked: Asked) -> Answer {
    let upgrade = match upgrade(request.headers(), &channels::EXEC_PROTOCOLS, &SPDY_EXEC_PROTOCOLS) {
        Ok(upgrade) => upgrade,
        Err(refusal) => return *refusal,
    };
    let answer = upgrade.answer();
    let on = hyper::upgrade::on(&mut request);
    let serving = agent.clone();
    after_upgrade(agent, on, move |io| async move {
        match upgrade {
            Upgrade::WebSocket { protocol, .. } => {
                websocket_session(&serving, io, asked, protocol.unwrap_or("channel.k8s.io")).await
            }
            Upgrade::Spdy { protocol } => spdy_session(&serving, io, asked, protocol.unwrap_or("channel.k8s.io")).await,
        }
    });
    answer
}

async fn websocket_session(agent: &Agent, io: TokioIo<Upgraded>, asked: Asked, protocol: &str) {
    let socket = websocket::serve(io).await;
    let (mut channels, connection) = channels::serve(socket, protocol.contains("base64"));
    let [_, stdout, stderr, error, _] = std::mem::take(&mut channels.outlets);
    let [stdin, _, _, _, resize] = std::mem::take(&mut channels.inbound);
    let Some(error) = error else { return };
    // An empty message tells the client that the session is up.
    let first = [(asked.stdout, &stdout), (asked.stderr, &stderr)].into_iter().find(|(wanted, _)| *wanted);
    let first = first.and_then(|(_, outlet)| outlet.as_ref()).unwrap_or(&error);
    if !first.send(Bytes::new()).await {
        return;
    }
    let client = ClientStreams {
        stdin: stdin.filter(|_| asked.stdin),
        stdout: stdout.filter(|_| asked.stdout),
        stderr: stderr.filter(|_| asked.stderr),
        resize: resize.filter(|_| asked.tty),
        error,
        tells_status: protocol.starts_with("v4") || protocol.starts_with("v5"),
    };
    finish(run(agent, asked, client), connection).await;
}

async fn spdy_session(agent: &Agent, io: TokioIo<Upgraded>, asked: Asked, protocol: &str) {
    let (mut streams, connection) = spdy::serve(io);
    let tells_status = protocol.starts_with("v4");
    let resizes = asked.tty && (tells_status || protocol.starts_with("v3"));
    let work = async {
        let mut wanted = vec!["error"];
        wanted.extend(asked.stdin.then_some("stdin"));
        wanted.extend(asked.stdout.then_some("stdout"));
        wanted.extend(asked.stderr.then_some("stderr"));
        wanted.extend(resizes.then_some("resize"));
        let collected = tokio::time::timeout(STREAMS_LIMIT, collect(&mut streams, &wanted)).await;
        let Ok(Some(mut found)) = collected else {
            return tracing::debug!("a client did not open its streams");
        };
        // The receiver goes: no more streams are taken, and the connection ends with the session.
        drop(streams);
        let Some(error) = found.remove("error") else { return };
        let mut inbound = |name: &str| found.remove(name).map(|stream| (stream.inbound, stream.outlet));
        let (stdin, stdin_outlet) = inbound("stdin").unzip();
        let (resize, resize_outlet) = inbound("resize").unzip();
        let (stdout, stderr) = (inbound("stdout"), inbound("stderr"));
        let client = ClientStreams {
            stdin,
            resize,
            stdout: stdout.map(|(_, outlet)| outlet),
            stderr: stderr.map(|(_, outlet)| outlet),
            error: error.outlet,
            tells_status,
        };
        run(agent, asked, client).await;
        drop((stdin_outlet, resize_outlet));
    };
    finish(work, connection).await;
}

/// The streams of the wanted kinds, by kind; none when the client goes first.
async fn collect(streams: &mut mpsc::Receiver<Accepted>, wanted: &[&str]) -> Option<HashMap<String, Accepted>> {
    let mut found = HashMap::new();
    while !wanted.iter().all(|kind| found.contains_key(*kind)) {
        let stream = streams.recv().await?;
        found.insert(stream.header("streamtype").to_string(), stream);
    }
    Some(found)
}

async fn run(agent: &Agent, asked: Asked, client: ClientStreams) {
    let session = match asked.open(agent).await {
        Ok(session) => session,
        Err(error) => {
            let exit = Box::pin(futures::future::ready(Err(error)));
            Session { stdin: None, stdout: None, stderr: None, resize: None, exit }
        }
    };
    relay(session, client).await;
}

/// Does the work beside its connection: the work ends with the connection, the connection is emptied after the work.
async fn finish(work: impl Future<Output = ()>, connection: impl Future<Output = std::io::Result<()>>) {
    let (mut work, mut connection) = (std::pin::pin!(work), std::pin::pin!(connection));
    let ended = tokio::select! {
        () = &mut work => connection.await,
        ended = &mut connection => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a streaming connection broke off");
    }
}

/// Port-forward, by SPDY or by SPDY inside WebSocket.
pub fn port_forward(agent: &Arc<Agent>, mut request: Request<Incoming>, sandbox_id: String, pod: String) -> Answer {
    let upgrade = match upgrade(request.headers(), &[channels::TUNNEL_PROTOCOL], &[SPDY_FORWARD_PROTOCOL]) {
        Ok(upgrade) => upgrade,
        Err(refusal) => return *refusal,
    };
    let answer = upgrade.answer();
    let on = hyper::upgrade::on(&mut request);
    let serving = agent.clone();
    after_upgrade(agent, on, move |io| async move {
        match upgrade {
            Upgrade::Spdy { .. } => forward(serving, io, sandbox_id, pod).await,
            Upgrade::WebSocket { .. } => {
                let (inner, pump) = channels::tunnel(websocket::serve(io).await);
                let work = forward(serving, inner, sandbox_id, pod);
                finish(work, pump).await;
            }
        }
    });
    answer
}

async fn forward<S>(agent: Arc<Agent>, io: S, sandbox_id: String, pod: String)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (mut streams, connection) = spdy::serve(io);
    let tasks = agent.tasks.child();
    let work = async {
        // Streams come in pairs of one request: first the one for errors, then the one for data.
        let mut halves: HashMap<String, Accepted> = HashMap::new();
        while let Some(stream) = streams.recv().await {
            let request_id = match stream.header("requestid") {
                "" => stream.header("port").to_string(),
                id => id.to_string(),
            };
            let Some(other) = halves.remove(&request_id) else {
                halves.insert(request_id, stream);
                continue;
            };
            let (error, data) = if stream.header("streamtype") == "error" { (stream, other) } else { (other, stream) };
            let (agent, sandbox_id, pod) = (agent.clone(), sandbox_id.clone(), pod.clone());
            tasks.spawn("port-forward", async move { forward_one(&agent, &sandbox_id, &pod, error, data).await });
        }
    };
    finish(work, connection).await;
    tasks.cancel();
}

async fn forward_one(agent: &Agent, sandbox_id: &str, pod: &str, error: Accepted, data: Accepted) {
    let port = data.header("port").to_string();
    let opened = match port.parse::<u16>() {
        Ok(number) => agent.streaming().open_port_forward(sandbox_id, number).await,
        Err(_) => Err(cri::Error::invalid(format!("invalid port {port:?}"))),
    };
    let why = match opened {
        Ok(connection) => {
            let (reader, writer) = tokio::io::split(connection);
            let sending = send_all(reader, data.outlet);
            let receiving = receive_all(data.inbound, writer);
            tokio::pin!(sending, receiving);
            // A program that hangs up is done. Clients up to 1.31 wait for us to hang up in turn, and we would for them.
            let sent = tokio::select! {
                sent = &mut sending => {
                    tokio::select! {
                        () = receiving => {}
                        () = agent.clock.sleep(HANG_UP_DELAY) => {}
                    }
                    sent
                }
                () = &mut receiving => sending.await,
            };
            let Err(broken) = sent else { return };
            broken.to_string()
        }
        Err(why) => why.message().to_string(),
    };
    // A runtime in another process says all of it itself.
    let message = match why.starts_with("error forwarding port") {
        true => why,
        false => format!("error forwarding port {port} to pod {sandbox_id}, uid : {why}"),
    };
    tracing::debug!(pod, message, "port-forward failed");
    error.outlet.send(message.into()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_first_known_protocol_is_chosen() {
        let headers = |pairs: &[(&str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in pairs {
                map.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
            }
            map
        };
        let chosen = |map: HeaderMap| match upgrade(&map, &channels::EXEC_PROTOCOLS, &SPDY_EXEC_PROTOCOLS) {
            Ok(Upgrade::WebSocket { protocol, .. }) => Ok(("websocket", protocol)),
            Ok(Upgrade::Spdy { protocol }) => Ok(("spdy", protocol)),
            Err(answer) => Err(answer.status().as_u16()),
        };
        let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let ws = ("upgrade", "websocket");
        let version = ("sec-websocket-version", "13");
        let offers = ("sec-websocket-protocol", "v9.x, v5.channel.k8s.io, v4.channel.k8s.io");
        assert_eq!(chosen(headers(&[ws, key, version, offers])), Ok(("websocket", Some("v5.channel.k8s.io"))));
        assert_eq!(chosen(headers(&[ws, key, version])), Ok(("websocket", None)));
        assert_eq!(chosen(headers(&[ws])), Err(400));
        assert_eq!(chosen(headers(&[ws, key, version, ("sec-websocket-protocol", "v9.x")])), Err(400));
        let spdy = ("Upgrade", "SPDY/3.1");
        let versions = [spdy, (STREAM_PROTOCOL, "v5.channel.k8s.io"), (STREAM_PROTOCOL, "v4.channel.k8s.io")];
        assert_eq!(chosen(headers(&versions)), Ok(("spdy", Some("v4.channel.k8s.io"))));
        assert_eq!(chosen(headers(&[spdy, (STREAM_PROTOCOL, "v9")])), Err(403));
        assert_eq!(chosen(headers(&[])), Err(400));
    }
}
