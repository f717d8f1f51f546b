//! How many tests passed and failed, read from what the test programs print.

/// Counts of one part, or of all.
#[derive(Default)]
pub(crate) struct Summary {
    /// Tests that passed.
    pub(crate) passed: usize,
    /// Tests that failed, and test programs that broke off or did not build.
    pub(crate) failed: usize,
    /// What failed, by name.
    pub(crate) failures: Vec<String>,
}

impl Summary {
    /// Takes what a line of `cargo test` says.
    pub(crate) fn read(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed = self.passed.saturating_add(count(counts, "passed"));
            self.failed = self.failed.saturating_add(count(counts, "failed"));
        } else if let Some(name) =
            line.strip_prefix("test ").and_then(|rest| failed_name(rest.trim_end()))
        {
            self.failures.push(name.to_owned());
        } else if line.contains("process didn't exit successfully") && line.contains("(signal:") {
            self.failed_without_count(line.trim());
        }
    }

    /// Takes how `cargo test` ended: a failure that no line counted is one all the same.
    pub(crate) fn ended(&mut self, success: bool, part: &str) {
        if !success && self.failed == 0 {
            self.failed_without_count(&format!("{part}: did not build or broke off"));
        }
    }

    /// Adds the counts of a part.
    pub(crate) fn add(&mut self, part: Self) {
        self.passed = self.passed.saturating_add(part.passed);
        self.failed = self.failed.saturating_add(part.failed);
        self.failures.extend(part.failures);
    }

    /// Adds a failure that is not a test's.
    pub(crate) fn failed_without_count(&mut self, what: &str) {
        self.failed = self.failed.saturating_add(1);
        self.failures.push(what.to_owned());
    }
}

/// `name ... FAILED` (libtest) or `name ... FAIL` (wasm-bindgen-test).
fn failed_name(rest: &str) -> Option<&str> {
    let (name, outcome) = rest.split_once(" ... ")?;
    outcome.starts_with("FAIL").then_some(name)
}

/// The number before a word: `ok. 3 passed; 1 failed; …`.
fn count(counts: &str, what: &str) -> usize {
    let words: Vec<&str> = counts.split([' ', ';']).filter(|word| !word.is_empty()).collect();
    let pair = words.windows(2).find(|pair| pair.last() == Some(&what));
    pair.and_then(|pair| pair.first()).and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &[&str], success: bool, passed: usize, failures: &[&str]) {
        let mut summary = Summary::default();
        lines.iter().for_each(|line| summary.read(line));
        summary.ended(success, "host");
        assert_eq!((summary.passed, summary.failed), (passed, failures.len()), "{lines:?}");
        assert_eq!(summary.failures, failures);
    }

    #[test]
    fn results_of_all_programs_are_added() {
        check(
            &[
                "test a ... ok",
                "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
                "test b ... FAILED",
                "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out",
            ],
            false,
            3,
            &["b"],
        );
    }

    #[test]
    fn a_program_that_breaks_off_is_a_failure() {
        let line = "process didn't exit successfully: `x` (signal: 6, SIGABRT: abort)";
        check(&["test a ... ok", line], false, 0, &[line]);
        check(&[], false, 0, &["host: did not build or broke off"]);
        check(&[], true, 0, &[]);
    }
}
