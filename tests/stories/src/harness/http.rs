//! The network as a client sees it: a GET over a plain socket, and a port that `kubectl port-forward` opened.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::kube::Kube;
use super::watch::{Follow, seconds};

const ANSWER_S_MAX: u64 = 10;

/// Status and body of `GET path` at `address`.
pub fn get(address: &str, path: &str) -> Result<(u16, String)> {
    Request { method: "GET", path, content_type: "", body: &[] }.send(address)
}

/// A request as it goes over the wire.
pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    /// Left out when empty.
    pub content_type: &'a str,
    pub body: &'a [u8],
}

impl Request<'_> {
    /// Sends it on a connection of its own; status and body of the answer.
    pub fn send(&self, address: &str) -> Result<(u16, String)> {
        let limit = Duration::from_secs(seconds(ANSWER_S_MAX));
        let resolved = address.to_socket_addrs()?.next().with_context(|| format!("{address} is no address"))?;
        let mut stream =
            TcpStream::connect_timeout(&resolved, limit).with_context(|| format!("connecting to {address}"))?;
        stream.set_read_timeout(Some(limit))?;
        // a server that refuses may hang up before it has read everything: what counts is its answer
        let _ = stream.write_all(&self.head(address).into_bytes()).and_then(|()| stream.write_all(self.body));
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        if answer.is_empty() {
            read.with_context(|| format!("reading the answer of {address}"))?;
        }
        understood(&String::from_utf8_lossy(&answer)).with_context(|| format!("{address} answered no HTTP"))
    }

    fn head(&self, address: &str) -> String {
        let Self { method, path, content_type, body } = self;
        let mut head = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n");
        if !content_type.is_empty() {
            head += &format!("Content-Type: {content_type}\r\n");
        }
        if *method != "GET" {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        head + "\r\n"
    }
}

fn understood(answer: &str) -> Result<(u16, String)> {
    let Some((head, body)) = answer.split_once("\r\n\r\n").or_else(|| answer.split_once("\n\n")) else {
        bail!("no head in {answer:?}")
    };
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    Ok((status.with_context(|| format!("no status in {head:?}"))?, body.to_owned()))
}

/// A running `kubectl port-forward`.
pub struct Forward {
    _follow: Follow,
    /// On this machine's loopback.
    pub address: String,
}

impl Forward {
    /// Forwards a free local port to `port` of `what` (`pod/x`, `service/x`).
    pub fn start(kube: &Kube, what: &str, port: u16) -> Result<Self> {
        let follow = Follow::start(kube.command(&format!("port-forward {what} :{port}")))?;
        let line = follow.until(20, |line| line.starts_with("Forwarding from 127.0.0.1:")).context("port-forward")?;
        let address = line.split_whitespace().nth(2).context("port-forward names no address")?.to_owned();
        Ok(Self { _follow: follow, address })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    use super::*;

    /// Answers one request with `answer` and returns its address.
    fn server(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream);
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn status_and_body_are_told_apart() {
        let address = server("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nno\r\n");
        assert_eq!(get(&address, "/").unwrap(), (503, "no\r\n".to_owned()));
    }

    #[test]
    fn what_is_not_http_is_an_error() {
        assert!(get(&server("hello"), "/").is_err());
        assert!(get("127.0.0.1:1", "/").is_err());
    }
}
