//! A blocking netlink socket that sends requests and gathers their answers.
//!
//! `send` hands the request to the kernel, which works it off before returning, so the answers are already queued when we come
//! to read them. Every request asks for an acknowledgement; a dump ends with `NLMSG_DONE`.

use std::io;

use netlink_sys::SocketAddr;
use nix::sys::socket::{setsockopt, sockopt};

/// Room for one datagram of answers; the kernel fills dumps in chunks of at most 32 KiB.
const RECEIVE_BYTES_MAX: usize = 256 * 1024;
/// How large a single request may be: a full load of a large cluster in one nftables batch.
const SEND_BYTES_MAX: usize = 256 * 1024 * 1024;
const HEADER_LEN: usize = 16;

/// The fixed head of every netlink message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Message type.
    pub kind: u16,
    /// `NLM_F_*` flags.
    pub flags: u16,
    /// Sequence number, chosen by the sender and repeated in the answer.
    pub sequence: u32,
}

/// A message to send: type, flags beyond `NLM_F_REQUEST`, and everything after the netlink header.
#[derive(Debug)]
pub struct Request<'a> {
    /// Message type.
    pub kind: u16,
    /// `NLM_F_*` flags besides `NLM_F_REQUEST`.
    pub flags: u16,
    /// Family header and attributes.
    pub body: &'a [u8],
}

/// One open socket, bound to the namespace it was opened in.
#[derive(Debug)]
pub struct Socket {
    inner: netlink_sys::Socket,
    sequence: u32,
    receive: Vec<u8>,
    send_bytes: usize,
}

impl Socket {
    /// Opens a socket of `protocol` (`NETLINK_ROUTE`, `NETLINK_NETFILTER`) in the calling thread's network namespace.
    pub fn open(protocol: isize) -> io::Result<Self> {
        let mut inner = netlink_sys::Socket::new(protocol)?;
        inner.bind_auto()?;
        inner.connect(&SocketAddr::new(0, 0))?;
        Ok(Socket { inner, sequence: 1, receive: Vec::with_capacity(RECEIVE_BYTES_MAX), send_bytes: 0 })
    }

    /// A socket for links, addresses, routes and neighbours.
    pub fn route() -> io::Result<Self> {
        let socket = Self::open(netlink_sys::protocols::NETLINK_ROUTE)?;
        // Strict checking makes the kernel honour filters in dump requests; an old kernel without it sends more than asked.
        if let Err(error) = socket.inner.set_netlink_get_strict_chk(true) {
            tracing::debug!(%error, "no strict netlink checking");
        }
        Ok(socket)
    }

    /// A socket for nftables and conntrack.
    pub fn netfilter() -> io::Result<Self> {
        Self::open(netlink_sys::protocols::NETLINK_NETFILTER)
    }

