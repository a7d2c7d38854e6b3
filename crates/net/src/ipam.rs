//! Which sandbox has which addresses, on this node and across restarts.
//!
//! One small file per sandbox under `<data-dir>/net/sandboxes`, written whole and renamed into place before an address is used; the
//! set of taken addresses is made from them at start. No write waits for the disk: after a loss of power no sandbox
//! exists any more either, and a torn file is thrown away. Addresses are handed out in a circle, so that one that was just given back
//! rests as long as possible before somebody else answers at it.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// How many addresses at the start of a range are not for pods: the network's own, which tunnels use, and one in reserve.
const RESERVED_FIRST: u128 = 2;

/// What is kept of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// At most one of each family, the primary one first.
    pub addresses: Vec<IpAddr>,
    /// Ports on the host that lead to it.
    pub ports: Vec<PortRecord>,
}

/// A host port of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRecord {
    /// Layer 4 protocol number.
    pub protocol: u8,
    pub container_port: u16,
    pub host_port: u16,
    /// `None` for all addresses of the host.
    pub host_ip: Option<IpAddr>,
}

/// Why no address could be given.
#[derive(Debug, thiserror::Error)]
pub enum IpamError {
    /// Every address of the range is in use.
    #[error("no free address in {range}: {used} in use")]
    Full { range: IpNet, used: usize },
    /// The sandbox's id cannot be a file name.
    #[error("sandbox id {0:?} is not made of letters, digits, '-', '_' and '.'")]
    Id(String),
    /// The folder could not be read or written.
    #[error("address records: {0}")]
    Io(#[from] io::Error),
}

/// The addresses of one node.
#[derive(Debug)]
pub struct Ipam {
    folder: PathBuf,
    ranges: Vec<IpNet>,
    records: HashMap<String, Record>,
    used: BTreeSet<IpAddr>,
    /// The address handed out last, per range.
    last: HashMap<IpNet, IpAddr>,
}

impl Ipam {
    /// Reads the records in `folder`, which is created; ranges come later.
    pub fn open(folder: &Path) -> Result<Self, IpamError> {
        std::fs::create_dir_all(folder)?;
        let mut ipam = Ipam {
            folder: folder.to_owned(),
            ranges: Vec::new(),
            records: HashMap::new(),
            used: BTreeSet::new(),
            last: HashMap::new(),
        };
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            match std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok()) {
                Some(record) if is_id(&name) => {
                    ipam.used.extend(&record.addresses);
                    ipam.records.insert(name, record);
                }
                _ => {
                    tracing::warn!(path = %path.display(), "removing an unreadable address record");
                    std::fs::remove_file(&path)?;
                }
            }
        }
        Ok(ipam)
    }

    /// Sets the node's ranges, at most one of each family, the primary one first. Addresses that were given stay given.
    pub fn set_ranges(&mut self, ranges: &[IpNet]) {
        self.ranges = ranges.to_vec();
    }

    /// The node's ranges.
    pub fn ranges(&self) -> &[IpNet] {
        &self.ranges
    }

    /// What is known of a sandbox.
    pub fn get(&self, id: &str) -> Option<&Record> {
        self.records.get(id)
    }

    /// All sandboxes.
    pub fn records(&self) -> impl Iterator<Item = (&String, &Record)> + Clone {
        self.records.iter()
    }

    /// Gives a sandbox an address of each range, or the ones it has.
    pub fn allocate(&mut self, id: &str, ports: Vec<PortRecord>) -> Result<Record, IpamError> {
        if !is_id(id) {
            return Err(IpamError::Id(id.to_owned()));
        }
        if let Some(record) = self.records.get(id) {
            return Ok(record.clone());
        }
        let mut addresses = Vec::new();
        for range in self.ranges.clone() {
            addresses.push(self.next_free(range)?);
        }
        let record = Record { addresses, ports };
        self.write(id, &record)?;
        self.used.extend(&record.addresses);
        for (range, address) in self.ranges.iter().zip(&record.addresses) {
            self.last.insert(*range, *address);
        }
        self.records.insert(id.to_owned(), record.clone());
        Ok(record)
    }

    /// Notes addresses that a sandbox has according to somebody else, unless its record is here.
    pub fn adopt(&mut self, id: &str, record: Record) -> Result<(), IpamError> {
        if !is_id(id) {
            return Err(IpamError::Id(id.to_owned()));
        }
        if !self.records.contains_key(id) {
            self.write(id, &record)?;
            self.used.extend(&record.addresses);
            self.records.insert(id.to_owned(), record);
        }
        Ok(())
    }

    /// Takes a sandbox's addresses back and returns what it had.
    pub fn release(&mut self, id: &str) -> Result<Option<Record>, IpamError> {
        let Some(record) = self.records.get(id) else { return Ok(None) };
        match std::fs::remove_file(self.folder.join(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => (),
        }
        for address in &record.addresses {
            self.used.remove(address);
        }
        Ok(self.records.remove(id))
    }

    fn write(&self, id: &str, record: &Record) -> Result<(), IpamError> {
        // The leading dot keeps it from ever being a record: an id starts with a letter or digit.
        let draft = self.folder.join(format!(".{id}"));
        std::fs::write(&draft, serde_json::to_vec(record).map_err(io::Error::other)?)?;
        std::fs::rename(&draft, self.folder.join(id))?;
        Ok(())
    }

    fn next_free(&self, range: IpNet) -> Result<IpAddr, IpamError> {
        let first = number(range.network()) + RESERVED_FIRST;
        // The last address of an IPv4 range is its broadcast address.
        let end = number(range.broadcast()) + u128::from(!range.addr().is_ipv4());
        let start = self.last.get(&range).map_or(first, |last| number(*last) + 1);
        let address = |number| if range.addr().is_ipv4() { v4(number) } else { v6(number) };
        (start.max(first)..end)
            .chain(first..start.min(end))
            .map(address)
            .find(|address| !self.used.contains(address))
            .ok_or(IpamError::Full { range, used: self.used.len() })
    }
}

