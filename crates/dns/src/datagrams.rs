//! Many datagrams in one system call, in and out.
//!
//! An answer has the number of the question it belongs to, and goes to where that came from.

// The calls take pointers; every block says why they are sound.
#![allow(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::ptr;

use socket2::{SockAddr, SockAddrStorage};

/// Datagrams taken at a time.
pub const BATCH: usize = 64;
/// The longest question taken; what is longer is cut, and then is no question.
const QUESTION_BYTES_MAX: usize = 4096;

/// What came in last.
pub struct Inbox {
    bytes: Vec<[u8; QUESTION_BYTES_MAX]>,
    lengths: Vec<usize>,
    from: Vec<SockAddr>,
}

impl Default for Inbox {
    fn default() -> Self {
        Inbox { bytes: vec![[0; QUESTION_BYTES_MAX]; BATCH], lengths: Vec::new(), from: Vec::new() }
    }
}

impl Inbox {
    /// Takes what is there without waiting for more.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing.
    pub fn receive(&mut self, socket: &impl AsRawFd) -> io::Result<()> {
        self.lengths.clear();
        self.from.clear();
        let mut from: [SockAddrStorage; BATCH] = std::array::from_fn(|_| SockAddrStorage::zeroed());
        let mut parts: [libc::iovec; BATCH] = [EMPTY_PART; BATCH];
        let mut headers = [empty_header(); BATCH];
        for (part, bytes) in parts.iter_mut().zip(&mut self.bytes) {
            *part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        }
        for ((header, part), from) in headers.iter_mut().zip(&mut parts).zip(&mut from) {
            header.msg_hdr.msg_name = ptr::from_mut(from).cast();
            header.msg_hdr.msg_namelen = from.size_of();
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: each of the headers points at one part and one place for an address, and each part at a buffer of that length;
        // all outlive the call, and nobody else uses them meanwhile.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_negative| io::Error::last_os_error())?;
        for (header, from) in headers.iter().zip(from).take(received) {
            self.lengths.push(header.msg_len as usize);
            // SAFETY: the kernel wrote an address of this length there.
            self.from.push(unsafe { SockAddr::new(from, header.msg_hdr.msg_namelen) });
        }
        Ok(())
    }

    /// What came, with its number and where it came from.
    pub fn messages(&self) -> impl Iterator<Item = (usize, &[u8], Option<SocketAddr>)> {
        let lengths = self.lengths.iter().zip(&self.from).enumerate();
        lengths
            .zip(&self.bytes)
            .map(|((number, (length, from)), bytes)| (number, bytes.get(..*length).unwrap_or(bytes), from.as_socket()))
    }
}

/// What is to go out, by the numbers of the questions.
pub struct Outbox {
    answers: Vec<Vec<u8>>,
}

impl Default for Outbox {
    fn default() -> Self {
        Outbox { answers: vec![Vec::new(); BATCH] }
    }
}

impl Outbox {
    /// Makes every answer empty: nothing is sent where it stays so.
    pub fn clear(&mut self) {
        self.answers.iter_mut().for_each(Vec::clear);
    }

    /// The place of an answer.
    pub fn answer(&mut self, number: usize) -> &mut Vec<u8> {
        &mut self.answers[number]
    }

    /// Sends answers to where the questions came from, without the first `done`; how many went, 0 when there are no more.
    ///
    /// # Errors
    /// The first of them could not be sent; `WouldBlock` when none can be just now.
    pub fn send(&self, socket: &impl AsRawFd, inbox: &Inbox, done: usize) -> io::Result<usize> {
        let mut parts: [libc::iovec; BATCH] = [EMPTY_PART; BATCH];
        let mut headers = [empty_header(); BATCH];
        let waiting = self.answers.iter().zip(&inbox.from).filter(|(answer, _)| !answer.is_empty()).skip(done);
        let mut count = 0;
        for (((header, part), (answer, to)), number) in headers.iter_mut().zip(&mut parts).zip(waiting).zip(1..) {
            *part = libc::iovec { iov_base: answer.as_ptr().cast_mut().cast(), iov_len: answer.len() };
            header.msg_hdr.msg_name = to.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_namelen = to.len();
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            count = number;
        }
        if count == 0 {
            return Ok(0);
        }
        // SAFETY: the first `count` headers point at a part and an address each, and each part at an answer; all outlive the call,
        // and sending only reads what they point at.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_DONTWAIT) };
        usize::try_from(sent).map_err(|_negative| io::Error::last_os_error())
    }
}

const EMPTY_PART: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };

fn empty_header() -> libc::mmsghdr {
    // SAFETY: a header of zeros is a valid one: no address, no parts, no control data.
    unsafe { std::mem::zeroed() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn answers_go_where_their_questions_came_from() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let clients = [(); 3].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let (mut inbox, mut outbox) = (Inbox::default(), Outbox::default());
        assert_eq!(inbox.receive(&server).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        for (client, word) in clients.iter().zip(["one", "", "three"]) {
            client.send_to(word.as_bytes(), server.local_addr().unwrap()).unwrap();
        }
        inbox.receive(&server).unwrap();
        let heard: Vec<_> = inbox.messages().map(|(_, bytes, from)| (bytes.to_vec(), from.unwrap())).collect();
        let expected = [&b"one"[..], b"", b"three"].into_iter().zip(&clients);
        assert_eq!(
            heard,
            expected.map(|(word, client)| (word.to_vec(), client.local_addr().unwrap())).collect::<Vec<_>>()
        );
        outbox.answer(0).extend_from_slice(b"first");
        outbox.answer(2).extend_from_slice(b"third");
        assert_eq!(outbox.send(&server, &inbox, 1).unwrap(), 1, "all but the first");
        assert_eq!(outbox.send(&server, &inbox, 0).unwrap(), 2);
        assert_eq!(outbox.send(&server, &inbox, 2).unwrap(), 0, "there are no more");
        let mut bytes = [0; 16];
        let mut hear = |client: &UdpSocket| client.recv(&mut bytes).map(|length| bytes[..length].to_vec()).unwrap();
        assert_eq!(
            (hear(&clients[0]), hear(&clients[2]), hear(&clients[2])),
            (b"first".into(), b"third".into(), b"third".into())
        );
        clients[1].set_nonblocking(true).unwrap();
        assert!(clients[1].recv(&mut [0; 16]).is_err(), "nothing was said to it");
        outbox.clear();
        assert_eq!(outbox.send(&server, &inbox, 0).unwrap(), 0);
    }

    #[test]
    fn more_than_a_batch_is_taken_in_several_and_what_is_too_long_is_cut() {
        let (server, client) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let send = |bytes: &[u8]| client.send_to(bytes, server.local_addr().unwrap()).unwrap();
        for _ in 0..BATCH + 2 {
            send(b"short");
        }
        send(&[7; 5000]);
        let mut inbox = Inbox::default();
        for expected in [BATCH, 3] {
            inbox.receive(&server).unwrap();
            assert_eq!(inbox.messages().count(), expected);
        }
        assert_eq!(inbox.messages().map(|(_, bytes, _)| bytes.len()).collect::<Vec<_>>(), [5, 5, QUESTION_BYTES_MAX]);
    }
}
