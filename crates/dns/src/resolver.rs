//! What is said to a question: out of the zone, or what the machine's name servers say.
//!
//! ```text
//! one class IN question ─► Zone::answer (in memory, no waiting) ─► answer
//!                            │ alias to a name elsewhere, or not ours
//!                            └─► Forwarder::ask
//! ```
//!
//! Over TCP `hickory_server` asks for whole answers ([`RequestHandler`]); over UDP [`crate::udp`] asks for what is known at once and
//! awaits the rest apart.

use std::net::SocketAddr;
use std::sync::Arc;
use std::{iter, option, slice};

use async_trait::async_trait;
use hickory_proto::op::{Edns, Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, BinEncodable, BinEncoder};
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::{MessageResponse, MessageResponseBuilder};
use parking_lot::RwLock;

use crate::forward::Forwarder;
use crate::zone::Zone;

/// The largest UDP answer, however much a client would take.
const UDP_ANSWER_BYTES_MAX: u16 = 4096;
/// The largest UDP answer for a client that does not say how much it would take.
const PLAIN_ANSWER_BYTES_MAX: u16 = 512;
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

/// How far memory goes.
enum Step {
    Done(Outcome),
    /// This name has to be asked elsewhere; the aliases that lead to it are there already.
    Elsewhere(Name, Outcome),
}

/// What is to be said to a datagram.
pub enum Reply {
    /// To what is no question, nothing.
    Silence,
    Message(Vec<u8>),
    /// Somebody else has to be asked first.
    Elsewhere(Box<Waiting>),
}

/// A question that is to be asked elsewhere.
pub struct Waiting {
    request: Request,
    name: Name,
    so_far: Outcome,
}

type Response<'a> = MessageResponse<
    'a,
    'a,
    slice::Iter<'a, Record>,
    iter::Empty<&'a Record>,
    option::Iter<'a, Record>,
    slice::Iter<'a, Record>,
>;

impl Resolver {
    pub fn new(zone: Arc<RwLock<Zone>>, forwarder: Forwarder) -> Self {
        Resolver { zone, forwarder: Arc::new(forwarder) }
    }

    /// Which state of the zone answers come from; every change of it is another.
    pub fn serial(&self) -> u32 {
        self.zone.read().serial()
    }

    /// What is to be said to a datagram, as far as it can be said without waiting.
    pub fn receive(&self, message: &[u8], from: SocketAddr) -> Reply {
        let Ok(header) = Header::read(&mut BinDecoder::new(message)) else { return Reply::Silence };
        // Whoever answers answers can be made to talk to himself for ever.
        if header.metadata.message_type == MessageType::Response {
            return Reply::Silence;
        }
        let Ok(request) = Request::from_bytes(message.to_vec(), from, Protocol::Udp) else {
            let mut metadata = Metadata::response_from_request(&header.metadata);
            metadata.response_code = ResponseCode::FormErr;
            return reply(alone(metadata));
        };
        match self.begin(&request) {
            Step::Done(outcome) => reply(self.message(&request, &outcome)),
            Step::Elsewhere(name, so_far) => Reply::Elsewhere(Box::new(Waiting { request, name, so_far })),
        }
    }

    /// The answer to a question that is asked elsewhere; none when there is no way to write it.
    pub async fn ask_elsewhere(&self, waiting: Waiting) -> Option<Vec<u8>> {
        let Waiting { request, name, so_far } = waiting;
        let kind = request.request_info().map_or(RecordType::A, |info| info.query.query_type());
        let outcome = self.forward(&name, kind, so_far).await;
        self.message(&request, &outcome)
    }

    fn begin(&self, request: &Request) -> Step {
        match request.request_info() {
            _ if request.metadata.op_code != OpCode::Query => refusal(ResponseCode::NotImp),
            Err(_) => refusal(ResponseCode::FormErr),
            Ok(info) if info.query.query_class() != DNSClass::IN => refusal(ResponseCode::Refused),
            Ok(info) if matches!(info.query.query_type(), RecordType::AXFR | RecordType::IXFR) => {
                refusal(ResponseCode::Refused)
            }
            Ok(info) => self.look_up(info.query.original().name(), info.query.query_type()),
        }
    }

