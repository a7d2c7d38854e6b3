//! Running other programs: quiet while all is well, and telling everything they said when it is not.
//!
//! It never retries and knows no program by name.

use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// How many lines of a failed program's output are shown.
const SHOWN_LINES_MAX: usize = 60;

/// Runs `command` to its end, without input. Its output is returned, or shown in the error when it fails.
pub fn output(command: &mut Command) -> Result<String> {
    let done = capture(command)?;
    if !done.status.success() {
        bail!("{} ended with {}\n{}", shown(command), done.status, tail(&done));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Runs `command` to its end for its effect only.
pub fn quiet(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs `command` to its end and hands back whatever came of it, failure included.
pub fn capture(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().with_context(|| format!("starting {}", shown(command)))
}

/// The command line as a person would type it.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn tail(done: &Output) -> String {
    let mut text = String::from_utf8_lossy(&done.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&done.stderr));
    last_lines(&text, SHOWN_LINES_MAX)
}

/// The last `count` lines of `text`.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_program_is_told_with_its_words_and_status() {
        let error = quiet(Command::new("sh").args(["-c", "echo to be read >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("to be read"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = format!("{:#}", quiet(&mut Command::new("coracle-no-such-program")).unwrap_err());
        assert!(error.contains("starting coracle-no-such-program"), "{error}");
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        assert_eq!(last_lines("a\nb\nc", 2), "b\nc");
        assert_eq!(last_lines("a", 2), "a");
    }
}
