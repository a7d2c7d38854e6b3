//! The cluster's names, as the Kubernetes DNS specification and CoreDNS have them. Pure: objects in, answers out.
//!
//! ```text
//! <service>.<namespace>.svc.<domain>                       A, AAAA, SRV; CNAME for ExternalName
//! _<port>._<protocol>.<service>.<namespace>.svc.<domain>   SRV (and A)
//! <hostname>.<service>.<namespace>.svc.<domain>            A of one endpoint
//! <a-b-c-d>.<namespace>.pod.<domain>                       A of any address, as long as the namespace exists
//! dns-version.<domain>  TXT      ns.dns.<domain>  A      <domain>  SOA, NS      reverse names  PTR
//! ```
//!
//! A name that exists but has nothing of the asked type is answered with no records and the zone's SOA; a name that does not exist
//! with NXDOMAIN and the SOA. As in CoreDNS, a headless service without ready endpoints does not exist.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use meta::ObjectKey;

use crate::view::{Endpoint, Meaning, Port, Service, Slice};

/// Seconds that an answer may be kept, CoreDNS' default for cluster names.
pub const TTL_S: u32 = 5;
/// The version of the DNS specification that this follows.
const SPECIFICATION: &str = "1.1.0";

/// What the zone says to a question.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// The name does not exist, whatever the type.
    pub no_such_name: bool,
    pub records: Vec<Record>,
    /// Addresses of names in the records.
    pub additionals: Vec<Record>,
    /// With negative answers.
    pub soa: Option<Record>,
    /// The records are an alias of this name, which the client wants to have resolved as well.
    pub alias: Option<Name>,
}

/// The zone of one cluster.
#[derive(Debug)]
pub struct Zone {
    domain: Name,
    /// The domain's labels in lower case, the last one first.
    domain_labels: Vec<String>,
    /// Where this resolver answers.
    servers: Vec<IpAddr>,
    /// Counts changes.
    serial: u32,
    namespaces: HashSet<String>,
    services: HashMap<ObjectKey, Arc<Service>>,
    slices: HashMap<ObjectKey, BTreeMap<Arc<str>, Arc<Slice>>>,
    /// The service that a slice, by its own key, belongs to.
    slice_owners: HashMap<ObjectKey, ObjectKey>,
    service_ips: HashMap<IpAddr, ObjectKey>,
    endpoint_ips: HashMap<IpAddr, BTreeMap<ObjectKey, usize>>,
}

/// What a name below the domain stands for.
enum Found {
    NoSuchName,
    /// It exists, but has no records of its own.
    Empty,
    Addresses(Vec<IpAddr>),
    /// Addresses, and the targets that SRV records name.
    Service(Vec<IpAddr>, Vec<Target>),
    Alias(String),
    Record(RecordType, RData),
}

struct Target {
    name: Name,
    addresses: Vec<IpAddr>,
    port: u16,
}

impl Zone {
    /// An empty zone for `domain` (`cluster.local`), answered at `servers`.
    pub fn new(domain: &Name, servers: Vec<IpAddr>) -> Self {
        let mut domain = domain.to_lowercase();
        domain.set_fqdn(true);
        Zone {
            domain_labels: labels(&domain),
            domain,
            servers,
            serial: 1,
            namespaces: HashSet::new(),
            services: HashMap::new(),
            slices: HashMap::new(),
            slice_owners: HashMap::new(),
            service_ips: HashMap::new(),
            endpoint_ips: HashMap::new(),
        }
    }

    /// Notes that a namespace exists, or does not.
    pub fn set_namespace(&mut self, name: &str, exists: bool) {
        self.serial = self.serial.wrapping_add(1);
        if exists {
            self.namespaces.insert(name.to_owned());
        } else {
            self.namespaces.remove(name);
        }
    }

    /// Puts a service in, or takes it out.
    pub fn set_service(&mut self, key: &ObjectKey, service: Option<Arc<Service>>) {
        self.serial = self.serial.wrapping_add(1);
        if let Some(old) = self.services.remove(key)
            && let Meaning::Addresses(ips) = &old.meaning
        {
            for ip in ips.iter().filter(|ip| self.service_ips.get(*ip) == Some(key)).collect::<Vec<_>>() {
                self.service_ips.remove(ip);
            }
        }
        let Some(service) = service else { return };
        if let Meaning::Addresses(ips) = &service.meaning {
            self.service_ips.extend(ips.iter().map(|ip| (*ip, key.clone())));
        }
        self.services.insert(key.clone(), service);
    }

