//! Ranges to pick from, as plain arithmetic.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use api::strategy::IpFamily;
use ipnet::IpNet;

/// Larger ranges (IPv6) are used up to this many addresses.
const ADDRESSES_MAX: u128 = 1 << 64;

/// How many candidates are tried at random places before the range is walked.
const RANDOM_TRIES: usize = 16;

/// The addresses of one range: all but the network's own and, for IPv4, the broadcast address.
pub struct AddressPool {
    cidr: IpNet,
    first: u128,
    /// How many addresses there are to give.
    size: u128,
    /// How many at the beginning are left for those who ask for one of them.
    band: u128,
}

impl AddressPool {
    pub fn new(cidr: IpNet) -> Self {
        let cidr = cidr.trunc();
        let all = 1_u128.checked_shl(u32::from(cidr.max_prefix_len() - cidr.prefix_len())).unwrap_or(ADDRESSES_MAX);
        let unusable = if cidr.addr().is_ipv4() { 2 } else { 1 };
        let size = all.min(ADDRESSES_MAX).saturating_sub(unusable);
        AddressPool { cidr, first: number(cidr.addr()) + 1, size, band: band(size, 16, 256) }
    }

    pub fn family(&self) -> IpFamily {
        if self.cidr.addr().is_ipv4() { IpFamily::V4 } else { IpFamily::V6 }
    }

    pub fn cidr(&self) -> IpNet {
        self.cidr
    }

    /// The first usable address: the `kubernetes` Service has it.
    pub fn first(&self) -> IpAddr {
        self.at(0)
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let at = number(address).wrapping_sub(self.first);
        self.cidr.contains(&address) && at < self.size
    }

    /// A free address: at random in the upper part, then walking from there, the lower part last.
    pub fn pick(&self, is_free: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let upper = self.size - self.band;
        let random = || (base::chance::fraction() * upper as f64) as u128;
        let tries = (0..RANDOM_TRIES).map(|_| self.band + random());
        let start = random();
        let walk = (0..upper).map(|step| self.band + (start + step) % upper).chain(0..self.band);
        tries.filter(|at| *at < self.size).chain(walk).map(|at| self.at(at)).find(|address| is_free(*address))
    }

    fn at(&self, offset: u128) -> IpAddr {
        let number = self.first + offset;
        match self.cidr {
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX))),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(number)),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The part of a range for those who ask: a share of it, but at least 16 and at most `max`; none of a small range.
fn band(size: u128, share: u128, max: u128) -> u128 {
    if size <= 16 { 0 } else { (size / share).clamp(16, max) }
}

/// The node ports that are taken.
pub struct PortPool {
    first: u16,
    last: u16,
    taken: BTreeSet<u16>,
}

impl PortPool {
    pub fn new((first, last): (u16, u16)) -> Self {
        PortPool { first, last, taken: BTreeSet::new() }
    }

    /// Takes the wanted port or any free one; errors are what the field error says.
    pub fn take(&mut self, wanted: Option<u16>) -> Result<u16, String> {
        let port = match wanted {
            Some(port) if !(self.first..=self.last).contains(&port) => {
                return Err(format!(
                    "provided port is not in the valid range. The range of valid ports is {}-{}",
                    self.first, self.last
                ));
            }
            Some(port) if self.taken.contains(&port) => return Err("provided port is already allocated".into()),
            Some(port) => port,
            None => self.pick().ok_or("range is full")?,
        };
        self.taken.insert(port);
        Ok(port)
    }

    pub fn give_back(&mut self, port: u16) {
        self.taken.remove(&port);
    }

    fn pick(&self) -> Option<u16> {
        let size = self.last - self.first + 1;
        let band = u16::try_from(band(u128::from(size), 32, 128)).unwrap_or(0);
        let upper = size - band;
        let start = u16::try_from(base::chance::below(usize::from(upper))).unwrap_or(0);
        let offsets = (0..upper).map(|step| band + (start + step) % upper).chain(0..band);
        offsets.map(|offset| self.first + offset).find(|port| !self.taken.contains(port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_every_address_once_and_then_none() {
        let pool = AddressPool::new("10.43.0.0/27".parse().unwrap());
        let mut given = BTreeSet::new();
        while let Some(address) = pool.pick(|address| !given.contains(&address)) {
            assert!(pool.contains(address) && given.insert(address), "{address}");
        }
        assert_eq!(given.len(), 30);
        assert!(!pool.contains("10.43.0.0".parse().unwrap()) && !pool.contains("10.43.0.31".parse().unwrap()));
        assert_eq!(pool.first().to_string(), "10.43.0.1");
    }

    #[test]
    fn leaves_the_lower_part_to_those_who_ask() {
        let pool = AddressPool::new("10.43.0.0/16".parse().unwrap());
        for _ in 0..100 {
            let IpAddr::V4(address) = pool.pick(|_| true).unwrap() else { panic!("an IPv4 range") };
            assert!(address.octets()[2] > 0, "{address}");
        }
        let six = AddressPool::new("fd00::/108".parse().unwrap());
        assert!(six.contains(six.pick(|_| true).unwrap()));
    }

    #[test]
    fn ports_are_taken_once() {
        let mut ports = PortPool::new((30_000, 30_002));
        assert_eq!(ports.take(Some(30_001)), Ok(30_001));
        assert_eq!(ports.take(Some(30_001)), Err("provided port is already allocated".into()));
        assert!(ports.take(Some(80)).unwrap_err().contains("30000-30002"));
        let mut rest = [ports.take(None).unwrap(), ports.take(None).unwrap()];
        rest.sort_unstable();
        assert_eq!(rest, [30_000, 30_002]);
        assert_eq!(ports.take(None), Err("range is full".into()));
        ports.give_back(30_000);
        assert_eq!(ports.take(None), Ok(30_000));
    }
}
