//! A blocking HTTPS client that is just enough for the API: one request at a time on a kept connection, or one watch.
//!
//! HTTP/1.1 only, bodies with a length or in chunks. It follows no redirects and retries nothing.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

/// How long an answer, or the next event of a watch, may take before the round is given up.
const ANSWER_S_MAX: u64 = 60;
/// What the API answers when an object to be created is there already.
const CONFLICT: u16 = 409;

/// How to reach an API server as its administrator.
#[derive(Clone)]
pub struct Access {
    address: SocketAddr,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
}

impl Access {
    /// As the kubeconfig that `KUBECONFIG` names says.
    pub fn of_environment() -> Result<Self> {
        let path = PathBuf::from(std::env::var_os("KUBECONFIG").context("KUBECONFIG is not set: this runs in a lab")?);
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let server = server(&text).context("the kubeconfig names no server")?;
        let address = server.to_socket_addrs().with_context(|| format!("looking up {server}"))?.next();
        Self::from_kubeconfig(&path, address.with_context(|| format!("{server} has no address"))?)
    }

    /// Takes authority, certificate and key from the kubeconfig; the address is the caller's.
    pub fn from_kubeconfig(path: &Path, address: SocketAddr) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&kept(&text, "certificate-authority")?) {
            roots.add(certificate?)?;
        }
        let chain = kept(&text, "client-certificate")?;
        let chain = CertificateDer::pem_slice_iter(&chain).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&kept(&text, "client-key")?)?;
        let tls = ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?;
        Ok(Self { address, name: ServerName::IpAddress(address.ip().into()), tls: Arc::new(tls) })
    }

    pub fn connect(&self) -> Result<Connection> {
        let socket = TcpStream::connect(self.address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(ANSWER_S_MAX)))?;
        let session = ClientConnection::new(self.tls.clone(), self.name.clone())?;
        Ok(Connection { stream: BufReader::new(StreamOwned::new(session, socket)) })
    }

    /// Opens a watch; `path` carries the parameters, without a version to begin at.
    pub fn watch(&self, path: &str) -> Result<Watch> {
        Ok(Watch { body: self.open(path)?, access: self.clone(), path: path.into(), version: None })
    }

    /// Opens a watch of what comes after `version`.
    pub fn watch_after(&self, path: &str, version: &str) -> Result<Watch> {
        let body = self.open(&format!("{path}&resourceVersion={version}"))?;
        Ok(Watch { body, access: self.clone(), path: path.into(), version: Some(version.into()) })
    }

    fn open(&self, path: &str) -> Result<BufReader<Body>> {
        let mut connection = self.connect()?;
        connection.send("GET", path, None)?;
        let (status, framing) = connection.head()?;
        if status != 200 {
            bail!("{path} answers {status}");
        }
        Ok(BufReader::new(Body { connection, framing }))
    }
}

/// What a kubeconfig, in YAML or JSON, has under `key`: the thing itself under `key`-data, or the path of its file.
fn kept(kubeconfig: &str, key: &str) -> Result<Vec<u8>> {
    if let Some(text) = value(kubeconfig, &format!("{key}-data")) {
        return base64::engine::general_purpose::STANDARD.decode(text).with_context(|| format!("decoding {key}-data"));
    }
    let path = value(kubeconfig, key).with_context(|| format!("the kubeconfig has no {key}"))?;
    std::fs::read(path).with_context(|| format!("reading {path}"))
}

fn value<'a>(kubeconfig: &'a str, key: &str) -> Option<&'a str> {
    let is_whole = |after: &&str| after.starts_with([':', '"']);
    let after = kubeconfig.match_indices(key).map(|(at, _)| &kubeconfig[at + key.len()..]).find(is_whole)?;
    let text = after.trim_start_matches(['"', ':', ' ']);
    text.split(['"', '\n', '\r', ' ', ',']).next()
}

/// Host and port of the first server that a kubeconfig names.
fn server(kubeconfig: &str) -> Option<&str> {
    let (_, after) = kubeconfig.split_once("https://")?;
    after.split(['"', '\'', '\n', '\r', ' ', '/', ',']).next()
}

