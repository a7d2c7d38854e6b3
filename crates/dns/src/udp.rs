//! Questions over UDP: many taken, answered and sent back per system call.
//!
//! ```text
//! socket ─► a batch of datagrams ─┬─ asked before in the very same words: ready bytes ─┐
//!                                 ├─ Resolver::receive, out of the zone ───────────────┼─► a batch of answers ─► socket
//!                                 └─ to be asked elsewhere: a task of its own ──────────────────────────────► socket
//! ```
//!
//! Nearly all of a resolver's work is the kernel's, per datagram; so what is ours is kept short. An answer out of the zone is made by
//! the same code whether it is kept or not ([`Ready`] says which are), and what is kept is thrown away with any change of the zone.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::datagrams::{Inbox, Outbox};
use crate::ready::Ready;
use crate::resolver::{Reply, Resolver};

/// Batches in a row before others get their turn on this thread: those who wait over TCP, and the feeder.
const BATCHES_PER_TURN: u64 = 8;

/// Answers what comes to this socket until it is dropped.
pub async fn serve(resolver: Resolver, socket: UdpSocket) {
    let mut server = Udp {
        resolver,
        socket: Arc::new(socket),
        ready: Ready::default(),
        inbox: Inbox::default(),
        outbox: Outbox::default(),
        // How many wait is bounded by the forwarder, which refuses at once when too many do.
        waiting: JoinSet::new(),
    };
    for batch in 1_u64.. {
        tokio::select! {
            readable = server.socket.readable() => match readable {
                Ok(()) => server.batch().await,
                Err(error) => {
                    tracing::error!(%error, "questions over UDP are not heard any more");
                    return;
                }
            },
            Some(_) = server.waiting.join_next() => {}
        }
        if batch.is_multiple_of(BATCHES_PER_TURN) {
            tokio::task::yield_now().await;
        }
    }
}

struct Udp {
    resolver: Resolver,
    socket: Arc<UdpSocket>,
    ready: Ready,
    inbox: Inbox,
    outbox: Outbox,
    waiting: JoinSet<()>,
}

impl Udp {
    /// Answers what is there, as much of it as one system call takes.
    async fn batch(&mut self) {
        let (socket, inbox) = (&self.socket, &mut self.inbox);
        match socket.try_io(Interest::READABLE, || inbox.receive(&**socket)) {
            Ok(()) => {
                self.answer();
                self.send().await;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Such as the news that an earlier answer found nobody.
            Err(error) => tracing::debug!(%error, "could not take questions"),
        }
    }

    /// Fills the outbox with what can be said to the inbox at once.
    fn answer(&mut self) {
        let serial = self.resolver.serial();
        self.ready.follow(serial);
        self.outbox.clear();
        for (number, message, from) in self.inbox.messages() {
            let Some(from) = from.filter(can_be_answered) else { continue };
            let place = self.outbox.answer(number);
            if self.ready.answer(message, place) {
                continue;
            }
            match self.resolver.receive(message, from) {
                Reply::Silence => {}
                Reply::Message(answer) => {
                    place.extend_from_slice(&answer);
                    if self.resolver.serial() == serial {
                        self.ready.keep(message, &answer);
                    }
                }
                Reply::Elsewhere(waiting) => {
                    let (resolver, socket) = (self.resolver.clone(), self.socket.clone());
                    self.waiting.spawn(async move {
                        if let Some(answer) = resolver.ask_elsewhere(*waiting).await
                            && let Err(error) = socket.send_to(&answer, from).await
                        {
                            tracing::debug!(%error, client = %from, "could not send an answer");
                        }
                    });
                }
            }
        }
    }

    async fn send(&mut self) {
        let mut done = 0;
        loop {
            let (socket, inbox, outbox) = (&self.socket, &self.inbox, &self.outbox);
            match socket.try_io(Interest::WRITABLE, || outbox.send(&**socket, inbox, done)) {
                Ok(0) => return,
                Ok(sent) => done += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if socket.writable().await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "could not send an answer");
                    // The first of the rest; the others may be fine.
                    done += 1;
                }
            }
        }
    }
}

/// Whether there can be somebody at an address.
fn can_be_answered(client: &SocketAddr) -> bool {
    let nobody = match client.ip() {
        IpAddr::V4(v4) => v4.is_unspecified() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unspecified(),
    };
    client.port() != 0 && !nobody
}

#[cfg(test)]
mod tests;
