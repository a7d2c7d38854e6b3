//! Counting answers: a verdict turns after enough equal answers in a row.

/// The count of one probe.
#[derive(Clone, Debug)]
pub struct Thresholds {
    success: u32,
    failure: u32,
    last: Option<bool>,
    run: u32,
}

impl Thresholds {
    pub fn new(success: u32, failure: u32) -> Self {
        Thresholds { success, failure, last: None, run: 0 }
    }

    /// Counts one answer; says the verdict when the row is long enough.
    pub fn count(&mut self, passed: bool) -> Option<bool> {
        self.run = if self.last == Some(passed) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(passed);
        let enough = if passed { self.success } else { self.failure };
        (self.run >= enough).then_some(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_and_broken() {
        let mut thresholds = Thresholds::new(2, 3);
        let answers = [true, true, false, false, true, false, false, false, false, true, true];
        let verdicts: Vec<_> = answers.into_iter().map(|answer| thresholds.count(answer)).collect();
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(verdicts, [None, yes, None, None, None, None, None, no, no, None, yes]);
    }
}
