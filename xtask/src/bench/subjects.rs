//! The table of benchmarks: where each one's rounds run and which of upstream's programs they need.

/// Where a round runs.
pub enum Place {
    /// In a network of its own that has a loopback only, which the program makes itself.
    Loopback,
    /// In a lab with this many booted nodes, on which nothing runs yet.
    Lab { nodes: usize, peer: Peer },
}

/// What the nodes of the peer's labs are made for.
pub enum Peer {
    /// Coracle as on our side: the peer is a program that the benchmark starts.
    Beside,
    /// These parts of upstream and what they need.
    Upstream(&'static str),
    /// Coracle with upstream's program in the place of a part.
    Swapped(&'static str),
}

pub struct Row {
    pub name: &'static str,
    /// The package of the program.
    pub package: &'static str,
    pub place: Place,
    /// Programs of `xtask/src/upstream.rs` or `debian.rs`, handed to the program as `--program NAME=PATH`.
    pub programs: &'static [&'static str],
}

/// In the order in which `bench all` runs them.
pub static ROWS: &[Row] = &[
    Row { name: "store", package: "bench-store", place: Place::Loopback, programs: &["etcd"] },
    Row { name: "api", package: "bench-api", place: Place::Loopback, programs: &["kube-apiserver", "etcd"] },
    Row {
        name: "start",
        package: "bench-start",
        place: Place::Lab { nodes: 1, peer: Peer::Upstream("all") },
        programs: &[],
    },
    Row {
        name: "idle",
        package: "bench-idle",
        place: Place::Lab { nodes: 1, peer: Peer::Upstream("all") },
        programs: &[],
    },
    Row {
        name: "pod",
        package: "bench-pod",
        place: Place::Lab { nodes: 1, peer: Peer::Upstream("all") },
        programs: &[],
    },
    Row {
        name: "services",
        package: "bench-services",
        place: Place::Lab { nodes: 2, peer: Peer::Swapped("kube-proxy") },
        programs: &[],
    },
    Row {
        name: "scheduler",
        package: "bench-scheduler",
        place: Place::Lab { nodes: 1, peer: Peer::Upstream("apiserver,scheduler") },
        programs: &[],
    },
    Row {
        name: "dns",
        package: "bench-dns",
        place: Place::Lab { nodes: 1, peer: Peer::Beside },
        programs: &["coredns", "unbound"],
    },
];

pub fn find(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_is_found_by_its_own_name() {
        for row in ROWS {
            assert!(std::ptr::eq(find(row.name).unwrap(), row), "{}", row.name);
            assert!(row.package.starts_with("bench-"), "{}", row.package);
        }
        assert!(find("all").is_none(), "that name is taken");
    }
}
