//! HTTP GET for probes and hooks: no proxy, no certificate checks, a bounded answer.
//!
//! Redirects within the same host are followed; one that leads elsewhere counts as an answer, so that a pod cannot have the
//! node ask around in its name.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};

use super::tcp;

const REDIRECTS_MAX: usize = 10;
/// As much of the body as is read.
const BODY_BYTES_MAX: usize = 10 * 1024;

/// A request to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Get {
    pub tls: bool,
    pub host: String,
    pub port: u16,
    /// With the query.
    pub path: String,
    pub headers: Vec<(String, String)>,
}

impl Get {
    fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", tcp::shown(&self.host, self.port), self.path)
    }

    /// The same request for where a redirect leads; none when that is another host.
    fn redirected(&self, location: &str) -> Option<Get> {
        let uri: http::Uri = location.parse().ok()?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_string();
        let Some(host) = uri.host() else { return Some(Get { path, ..self.clone() }) };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        (host == self.host).then(|| Get { tls, port, path, ..self.clone() })
    }
}

/// An answer's status code and the place it redirects to.
struct Answered {
    code: u16,
    location: Option<String>,
}

/// Success is a status code from 200 to 399 within the time.
pub async fn probe(request: &Get, timeout: Duration) -> Result<(), String> {
    let asked = async {
        let mut request = request.clone();
        for _ in 0..=REDIRECTS_MAX {
            let answer = exchange(&request, timeout).await?;
            let moved = matches!(answer.code, 301 | 302 | 303 | 307 | 308);
            match answer.location.filter(|_| moved).and_then(|location| request.redirected(&location)) {
                Some(next) => request = next,
                None if (200..400).contains(&answer.code) => return Ok(()),
                None => return Err(format!("HTTP probe failed with statuscode: {}", answer.code)),
            }
        }
        Err(format!("Get {:?}: stopped after {REDIRECTS_MAX} redirects", request.url()))
    };
    tokio::time::timeout(timeout, asked).await.unwrap_or_else(|_| {
        let url = request.url();
        Err(format!("Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"))
    })
}

async fn exchange(request: &Get, timeout: Duration) -> Result<Answered, String> {
    let failed = |why: String| format!("Get {:?}: {why}", request.url());
    let stream = tcp::connect(&request.host, request.port, timeout).await.map_err(failed)?;
    if request.tls {
        let name = ServerName::try_from(request.host.clone()).map_err(|error| failed(error.to_string()))?;
        // The probe asks whether the container answers, not who it is.
        let connector = tokio_rustls::TlsConnector::from(pki::tls::unverified_client_config());
        let stream = connector.connect(name, stream).await.map_err(|error| failed(error.to_string()))?;
        return send(request, stream).await.map_err(failed);
    }
    send(request, stream).await.map_err(failed)
}

async fn send(request: &Get, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Answered, String> {
    let error = |error: &dyn std::error::Error| error.to_string();
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| error(&e))?;
    let mut builder = http::Request::get(request.path.as_str());
    if !request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        builder = builder.header("Host", tcp::shown(&request.host, request.port));
    }
    for (name, value) in request.headers.iter().filter(|(_, value)| !value.is_empty()) {
        builder = builder.header(name.as_str(), value.as_str());
    }
    let call = builder.body(Empty::<Bytes>::new()).map_err(|e| error(&e))?;
    let exchange = async {
        let answer = sender.send_request(call).await.map_err(|e| error(&e))?;
        let location = answer.headers().get("location").and_then(|value| value.to_str().ok()).map(String::from);
        let code = answer.status().as_u16();
        // The body matters to the server, which may be hurt by a connection that closes early; what it says does not.
        drop(Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await);
        Ok(Answered { code, location })
    };
    // The connection is driven by hand so that it ends with the exchange, without a task of its own.
    let (mut connection, mut exchange) = (std::pin::pin!(connection), std::pin::pin!(exchange));
    tokio::select! {
        answered = &mut exchange => answered,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(e) => Err(error(&e)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Answers each connection with the next text, then hears no more.
    async fn server(answers: &'static [&'static str]) -> Get {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 1024];
                assert!(stream.read(&mut buffer).await.unwrap() > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Get { tls: false, host: "127.0.0.1".into(), port, path: "/".into(), headers: Vec::new() }
    }

    #[tokio::test]
    async fn codes_and_redirects_are_judged() {
        let limit = Duration::from_secs(5);
        let ok = server(&["HTTP/1.1 204 No Content\r\n\r\n"]).await;
        assert_eq!(probe(&ok, limit).await, Ok(()));
        let sick = server(&["HTTP/1.1 503 Sick\r\nContent-Length: 0\r\n\r\n"]).await;
        assert_eq!(probe(&sick, limit).await, Err("HTTP probe failed with statuscode: 503".into()));
        let moved = "HTTP/1.1 302 Found\r\nLocation: /next\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let followed = server(Box::leak(Box::new([moved, "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"]))).await;
        assert_eq!(probe(&followed, limit).await, Err("HTTP probe failed with statuscode: 500".into()));
        let away = server(&["HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n"]).await;
        assert_eq!(probe(&away, limit).await, Ok(()), "not followed");
    }

    #[tokio::test]
    async fn silence_is_a_failure_when_the_time_is_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let get = Get { tls: false, host: "127.0.0.1".into(), port, path: "/x".into(), headers: Vec::new() };
        let why = probe(&get, Duration::from_millis(50)).await.unwrap_err();
        assert!(why.contains("/x\": context deadline exceeded"), "{why}");
    }
}
