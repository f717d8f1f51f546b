//! Reads a configuration document and reports every error at once, each with its path.
//!
//! serde stops at its first error. So the offending value is taken out of the document, the error
//! is noted, and the rest is read again until nothing offends. For this every member of a raw
//! type is optional; what is required is asked for by the validation that follows.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

/// Enough to mend a file from; a document with more errors than this is not a configuration.
const MAX_ERRORS: usize = 100;

/// One thing wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where, as in `rules[2].match.path`; empty for the document itself.
    pub path: String,
    /// What was found and what was expected.
    pub message: String,
}

impl ConfigError {
    /// An error at a path.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() {
            formatter.write_str(&self.message)
        } else {
            write!(formatter, "{}: {}", self.path, self.message)
        }
    }
}

/// Reads what can be read of `document`, and lists everything that cannot.
///
/// The value is there to look for more errors in; only with an empty list is it the document.
pub fn read<T: DeserializeOwned>(mut document: Value) -> (Option<T>, Vec<ConfigError>) {
    let mut errors = Vec::new();
    refuse_nulls(&mut document, "", &mut errors);
    while errors.len() < MAX_ERRORS {
        match serde_path_to_error::deserialize::<_, T>(&document) {
            Ok(value) => return (Some(value), errors),
            Err(error) => {
                let (path, message) = (error.path().clone(), error.into_inner().to_string());
                errors.push(ConfigError::new(shown(&path), without_value(&message)));
                if !take_out(&mut document, &path) {
                    break;
                }
            }
        }
    }
    (None, errors)
}

/// Takes out members that are null, each with an error.
///
/// A template that leaves a value unset must not leave out a restriction with it.
fn refuse_nulls(value: &mut Value, path: &str, errors: &mut Vec<ConfigError>) {
    match value {
        Value::Object(members) => {
            members.retain(|name, value| {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                if value.is_null() {
                    let message = "is null: give it a value or leave it out";
                    errors.push(ConfigError::new(path, message));
                    return false;
                }
                refuse_nulls(value, &path, errors);
                true
            });
        }
        Value::Array(elements) => {
            for (index, element) in elements.iter_mut().enumerate() {
                refuse_nulls(element, &format!("{path}[{index}]"), errors);
            }
        }
        _ => {}
    }
}

/// A message of serde without the value that it quotes: the value may be a secret in the wrong
/// place.
fn without_value(message: &str) -> String {
    for prefix in ["invalid type: ", "invalid value: "] {
        let parts = message.strip_prefix(prefix).and_then(|rest| rest.rsplit_once(", expected "));
        if let Some((found, expected)) = parts {
            let kind = found.split(['"', '`']).next().unwrap_or_default().trim_end();
            return format!("{prefix}{kind}, expected {expected}");
        }
    }
    message.to_owned()
}

fn shown(path: &Path) -> String {
    let text = path.to_string();
    if text == "." { String::new() } else { text }
}

/// Removes the value at `path`; says whether there was one.
///
/// A list element becomes null, so that the paths of those behind it stay true: raw list types
/// hold `Option`s for this.
fn take_out(document: &mut Value, path: &Path) -> bool {
    let segments: Vec<&Segment> = path.iter().collect();
    let Some((last, parents)) = segments.split_last() else { return false };
    let mut value = document;
    for segment in parents {
        let next = match segment {
            Segment::Map { key } => value.get_mut(key.as_str()),
            Segment::Seq { index } => value.get_mut(*index),
            Segment::Enum { .. } | Segment::Unknown => None,
        };
        let Some(next) = next else { return false };
        value = next;
    }
    match (last, value) {
        (Segment::Map { key }, Value::Object(members)) => members.remove(key.as_str()).is_some(),
        (Segment::Seq { index }, Value::Array(elements)) => match elements.get_mut(*index) {
            Some(element) if !element.is_null() => {
                *element = Value::Null;
                true
            }
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Document {
        name: Option<String>,
        parts: Option<Vec<Option<Part>>>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Part {
        size: Option<u32>,
    }

    fn check(document: Value, expected: &[(&str, &str)]) {
        let (_, errors) = read::<Document>(document);
        let found: Vec<(&str, &str)> =
            errors.iter().map(|e| (e.path.as_str(), e.message.as_str())).collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for ((path, message), (expected_path, part)) in found.iter().zip(expected) {
            assert_eq!(path, expected_path);
            assert!(message.contains(part), "{message} should contain {part}");
        }
    }

    #[test]
    fn every_error_is_reported_with_its_path() {
        check(
            json!({"name": 7, "parts": [{"size": 1}, {"size": "x", "colour": 1}, 3], "more": {}}),
            &[
                ("more", "unknown field `more`"),
                ("name", "invalid type: integer, expected a string"),
                ("parts[1].colour", "unknown field `colour`"),
                ("parts[1].size", "invalid type: string, expected u32"),
                ("parts[2]", "invalid type: integer, expected struct Part"),
            ],
        );
    }

    #[test]
    fn a_good_document_has_no_errors() {
        let (value, errors) = read::<Document>(json!({"name": "n", "parts": [{"size": 1}]}));
        assert_eq!(errors, []);
        assert_eq!(value.and_then(|v| v.name).as_deref(), Some("n"));
    }

    #[test]
    fn what_cannot_be_taken_out_is_reported_once() {
        let (value, errors) = read::<Vec<u32>>(json!([1, null]));
        assert_eq!(value, None);
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].path, "[1]");
    }

    #[test]
    fn null_is_no_way_to_leave_something_out() {
        check(
            json!({"name": null, "parts": [{"size": null}]}),
            &[("name", "is null"), ("parts[0].size", "is null")],
        );
    }

    #[test]
    fn b12_no_value_is_quoted() {
        for document in [
            json!({"parts": "hunter2"}),
            json!({"parts": [{"size": "hun, expected \"ter2"}]}),
            json!({"name": ["hunter2"]}),
        ] {
            let (_, errors) = read::<Document>(document);
            assert!(!format!("{errors:?}").contains("ter2"), "{errors:?}");
            assert_eq!(errors.len(), 1);
        }
    }

    #[test]
    fn a_document_of_another_shape_is_one_error() {
        check(json!(3), &[("", "invalid type")]);
        check(json!([1]), &[("[0]", "")]);
    }
}
