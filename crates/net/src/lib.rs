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
//! prefix; each part's `remove` takes its own away, and [`cleanup`] all of them.
//!
//! Runtimes of others reach [`pod`] through [`cni`].
//!
//! Deliberately not here: which pods exist (the runtime calls [`pod`] through `cri::PodNetwork`), names (`dns`), HTTP (the gateway).

pub mod cni;
pub mod conntrack;
pub mod ipam;
pub mod link;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod node;
pub mod pod;
pub mod proxy;
pub mod route;
pub mod sysctl;

use std::io;

use link::{Links, RouteOwner};
use nft::{Family, Nft, NftError, Table};

/// Removes every device, route and table of the instance called `prefix` from the calling thread's network namespace, whoever made
/// them and however that ended. Pods lose their network.
///
/// # Errors
/// The first thing that could not be removed; the rest may still be there.
pub fn cleanup(prefix: &str) -> Result<(), NftError> {
    for owner in [RouteOwner::Nodes, RouteOwner::Pods] {
        let mut links = Links::open(owner)?;
        for route in links.routes()? {
            links.delete_route(&route)?;
        }
    }
    remove_devices(prefix)?;
    let mut nft = Nft::open()?;
    for family in [Family::V4, Family::V6] {
        for part in ["services", "pods"] {
            nft.delete_table(&Table { family, name: format!("{prefix}-{part}") })?;
        }
    }
    Ok(())
}

fn remove_devices(prefix: &str) -> io::Result<()> {
    let mut links = Links::open(RouteOwner::Nodes)?;
    for link in links.list()? {
        if pod::is_pod_device(prefix, &link.name) || link.name == format!("{prefix}-vx") {
            links.delete(&link.name)?;
        }
    }
    Ok(())
}
