//! A pipe or terminal as an async file.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use tokio::io::{Interest, unix::AsyncFd};

use crate::syscalls;

/// A descriptor that tokio watches.
pub struct Descriptor(AsyncFd<OwnedFd>);

impl Descriptor {
    /// Makes `fd` non-blocking and watches it.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        syscalls::set_nonblocking(fd.as_fd())?;
        // A terminal or socket is both; epoll does not mind interest that never comes true.
        // SAFETY: an `OwnedFd` stays open and the same for as long as the `AsyncFd` has it.
        let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE | Interest::WRITABLE) };
        Ok(Descriptor(watched.map_err(|error| error.into_parts().1)?))
    }

    /// Reads what there is; 0 at the end. A terminal whose other side is closed has ended too.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.0.async_io(Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut *buffer)?)).await;
        match result {
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(0),
            other => other,
        }
    }

    /// Writes all of `bytes`.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.0.async_io(Interest::WRITABLE, |fd| Ok(rustix::io::write(fd, bytes)?)).await?;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// One message of a status socket.
    pub async fn receive(&self) -> io::Result<Option<(crate::launch::status::Message, Option<OwnedFd>)>> {
        self.0.async_io(Interest::READABLE, |fd| crate::launch::status::receive(fd.as_fd())).await
    }

    /// For terminals.
    pub fn resize(&self, width: u16, height: u16) -> io::Result<()> {
        syscalls::set_terminal_size(self.0.get_ref().as_fd(), width, height)
    }
}
