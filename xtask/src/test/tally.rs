//! Counting: what passed, failed and was skipped, read from the lines that test runners print.

use std::fmt;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl Tally {
    pub fn skipped_one() -> Self {
        Self { skipped: 1, ..Self::default() }
    }

    /// Adds what a line says, if it is a runner's `test result:` line.
    pub fn read(&mut self, line: &str) {
        let Some(counts) = line.trim().strip_prefix("test result: ") else { return };
        let count = |what: &str| -> usize {
            let words: Vec<&str> = counts
                .split(|letter: char| letter == ';' || letter.is_whitespace())
                .filter(|word| !word.is_empty())
                .collect();
            words.windows(2).find(|pair| pair[1] == what).and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
        };
        self.add(&Self { passed: count("passed"), failed: count("failed"), skipped: count("ignored") });
    }

    /// The step's count, given how it ended: a step without tests is one test, and a step that failed without a failed
    /// test (it did not compile, say) is one failure.
    pub fn concluded(mut self, succeeded: bool) -> Self {
        let none = self == Self::default();
        if succeeded && none {
            self.passed = 1;
        }
        if !succeeded && self.failed == 0 {
            self.failed = 1;
        }
        self
    }

    pub fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_runners_add_up() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 5 filtered out; finished in 0.00s",
            "test result: FAILED. 4 passed; 3 failed; 0 ignored; finished in 1.00s",
            "a line that says 7 passed",
        ] {
            tally.read(line);
        }
        assert_eq!(tally, Tally { passed: 6, failed: 3, skipped: 1 });
    }

    #[test]
    fn a_step_without_tests_counts_as_one() {
        assert_eq!(Tally::default().concluded(true).to_string(), "1 passed, 0 failed, 0 skipped");
        assert_eq!(Tally::default().concluded(false).to_string(), "0 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn a_step_that_fails_beside_its_tests_is_a_failure() {
        let tally = Tally { passed: 5, ..Tally::default() };
        assert_eq!(tally.concluded(false).to_string(), "5 passed, 1 failed, 0 skipped");
        let tally = Tally { passed: 5, failed: 2, skipped: 0 };
        assert_eq!(tally.concluded(false).failed, 2);
    }
}
