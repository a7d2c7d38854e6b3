//! The CRI log format: `<time> <stream> <P|F> <text>`, one line per line of output.
//!
//! A line longer than [`LINE_BYTES_MAX`] is cut into parts marked `P`, the last of them `F`. Output without a final newline is
//! written when its stream ends. Writing blocks: the log is a local file. What cannot be written (a full disk) is lost, as
//! stopping the container's output would stop the container.
//!
//! The shim puts a full file aside by itself (`0.log` becomes `0.log.<time>`, the oldest goes): it alone sees every byte, so
//! the limit holds however fast a container writes, and nobody has to look at files now and then. A node agent may still rename
//! the file and ask for a new one, as CRI has it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use crate::launch::plan::LogLimits;

/// The longest text in one log line, in bytes; containerd's default.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

/// Where output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// A container's log.
pub struct Log {
    path: PathBuf,
    file: File,
    /// In the present file.
    bytes: u64,
    limits: LogLimits,
    unfinished: [Vec<u8>; 2],
}

impl Log {
    /// Opens or makes the log at `path`, with the folders above it.
    pub fn open(path: &Path, limits: LogLimits) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let (file, bytes) = open(path)?;
        Ok(Log { path: path.to_owned(), file, bytes, limits, unfinished: [Vec::new(), Vec::new()] })
    }

    /// Goes on in a new file at the same path, after the old one was renamed.
    pub fn reopen(&mut self) -> io::Result<()> {
        (self.file, self.bytes) = open(&self.path)?;
        Ok(())
    }

    /// Takes output as it comes.
    pub fn write(&mut self, stream: Stream, bytes: &[u8], now: Timestamp) -> io::Result<()> {
        let mut lines = Vec::with_capacity(bytes.len() + 64);
        let unfinished = &mut self.unfinished[stream as usize];
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            unfinished.extend_from_slice(text);
            while unfinished.len() > LINE_BYTES_MAX {
                let rest = unfinished.split_off(LINE_BYTES_MAX);
                line(&mut lines, now, stream, 'P', unfinished);
                *unfinished = rest;
            }
            if ended {
                line(&mut lines, now, stream, 'F', unfinished);
                unfinished.clear();
            }
        }
        self.append(&lines, now)
    }

    /// The stream has ended: writes what was not finished, marked as such, so that a reader adds no end of line to it.
    pub fn end(&mut self, stream: Stream, now: Timestamp) -> io::Result<()> {
        let text = std::mem::take(&mut self.unfinished[stream as usize]);
        if text.is_empty() {
            return Ok(());
        }
        let mut lines = Vec::new();
        line(&mut lines, now, stream, 'P', &text);
        self.append(&lines, now)
    }

    fn append(&mut self, lines: &[u8], now: Timestamp) -> io::Result<()> {
        self.file.write_all(lines)?;
        self.bytes += lines.len() as u64;
        if self.bytes < self.limits.file_bytes_max {
            return Ok(());
        }
        let aside = with_suffix(&self.path, &now.strftime("%Y%m%d-%H%M%S.%9f").to_string());
        match std::fs::rename(&self.path, aside) {
            // Put aside before, when a full disk refused the new file; the old one went on until now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        self.reopen()?;
        self.forget_oldest()
    }

    /// Removes what was put aside too long ago. Names sort by time.
    fn forget_oldest(&self) -> io::Result<()> {
        let mut aside = put_aside(&self.path)?;
        aside.sort();
        let kept = self.limits.files_max.saturating_sub(1);
        aside.iter().take(aside.len().saturating_sub(kept)).try_for_each(std::fs::remove_file)
    }
}

/// The files that were put aside for the log at `path`, in no order.
pub fn put_aside(path: &Path) -> io::Result<Vec<PathBuf>> {
    let prefix = with_suffix(path, "");
    let Some(folder) = path.parent() else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.as_os_str().as_encoded_bytes().starts_with(prefix.as_os_str().as_encoded_bytes()) {
            found.push(path);
        }
    }
    Ok(found)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// The file, made when missing, and its length in bytes.
fn open(path: &Path) -> io::Result<(File, u64)> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = OpenOptions::new().create(true).append(true).mode(0o640).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

fn line(into: &mut Vec<u8>, now: Timestamp, stream: Stream, tag: char, text: &[u8]) {
    into.extend_from_slice(format!("{now:.9} {} {tag} ", stream.name()).as_bytes());
    into.extend_from_slice(text);
    into.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(writes: &[(Stream, &[u8])]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pod/0.log");
        let now: Timestamp = "2026-11-21T10:00:00.5Z".parse().unwrap();
        let mut log = Log::open(&path, LogLimits::default()).unwrap();
        for (stream, bytes) in writes {
            log.write(*stream, bytes, now).unwrap();
        }
        log.end(Stream::Stdout, now).unwrap();
        log.end(Stream::Stderr, now).unwrap();
        std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn writes_lines_as_the_node_agent_reads_them() {
        let lines =
            logged(&[(Stream::Stdout, b"one\ntw"), (Stream::Stderr, b"oops\n"), (Stream::Stdout, b"o\n\nthree")]);
        let expected = [
            "2026-11-21T10:00:00.500000000Z stdout F one",
            "2026-11-21T10:00:00.500000000Z stderr F oops",
            "2026-11-21T10:00:00.500000000Z stdout F two",
            "2026-11-21T10:00:00.500000000Z stdout F ",
            "2026-11-21T10:00:00.500000000Z stdout P three",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn cuts_long_lines_into_parts() {
        let mut text = vec![b'x'; 2 * LINE_BYTES_MAX];
        text.extend(b"yy\n");
        let lines = logged(&[(Stream::Stdout, &text)]);
        let shapes: Vec<_> = lines.iter().map(|line| (line.as_bytes()[38] as char, line.len() - 40)).collect();
        assert_eq!(shapes, [('P', LINE_BYTES_MAX), ('P', LINE_BYTES_MAX), ('F', 2)]);
    }

    #[test]
    fn goes_on_in_a_new_file_after_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut log = Log::open(&path, LogLimits::default()).unwrap();
        let now = Timestamp::UNIX_EPOCH;
        log.write(Stream::Stdout, b"old\nha", now).unwrap();
        std::fs::rename(&path, folder.path().join("0.log.1")).unwrap();
        log.reopen().unwrap();
        log.write(Stream::Stdout, b"lf\n", now).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().ends_with(" F half\n"));
    }
    #[test]
    fn puts_a_full_file_aside_and_keeps_the_newest_few() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let limits = LogLimits { file_bytes_max: 100, files_max: 3 };
        std::fs::write(&path, "x".repeat(99)).unwrap();
        std::fs::write(folder.path().join("10.log.20200101"), "another instance's").unwrap();
        let mut log = Log::open(&path, limits).unwrap();
        for number in 0..10_i64 {
            let now = Timestamp::new(number, 0).unwrap();
            log.write(Stream::Stdout, format!("{number}{}\n", "y".repeat(70)).as_bytes(), now).unwrap();
        }
        let mut names: Vec<String> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            ["0.log", "0.log.19700101-000008.000000000", "0.log.19700101-000009.000000000", "10.log.20200101"]
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
        let last = std::fs::read_to_string(folder.path().join("0.log.19700101-000009.000000000")).unwrap();
        assert!(last.contains(" F 9yyy") && last.lines().count() == 1, "{last}");
    }
}