/// One connection on which requests follow each other.
pub struct Connection {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl Connection {
    /// Asks and reads the whole answer.
    pub fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Vec<u8>)> {
        self.send(method, path, body)?;
        let (status, mut framing) = self.head()?;
        let mut answer = Vec::new();
        let mut part = [0u8; 16 * 1024];
        loop {
            match read_body(&mut self.stream, &mut framing, &mut part)? {
                0 => return Ok((status, answer)),
                count => answer.extend_from_slice(&part[..count]),
            }
        }
    }

    /// As `ask`, but an answer other than success is an error.
    pub fn must(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Vec<u8>> {
        let (status, answer) = self.ask(method, path, body)?;
        if !(200..300).contains(&status) {
            bail!("{method} {path} answers {status}: {}", String::from_utf8_lossy(&answer));
        }
        Ok(answer)
    }

    /// Creates an object that may be there already.
    pub fn ensure(&mut self, path: &str, object: &Value) -> Result<()> {
        match self.ask("POST", path, Some(object))? {
            (200..=299 | CONFLICT, _) => Ok(()),
            (status, answer) => bail!("POST {path} answers {status}: {}", String::from_utf8_lossy(&answer)),
        }
    }

    fn send(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<()> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let length = body.len();
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: kubernetes\r\nAccept: application/json\r\nUser-Agent: bench-cluster\r\n\
             Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let stream = self.stream.get_mut();
        stream.write_all(request.as_bytes())?;
        stream.flush().context("sending a request")
    }

    /// Reads the status line and the headers.
    fn head(&mut self) -> Result<(u16, Framing)> {
        let status = self.line()?;
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let code = code.with_context(|| format!("not an HTTP answer: {status:?}"))?;
        let mut framing = Framing::Length(0);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.split_once(':') {
                Some(("content-length", length)) => framing = Framing::Length(length.trim().parse()?),
                Some(("transfer-encoding", _chunked)) => framing = Framing::Chunked { left: 0, first: true },
                Some(_other) => {}
                None => return Ok((code, framing)),
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        Ok(read_line(&mut self.stream)?)
    }
}

enum Framing {
    Length(usize),
    Chunked { left: usize, first: bool },
    Ended,
}

fn read_line(stream: &mut impl BufRead) -> std::io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

/// Reads some of a body; zero at its end.
fn read_body(stream: &mut impl BufRead, framing: &mut Framing, into: &mut [u8]) -> std::io::Result<usize> {
    if let Framing::Chunked { left: left @ 0, first } = framing {
        if !std::mem::take(first) {
            read_line(stream)?;
        }
        let size = read_line(stream)?;
        *left = usize::from_str_radix(&size, 16).map_err(std::io::Error::other)?;
        if *left == 0 {
            read_line(stream)?;
            *framing = Framing::Ended;
        }
    }
    let (Framing::Length(left) | Framing::Chunked { left, .. }) = framing else { return Ok(0) };
    let wanted = into.len().min(*left);
    if wanted == 0 {
        // a buffered reader would wait for more of the connection even so
        return Ok(0);
    }
    let count = stream.read(&mut into[..wanted])?;
    *left -= count;
    if count == 0 { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(count) }
}

struct Body {
    connection: Connection,
    framing: Framing,
}

impl Read for Body {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        read_body(&mut self.connection.stream, &mut self.framing, into)
    }
}

/// The events of a watch, in order. One that the server ends, as servers do with watchers that fall behind, is opened
/// again where it ended.
pub struct Watch {
    body: BufReader<Body>,
    access: Access,
    path: String,
    /// Of the last event.
    version: Option<String>,
}

/// One change and the moment at which all of its bytes were here.
pub struct Event {
    pub at: Instant,
    /// `ADDED`, `MODIFIED`, `DELETED`.
    pub kind: String,
    pub object: Value,
}

impl Watch {
    /// Blocks until the next change.
    pub fn event(&mut self) -> Result<Event> {
        let mut line = Vec::new();
        while !self.read_line(&mut line)? {
            line.clear();
            let version = self.version.as_ref().context("the watch ended before anything was seen")?;
            self.body = self.access.open(&format!("{}&resourceVersion={version}", self.path))?;
        }
        let at = Instant::now();
        let mut event: Value = serde_json::from_slice(&line).context("reading an event")?;
        let kind = event["type"].as_str().unwrap_or_default().to_owned();
        if kind == "ERROR" {
            bail!("the watch ended: {}", event["object"]);
        }
        let object = event["object"].take();
        self.version = object["metadata"]["resourceVersion"].as_str().map(str::to_owned).or(self.version.take());
        Ok(Event { at, kind, object })
    }

