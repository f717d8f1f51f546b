//! The pod's labels, as the kubelet writes them into a file (Downward API, `metadata.labels`:
//! kubernetes.io/docs/concepts/workloads/pods/downward-api).
//!
//! Nobody has signed them. What makes them the pod's is that the kubelet alone writes the volume;
//! docs/identity-access.md says who may change labels.

use std::{collections::BTreeMap, path::Path};

/// Largest file that is read. The API server takes objects of at most 1.5 MiB; a pod with more
/// labels than this has none.
const MAX_BYTES: usize = 256 * 1024;

/// The labels in the file. One that is missing, unreadable or not as the kubelet writes it holds
/// none, so that no entry that asks for a label matches.
pub(super) fn read(file: &Path) -> BTreeMap<String, String> {
    let text = crate::file::read(file, MAX_BYTES).ok().and_then(|b| String::from_utf8(b).ok());
    text.and_then(|text| parse(&text)).unwrap_or_default()
}

/// Lines of `name="value"`. Go's `%q` writes the value, but a label's value has no character that
/// needs an escape: a line with one is not the kubelet's, and then neither is the file.
fn parse(text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for line in text.split('\n').filter(|line| !line.is_empty()) {
        let (name, quoted) = line.split_once('=')?;
        let value = quoted.strip_prefix('"')?.strip_suffix('"')?;
        if !super::names::is_label(name) || !super::names::is_label_value(value) {
            return None;
        }
        if labels.insert(name.to_owned(), value.to_owned()).is_some() {
            return None;
        }
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&[(&str, &str)]>) {
        let expected = expected.map(|pairs| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        });
        assert_eq!(parse(text), expected, "{text}");
    }

    #[test]
    fn labels_are_read_as_the_kubelet_writes_them() {
        check("", Some(&[]));
        check("app=\"orders\"", Some(&[("app", "orders")]));
        check(
            "app.kubernetes.io/name=\"orders\"\nempty=\"\"\ntier=\"gold\"\n",
            Some(&[("app.kubernetes.io/name", "orders"), ("empty", ""), ("tier", "gold")]),
        );
    }

    #[test]
    fn b05_a_file_that_is_not_the_kubelets_has_no_labels() {
        for text in [
            "tier=gold",
            "tier=\"gold",
            "tier=\"",
            "tier",
            "=\"gold\"",
            "tier=\"go\\\"ld\"",
            "tier=\"go\\nld\"",
            "tier=\"gold\" ",
            " tier=\"gold\"",
            "tier=\"gold\"\r\n",
            "tier=\"gold\"\ntier=\"silver\"",
            "tier=\"gold\"\ntier=\"gold\"",
            "a/b/tier=\"gold\"",
            "tier=\"gold\"\nother",
            "ti\u{e9}r=\"gold\"",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn a_missing_or_huge_file_has_no_labels() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("labels");
        assert!(read(&file).is_empty());
        std::fs::write(&file, "tier=\"gold\"").unwrap();
        assert_eq!(read(&file).len(), 1);
        std::fs::write(&file, [0xff]).unwrap();
        assert!(read(&file).is_empty());
        std::fs::write(&file, "\n".repeat(MAX_BYTES + 1)).unwrap();
        assert!(read(&file).is_empty());
    }
}
