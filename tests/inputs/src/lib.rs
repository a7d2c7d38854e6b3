//! Black-box tests of the API server: bad input of every sort, and a session of the `kube` crate as an outside judge.
//!
//! ```text
//! cases/*.http ─▶ transcript ─▶ wire (raw HTTPS) ─▶ the real binary, a child process on loopback ─▶ compared, line by line
//! ```
//!
//! What is expected was not written by hand: it is what upstream's kube-apiserver v1.37.1 answered to the same requests. To
//! add a case, write its request and record the answer:
//!
//! ```text
//! INPUTS_RECORD=<administrator's kubeconfig of an upstream server> cargo test -p inputs --test bad_input
//! ```
//!
//! The tests build the binary themselves (`cargo build --package coracle` into the same target folder), unless
//! `CORACLE_BINARY` names one. Each test has its own server and data folder; nothing needs root or leaves loopback.

pub mod server;
pub mod transcript;
pub mod wire;

pub use server::Server;
pub use transcript::play;
pub use wire::{Answer, Call, Wire};
