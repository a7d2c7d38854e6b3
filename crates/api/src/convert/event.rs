//! Event in the core group and in events.k8s.io: the same fields under other names.

use meta::Object;

/// Name in the core group, name in events.k8s.io.
const RENAMED: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

pub fn to_events(event: &mut Object) {
    for (core, events) in RENAMED {
        rename(event, core, events);
    }
}

pub fn to_core(event: &mut Object) {
    for (core, events) in RENAMED {
        rename(event, events, core);
    }
}

fn rename(event: &mut Object, from: &str, to: &str) {
    if let Some(value) = event.0.remove(from) {
        event.0.insert(to.to_string(), value);
    }
}
