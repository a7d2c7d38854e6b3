//! Which Kubernetes this is, as `/version` tells it.

use serde_json::{Value, json};

/// The release whose API we serve, as `kubectl version` shows it.
pub const GIT_VERSION: &str = concat!("v1.37.1+coracle-", env!("CARGO_PKG_VERSION"));
pub const MAJOR: &str = "1";
pub const MINOR: &str = "37";

/// The document at `/version`.
pub fn document() -> Value {
    let platform = match std::env::consts::ARCH {
        "x86_64" => "linux/amd64",
        "aarch64" => "linux/arm64",
        _ => "linux/unknown",
    };
    json!({
        "major": MAJOR,
        "minor": MINOR,
        "emulationMajor": MAJOR,
        "emulationMinor": MINOR,
        "minCompatibilityMajor": MAJOR,
        "minCompatibilityMinor": "36",
        "gitVersion": GIT_VERSION,
        "gitCommit": option_env!("CORACLE_COMMIT").unwrap_or("unknown"),
        "gitTreeState": "clean",
        "buildDate": option_env!("CORACLE_BUILD_DATE").unwrap_or("1970-01-01T00:00:00Z"),
        "goVersion": "none",
        "compiler": "rustc",
        "platform": platform,
    })
}
