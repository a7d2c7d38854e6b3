//! Log set-up for the binary: human lines to standard error, filtered by `CORACLE_LOG` (default `info`).

use tracing_subscriber::EnvFilter;

/// Ours from `info` on; libraries that tell of every request only when something is wrong.
const DEFAULT_FILTER: &str = "info,hickory_server=warn,hickory_proto=warn";

/// For commands that do one thing and end: what goes wrong is in their own words.
const BRIEF_FILTER: &str = "error";

/// Installs the subscriber once per process; a second call changes nothing.
pub fn init() {
    init_with(DEFAULT_FILTER);
}

/// The same for a command that does one thing and ends.
pub fn init_brief() {
    init_with(BRIEF_FILTER);
}

fn init_with(filter: &str) {
    let filter = EnvFilter::try_from_env("CORACLE_LOG").unwrap_or_else(|_| EnvFilter::new(filter));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    // Tests and `coracle up` inside a test may have installed one before; the first wins.
    drop(subscriber.try_init());
}
