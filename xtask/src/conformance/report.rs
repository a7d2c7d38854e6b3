//! What a run came to, for a person: a table per group, a line per failed spec, what changed, what flaked.

use std::collections::BTreeMap;

use super::results::{Latest, Outcome, State, worst_of_rounds};
use super::specs::group_of;

/// What passed, failed and was skipped, and what it took.
#[derive(Debug, Default, Clone, PartialEq, serde::Serialize)]
pub struct Sums {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
    /// Time in which at least one of them ran.
    pub wall_s: f64,
    pub spec_s: f64,
}

impl Sums {
    pub fn of<'a>(run: impl Iterator<Item = &'a Outcome>) -> Self {
        let mut sums = Self::default();
        let mut spans = Vec::new();
        for outcome in run {
            match outcome.state {
                State::Passed => sums.passed += 1,
                State::Failed => sums.failed += 1,
                State::Skipped => sums.skipped += 1,
            }
            sums.spec_s += outcome.seconds;
            // a run in one go does not say when
            if outcome.ended_s > 0.0 {
                spans.push((outcome.ended_s - outcome.seconds, outcome.ended_s));
            }
        }
        sums.wall_s = covered(spans);
        sums
    }
}

/// How much time the spans cover together.
fn covered(mut spans: Vec<(f64, f64)>) -> f64 {
    spans.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut sum, mut until) = (0.0, f64::NEG_INFINITY);
    for (from, to) in spans {
        sum += (to - until.max(from)).max(0.0);
        until = until.max(to);
    }
    sum
}

/// One line per group and one for all.
pub fn table(run: &[Outcome]) -> String {
    let mut groups: BTreeMap<&str, Vec<&Outcome>> = BTreeMap::new();
    for outcome in run {
        groups.entry(group_of(&outcome.name)).or_default().push(outcome);
    }
    let mut text =
        format!("{:<18} {:>7} {:>7} {:>8} {:>9} {:>10}\n", "group", "passed", "failed", "skipped", "wall", "spec time");
    let mut line = |group: &str, sums: &Sums| {
        let Sums { passed, failed, skipped, wall_s, spec_s } = sums;
        let wall = if *wall_s > 0.0 { format!("{wall_s:.0} s") } else { "-".into() };
        text.push_str(&format!("{group:<18} {passed:>7} {failed:>7} {skipped:>8} {wall:>9} {spec_s:>8.0} s\n"));
    };
    for (group, outcomes) in groups {
        line(group, &Sums::of(outcomes.into_iter()));
    }
    line("all", &Sums::of(run.iter()));
    text
}

/// One line per failed spec.
pub fn failures(run: &[Outcome]) -> String {
    let failed = run.iter().filter(|outcome| outcome.state == State::Failed);
    let mut lines: Vec<String> =
        failed.map(|outcome| format!("FAILED {}: {}\n", outcome.name, outcome.message)).collect();
    lines.sort();
    lines.dedup();
    lines.concat()
}

/// Specs that ended otherwise than the last time.
pub fn changes(run: &[Outcome], before: &Latest) -> Vec<String> {
    let word = |state: State| format!("{state:?}").to_lowercase();
    let changed = worst_of_rounds(run).into_values().filter_map(|outcome| {
        let was = before.get(&outcome.name)?.state;
        (was != outcome.state)
            .then(|| format!("{} now, {} last time: {}", word(outcome.state), word(was), outcome.name))
    });
    changed.collect()
}

/// Specs that did not end alike in all rounds.
pub fn flakes(run: &[Outcome]) -> Vec<String> {
    let mut rounds: BTreeMap<&str, Vec<&Outcome>> = BTreeMap::new();
    for outcome in run {
        rounds.entry(&outcome.name).or_default().push(outcome);
    }
    let mut told = Vec::new();
    for (name, outcomes) in rounds {
        let passed = outcomes.iter().filter(|outcome| outcome.state == State::Passed).count();
        if passed > 0 && outcomes.iter().any(|outcome| outcome.state == State::Failed) {
            told.push(format!("passed {passed} of {} times: {name}", outcomes.len()));
        }
    }
    told
}

