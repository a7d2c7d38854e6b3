//! What goes over the resolver's socket: frames whose payload is JSON.
//!
//! ```text
//! resolver: Hello                               who it is; it belongs to another build or other settings: feeder says End
//! feeder:   Change* Swap      resolver: Serving     a whole zone, which replaces the old one in one go
//! feeder:   Change*                                 from then on, what changes
//! ```
//!
//! `Hello` and `End` are understood by every build that there will be; the rest only has to be understood by the same build.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use meta::ObjectKey;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::view::{Service, Slice};
use crate::zone::Zone;

/// The longest frame taken, in bytes.
pub const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Objects in one frame. A slice of a thousand endpoints takes less than 100 KiB.
pub const ENTRIES_PER_FRAME_MAX: usize = 32;
/// The only kind of frame.
const MESSAGE: u8 = 0;

/// What a resolver is started with; one that was started with something else is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Names the program's build.
    pub build: String,
    /// The cluster's domain, `cluster.local`.
    pub domain: String,
    /// Where to answer.
    pub listen: Vec<SocketAddr>,
    /// The `resolv.conf` whose name servers answer for everything else.
    pub upstream: String,
}

/// What the resolver says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    /// The first thing on every connection.
    Hello(Settings),
    /// The zone is in place and questions are answered from it.
    Serving,
}

/// What the feeder says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Objects that came, changed or went.
    Change(Vec<Entry>),
    /// The zone told so far is complete: answer from it.
    Swap,
    /// End the process.
    End,
}

/// An object as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Entry {
    Namespace { name: Arc<str>, exists: bool },
    Service { namespace: Arc<str>, name: Arc<str>, service: Option<Arc<Service>> },
    Slice { namespace: Arc<str>, name: Arc<str>, slice: Option<Arc<Slice>> },
}

impl Entry {
    /// Puts it into a zone.
    pub fn apply(self, zone: &mut Zone) {
        match self {
            Entry::Namespace { name, exists } => zone.set_namespace(&name, exists),
            Entry::Service { namespace, name, service } => zone.set_service(&ObjectKey { namespace, name }, service),
            Entry::Slice { namespace, name, slice } => zone.set_slice(&ObjectKey { namespace, name }, slice),
        }
    }
}

/// Says one thing.
pub async fn say(to: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> io::Result<()> {
    base::frame::write(to, MESSAGE, &serde_json::to_vec(message)?).await
}

/// Hears one thing; `None` once the other end has gone.
///
/// # Errors
/// The connection fails, or what comes is not of this protocol.
pub async fn hear<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<T>> {
    match base::frame::read(from, FRAME_BYTES_MAX).await? {
        None => Ok(None),
        Some((MESSAGE, payload)) => Ok(Some(serde_json::from_slice(&payload)?)),
        Some((kind, _)) => Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of kind {kind}"))),
    }
}
