//! The DNS server's sockets, and who serves them: UDP is served by [`crate::udp`], TCP by `hickory_server`.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_server::Server;
use hickory_server::net::NetError;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

use crate::resolver::Resolver;
use crate::udp;

/// A client that says nothing for this long loses its TCP connection.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Answers that may wait in one TCP connection.
const TCP_ANSWERS_MAX: usize = 64;
/// Clients that may wait for their TCP connection to be taken.
const TCP_BACKLOG: i32 = 1024;
/// Bytes of questions that may wait in one UDP socket while we are busy.
const UDP_WAITING_BYTES: usize = 4 << 20;

/// Sockets that are bound and wait to be served.
pub struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Sockets {
    /// Binds UDP and TCP at the same address and port; port 0 picks one that is free for both. The address need not exist yet.
    ///
    /// # Errors
    /// Says which address could not be bound.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let explain =
            |error: io::Error| io::Error::new(error.kind(), format!("bind the resolver to {address}: {error}"));
        let tcp = socket(address, Type::STREAM).and_then(|socket| {
            socket.listen(TCP_BACKLOG)?;
            TcpListener::from_std(socket.into())
        });
        let tcp = tcp.map_err(explain)?;
        let address = tcp.local_addr()?;
        let udp = socket(address, Type::DGRAM).and_then(|socket| UdpSocket::from_std(socket.into()));
        Ok(Sockets { udp: udp.map_err(explain)?, tcp })
    }

    /// Where they are bound.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

fn socket(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let protocol = if kind == Type::DGRAM { Protocol::UDP } else { Protocol::TCP };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv4() {
        // The service address is put on the loopback device by somebody else, maybe later.
        socket.set_freebind_v4(true)?;
    } else {
        socket.set_freebind_v6(true)?;
        socket.set_only_v6(true)?;
    }
    if kind == Type::DGRAM {
        socket.set_recv_buffer_size(UDP_WAITING_BYTES)?;
    } else {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// A server that runs; dropping it closes the sockets.
pub struct Serving {
    tcp: Server<Resolver>,
    udp: JoinSet<()>,
}

/// A server over these sockets.
pub fn serve(resolver: Resolver, sockets: Vec<Sockets>) -> Serving {
    let mut serving = Serving { tcp: Server::new(resolver.clone()), udp: JoinSet::new() };
    for Sockets { udp, tcp } in sockets {
        serving.udp.spawn(udp::serve(resolver.clone(), udp));
        serving.tcp.register_listener(tcp, TCP_IDLE, TCP_ANSWERS_MAX);
    }
    serving
}

impl Serving {
    /// Ends it, once what is being answered over TCP has been.
    ///
    /// # Errors
    /// A listener had failed before.
    pub async fn shutdown(&mut self) -> Result<(), NetError> {
        self.udp.shutdown().await;
        self.tcp.shutdown_gracefully().await
    }
}

#[cfg(test)]
pub(crate) mod tests;
