//! The results as JUnit XML, which CI systems show.

use std::path::Path;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::Result;
use crate::output::Failure;

/// Writes the results of a table.
pub(super) fn write(
    file: &Path,
    table: &str,
    results: &[Result],
) -> std::result::Result<(), Failure> {
    let mut suite = TestSuite::new(table);
    for result in results {
        let status = if result.differences.is_empty() {
            TestCaseStatus::success()
        } else {
            let lines = result.differences.iter().flat_map(|difference| difference.lines());
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(format!("{table}:{}: {}", result.line, result.request));
            status.set_description(lines.collect::<Vec<_>>().join("\n"));
            status
        };
        let mut case = TestCase::new(result.name.as_str(), status);
        case.set_classname("entra-sidecar");
        suite.add_test_case(case);
    }
    let mut report = Report::new("entra-sidecar");
    report.add_test_suite(suite);
    let text = report.to_string().map_err(|error| Failure::new(format!("JUnit: {error}")))?;
    std::fs::write(file, text).map_err(|error| Failure::new(format!("{}: {error}", file.display())))
}