    /// Puts a slice in, or takes it out.
    pub fn set_slice(&mut self, key: &ObjectKey, slice: Option<Arc<Slice>>) {
        self.serial = self.serial.wrapping_add(1);
        if let Some(owner) = self.slice_owners.remove(key) {
            let slices = self.slices.entry(owner.clone()).or_default();
            let old = slices.remove(&key.name);
            if slices.is_empty() {
                self.slices.remove(&owner);
            }
            if let Some(old) = old {
                self.count_endpoints(&old, &owner, false);
            }
        }
        if let Some(new) = slice
            && let Some(owner) = new.owner(key)
        {
            self.count_endpoints(&new, &owner, true);
            self.slices.entry(owner.clone()).or_default().insert(key.name.clone(), new);
            self.slice_owners.insert(key.clone(), owner);
        }
    }

    /// Another number with every change.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// How many objects it holds.
    pub fn len(&self) -> usize {
        self.namespaces.len() + self.services.len() + self.slice_owners.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the place of an older zone: whoever compares serial numbers sees that it is newer.
    pub fn succeed(&mut self, older: &Zone) {
        self.serial = self.serial.wrapping_add(older.serial);
    }

    fn count_endpoints(&mut self, slice: &Slice, owner: &ObjectKey, add: bool) {
        for endpoint in &slice.endpoints {
            let owners = self.endpoint_ips.entry(endpoint.address).or_default();
            let count = owners.entry(owner.clone()).or_default();
            *count = if add { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                owners.remove(owner);
                if owners.is_empty() {
                    self.endpoint_ips.remove(&endpoint.address);
                }
            }
        }
    }

    /// The answer to a question, or `None` when the name is not ours to know.
    pub fn answer(&self, name: &Name, kind: RecordType) -> Option<Answer> {
        let asked = labels(name);
        if let Some(below) = asked.strip_prefix(&*self.domain_labels) {
            let below: Vec<&str> = below.iter().map(String::as_str).collect();
            return Some(if below.is_empty() {
                self.apex(name, kind)
            } else {
                self.reply(name, kind, self.find(&below))
            });
        }
        let reverse = asked.first().is_some_and(|label| label == "arpa");
        let targets = if reverse { self.reverse(name) } else { Vec::new() };
        if targets.is_empty() {
            return None;
        }
        if kind != RecordType::PTR {
            return Some(self.negative(false));
        }
        let records = targets.into_iter().map(|target| record(name, RData::PTR(PTR(target)))).collect();
        Some(Answer { records, ..Answer::default() })
    }

    fn apex(&self, name: &Name, kind: RecordType) -> Answer {
        let records = match kind {
            RecordType::SOA => vec![self.soa()],
            RecordType::NS => {
                self.server_name().map(|server| record(name, RData::NS(NS(server)))).into_iter().collect()
            }
            _ => return self.negative(false),
        };
        Answer { records, ..Answer::default() }
    }

    /// `below` are the labels below the domain, the last one first.
    fn find(&self, below: &[&str]) -> Found {
        match below {
            ["dns-version"] => Found::Record(RecordType::TXT, RData::TXT(TXT::new(vec![SPECIFICATION.to_owned()]))),
            ["dns"] | ["svc"] | ["pod"] => Found::Empty,
            ["dns", "ns"] => Found::Addresses(self.servers.clone()),
            ["svc" | "pod", namespace] => self.in_namespace(namespace, Found::Empty),
            ["pod", namespace, label] => match undashed(label) {
                Some(address) => self.in_namespace(namespace, Found::Addresses(vec![address])),
                None => Found::NoSuchName,
            },
            ["svc", namespace, service] => self.find_service(&ObjectKey::new(namespace, service), |_| true),
            ["svc", namespace, service, label] => self.find_endpoint(&ObjectKey::new(namespace, service), label),
            ["svc", namespace, service, protocol, port] => {
                let (protocol, port) = (plain(protocol), plain(port));
                self.find_service(&ObjectKey::new(namespace, service), |known| {
                    known.protocol == protocol && known.name == port
                })
            }
            _ => Found::NoSuchName,
        }
    }

    fn in_namespace(&self, namespace: &str, found: Found) -> Found {
        if self.namespaces.contains(namespace) { found } else { Found::NoSuchName }
    }

    fn find_service(&self, key: &ObjectKey, wanted: impl Fn(&Port) -> bool) -> Found {
        let Some(service) = self.services.get(key) else { return Found::NoSuchName };
        match &service.meaning {
            Meaning::Nothing => Found::NoSuchName,
            Meaning::External(target) => Found::Alias(target.clone()),
            Meaning::Addresses(addresses) => {
                let Some(name) = self.name_of(key, None) else { return Found::NoSuchName };
                let ports = service.ports.iter().filter(|port| wanted(port));
                let target = |port: &Port| Target { name: name.clone(), addresses: addresses.clone(), port: port.port };
                let targets: Vec<Target> = ports.map(target).collect();
                if targets.is_empty() { Found::NoSuchName } else { Found::Service(addresses.clone(), targets) }
            }
            Meaning::Headless => self.endpoints(key, |_| true, wanted),
        }
    }

    fn find_endpoint(&self, key: &ObjectKey, label: &str) -> Found {
        if !self.services.contains_key(key) {
            return Found::NoSuchName;
        }
        self.endpoints(key, |endpoint| endpoint.label == label, |_| true)
    }

    /// The service's ready endpoints, on the ports asked for. A service without ports has endpoints all the same.
    fn endpoints(&self, key: &ObjectKey, who: impl Fn(&Endpoint) -> bool, wanted: impl Fn(&Port) -> bool) -> Found {
        let (mut addresses, mut targets) = (BTreeSet::new(), BTreeMap::<(&str, u16), BTreeSet<IpAddr>>::new());
        for slice in self.slices.get(key).into_iter().flat_map(BTreeMap::values) {
            let ports: Vec<&Port> = slice.ports.iter().filter(|port| wanted(port)).collect();
            if ports.is_empty() && !slice.ports.is_empty() {
                continue;
            }
            for endpoint in slice.endpoints.iter().filter(|endpoint| who(endpoint)) {
                addresses.insert(endpoint.address);
                for port in &ports {
                    targets.entry((&endpoint.label, port.port)).or_default().insert(endpoint.address);
                }
            }
        }
        if addresses.is_empty() {
            return Found::NoSuchName;
        }
        let target = |((label, port), addresses): ((&str, u16), BTreeSet<IpAddr>)| {
            let name = self.name_of(key, Some(label))?;
            Some(Target { name, addresses: addresses.into_iter().collect(), port })
        };
        Found::Service(addresses.into_iter().collect(), targets.into_iter().filter_map(target).collect())
    }

    fn reply(&self, name: &Name, kind: RecordType, found: Found) -> Answer {
        let (addresses, targets) = match found {
            Found::NoSuchName => return self.negative(true),
            Found::Empty => return self.negative(false),
            Found::Alias(target) => return self.alias(name, kind, &target),
            Found::Record(its, data) if its == kind => {
                return Answer { records: vec![record(name, data)], ..Answer::default() };
            }
            Found::Record(..) => return self.negative(false),
            Found::Addresses(addresses) => (addresses, Vec::new()),
            Found::Service(addresses, targets) => (addresses, targets),
        };
        let (records, additionals) = match kind {
            RecordType::A | RecordType::AAAA => (address_records(name, &addresses, kind), Vec::new()),
            RecordType::SRV => srv_records(name, &targets),
            _ => (Vec::new(), Vec::new()),
        };
        if records.is_empty() {
            return self.negative(false);
        }
        Answer { records, additionals, ..Answer::default() }
    }

    fn alias(&self, name: &Name, kind: RecordType, target: &str) -> Answer {
        // The API allows only names that parse; anything else has no answer.
        let Ok(mut target) = Name::from_str_relaxed(target) else { return self.negative(true) };
        target.set_fqdn(true);
        let records = vec![record(name, RData::CNAME(CNAME(target.clone())))];
        match kind {
            RecordType::CNAME => Answer { records, ..Answer::default() },
            RecordType::A | RecordType::AAAA => Answer { records, alias: Some(target), ..Answer::default() },
            _ => self.negative(false),
        }
    }

    fn reverse(&self, name: &Name) -> Vec<Name> {
        let mut name = name.clone();
        name.set_fqdn(true);
        let Ok(net) = name.parse_arpa_name() else { return Vec::new() };
        if net.prefix_len() != net.max_prefix_len() {
            return Vec::new();
        }
        let address = net.addr();
        if let Some(key) = self.service_ips.get(&address) {
            return self.name_of(key, None).into_iter().collect();
        }
        let owners = self.endpoint_ips.get(&address).into_iter().flat_map(BTreeMap::keys);
        let label = |owner: &ObjectKey| {
            let slices = self.slices.get(owner).into_iter().flat_map(BTreeMap::values);
            let endpoint = slices.flat_map(|slice| &slice.endpoints).find(|endpoint| endpoint.address == address)?;
            self.name_of(owner, Some(&endpoint.label))
        };
        owners.filter(|owner| self.services.contains_key(owner)).filter_map(label).collect()
    }

    /// `[<label>.]<service>.<namespace>.svc.<domain>.`
    fn name_of(&self, key: &ObjectKey, label: Option<&str>) -> Option<Name> {
        let parts = label.into_iter().chain([&*key.name, &*key.namespace, "svc"]);
        self.below_domain(parts)
    }

    fn server_name(&self) -> Option<Name> {
        self.below_domain(["ns", "dns"].into_iter())
    }

    fn below_domain<'a>(&self, parts: impl Iterator<Item = &'a str>) -> Option<Name> {
        // An object's name is at most 253 letters, so what does not fit in a DNS name has none.
        Name::from_labels(parts.map(str::as_bytes)).ok()?.append_domain(&self.domain).ok()
    }

