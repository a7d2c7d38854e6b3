//! `/containerLogs`: a container's log, from where the caller wants it, for as long as they want it.
//!
//! The file is the runtime's, in CRI's format, and may be rotated while it is read: at its end a follower waits for the folder to
//! change (inotify), and goes on in the files that came after it. It ends when the container has.

use std::io;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::Timestamp;
use bytes::Bytes;
use cri::v1::{ContainerState, ContainerStatusRequest};
use futures::StreamExt;
use inotify::{Inotify, WatchMask};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader};
use tokio::sync::mpsc;

use super::log_format;
use super::query::Query;
use crate::agent::Agent;
use crate::pod;

/// The longest line read at once; a runtime splits at 16 KiB.
const LINE_BYTES_MAX: u64 = 256 * 1024;
const TAIL_BLOCK_BYTES: u64 = 16 * 1024;

/// What the caller wants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    pub follow: bool,
    pub previous: bool,
    pub timestamps: bool,
    pub since: Option<Timestamp>,
    pub tail_lines: Option<u64>,
    pub limit_bytes: Option<u64>,
    /// `stdout` or `stderr`; none for both.
    pub stream: Option<String>,
}

impl Options {
    /// From the query; the error is the message of a bad request.
    pub fn parse(query: &Query, now: Timestamp) -> Result<Self, String> {
        let number = |name: &str| match query.get(name) {
            "" => Ok(None),
            text => text.parse::<u64>().map(Some).map_err(|_| format!("invalid {name}: {text:?}")),
        };
        let since = match (number("sinceSeconds")?, query.get("sinceTime")) {
            (Some(_), time) if !time.is_empty() => {
                return Err("at most one of `sinceTime` or `sinceSeconds` may be specified".to_string());
            }
            (Some(seconds), _) => Some(now - std::time::Duration::from_secs(seconds.min(u64::from(u32::MAX)))),
            (None, "") => None,
            (None, time) => Some(meta::time::parse(time).ok_or_else(|| format!("invalid sinceTime: {time:?}"))?),
        };
        let stream = match query.get("stream") {
            "" | "All" => None,
            "Stdout" => Some("stdout".to_string()),
            "Stderr" => Some("stderr".to_string()),
            other => return Err(format!("invalid stream: {other:?}")),
        };
        Ok(Options {
            follow: query.flag("follow"),
            previous: query.flag("previous"),
            timestamps: query.flag("timestamps"),
            since,
            tail_lines: number("tailLines")?,
            limit_bytes: number("limitBytes")?,
            stream,
        })
    }
}

/// The instance whose log is wanted: its id without scheme. The error is upstream's message.
pub fn choose_instance(pod: &Pod, container: &str, previous: bool) -> Result<String, String> {
    let status = pod::status(pod);
    let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let found = lists.into_iter().flatten().flatten().find(|found| found.name == container);
    let name = pod::name(pod);
    let found = found.ok_or_else(|| format!("container {container:?} in pod {name:?} is not available"))?;
    let id = if previous { previous_id(found) } else { current_id(found) };
    if let Some(id) = id {
        return Ok(id.split_once("://").map_or(id, |(_, bare)| bare).to_string());
    }
    if previous {
        return Err(format!("previous terminated container {container:?} in pod {name:?} not found"));
    }
    let waiting = found.state.as_ref().and_then(|state| state.waiting.as_ref());
    let reason = waiting.and_then(|waiting| waiting.reason.as_deref()).unwrap_or_default();
    Err(match reason {
        "ErrImagePull" => format!("container {container:?} in pod {name:?} is waiting to start: image can't be pulled"),
        "ImagePullBackOff" => {
            format!("container {container:?} in pod {name:?} is waiting to start: trying and failing to pull image")
        }
        reason => format!("container {container:?} in pod {name:?} is waiting to start: {reason}"),
    })
}

fn previous_id(status: &ContainerStatus) -> Option<&str> {
    status.last_state.as_ref()?.terminated.as_ref()?.container_id.as_deref().filter(|id| !id.is_empty())
}

