//! Which rule a request falls under: the first that fits, found without trying them all.
//!
//! Patterns form a tree by segments, so the time depends on the path, not on the number of rules.

use std::{borrow::Cow, collections::BTreeMap};

use crate::path::Path;

/// A path pattern: exact segments, `{*}` for one segment, `{**}` at the end for any rest.
///
/// The syntax of Istio's AuthorizationPolicy path templates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Exact(String),
    One,
    Rest,
}

impl Pattern {
    /// Reads a pattern, or says what is wrong with it.
    pub fn read(text: &str) -> Result<Self, &'static str> {
        let Some(rest) = text.strip_prefix('/') else { return Err("must begin with /") };
        let mut segments = Vec::new();
        for segment in rest.split('/') {
            if segments.last() == Some(&Segment::Rest) {
                return Err("{**} must be the last segment");
            }
            segments.push(match segment {
                "{*}" => Segment::One,
                "{**}" => Segment::Rest,
                segment if segment.contains(['{', '}', '*']) => {
                    return Err(
                        "{*} and {**} must be whole segments, and * stands for nothing else",
                    );
                }
                segment => Segment::Exact(segment.to_owned()),
            });
        }
        // Written as the request would come: whatever cannot come cannot be a pattern.
        let plain: Vec<&str> = segments
            .iter()
            .map(|segment| match segment {
                Segment::Exact(text) => text.as_str(),
                Segment::One | Segment::Rest => "x",
            })
            .collect();
        let plain = format!("/{}", plain.join("/"));
        let escaped: String = plain
            .chars()
            .map(|c| if c.is_ascii() && c != ' ' { c.to_string() } else { "x".to_owned() })
            .collect();
        if plain.contains(['%', '?', '#']) || Path::read(escaped.as_bytes()).is_none() {
            return Err("must be a plain decoded path: no escapes, query, dot or empty segments");
        }
        Ok(Self { segments })
    }
}

/// Whether upper and lower case in a path are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PathCase {
    /// They differ.
    #[default]
    Sensitive,
    /// ASCII letters are the same in both, as for an application whose router compares so.
    Insensitive,
}

impl PathCase {
    fn fold(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::Sensitive => Cow::Borrowed(text),
            Self::Insensitive => Cow::Owned(text.to_ascii_lowercase()),
        }
    }
}

/// All rules by their patterns.
#[derive(Debug, Default)]
pub struct RouteTable {
    case: PathCase,
    /// Rules without a pattern, in order.
    any: Vec<usize>,
    root: Branch,
}

#[derive(Debug, Default)]
struct Branch {
    exact: BTreeMap<String, Branch>,
    one: Option<Box<Branch>>,
    rest: Vec<usize>,
    here: Vec<usize>,
}

impl RouteTable {
    /// Builds the table of rules 0, 1, 2 … with their patterns.
    pub fn new(case: PathCase, patterns: impl IntoIterator<Item = Option<Pattern>>) -> Self {
        let mut table = Self { case, ..Self::default() };
        for (rule, pattern) in patterns.into_iter().enumerate() {
            match pattern {
                None => table.any.push(rule),
                Some(pattern) => table.root.insert(case, &pattern.segments, rule),
            }
        }
        table
    }

    /// The first rule whose pattern matches and that `fits`; `path` is none where the request has
    /// none (`CONNECT host:port`, `OPTIONS *`), which only rules without a pattern match.
    pub fn find(&self, path: Option<&Path<'_>>, fits: impl Fn(usize) -> bool) -> Option<usize> {
        let mut first = First { rule: None, fits: &fits };
        first.offer(&self.any);
        if let Some(path) = path {
            let path = self.case.fold(path.text());
            self.root.find(path.strip_prefix('/'), &mut first);
        }
        first.rule
    }
}

impl Branch {
    fn insert(&mut self, case: PathCase, segments: &[Segment], rule: usize) {
        match segments.split_first() {
            None => self.here.push(rule),
            Some((Segment::Rest, _)) => self.rest.push(rule),
            Some((Segment::One, after)) => {
                self.one.get_or_insert_default().insert(case, after, rule);
            }
            Some((Segment::Exact(text), after)) => {
                self.exact
                    .entry(case.fold(text).into_owned())
                    .or_default()
                    .insert(case, after, rule);
            }
        }
    }

    /// Looks further by the segments that are left: none, or text in which `/` separates them.
    fn find(&self, segments: Option<&str>, first: &mut First<'_>) {
        let Some(segments) = segments else {
            return first.offer(&self.here);
        };
        let (segment, after) = match segments.split_once('/') {
            Some((segment, after)) => (segment, Some(after)),
            None => (segments, None),
        };
        first.offer(&self.rest);
        if let Some(branch) = self.exact.get(segment) {
            branch.find(after, first);
        }
        // One segment, not none: `/orders/` is another path than any order's.
        if let Some(branch) = self.one.as_ref().filter(|_| !segment.is_empty()) {
            branch.find(after, first);
        }
    }
}

