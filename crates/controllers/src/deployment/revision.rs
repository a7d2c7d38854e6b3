//! A deployment's history: revision numbers, the annotations that replica sets carry along, and the template's hash.

use serde_json::Value;

use super::facts::{DESIRED_REPLICAS, Facts, MAX_REPLICAS, REVISION, REVISION_HISTORY, Set};

/// Annotations of a deployment that are not its replica sets' business.
const NOT_COPIED: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
];

/// The annotations of the current set that are missing or differ. A set that comes back (a rollback) gets the next revision
/// and remembers those it had.
pub fn annotations(facts: &Facts, set: Option<&Set>, revision: i64) -> Vec<(String, String)> {
    let current = set.map(|set| &set.meta.annotations);
    let mut changed: Vec<(String, String)> = Vec::new();
    for (key, value) in &facts.meta.annotations {
        let known = current.and_then(|current| current.get(key));
        if !NOT_COPIED.contains(&key.as_str()) && known != Some(value) {
            changed.push((key.clone(), value.clone()));
        }
    }
    let old = set.map_or(0, Set::revision);
    if old < revision {
        changed.push((REVISION.into(), revision.to_string()));
        if old > 0 {
            let history = current.and_then(|current| current.get(REVISION_HISTORY));
            let history = history.map_or_else(|| old.to_string(), |history| format!("{history},{old}"));
            changed.push((REVISION_HISTORY.into(), history));
        }
    }
    changed
}

/// The suffix of a set's name: FNV-1a over the template's canonical JSON and the collision count, in letters that make no words.
pub fn hash(template: &Value, collisions: i64) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut hash: u32 = 0x811c_9dc5;
    let mut eat = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    };
    eat(template.to_string().as_bytes());
    if collisions > 0 {
        eat(&collisions.to_le_bytes());
    }
    hash.to_string().bytes().map(|digit| char::from(LETTERS[usize::from(digit) % LETTERS.len()])).collect()
}