fn is_id(id: &str) -> bool {
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    id.len() <= 128 && id.starts_with(|c: char| c.is_ascii_alphanumeric()) && id.chars().all(letters)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn v4(number: u128) -> IpAddr {
    Ipv4Addr::from(number as u32).into()
}

fn v6(number: u128) -> IpAddr {
    Ipv6Addr::from(number).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipam(folder: &Path, range: &str) -> Ipam {
        let mut ipam = Ipam::open(folder).unwrap();
        ipam.set_ranges(&[range.parse().unwrap()]);
        ipam
    }

    fn take(ipam: &mut Ipam, id: &str) -> String {
        ipam.allocate(id, vec![]).map_or_else(|error| error.to_string(), |record| record.addresses[0].to_string())
    }

    #[test]
    fn a_released_address_rests_until_the_others_had_their_turn() {
        let folder = tempfile::tempdir().unwrap();
        let mut ipam = ipam(folder.path(), "10.42.1.0/29");
        assert_eq!(take(&mut ipam, "a"), "10.42.1.2");
        assert_eq!(take(&mut ipam, "a"), "10.42.1.2", "asking again changes nothing");
        ipam.release("a").unwrap();
        let given: Vec<_> = ["b", "c", "d", "e", "f", "g"].iter().map(|id| take(&mut ipam, id)).collect();
        let expected = ["10.42.1.3", "10.42.1.4", "10.42.1.5", "10.42.1.6", "10.42.1.2"];
        assert_eq!(given[..5], expected);
        assert_eq!(given[5], "no free address in 10.42.1.0/29: 5 in use");
    }

    #[test]
    fn addresses_survive_a_restart_and_torn_records_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = ipam(folder.path(), "10.42.1.0/24");
        take(&mut first, "a");
        let port = PortRecord { protocol: 6, container_port: 80, host_port: 8080, host_ip: None };
        let record = first.allocate("b", vec![port]).unwrap();
        std::fs::write(folder.path().join("torn"), "{\"addr").unwrap();
        std::fs::write(folder.path().join(".draft"), "{}").unwrap();
        let mut second = ipam(folder.path(), "10.42.1.0/24");
        assert_eq!(second.get("b"), Some(&record));
        assert_eq!(second.records().count(), 2);
        assert_eq!(take(&mut second, "c"), "10.42.1.4");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_hostile_id_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut ipam = ipam(folder.path(), "10.42.1.0/24");
        for id in ["../x", "", ".x", "a/b", "a\0"] {
            assert!(matches!(ipam.allocate(id, vec![]), Err(IpamError::Id(_))), "{id:?}");
        }
    }

    #[test]
    fn both_families_come_together() {
        let folder = tempfile::tempdir().unwrap();
        let mut ipam = Ipam::open(folder.path()).unwrap();
        ipam.set_ranges(&["10.42.1.0/24".parse().unwrap(), "fd00:42:1::/64".parse().unwrap()]);
        let record = ipam.allocate("a", vec![]).unwrap();
        assert_eq!(record.addresses, ["10.42.1.2".parse::<IpAddr>().unwrap(), "fd00:42:1::2".parse().unwrap()]);
    }
}