    /// The next sequence number.
    pub fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.sequence
    }

    /// Sends one request and waits for its acknowledgement; `Err` carries the kernel's error number.
    pub fn call(&mut self, request: &Request<'_>) -> io::Result<()> {
        self.exchange(request, libc::NLM_F_ACK as u16, |_, _| ())
    }

    /// Sends a get request for one object and returns the body of the answer.
    pub fn get(&mut self, request: &Request<'_>) -> io::Result<Option<Vec<u8>>> {
        let mut answer = None;
        self.exchange(request, libc::NLM_F_ACK as u16, |_, body| answer = Some(body.to_vec()))?;
        Ok(answer)
    }

    /// Sends a dump request and hands each answer to `each`.
    pub fn dump(&mut self, request: &Request<'_>, each: impl FnMut(Header, &[u8])) -> io::Result<()> {
        self.exchange(request, libc::NLM_F_DUMP as u16, each)
    }

    fn exchange(&mut self, request: &Request<'_>, flags: u16, mut each: impl FnMut(Header, &[u8])) -> io::Result<()> {
        let sequence = self.next_sequence();
        let mut message = Vec::with_capacity(HEADER_LEN + request.body.len());
        put_header(
            &mut message,
            Header { kind: request.kind, flags: request.flags | flags | libc::NLM_F_REQUEST as u16, sequence },
            request.body.len(),
        );
        message.extend_from_slice(request.body);
        self.inner.send(&message, 0)?;
        loop {
            if self.receive_some(0, |header, body| {
                if header.sequence != sequence {
                    return None;
                }
                match i32::from(header.kind) {
                    libc::NLMSG_DONE => Some(done_result(body)),
                    libc::NLMSG_ERROR => Some(error_result(body)),
                    _ => {
                        each(header, body);
                        None
                    }
                }
            })? {
                return Ok(());
            }
        }
    }

    /// Sends bytes that already contain complete messages (an nftables batch).
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.make_room(bytes.len())?;
        self.inner.send(bytes, 0).map(drop)
    }

    /// Reads answers without waiting and hands each error or acknowledgement to `each` as `(sequence, errno)`, 0 for
    /// success. Returns once the queue is empty.
    pub fn drain_answers(&mut self, mut each: impl FnMut(u32, i32)) -> io::Result<()> {
        loop {
            match self.receive_some(libc::MSG_DONTWAIT, |header, body| {
                if i32::from(header.kind) == libc::NLMSG_ERROR {
                    each(header.sequence, -error_code(body));
                }
                None
            }) {
                Ok(_) => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Receives one datagram; `true` when `each` said that the exchange is over.
    fn receive_some(
        &mut self,
        flags: libc::c_int,
        mut each: impl FnMut(Header, &[u8]) -> Option<io::Result<()>>,
    ) -> io::Result<bool> {
        self.receive.clear();
        let received = loop {
            match self.inner.recv(&mut self.receive, flags | libc::MSG_TRUNC) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => break other?,
            }
        };
        if received > self.receive.len() {
            return Err(io::Error::other("netlink answer larger than the receive buffer"));
        }
        let mut rest = &self.receive[..];
        while let Some((header, body, tail)) = split_message(rest) {
            if let Some(result) = each(header, body) {
                return result.map(|()| true);
            }
            rest = tail;
        }
        Ok(false)
    }

    /// Raises the send buffer so that `bytes` fit in one message, past the system's limit where we may.
    fn make_room(&mut self, bytes: usize) -> io::Result<()> {
        if bytes > SEND_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "netlink batch larger than 256 MiB"));
        }
        let wanted = bytes + 4096;
        if wanted <= self.send_bytes.max(100_000) {
            return Ok(());
        }
        setsockopt(&self.inner, sockopt::SndBufForce, &wanted)
            .or_else(|_| setsockopt(&self.inner, sockopt::SndBuf, &wanted))
            .map_err(io::Error::from)?;
        self.send_bytes = wanted;
        Ok(())
    }
}

/// Appends a netlink header for a message whose body is `body_len` bytes.
pub fn put_header(buffer: &mut Vec<u8>, header: Header, body_len: usize) {
    buffer.extend_from_slice(&((HEADER_LEN + body_len) as u32).to_ne_bytes());
    buffer.extend_from_slice(&header.kind.to_ne_bytes());
    buffer.extend_from_slice(&header.flags.to_ne_bytes());
    buffer.extend_from_slice(&header.sequence.to_ne_bytes());
    buffer.extend_from_slice(&0u32.to_ne_bytes());
}

fn split_message(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let header = Header {
        kind: u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?),
        flags: u16::from_ne_bytes(bytes.get(6..8)?.try_into().ok()?),
        sequence: u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?),
    };
    let body = bytes.get(HEADER_LEN..length)?;
    Some((header, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn error_code(body: &[u8]) -> i32 {
    body.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(-libc::EPROTO, i32::from_ne_bytes)
}

fn error_result(body: &[u8]) -> io::Result<()> {
    match error_code(body) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(-code)),
    }
}

/// `NLMSG_DONE` may carry an error (an interrupted dump); without a body it means success.
fn done_result(body: &[u8]) -> io::Result<()> {
    if body.len() < 4 { Ok(()) } else { error_result(body) }
}
