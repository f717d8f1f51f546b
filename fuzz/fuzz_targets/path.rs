//! A request's path from a stranger, under rules of any shape: the tree of rules finds what
//! trying them one by one finds, and an accepted path has one reading.
#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::{
    path::{Path, token_in_query},
    route::{PathCase, Pattern, RouteTable},
};

// The first line is the request's target, the others are patterns.
fuzz_target!(|data: &[u8]| {
    let mut lines = data.split(|byte| *byte == b'\n');
    let target = lines.next().unwrap_or_default();
    let _ = token_in_query(target);
    let path = Path::read(target);
    if let Some(path) = &path {
        one_reading(path.text());
    }
    let texts: Vec<&str> = lines
        .filter_map(|line| std::str::from_utf8(line).ok())
        .filter(|text| Pattern::read(text).is_ok())
        .collect();
    for case in [PathCase::Sensitive, PathCase::Insensitive] {
        let table = RouteTable::new(case, texts.iter().map(|text| Pattern::read(text).ok()));
        let found = table.find(path.as_ref(), |_| true);
        let expected = path
            .as_ref()
            .and_then(|path| texts.iter().position(|pattern| matches(case, pattern, path.text())));
        assert_eq!(found, expected, "{case:?} {texts:?}");
    }
});

/// No server can read it differently: nothing is left that is structure to any of them.
fn one_reading(path: &str) {
    assert!(path.starts_with('/') && !path.contains("//"), "{path}");
    assert!(!path.contains(['\\', ';', '#', '?', '%']), "{path}");
    assert!(!path.chars().any(|letter| letter < ' ' || letter == '\u{7f}'), "{path}");
    assert!(!path.split('/').any(|segment| segment == "." || segment == ".."), "{path}");
}

/// A pattern by its definition, without a tree.
fn matches(case: PathCase, pattern: &str, path: &str) -> bool {
    let fold = |text: &str| match case {
        PathCase::Sensitive => text.to_owned(),
        PathCase::Insensitive => text.to_lowercase(),
    };
    let (pattern, path) = (fold(pattern), fold(path));
    let pattern: Vec<&str> = pattern.split('/').collect();
    let path: Vec<&str> = path.split('/').collect();
    let fits = |pattern: &&str, segment: &&str| match *pattern {
        "{*}" => !segment.is_empty(),
        exact => exact == *segment,
    };
    match pattern.split_last() {
        // At least the slash before it: `/static` is another path than what is below it.
        Some((&"{**}", before)) => {
            path.len() > before.len() && before.iter().zip(&path).all(|(p, s)| fits(p, s))
        }
        _ => pattern.len() == path.len() && pattern.iter().zip(&path).all(|(p, s)| fits(p, s)),
    }
}
