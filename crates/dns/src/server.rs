//! The DNS server: questions in over UDP and TCP, answers out of the zone or from upstream.
//!
//! ```text
//! socket ─► one class IN question ─► Zone::answer (in memory, no waiting)
//!                                      │ alias to a name elsewhere, or not ours
//!                                      └─► Forwarder::ask
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hickory_proto::op::{Edns, Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use parking_lot::RwLock;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

use crate::forward::Forwarder;
use crate::zone::Zone;

/// A client that says nothing for this long loses its TCP connection.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Answers that may wait in one TCP connection.
const TCP_ANSWERS_MAX: usize = 64;
/// Clients that may wait for their TCP connection to be taken.
const TCP_BACKLOG: i32 = 1024;
/// Bytes of questions that may wait in one UDP socket while we are busy.
const UDP_WAITING_BYTES: usize = 4 << 20;
/// The largest UDP answer, however much a client would take.
const UDP_ANSWER_BYTES_MAX: u16 = 4096;
/// How many aliases are followed inside the zone.
const ALIASES_MAX: usize = 8;

/// Answers questions from a shared zone.
#[derive(Clone)]
pub struct Resolver {
    zone: Arc<RwLock<Zone>>,
    forwarder: Arc<Forwarder>,
}

/// A complete answer.
#[derive(Debug, Clone, Default)]
struct Outcome {
    code: Option<ResponseCode>,
    authoritative: bool,
    records: Vec<Record>,
    additionals: Vec<Record>,
    soa: Option<Record>,
}

impl Resolver {
    pub fn new(zone: Arc<RwLock<Zone>>, forwarder: Forwarder) -> Self {
        Resolver { zone, forwarder: Arc::new(forwarder) }
    }

    async fn resolve(&self, name: &Name, kind: RecordType) -> Outcome {
        let mut outcome = Outcome::default();
        let mut name = name.clone();
        for _ in 0..ALIASES_MAX {
            let Some(answer) = self.zone.read().answer(&name, kind) else {
                return self.forward(&name, kind, outcome).await;
            };
            outcome.authoritative = true;
            outcome.records.extend(answer.records);
            match answer.alias {
                Some(alias) => name = alias,
                None => {
                    outcome.additionals = answer.additionals;
                    outcome.soa = answer.soa;
                    outcome.code = answer.no_such_name.then_some(ResponseCode::NXDomain);
                    spread(&mut outcome.records);
                    return outcome;
                }
            }
        }
        Outcome { code: Some(ResponseCode::ServFail), ..Outcome::default() }
    }

    /// `so_far` holds the aliases that led out of the zone.
    async fn forward(&self, name: &Name, kind: RecordType, mut so_far: Outcome) -> Outcome {
        // Names of addresses belong to us where they are the cluster's; with nobody to ask, the others do not exist.
        if !self.forwarder.available() && name.iter().next_back() == Some(b"arpa") {
            so_far.code = Some(ResponseCode::NXDomain);
            return so_far;
        }
        let forwarded = self.forwarder.ask(name, kind).await;
        // An alias is an answer even if its target cannot be resolved.
        so_far.code = (so_far.records.is_empty() || forwarded.code == ResponseCode::NXDomain).then_some(forwarded.code);
        so_far.records.extend(forwarded.records);
        so_far.soa = forwarded.soa;
        so_far
    }
}

/// Turns address records around by a random step, so that clients that take the first one spread over all.
fn spread(records: &mut [Record]) {
    let is_address = |record: &Record| matches!(record.record_type(), RecordType::A | RecordType::AAAA);
    let first = records.iter().position(is_address).unwrap_or(records.len());
    let addresses = &mut records[first..];
    if addresses.len() > 1 && addresses.iter().all(is_address) {
        addresses.rotate_left(base::chance::below(addresses.len()));
    }
}

#[async_trait]
impl RequestHandler for Resolver {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut responses: R) -> ResponseInfo {
        let outcome = match request.request_info() {
            _ if request.metadata.op_code != OpCode::Query => refusal(ResponseCode::NotImp),
            Err(_) => refusal(ResponseCode::FormErr),
            Ok(info) if info.query.query_class() != DNSClass::IN => refusal(ResponseCode::Refused),
            Ok(info) if matches!(info.query.query_type(), RecordType::AXFR | RecordType::IXFR) => {
                refusal(ResponseCode::Refused)
            }
            Ok(info) => self.resolve(info.query.original().name(), info.query.query_type()).await,
        };
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = outcome.code.unwrap_or(ResponseCode::NoError);
        metadata.authoritative = outcome.authoritative;
        metadata.recursion_available = self.forwarder.available();
        let edns = request.edns.as_ref().map(|_| {
            let mut edns = Edns::new();
            edns.set_max_payload(request.max_payload().min(UDP_ANSWER_BYTES_MAX)).set_version(0);
            edns
        });
        let builder = MessageResponseBuilder::new(&request.queries, edns.as_ref());
        let response = builder.build(metadata, &outcome.records, [], &outcome.soa, &outcome.additionals);
        responses.send_response(response).await.unwrap_or_else(|error| {
            tracing::debug!(%error, client = %request.src(), "could not send an answer");
            let mut failed = Metadata::new(request.metadata.id, MessageType::Response, OpCode::Query);
            failed.response_code = ResponseCode::ServFail;
            ResponseInfo::from(Header { metadata: failed, counts: HeaderCounts::default() })
        })
    }
}

fn refusal(code: ResponseCode) -> Outcome {
    Outcome { code: Some(code), ..Outcome::default() }
}

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

/// A server over these sockets; it runs until it is shut down.
pub fn serve(resolver: Resolver, sockets: Vec<Sockets>) -> Server<Resolver> {
    let mut server = Server::new(resolver);
    for Sockets { udp, tcp } in sockets {
        server.register_socket(udp);
        server.register_listener(tcp, TCP_IDLE, TCP_ANSWERS_MAX);
    }
    server
}

#[cfg(test)]
pub(crate) mod tests;
