//! A request's query: each name once, and none that is not known.
//!
//! A name that stands twice is read one way here and another way elsewhere; one that nobody knows
//! may be a misspelt choice of identity. Neither is guessed at.

use std::collections::BTreeMap;

/// Longest piece of a name that is told back, in characters.
const MAX_TOLD: usize = 128;

/// The parameters of one request.
#[derive(Debug)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads a query of these names; or what is wrong with it, for the caller.
    pub(super) fn read(query: Option<&str>, known: &[&str]) -> Result<Self, String> {
        Self::read_by(query, known, str::to_owned)
    }

    /// The same for names that are compared without case; `known` is in lower case.
    pub(super) fn read_any_case(query: Option<&str>, known: &[&str]) -> Result<Self, String> {
        Self::read_by(query, known, |name| name.to_ascii_lowercase())
    }

    fn read_by(
        query: Option<&str>,
        known: &[&str],
        spelt: impl Fn(&str) -> String,
    ) -> Result<Self, String> {
        let mut parameters = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let name = spelt(&name);
            if !known.contains(&name.as_str()) {
                return Err(format!("unknown parameter: {}", told(&name)));
            }
            let twice = format!("parameter more than once: {name}");
            if parameters.insert(name, value.into_owned()).is_some() {
                return Err(twice);
            }
        }
        Ok(Self(parameters))
    }

    /// The value of a name.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// A foreign name, made harmless.
fn told(name: &str) -> String {
    crate::failure::sanitised(name).chars().take(MAX_TOLD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b03_a_name_that_stands_twice_or_is_not_known_is_refused() {
        let read = |text: &str| Query::read(Some(text), &["a", "b"]);
        let query = read("a=1%2F2+3&b=").unwrap();
        assert_eq!((query.value("a"), query.value("b")), (Some("1/2 3"), Some("")));
        assert_eq!(Query::read(None, &["a"]).unwrap().value("a"), None);
        for (text, expected) in [
            ("a=1&a=1", "parameter more than once: a"),
            ("a=1&%61=2", "parameter more than once: a"),
            ("a=1&A=2", "unknown parameter: A"),
            ("c%0a=1", "unknown parameter: c?"),
        ] {
            assert_eq!(read(text).unwrap_err(), expected);
        }
        assert!(read(&"x".repeat(1_000)).unwrap_err().len() < 200);
    }
}
