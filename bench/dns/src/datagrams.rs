//! Many datagrams in one system call: otherwise the asking side would be the slower one.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::ptr;

/// The longest answer taken.
pub const BYTES_MAX: usize = 1232;

/// Room for answers.
pub struct Room {
    bytes: Vec<[u8; BYTES_MAX]>,
}

impl Room {
    pub fn of(count: usize) -> Self {
        Self { bytes: vec![[0; BYTES_MAX]; count] }
    }
}

/// Sends `messages` over a connected socket; how many went.
pub fn send(socket: &UdpSocket, messages: &[&[u8]]) -> io::Result<usize> {
    let part = |message: &&[u8]| libc::iovec { iov_base: message.as_ptr().cast_mut().cast(), iov_len: message.len() };
    let mut parts: Vec<libc::iovec> = messages.iter().map(part).collect();
    let mut headers = headers(&mut parts);
    let count = libc::c_uint::try_from(headers.len()).map_err(io::Error::other)?;
    // SAFETY: every header points at one part and every part at a message, all of which outlive the call; sending
    // only reads what the parts point at.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, 0) };
    usize::try_from(sent).map_err(|_negative| io::Error::last_os_error())
}

/// Waits for one datagram as long as the socket is patient, takes all that are there, and hands each to `heard`.
pub fn receive(socket: &UdpSocket, room: &mut Room, mut heard: impl FnMut(&[u8])) -> io::Result<usize> {
    let part = |bytes: &mut [u8; BYTES_MAX]| libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut parts: Vec<libc::iovec> = room.bytes.iter_mut().map(part).collect();
    let mut headers = headers(&mut parts);
    let count = libc::c_uint::try_from(headers.len()).map_err(io::Error::other)?;
    let (socket, wait) = (socket.as_raw_fd(), libc::MSG_WAITFORONE);
    // SAFETY: as in `send`; the parts point at buffers of this room, which nobody else uses meanwhile.
    let received = unsafe { libc::recvmmsg(socket, headers.as_mut_ptr(), count, wait, ptr::null_mut()) };
    let received = usize::try_from(received).map_err(|_negative| io::Error::last_os_error())?;
    let lengths: Vec<usize> = headers[..received].iter().map(|header| header.msg_len as usize).collect();
    for (bytes, length) in room.bytes.iter().zip(lengths) {
        heard(&bytes[..length.min(BYTES_MAX)]);
    }
    Ok(received)
}

fn headers(parts: &mut [libc::iovec]) -> Vec<libc::mmsghdr> {
    let header = |part: &mut libc::iovec| {
        // SAFETY: a header of zeros is a valid one: no address, no parts, no control data.
        let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        header.msg_hdr.msg_iov = part;
        header.msg_hdr.msg_iovlen = 1;
        header
    };
    parts.iter_mut().map(header).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_arrive_whole_and_in_order() {
        let (one, other) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        one.connect(other.local_addr().unwrap()).unwrap();
        other.connect(one.local_addr().unwrap()).unwrap();
        assert_eq!(send(&one, &[b"first", b"", b"third one"]).unwrap(), 3);
        let (mut heard, mut room) = (Vec::new(), Room::of(2));
        while heard.len() < 3 {
            receive(&other, &mut room, |bytes| heard.push(bytes.to_vec())).unwrap();
        }
        assert_eq!(heard, [b"first".to_vec(), b"".to_vec(), b"third one".to_vec()]);
    }
}
