//! The CRI log format: `<time> <stream> <P|F> <text>`, one line per line of output.
//!
//! A line longer than [`LINE_BYTES_MAX`] is cut into parts marked `P`, the last of them `F`. Output without a final newline is
//! written when its stream ends. Writing blocks: the log is a local file. What cannot be written (a full disk) is lost, as
//! stopping the container's output would stop the container.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use jiff::Timestamp;

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
    unfinished: [Vec<u8>; 2],
}

impl Log {
    /// Opens or makes the log at `path`, with the folders above it.
    pub fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        Ok(Log { path: path.to_owned(), file: open(path)?, unfinished: [Vec::new(), Vec::new()] })
    }

    /// Goes on in a new file at the same path, after the old one was renamed.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.file = open(&self.path)?;
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
        self.file.write_all(&lines)
    }

    /// The stream has ended: writes what was not finished.
    pub fn end(&mut self, stream: Stream, now: Timestamp) -> io::Result<()> {
        let text = std::mem::take(&mut self.unfinished[stream as usize]);
        if text.is_empty() {
            return Ok(());
        }
        let mut lines = Vec::new();
        line(&mut lines, now, stream, 'F', &text);
        self.file.write_all(&lines)
    }
}

fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
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
        let mut log = Log::open(&path).unwrap();
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
            "2026-11-21T10:00:00.500000000Z stdout F three",
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
        let mut log = Log::open(&path).unwrap();
        let now = Timestamp::UNIX_EPOCH;
        log.write(Stream::Stdout, b"old\nha", now).unwrap();
        std::fs::rename(&path, folder.path().join("0.log.1")).unwrap();
        log.reopen().unwrap();
        log.write(Stream::Stdout, b"lf\n", now).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().ends_with(" F half\n"));
    }
}
