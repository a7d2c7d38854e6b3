//! What one write takes. Unless it is kept, everything is free again when it is dropped.

use std::net::IpAddr;
use std::sync::Arc;

use api::Kind;
use api::strategy::{Allocators, Claim, IpFamily};
use async_trait::async_trait;
use meta::{GroupVersionKind, Object};
use parking_lot::Mutex;
use serde_json::json;

use super::ServiceAllocators;
use crate::watch_cache::KindCache;

const FAMILY_LABEL: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGED_BY_LABEL: &str = "ipaddress.kubernetes.io/managed-by";
const MANAGED_BY: &str = "ipallocator.k8s.io";

/// See the module.
pub struct Allocation<'a> {
    allocators: &'a ServiceAllocators,
    /// The `IPAddress` objects there are.
    addresses: Option<Arc<KindCache>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Address and the object that records it.
    addresses: Vec<(IpAddr, Object)>,
    ports: Vec<u16>,
    dropped: Vec<Claim>,
    kept: bool,
}

impl<'a> Allocation<'a> {
    pub fn new(allocators: &'a ServiceAllocators, addresses: Option<Arc<KindCache>>) -> Self {
        Allocation { allocators, addresses, state: Mutex::default() }
    }

    /// The row of the records.
    pub fn row(&self) -> Option<&Arc<Kind>> {
        self.addresses.as_ref().map(|cache| &cache.kind)
    }

    /// Notes what the object no longer needs once the write is done.
    pub fn drop_all(&self, claims: &[Claim]) {
        self.state.lock().dropped.extend_from_slice(claims);
    }

    /// The records of the addresses taken.
    pub fn taken(&self) -> Vec<Object> {
        self.state.lock().addresses.iter().map(|(_, record)| record.clone()).collect()
    }

    /// The names of the records of the addresses that are no longer needed.
    pub fn dropped(&self) -> Vec<String> {
        let state = self.state.lock();
        let address = |claim: &Claim| match claim {
            Claim::ServiceAddress(address) => Some(address.to_string()),
            Claim::NodePort(_) => None,
        };
        state.dropped.iter().filter_map(address).collect()
    }

    /// The write is done: what was taken stays taken, what was dropped is free.
    pub fn keep(&self) {
        let mut state = self.state.lock();
        state.kept = true;
        let mut ports = self.allocators.ports.lock();
        for claim in &state.dropped {
            if let Claim::NodePort(port) = claim {
                ports.give_back(*port);
            }
        }
    }

    fn is_free(&self, address: IpAddr) -> bool {
        let recorded = |cache: &Arc<KindCache>| cache.get(&meta::ObjectKey::cluster(&address.to_string())).is_some();
        !self.addresses.as_ref().is_some_and(recorded) && !self.allocators.held.lock().contains(&address)
    }
}

impl Drop for Allocation<'_> {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let mut held = self.allocators.held.lock();
        for (address, _) in &state.addresses {
            held.remove(address);
        }
        if !state.kept {
            let mut ports = self.allocators.ports.lock();
            state.ports.iter().for_each(|port| ports.give_back(*port));
        }
    }
}

#[async_trait]
impl Allocators for Allocation<'_> {
    fn families(&self) -> Vec<IpFamily> {
        self.allocators.families()
    }

    async fn service_address(
        &self,
        owner: &Object,
        family: IpFamily,
        wanted: Option<IpAddr>,
    ) -> Result<IpAddr, String> {
        let mut of_family = self.allocators.pools.iter().filter(|pool| pool.family() == family);
        let address = match wanted {
            Some(address) => {
                let Some(_) = of_family.clone().find(|pool| pool.contains(address)) else {
                    let ranges: Vec<String> = of_family.map(|pool| pool.cidr().to_string()).collect();
                    return Err(format!(
                        "the provided IP ({address}) is not in the valid range. The range of valid IPs is {}",
                        ranges.join(",")
                    ));
                };
                if !self.is_free(address) {
                    return Err("provided IP is already allocated".into());
                }
                address
            }
            None => of_family.find_map(|pool| pool.pick(|address| self.is_free(address))).ok_or("range is full")?,
        };
        if !self.allocators.held.lock().insert(address) {
            return Err("provided IP is already allocated".into());
        }
        self.state.lock().addresses.push((address, record(owner, address)));
        Ok(address)
    }

    async fn node_port(&self, wanted: Option<u16>) -> Result<u16, String> {
        let port = self.allocators.ports.lock().take(wanted)?;
        self.state.lock().ports.push(port);
        Ok(port)
    }
}

/// The `IPAddress` that says whose an address is.
pub fn record(owner: &Object, address: IpAddr) -> Object {
    let mut record = Object::new(&GroupVersionKind::new("networking.k8s.io", "v1", "IPAddress"));
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    record.set_meta("name", address.to_string());
    record.set_meta("labels", json!({FAMILY_LABEL: family, MANAGED_BY_LABEL: MANAGED_BY}));
    let parent = json!({"group": "", "resource": "services", "namespace": owner.namespace(), "name": owner.name()});
    record.set(&["spec", "parentRef"], parent);
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocators() -> ServiceAllocators {
        ServiceAllocators::new(&["10.43.0.0/28".parse().unwrap()])
    }

    #[tokio::test]
    async fn what_a_failed_write_took_is_free_again() {
        let all = allocators();
        let owner = Object::default();
        let wanted = Some("10.43.0.5".parse().unwrap());
        {
            let failed = Allocation::new(&all, None);
            failed.service_address(&owner, IpFamily::V4, wanted).await.unwrap();
            failed.node_port(Some(30_080)).await.unwrap();
            let rival = Allocation::new(&all, None);
            let refused = rival.service_address(&owner, IpFamily::V4, wanted).await.unwrap_err();
            assert_eq!(refused, "provided IP is already allocated");
            assert!(rival.node_port(Some(30_080)).await.is_err());
        }
        let next = Allocation::new(&all, None);
        next.service_address(&owner, IpFamily::V4, wanted).await.unwrap();
        next.node_port(Some(30_080)).await.unwrap();
        next.keep();
        drop(next);
        assert!(Allocation::new(&all, None).node_port(Some(30_080)).await.is_err());
    }

    #[tokio::test]
    async fn an_address_outside_of_the_range_is_refused() {
        let all = allocators();
        let write = Allocation::new(&all, None);
        let outside = Some("10.44.0.1".parse().unwrap());
        let refused = write.service_address(&Object::default(), IpFamily::V4, outside).await.unwrap_err();
        assert!(refused.contains("10.43.0.0/28"), "{refused}");
    }
}
