//! Cluster DNS, on every node.
//!
//! ```text
//! coracle (any number of lives)                                    the resolver: a process of its own
//! informers (Services, EndpointSlices, Namespaces) ─► feed ─socket─► zone ─► server ◄─ pods and the node itself
//!                                                                          └─► forward ─► the machine's name servers
//! ```
//!
//! Every node runs this and answers at the DNS service's own address (10.43.0.10): `net::route` puts that address on the node's loopback
//! device, and the service proxy leaves it alone (`net::proxy::Config::own_addresses`). A pod's question therefore never leaves its node
//! and is not translated; no pod's death takes names away; a search path with `ndots:5` costs a few lookups in memory. While
//! the API cannot be reached, or Coracle itself is dead, the zone goes on as it was last seen.
//!
//! The zone is pure ([`zone`]), the fields it needs are in [`view`], upstream in [`forward`]. [`resolver`] says what is said to a
//! question, [`server`] has the sockets; over UDP questions are taken and answered many at a time ([`udp`], [`datagrams`]), and an
//! answer that was given before lies ready ([`ready`]). The process is in [`process`], what is told to it in [`feed`] and [`wire`],
//! who starts and ends it in [`keeper`], all of Coracle's side in [`run`]. Deliberately not here: pod records checked against
//! pods (as CoreDNS' `pods insecure`, any address has a name in a namespace that exists).

mod datagrams;
pub mod feed;
pub mod forward;
pub mod keeper;
pub mod process;
mod ready;
pub mod resolver;
pub mod run;
pub mod server;
mod udp;
pub mod view;
pub mod wire;
pub mod zone;

pub use keeper::{Program, end};
pub use process::reexec;
pub use run::{Config, run};
