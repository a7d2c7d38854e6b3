//! The kernel's network, made to do what Kubernetes promises: pods, services, routes between nodes.
//!
//! ```text
//! pod sandbox ──► pod (addresses, veth, host ports)          Node objects ──► route (direct or VXLAN)
//! Services + EndpointSlices ──► proxy (model ─► plan ─► changed map elements ─► one nftables batch)
//! ```
//!
//! Pods are routed: a veth pair each, a host route per address, no bridge. All packet decisions are made by nftables and the
//! routing tables, which go on working while this process is away. Two tables are ours, each with one writer, so that each
//! can be replaced in one batch without knowing the other: `<prefix>-services` ([`proxy`]) and `<prefix>-pods` ([`pod`]:
//! host ports and the masquerade of traffic that leaves the cluster). Every table and device name starts with the instance's
//! prefix, and [`cleanup`] removes all of them.
//!
//! Deliberately not here: which pods exist (the runtime calls [`pod`] through `cri::PodNetwork`), names (`dns`), HTTP (the gateway).

pub mod conntrack;
pub mod ipam;
pub mod link;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod pod;
pub mod proxy;
pub mod route;
pub mod sysctl;
