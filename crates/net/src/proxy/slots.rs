//! Which backend sits in which slot, changed as little as possible. Pure.
//!
//! A packet draws a number below the count of backends and looks up that slot, so slots `0..count` must be filled. Example: from
//! `[a, b, c]` to `{a, c, d}` only slot 1 changes (`[a, d, c]`); to `{a, c}` the last moves into the hole (`[a, c]`).

use std::collections::BTreeSet;

use super::plan::Backend;

/// The new slots for `wanted`, given the `old` ones.
pub fn assign(old: &[Backend], wanted: &BTreeSet<Backend>) -> Vec<Backend> {
    let kept: BTreeSet<&Backend> = old.iter().filter(|backend| wanted.contains(backend)).collect();
    let mut fresh: Vec<Backend> = wanted.iter().filter(|backend| !kept.contains(backend)).copied().collect();
    // Backends beyond the new end fill holes once the fresh ones are used up.
    let mut spare: Vec<Backend> =
        old.iter().skip(wanted.len()).filter(|backend| wanted.contains(backend)).copied().collect();
    fresh.reverse();
    spare.reverse();
    let mut slots = Vec::with_capacity(wanted.len());
    for index in 0..wanted.len() {
        let stays = old.get(index).filter(|backend| wanted.contains(backend)).copied();
        slots.extend(stays.or_else(|| fresh.pop()).or_else(|| spare.pop()));
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backends(letters: &str) -> Vec<Backend> {
        letters.bytes().map(|b| Backend { address: [10, 0, 0, b].into(), port: 80, local: false }).collect()
    }

    fn after(old: &str, wanted: &str) -> String {
        let slots = assign(&backends(old), &backends(wanted).into_iter().collect());
        let letter = |backend: &Backend| match backend.address {
            std::net::IpAddr::V4(v4) => char::from(v4.octets()[3]),
            std::net::IpAddr::V6(_) => '?',
        };
        slots.iter().map(letter).collect()
    }

    #[test]
    fn moves_as_few_backends_as_possible() {
        for (old, wanted, expected) in [
            ("", "abc", "abc"),
            ("abc", "acd", "adc"),
            ("abc", "ac", "ac"),
            ("abc", "bc", "cb"),
            ("abc", "abcd", "abcd"),
            ("abcd", "d", "d"),
            ("abc", "", ""),
            ("abcd", "xyd", "xyd"),
        ] {
            assert_eq!(after(old, wanted), expected, "{old} -> {wanted}");
        }
    }
}