/// Of the specs that pass here and there: how many, what they take here, and there.
pub fn compared(run: &[Outcome], elsewhere: impl Fn(&str) -> Option<f64>) -> (usize, f64, f64) {
    let passed = worst_of_rounds(run).into_values().filter(|outcome| outcome.state == State::Passed);
    let both = passed.filter_map(|outcome| Some((outcome.seconds, elsewhere(&outcome.name)?)));
    both.fold((0, 0.0, 0.0), |(count, here, there), (a, b)| (count + 1, here + a, there + b))
}

/// The report that build servers read.
pub fn junit(run: &[Outcome]) -> String {
    let sums = Sums::of(run.iter());
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"conformance\" tests=\"{}\" failures=\"{}\" skipped=\"{}\" time=\"{:.3}\">\n",
        run.len(),
        sums.failed,
        sums.skipped,
        sums.spec_s
    );
    for outcome in run {
        let (name, group) = (escaped(&outcome.name), escaped(group_of(&outcome.name)));
        text.push_str(&format!("<testcase classname=\"{group}\" name=\"{name}\" time=\"{:.3}\"", outcome.seconds));
        let message = escaped(&outcome.message);
        text.push_str(&match outcome.state {
            State::Passed => "/>\n".into(),
            State::Failed => format!("><failure message=\"{message}\"/></testcase>\n"),
            State::Skipped => format!("><skipped message=\"{message}\"/></testcase>\n"),
        });
    }
    text + "</testsuite>\n"
}

/// For an attribute: signs with a meaning are written out, and those that XML cannot carry are left out.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\n' | '\t' | '\r' => safe.push(' '),
            letter if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => {}
            letter => safe.push(letter),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(name: &str, state: State, seconds: f64, ended_s: f64) -> Outcome {
        Outcome { name: name.into(), state, seconds, ended_s, round: 1, message: String::new(), output: String::new() }
    }

    fn three() -> Vec<Outcome> {
        vec![
            outcome("[sig-a] one", State::Passed, 10.0, 110.0),
            outcome("[sig-a] two", State::Failed, 20.0, 115.0),
            outcome("[sig-b] three", State::Skipped, 1.0, 200.0),
        ]
    }

    #[test]
    fn the_table_counts_groups_and_time_that_was_shared_counts_once() {
        let expected = "\
group               passed  failed  skipped      wall  spec time
a                        1       1        0      20 s       30 s
b                        0       0        1       1 s        1 s
all                      1       1        1      21 s       31 s
";
        assert_eq!(table(&three()), expected);
    }

    #[test]
    fn what_changed_is_named_and_what_was_not_known_is_not() {
        let mut before = Latest::new();
        super::super::results::merge(
            &mut before,
            &[outcome("[sig-a] one", State::Failed, 1.0, 0.0), outcome("[sig-a] two", State::Failed, 1.0, 0.0)],
        );
        assert_eq!(changes(&three(), &before), ["passed now, failed last time: [sig-a] one"]);
    }

    #[test]
    fn a_flake_passed_and_failed() {
        let run = [
            three(),
            vec![outcome("[sig-a] two", State::Passed, 1.0, 0.0), outcome("[sig-a] one", State::Passed, 1.0, 0.0)],
        ]
        .concat();
        assert_eq!(flakes(&run), ["passed 1 of 2 times: [sig-a] two"]);
    }

    #[test]
    fn only_specs_that_pass_on_both_sides_are_compared() {
        let there = |name: &str| (name != "[sig-b] three").then_some(4.0);
        assert_eq!(compared(&three(), there), (1, 10.0, 4.0));
    }

    #[test]
    fn names_and_messages_survive_in_junit() {
        let mut run = three();
        run[1].name = "[sig-a] a <b> \"c\" & d".into();
        run[1].message = "x\u{1b}[1m\ny".into();
        let text = junit(&run);
        assert!(text.contains("name=\"[sig-a] a &lt;b&gt; &quot;c&quot; &amp; d\""), "{text}");
        assert!(text.contains("<failure message=\"x[1m y\"/>"), "{text}");
        assert!(text.contains("tests=\"3\" failures=\"1\" skipped=\"1\""), "{text}");
    }

    #[test]
    fn failed_specs_are_told_with_their_message() {
        let mut run = three();
        run[1].message = "because".into();
        assert_eq!(failures(&run), "FAILED [sig-a] two: because\n");
    }
}
