//! Netlink by hand: one blocking socket, request framing and attribute encoding.
//!
//! Everything this crate asks of the kernel (links, routes, neighbours, nftables, conntrack) goes through [`Socket`]. The kernel
//! handles such requests inside `send`, so a call takes microseconds and is made from a blocking thread; there is no
//! background reader to keep alive and nothing to cancel. A socket belongs for ever to the network namespace of the thread
//! that opened it, which is how pods' namespaces are configured without staying in them ([`crate::netns`]).
//!
//! Typed link and route messages come from `netlink-packet-route`. nftables and conntrack use [`attr`]: the netfilter packet crate
//! lacks most of the expressions we need, and a batch of a hundred thousand elements wants one buffer, not a tree.

pub mod attr;
pub mod socket;

pub use attr::{Attributes, Writer};
pub use socket::{Header, Request, Socket};