    /// Whether there was a whole line, before the server ended the watch.
    fn read_line(&mut self, line: &mut Vec<u8>) -> Result<bool> {
        match self.body.read_until(b'\n', line) {
            Ok(0) => Ok(false),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error).context("waiting for an event"),
        }
    }

    /// Blocks until `wanted` is true of a change; tells when that was.
    pub fn wait_for(&mut self, mut wanted: impl FnMut(&Event) -> bool) -> Result<Instant> {
        loop {
            let event = self.event()?;
            if wanted(&event) {
                return Ok(event.at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str, mut framing: Framing) -> std::io::Result<String> {
        let mut stream = text.as_bytes();
        let (mut all, mut part) = (Vec::new(), [0u8; 4]);
        loop {
            match read_body(&mut stream, &mut framing, &mut part)? {
                0 => return Ok(String::from_utf8(all).unwrap()),
                count => all.extend_from_slice(&part[..count]),
            }
        }
    }

    #[test]
    fn chunks_are_joined_and_their_end_is_the_end() {
        let chunked = || Framing::Chunked { left: 0, first: true };
        assert_eq!(whole("5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n", chunked()).unwrap(), "hello, world");
        assert!(whole("5\r\nhel", chunked()).is_err(), "a body that was cut short is no body");
    }

    /// Stands for a connection that is kept open: reading beyond what was sent would never come back.
    struct Kept;

    impl Read for Kept {
        fn read(&mut self, _into: &mut [u8]) -> std::io::Result<usize> {
            panic!("read beyond the end of the answer");
        }
    }

    #[test]
    fn nothing_is_read_beyond_an_answer() {
        for (text, mut framing) in [("", Framing::Length(0)), ("ok", Framing::Length(2))] {
            let mut stream = BufReader::new(text.as_bytes().chain(Kept));
            let mut part = [0u8; 4];
            assert_eq!(read_body(&mut stream, &mut framing, &mut part).unwrap(), text.len());
            assert_eq!(read_body(&mut stream, &mut framing, &mut part).unwrap(), 0);
        }
    }

    #[test]
    fn a_body_with_a_length_ends_there() {
        assert_eq!(whole("hello, next answer", Framing::Length(5)).unwrap(), "hello");
        assert_eq!(whole("", Framing::Length(0)).unwrap(), "");
    }

    #[test]
    fn the_server_is_found_in_the_kubeconfig() {
        for text in ["- cluster:\n    server: https://192.0.2.11:6443\n", r#"{"server": "https://192.0.2.11:6443"}"#] {
            assert_eq!(server(text), Some("192.0.2.11:6443"));
        }
        assert_eq!(server("clusters: []"), None);
    }

    #[test]
    fn credentials_are_found_in_the_kubeconfig() {
        for text in ["users:\n- user:\n    client-key-data: aGVsbG8=\n", r#"{"client-key-data": "aGVsbG8="}"#] {
            assert_eq!(kept(text, "client-key").unwrap(), b"hello");
            assert!(kept(text, "client-certificate").is_err());
        }
        let file = std::env::current_exe().unwrap();
        let text = format!("{{\"client-key\": \"{}\", \"client-certificate\": \"/no/such\"}}", file.display());
        assert_eq!(kept(&text, "client-key").unwrap(), std::fs::read(&file).unwrap());
        assert!(kept(&text, "client-certificate").is_err());
    }
}
