//! The lines of a container log as CRI writes them: `<RFC 3339 nano> <stream> <tags> <text>`.

/// One line, borrowed from what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// As written, nanoseconds and all.
    pub time: &'a str,
    /// `stdout` or `stderr`
    pub stream: &'a str,
    /// The text goes on in the next line.
    pub partial: bool,
    pub text: &'a str,
}

impl Line<'_> {
    /// The text as the container wrote it, with its newline unless it goes on.
    pub fn text_with_end(&self) -> String {
        if self.partial { self.text.to_string() } else { format!("{}\n", self.text) }
    }
}

/// Reads one line, with or without its newline; none when it is not one.
pub fn parse(line: &str) -> Option<Line<'_>> {
    let line = line.strip_suffix('\n').unwrap_or(line);
    let (time, rest) = line.split_once(' ')?;
    let (stream, rest) = rest.split_once(' ')?;
    let (tags, text) = rest.split_once(' ').unwrap_or((rest, ""));
    if !matches!(stream, "stdout" | "stderr") {
        return None;
    }
    Some(Line { time, stream, partial: tags.split(':').next() == Some("P"), text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_others_are_not() {
        let line = parse("2026-01-01T00:00:00.1Z stderr P a b\n").unwrap();
        assert_eq!((line.stream, line.partial, line.text), ("stderr", true, "a b"));
        assert_eq!(parse("2026-01-01T00:00:00Z stdout F \n").unwrap().text_with_end(), "\n");
        assert_eq!(parse("2026-01-01T00:00:00Z stdout F").unwrap().text, "");
        assert!(parse("no log line").is_none());
    }
}
