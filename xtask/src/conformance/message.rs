//! One line of why a spec failed, out of what the suite's matchers print over many.

use super::protocol::Report;

const LETTERS_MAX: usize = 300;

/// The first assertion that failed, where it is, and for a spec that was stopped what it was waiting for.
pub fn of(report: &Report) -> String {
    let Some(failure) = &report.failure else { return String::new() };
    let said = if failure.forwarded_panic.is_empty() {
        failure.message.clone()
    } else {
        format!("{}: {}", failure.message, failure.forwarded_panic)
    };
    let mut line = one_line(&said);
    let step = one_line(&failure.progress_report.current_step_text);
    if !step.is_empty() {
        line = format!("{line} (at the step: {step})");
    }
    let file = failure.location.file_name.rsplit("/test/").next().unwrap_or_default();
    if !file.is_empty() {
        line = format!("{line} [{file}:{}]", failure.location.line_number);
    }
    line
}

/// What a person would read out of a message of several lines: the words, without dumps of Go values.
pub fn one_line(message: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    let mut depth = 0usize;
    for line in message.lines().map(str::trim) {
        // a value printed field by field; the text before it says the same
        let opens = line.ends_with('{') || line.ends_with("[");
        let closes = line.starts_with('}') || line.starts_with(']');
        if closes {
            depth = depth.saturating_sub(1);
        }
        if depth == 0 && !opens && !closes && !line.is_empty() {
            words.push(without_type(line));
        }
        if opens {
            depth += 1;
        }
    }
    let line = words.iter().filter(|word| !word.is_empty()).copied().collect::<Vec<_>>().join(" ");
    let line = if line.is_empty() { message.split_whitespace().collect::<Vec<_>>().join(" ") } else { line };
    shortened(&line)
}

/// `<*errors.StatusError | 0xc000>: not found` says `not found`.
fn without_type(line: &str) -> &str {
    match line.strip_prefix('<').and_then(|rest| rest.split_once(">:")) {
        Some((_, value)) => value.trim(),
        None => line,
    }
}

fn shortened(line: &str) -> String {
    if line.chars().count() <= LETTERS_MAX {
        return line.to_owned();
    }
    let kept: String = line.chars().take(LETTERS_MAX).collect();
    format!("{kept}...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_and_errors_are_told_in_one_line() {
        let cases = [
            ("Expected\n    <int>: 3\nto equal\n    <int>: 2", "Expected 3 to equal 2"),
            ("timed out waiting for the condition", "timed out waiting for the condition"),
            (
                "Unexpected error:\n    <*fmt.wrapError | 0xc0012>: \n    pod \"x\" is gone\n    {\n        msg: \"y\",\n        err: <*z>{\n            a: 1,\n        },\n    }\noccurred",
                "Unexpected error: pod \"x\" is gone occurred",
            ),
            ("Expected\n    <v1.Pod>: {\n        a: 1,\n    }\nto be nil", "Expected to be nil"),
            ("{\n  a\n}", "{ a }"),
        ];
        for (message, line) in cases {
            assert_eq!(one_line(message), line);
        }
    }

    #[test]
    fn long_messages_are_cut_between_letters() {
        let line = one_line(&"ä".repeat(1000));
        assert_eq!(line, format!("{}...", "ä".repeat(LETTERS_MAX)));
    }

    #[test]
    fn a_failure_names_its_place_and_its_step() {
        let report = serde_json::json!({
            "LeafNodeType": "It", "LeafNodeText": "x", "State": "interrupted", "RunTime": 5,
            "Failure": {
                "Message": "Interrupted by User",
                "Location": {"FileName": "k8s.io/kubernetes@v1.37.1/test/e2e/apps/job.go", "LineNumber": 71},
                "ProgressReport": {"CurrentStepText": "Ensuring a job\nis there"}
            }
        });
        let report: Report = serde_json::from_value(report).unwrap();
        assert_eq!(of(&report), "Interrupted by User (at the step: Ensuring a job is there) [e2e/apps/job.go:71]");
    }
}
