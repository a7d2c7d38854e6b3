//! The table of benchmarks: where each one's rounds run and which of upstream's programs they need.

/// Where a round runs.
#[allow(dead_code, reason = "the first users come with their subjects")]
pub enum Place {
    /// In a network of its own that has a loopback only, which the program makes itself.
    Loopback,
    /// In a lab with this many booted nodes, on which nothing runs yet.
    Lab { nodes: usize },
    /// `bench/start` before it has a peer: `start` runs it.
    BeforeHarness,
}

pub struct Row {
    pub name: &'static str,
    /// The package of the program.
    pub package: &'static str,
    pub place: Place,
    /// Programs of `xtask/src/upstream.rs`, handed to the program as `--program NAME=PATH`.
    pub programs: &'static [&'static str],
}

/// In the order in which `bench all` runs them.
pub static ROWS: &[Row] = &[Row { name: "start", package: "bench-start", place: Place::BeforeHarness, programs: &[] }];

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