/// The lowest rule met so far.
struct First<'a> {
    rule: Option<usize>,
    fits: &'a dyn Fn(usize) -> bool,
}

impl First<'_> {
    fn offer(&mut self, rules: &[usize]) {
        let better = rules
            .iter()
            .take_while(|rule| self.rule.is_none_or(|best| **rule < best))
            .find(|rule| (self.fits)(**rule));
        self.rule = better.copied().or(self.rule);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(case: PathCase, patterns: &[&str], cases: &[(&str, Option<usize>)]) {
        let table =
            RouteTable::new(case, patterns.iter().map(|text| Some(Pattern::read(text).unwrap())));
        for (target, expected) in cases {
            let path = Path::read(target.as_bytes()).unwrap();
            assert_eq!(table.find(Some(&path), |_| true), *expected, "{target}");
        }
    }

    #[test]
    fn patterns_match_as_they_are_written() {
        check(
            PathCase::Sensitive,
            &[
                "/healthz",
                "/orders/{*}",
                "/orders/{*}/pay",
                "/static/{**}",
                "/a/{*}/c/{**}",
                "/",
                "/sp ace/é",
            ],
            &[
                ("/healthz", Some(0)),
                ("/healthz/", None),
                ("/Healthz", None),
                ("/healthz/x", None),
                ("/orders", None),
                ("/orders/", None),
                ("/orders/7", Some(1)),
                ("/orders/7/", None),
                ("/orders/7/pay", Some(2)),
                ("/orders/7/pay/", None),
                ("/orders/7/8/pay", None),
                ("/static", None),
                ("/static/", Some(3)),
                ("/static/a", Some(3)),
                ("/static/a/b/", Some(3)),
                ("/a/b/c", None),
                ("/a/b/c/", Some(4)),
                ("/a/b/c/d", Some(4)),
                ("/a/b", None),
                ("/", Some(5)),
                ("/x", None),
                ("/sp%20ace/%C3%A9", Some(6)),
                ("/orders/7?x=/pay", Some(1)),
                ("/%6frders/7", Some(1)),
            ],
        );
    }

    #[test]
    fn the_first_rule_decides_however_specific_a_later_one_is() {
        check(
            PathCase::Sensitive,
            &["/{**}", "/a"],
            &[("/a", Some(0)), ("/", Some(0)), ("/b/c", Some(0))],
        );
        check(
            PathCase::Sensitive,
            &["/a/b", "/{*}/b", "/a/{*}", "/{**}"],
            &[("/a/b", Some(0)), ("/x/b", Some(1)), ("/a/x", Some(2)), ("/x", Some(3))],
        );
        check(PathCase::Sensitive, &["/{*}/b", "/a/b"], &[("/a/b", Some(0))]);
        check(PathCase::Sensitive, &["/a", "/a"], &[("/a", Some(0))]);
    }

    #[test]
    fn a_rule_that_does_not_fit_leaves_the_next_one() {
        let patterns = ["/a", "/{**}", "/a"].map(|text| Some(Pattern::read(text).unwrap()));
        let table = RouteTable::new(PathCase::Sensitive, patterns);
        let path = Path::read(b"/a");
        assert_eq!(table.find(path.as_ref(), |rule| rule != 0), Some(1));
        assert_eq!(table.find(path.as_ref(), |rule| rule == 2), Some(2));
        assert_eq!(table.find(path.as_ref(), |_| false), None);
    }

    #[test]
    fn only_rules_without_a_pattern_match_a_request_without_a_path() {
        let all = Pattern::read("/{**}").ok();
        let table = RouteTable::new(PathCase::Sensitive, [all.clone(), None, all]);
        assert_eq!(table.find(None, |_| true), Some(1));
        assert_eq!(table.find(Path::read(b"/a").as_ref(), |_| true), Some(0));
        assert_eq!(table.find(Path::read(b"/a").as_ref(), |rule| rule > 0), Some(1));
    }

    #[test]
    fn case_is_folded_only_when_asked() {
        check(
            PathCase::Insensitive,
            &["/Admin/{*}"],
            &[("/admin/X", Some(0)), ("/ADMIN/x", Some(0)), ("/%41dmin/x", Some(0))],
        );
    }

    #[test]
    fn w07_patterns_that_cannot_match_are_refused() {
        for text in [
            "", "a", "*", "/*", "/a*", "/{x}", "/a{*}", "/{*}.txt", "/{**}/a", "/{**}/", "/a//b",
            "//", "/../a", "/a/.", "/a%20b", "/a?b", "/a#b", "/a;b", "/a\\b", "/{***}", "/{",
            "/a\u{1}",
        ] {
            assert!(Pattern::read(text).is_err(), "{text}");
        }
    }
}