fn current_id(status: &ContainerStatus) -> Option<&str> {
    let state = status.state.as_ref()?;
    if state.running.is_some() {
        return status.container_id.as_deref();
    }
    let ended = state.terminated.as_ref().and_then(|ended| ended.container_id.as_deref());
    ended.filter(|id| !id.is_empty()).or_else(|| previous_id(status))
}

/// A log being read into a channel.
pub struct Reading {
    pub agent: Arc<Agent>,
    pub container_id: String,
    pub path: PathBuf,
    pub options: Options,
    pub to: mpsc::Sender<io::Result<Bytes>>,
}

impl Reading {
    /// Reads until the end, the limit, or the caller's leaving.
    pub async fn run(self) {
        if let Err(error) = self.read().await {
            // The caller may be gone as well.
            drop(self.to.send(Err(error)).await);
        }
    }

    async fn read(&self) -> io::Result<()> {
        // Watched before anything is read, so that nothing written meanwhile is missed.
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let mut changes = if self.options.follow { Some(watch(folder)?) } else { None };
        let mut ends = self.agent.runtime_events.subscribe();
        let mut file = File::open(&self.path).await?;
        if let Some(lines) = self.options.tail_lines {
            let start = tail_start(&mut file, lines).await?;
            file.seek(io::SeekFrom::Start(start)).await?;
        }
        let mut left = self.options.limit_bytes;
        let mut reader = BufReader::new(file);
        let mut begun = String::new();
        loop {
            ends.borrow_and_update();
            let over = changes.is_none() || self.has_ended().await;
            if !self.send_lines(&mut reader, &mut begun, &mut left).await? {
                return Ok(());
            }
            if let Some(next) = self.rotated(&reader).await? {
                // Lines that came between our last read and the rotation are still in the old file.
                if !self.send_lines(&mut reader, &mut begun, &mut left).await? {
                    return Ok(());
                }
                reader = next;
                continue;
            }
            let Some(changes) = changes.as_mut().filter(|_| !over) else { return Ok(()) };
            tokio::select! {
                changed = changes.next() => {
                    if let Some(Err(error)) = changed {
                        return Err(error);
                    }
                }
                _ = ends.changed() => {}
                () = self.to.closed() => return Ok(()),
            }
        }
    }

    async fn has_ended(&self) -> bool {
        let request = ContainerStatusRequest { container_id: self.container_id.clone(), verbose: false };
        match self.agent.cri.container_status(request).await {
            Ok(answer) => answer.status.is_none_or(|status| {
                status.state != ContainerState::ContainerRunning as i32
                    && status.state != ContainerState::ContainerCreated as i32
            }),
            Err(error) => error.is_not_found(),
        }
    }

    /// Sends the lines there are. False when enough has been sent, or nobody listens.
    async fn send_lines(
        &self,
        reader: &mut BufReader<File>,
        begun: &mut String,
        left: &mut Option<u64>,
    ) -> io::Result<bool> {
        loop {
            let mut bytes = begun.as_bytes().to_vec();
            begun.clear();
            (&mut *reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes).await?;
            let line = String::from_utf8_lossy(&bytes).into_owned();
            if !line.ends_with('\n') && (line.len() as u64) < LINE_BYTES_MAX {
                // The rest of it has not been written yet.
                *begun = line;
                return Ok(true);
            }
            let Some(mut text) = self.shown(&line) else { continue };
            if let Some(left) = left {
                text.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= text.len() as u64;
            }
            let enough = *left == Some(0);
            if (!text.is_empty() && self.to.send(Ok(Bytes::from(text))).await.is_err()) || enough {
                return Ok(false);
            }
        }
    }

    /// A line as the caller sees it; none when it is not for them.
    fn shown(&self, line: &str) -> Option<Vec<u8>> {
        let parsed = log_format::parse(line)?;
        let options = &self.options;
        if options.stream.as_deref().is_some_and(|wanted| wanted != parsed.stream) {
            return None;
        }
        if let Some(since) = options.since
            && meta::time::parse(parsed.time).is_some_and(|time| time < since)
        {
            return None;
        }
        let prefix = if options.timestamps { format!("{} ", parsed.time) } else { String::new() };
        Some(format!("{prefix}{}", parsed.text_with_end()).into_bytes())
    }

