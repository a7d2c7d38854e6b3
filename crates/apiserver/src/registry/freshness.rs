//! What `resourceVersion` and `resourceVersionMatch` ask of a read.

use client::door::Options;
use meta::quote::quoted;
use meta::{Reason, Status};

/// How fresh an answer has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Everything that was committed before the request.
    Latest,
    /// Whatever is at hand (`0`).
    Any,
    /// At least this revision.
    AtLeast(u64),
    /// This revision and no other.
    Exact(u64),
}

impl Freshness {
    pub fn of(options: &Options) -> Result<Self, Status> {
        Ok(match (parse(&options.resource_version)?, options.resource_version_match.as_str()) {
            (None, _) => Freshness::Latest,
            (Some(revision), "Exact") => Freshness::Exact(revision),
            (Some(0), _) => Freshness::Any,
            // Without a match rule, a page of a list is of exactly the revision asked for.
            (Some(revision), "") if options.limit > 0 => Freshness::Exact(revision),
            (Some(revision), _) => Freshness::AtLeast(revision),
        })
    }
}

/// A `resourceVersion`; none when it is not given. Upstream does not know the reason of its own refusal.
pub fn parse(text: &str) -> Result<Option<u64>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = text.parse().map_err(|_| {
        let why = not_a_number(text).message;
        Status::new(Reason::Unknown, format!("resourceVersion: Invalid value: {}: {why}", quoted(text)))
    });
    parsed.map(Some)
}

/// Go's error about a text that should be a revision, as upstream answers it.
pub fn not_a_number(text: &str) -> Status {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let why = if digits { "value out of range" } else { "invalid syntax" };
    Status::new(Reason::Unknown, format!("strconv.ParseUint: parsing {}: {why}", quoted(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_combination() {
        for (version, rule, limit, expected) in [
            ("", "", 0, Freshness::Latest),
            ("0", "", 0, Freshness::Any),
            ("0", "NotOlderThan", 5, Freshness::Any),
            ("7", "", 0, Freshness::AtLeast(7)),
            ("7", "", 5, Freshness::Exact(7)),
            ("7", "NotOlderThan", 5, Freshness::AtLeast(7)),
            ("7", "Exact", 0, Freshness::Exact(7)),
        ] {
            let options = Options {
                resource_version: version.into(),
                resource_version_match: rule.into(),
                limit,
                ..Options::default()
            };
            assert_eq!(Freshness::of(&options).unwrap(), expected, "{version} {rule} {limit}");
        }
        assert_eq!(parse("x").unwrap_err().code, 500);
    }
}