    fn look_up(&self, name: &Name, kind: RecordType) -> Step {
        let mut outcome = Outcome::default();
        let mut name = name.clone();
        for _ in 0..ALIASES_MAX {
            let Some(answer) = self.zone.read().answer(&name, kind) else { return Step::Elsewhere(name, outcome) };
            outcome.authoritative = true;
            outcome.records.extend(answer.records);
            match answer.alias {
                Some(alias) => name = alias,
                None => {
                    outcome.additionals = answer.additionals;
                    outcome.soa = answer.soa;
                    outcome.code = answer.no_such_name.then_some(ResponseCode::NXDomain);
                    spread(&mut outcome.records);
                    return Step::Done(outcome);
                }
            }
        }
        refusal(ResponseCode::ServFail)
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

    fn message(&self, request: &Request, outcome: &Outcome) -> Option<Vec<u8>> {
        let edns = edns(request);
        encoded(self.response(request, outcome, edns.as_ref()))
    }

    fn response<'a>(&self, request: &'a Request, outcome: &'a Outcome, edns: Option<&'a Edns>) -> Response<'a> {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = outcome.code.unwrap_or(ResponseCode::NoError);
        metadata.authoritative = outcome.authoritative;
        metadata.recursion_available = self.forwarder.available();
        let builder = MessageResponseBuilder::new(&request.queries, edns);
        builder.build(metadata, &outcome.records, iter::empty(), &outcome.soa, &outcome.additionals)
    }
}

fn refusal(code: ResponseCode) -> Step {
    Step::Done(Outcome { code: Some(code), ..Outcome::default() })
}

fn reply(message: Option<Vec<u8>>) -> Reply {
    message.map_or(Reply::Silence, Reply::Message)
}

/// Said to clients that speak EDNS themselves.
fn edns(request: &Request) -> Option<Edns> {
    request.edns.as_ref().map(|_| {
        let mut edns = Edns::new();
        edns.set_max_payload(request.max_payload().min(UDP_ANSWER_BYTES_MAX)).set_version(0);
        edns
    })
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

/// The bytes of a UDP answer, cut where the client would not take more; of one that cannot be written, a failure.
fn encoded(response: Response<'_>) -> Option<Vec<u8>> {
    let id = response.metadata().id;
    let mut bytes = Vec::with_capacity(usize::from(PLAIN_ANSWER_BYTES_MAX));
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(response.edns().map_or(PLAIN_ANSWER_BYTES_MAX, |edns| edns.max_payload()));
    match response.destructive_emit(&mut encoder) {
        Ok(_) => Some(bytes),
        Err(error) => {
            tracing::warn!(%error, "an answer cannot be written");
            alone(failure(id))
        }
    }
}

/// An answer with nothing in it.
fn alone(metadata: Metadata) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let header = Header { metadata, counts: HeaderCounts::default() };
    header.emit(&mut BinEncoder::new(&mut bytes)).ok().map(|()| bytes)
}

fn failure(id: u16) -> Metadata {
    let mut failed = Metadata::new(id, MessageType::Response, OpCode::Query);
    failed.response_code = ResponseCode::ServFail;
    failed
}

#[async_trait]
impl RequestHandler for Resolver {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut responses: R) -> ResponseInfo {
        let outcome = match self.begin(request) {
            Step::Done(outcome) => outcome,
            Step::Elsewhere(name, so_far) => {
                let kind = request.request_info().map_or(RecordType::A, |info| info.query.query_type());
                self.forward(&name, kind, so_far).await
            }
        };
        let edns = edns(request);
        responses.send_response(self.response(request, &outcome, edns.as_ref())).await.unwrap_or_else(|error| {
            tracing::debug!(%error, client = %request.src(), "could not send an answer");
            let metadata = failure(request.metadata.id);
            ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
        })
    }
}
