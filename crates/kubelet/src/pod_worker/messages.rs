//! Termination messages: what a container wrote about its end, or the end of its log.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::Context;
use crate::pod;
use crate::runtime_view::{Container, RuntimePod, State};
use crate::server::log_format;

const MESSAGE_BYTES_MAX: u64 = 4096;
const LOG_BYTES_MAX: u64 = 2048;
const LOG_LINES_MAX: usize = 80;

/// Reads the messages of containers that ended since the last look; forgets those the runtime has forgotten.
pub fn read(context: &Context, runtime: &RuntimePod, messages: &mut HashMap<String, String>) {
    messages.retain(|id, _| runtime.by_id(id).is_some());
    for found in runtime.containers.iter().filter(|found| found.state == State::Exited) {
        if !messages.contains_key(&found.id) {
            messages.insert(found.id.clone(), message(context, found));
        }
    }
}

fn message(context: &Context, found: &Container) -> String {
    let (agent, pod) = (&context.agent, &context.pod);
    let file = agent.termination_log(pod::uid(pod), &found.name, found.attempt);
    let text = tail(&file, MESSAGE_BYTES_MAX).unwrap_or_default();
    if !text.is_empty() || found.exit_code == 0 {
        return text;
    }
    let spec = pod::find_container(pod, &found.name).map(|(_, spec)| spec);
    let policy = spec.and_then(|spec| spec.termination_message_policy);
    if policy.as_deref() != Some("FallbackToLogsOnError") {
        return text;
    }
    let log = agent.log_dir(pod).join(&found.name).join(format!("{}.log", found.attempt));
    let lines = tail(&log, 2 * LOG_BYTES_MAX).unwrap_or_default();
    let lines: Vec<&str> = lines.lines().collect();
    let skipped = lines.len().saturating_sub(LOG_LINES_MAX);
    let mut text: String =
        lines[skipped..].iter().filter_map(|line| log_format::parse(line)).map(|line| line.text_with_end()).collect();
    while text.len() as u64 > LOG_BYTES_MAX {
        text.remove(0);
    }
    text
}

/// The last bytes of a file, as text. None when there is no such file.
fn tail(path: &Path, bytes_max: u64) -> Option<String> {
    let mut file = std::fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes_max))).ok()?;
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