    /// The file that came after the one being read, from its beginning, when that one was put aside. A loud container may have
    /// filled several since: they are read in turn, as far as they are still there.
    async fn rotated(&self, reader: &BufReader<File>) -> io::Result<Option<BufReader<File>>> {
        if !self.options.follow {
            return Ok(None);
        }
        let own = reader.get_ref().metadata().await?.ino();
        let files = instances(&self.path)?;
        let next = match files.iter().position(|(_, inode)| *inode == own) {
            Some(at) => files.get(at + 1),
            None => files.first(),
        };
        let Some((path, _)) = next else { return Ok(None) };
        match File::open(path).await {
            Ok(file) => Ok(Some(BufReader::new(file))),
            // Removed a moment ago: the folder has changed again, and we are woken for it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A log's files with their inodes, oldest first: what was put aside as `<name>.<time>`, uncompressed, and the present one.
fn instances(path: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let aside = [path.as_os_str().as_encoded_bytes(), b"."].concat();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path.parent().unwrap_or(Path::new("/")))? {
        let entry = entry?;
        let file = entry.path();
        let is_aside = file.as_os_str().as_encoded_bytes().starts_with(&aside);
        if file == path || (is_aside && file.extension().is_none_or(|extension| extension != "gz")) {
            found.push((file, entry.ino()));
        }
    }
    // Times in names sort as text; the present file comes last.
    found.sort_by(|(one, _), (other, _)| (one == path).cmp(&(other == path)).then_with(|| one.cmp(other)));
    Ok(found)
}

type Changes = inotify::EventStream<[u8; 1024]>;

fn watch(folder: &Path) -> io::Result<Changes> {
    let inotify = Inotify::init()?;
    inotify.watches().add(folder, WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO)?;
    inotify.into_event_stream([0; 1024])
}

/// Where the last `lines` lines begin.
async fn tail_start(file: &mut File, lines: u64) -> io::Result<u64> {
    let length = file.metadata().await?.len();
    let (mut at, mut found) = (length, 0);
    let mut block = vec![0; TAIL_BLOCK_BYTES as usize];
    while at > 0 {
        let from = at.saturating_sub(TAIL_BLOCK_BYTES);
        let size = (at - from) as usize;
        file.seek(io::SeekFrom::Start(from)).await?;
        file.read_exact(&mut block[..size]).await?;
        for index in (0..size).rev() {
            // The newline that ends the file begins no line.
            if block[index] == b'\n' && from + index as u64 + 1 < length {
                found += 1;
                if found == lines {
                    return Ok(from + index as u64 + 1);
                }
            }
        }
        at = from;
    }
    Ok(if lines == 0 { length } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::FakeNode;
    use serde_json::json;
    use std::io::Write;

    #[tokio::test]
    async fn the_last_lines_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        for (text, lines, expected) in
            [("a\nb\nc\n", 2, "b\nc\n"), ("a\nb", 1, "b"), ("a\n", 5, "a\n"), ("a\n", 0, ""), ("", 3, "")]
        {
            std::fs::write(&path, text).unwrap();
            let mut file = File::open(&path).await.unwrap();
            let start = tail_start(&mut file, lines).await.unwrap();
            assert_eq!(&text[start as usize..], expected, "{text:?} {lines}");
        }
    }

    #[test]
    fn the_instance_is_chosen_by_the_status() {
        let pod = |state: serde_json::Value, last: serde_json::Value| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "p"}, "status": {"containerStatuses": [
                {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "containerID": "x://now", "state": state, "lastState": last}]}}))
            .unwrap()
        };
        let ended = || json!({"terminated": {"exitCode": 1, "containerID": "x://old"}});
        for (state, last, previous, expected) in [
            (json!({"running": {}}), json!({}), false, Ok("now")),
            (json!({"running": {}}), ended(), true, Ok("old")),
            (json!({"waiting": {"reason": "CrashLoopBackOff"}}), ended(), false, Ok("old")),
            (json!({"waiting": {"reason": "CrashLoopBackOff"}}), ended(), true, Ok("old")),
            (
                json!({"waiting": {"reason": "ContainerCreating"}}),
                json!({}),
                false,
                Err("container \"c\" in pod \"p\" is waiting to start: ContainerCreating"),
            ),
            (
                json!({"waiting": {"reason": "ImagePullBackOff"}}),
                json!({}),
                false,
                Err("container \"c\" in pod \"p\" is waiting to start: trying and failing to pull image"),
            ),
            (
                json!({"running": {}}),
                json!({}),
                true,
                Err("previous terminated container \"c\" in pod \"p\" not found"),
            ),
        ] {
            let chosen = choose_instance(&pod(state.clone(), last), "c", previous);
            assert_eq!(chosen.as_deref().map_err(String::as_str), expected, "{state} {previous}");
        }
    }

    fn line(text: &str) -> String {
        format!("2026-01-01T00:00:00.5Z stdout F {text}\n")
    }

    async fn read_all(options: Options, text: &str) -> String {
        let node = FakeNode::start().await;
        let path = node.directory.path().join("0.log");
        std::fs::write(&path, text).unwrap();
        let (to, mut lines) = mpsc::channel(64);
        Reading { agent: node.agent.clone(), container_id: "c".into(), path, options, to }.run().await;
        let mut got = String::new();
        while let Some(bytes) = lines.recv().await {
            got.push_str(std::str::from_utf8(&bytes.unwrap()).unwrap());
        }
        node.tasks.shutdown().await;
        got
    }

    #[tokio::test]
    async fn options_cut_and_decorate() {
        let text = format!("{}2026-01-01T00:00:01Z stderr P half\n2026-01-01T00:00:02Z stderr F -line\n", line("one"));
        let options = Options::default;
        assert_eq!(read_all(options(), &text).await, "one\nhalf-line\n");
        assert_eq!(read_all(Options { limit_bytes: Some(6), ..options() }, &text).await, "one\nha");
        assert_eq!(read_all(Options { tail_lines: Some(1), ..options() }, &text).await, "-line\n");
        let since = Some("2026-01-01T00:00:01Z".parse().unwrap());
        assert_eq!(read_all(Options { since, ..options() }, &text).await, "half-line\n");
        let stdout = Some("stdout".to_string());
        let timestamps = Options { stream: stdout, timestamps: true, ..options() };
        assert_eq!(read_all(timestamps, &text).await, "2026-01-01T00:00:00.5Z one\n");
    }

    #[tokio::test]
    async fn a_follower_goes_on_over_rotation_until_the_container_ends() {
        let node = FakeNode::start().await;
        node.create_pod("p", json!({"containers": [{"name": "a", "image": "forever:1"}]}));
        let pod = node.pod_when("p", crate::fakes::is_running).await;
        let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap();
        let container_id = id.trim_start_matches("fake://").to_string();
        let path = node.directory.path().join("0.log");
        std::fs::write(&path, line("one")).unwrap();
        let (to, mut lines) = mpsc::channel(64);
        let options = Options { follow: true, ..Options::default() };
        let reading = Reading { agent: node.agent.clone(), container_id, path: path.clone(), options, to };
        let reading = tokio::spawn(reading.run());
        assert_eq!(lines.recv().await.unwrap().unwrap(), "one\n");
        let append = |text: &str| std::fs::File::options().append(true).open(&path).unwrap().write_all(text.as_bytes());
        append(&line("two")).unwrap();
        assert_eq!(lines.recv().await.unwrap().unwrap(), "two\n");
        // Put aside twice before the follower looks again.
        let aside = |second: u32| path.with_file_name(format!("0.log.20260101-00000{second}.000000000"));
        std::fs::write(aside(2), line("three")).unwrap();
        std::fs::rename(&path, aside(1)).unwrap();
        std::fs::write(&path, line("four")).unwrap();
        assert_eq!(lines.recv().await.unwrap().unwrap(), "three\n");
        assert_eq!(lines.recv().await.unwrap().unwrap(), "four\n");
        node.api.delete_pod("p", 1);
        node.gone("p").await;
        assert!(lines.recv().await.is_none());
        reading.await.unwrap();
        node.tasks.shutdown().await;
    }
}