    fn soa(&self) -> Record {
        let server = self.server_name().unwrap_or_else(|| self.domain.clone());
        let master = self.below_domain(["hostmaster"].into_iter()).unwrap_or_else(|| self.domain.clone());
        record(&self.domain, RData::SOA(SOA::new(server, master, self.serial, 7200, 1800, 86400, TTL_S)))
    }

    fn negative(&self, no_such_name: bool) -> Answer {
        Answer { no_such_name, soa: Some(self.soa()), ..Answer::default() }
    }
}

/// The labels in lower case, the last one first.
fn labels(name: &Name) -> Vec<String> {
    let mut labels: Vec<String> =
        name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect();
    labels.reverse();
    labels
}

fn plain(label: &str) -> &str {
    label.strip_prefix('_').unwrap_or(label)
}

/// The address that a pod's label spells.
fn undashed(label: &str) -> Option<IpAddr> {
    let four = label.matches('-').count() == 3 && !label.contains("--");
    label.replace('-', if four { "." } else { ":" }).parse().ok()
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL_S, data)
}

fn address_records(name: &Name, addresses: &[IpAddr], kind: RecordType) -> Vec<Record> {
    let data = addresses.iter().filter_map(|address| match (address, kind) {
        (IpAddr::V4(v4), RecordType::A) => Some(RData::A(A(*v4))),
        (IpAddr::V6(v6), RecordType::AAAA) => Some(RData::AAAA(AAAA(*v6))),
        _ => None,
    });
    data.map(|data| record(name, data)).collect()
}

fn srv_records(name: &Name, targets: &[Target]) -> (Vec<Record>, Vec<Record>) {
    // As in CoreDNS: all alike, the weights adding up to about a hundred.
    let weight = 100 / targets.len().clamp(1, 100) as u16;
    let srv = |target: &Target| record(name, RData::SRV(SRV::new(0, weight, target.port, target.name.clone())));
    let mut named = BTreeSet::new();
    let mut additionals = Vec::new();
    for target in targets {
        if named.insert(&target.name) {
            for kind in [RecordType::A, RecordType::AAAA] {
                additionals.extend(address_records(&target.name, &target.addresses, kind));
            }
        }
    }
    (targets.iter().map(srv).collect(), additionals)
}

#[cfg(test)]
mod tests;
