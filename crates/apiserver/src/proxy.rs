//! Requests that are answered elsewhere: by a node agent (logs, exec, attach, port-forward) or by a pod, service or node
//! that the user reaches through us.
//!
//! ```text
//! client ──HTTPS──► chain ──► target (where?) ──► transport (TLS, HTTP/1.1) ──► node agent :10250 or pod
//!        ◄═══════════ after 101: bytes both ways, untouched ═══════════════════►
//! ```
//!
//! The framing inside an upgraded connection (SPDY, WebSocket, tunnelled port-forward) is between client and node agent;
//! nothing of it is understood here, but for logs over WebSocket, which are ours. Absolute links of proxied pages lead back through the proxy (`links`).

pub mod forward;
pub mod kubelet;
pub mod links;
pub mod logs;
pub mod target;
pub mod transport;

#[cfg(test)]
mod tests;

pub use forward::Proxy;
