//! Which names are names: of Kubernetes, of DNS, and of images.
//!
//! What passes here is put into YAML and into Envoy's configuration, so each rule says what is
//! allowed, never what is not.

/// Longest name of an object that is also a label.
pub(super) const MAX_LABEL: usize = 63;

/// A DNS label in lower case (RFC 1123).
pub(super) fn is_dns_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_LABEL).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Names of objects with dots in them.
pub(super) fn is_dns_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

/// A host outside the cluster, in lower case: no address, no wildcard.
pub(super) fn is_host(text: &str) -> bool {
    let mut labels = text.rsplit('.');
    let last = labels.next().unwrap_or_default();
    // No top-level domain begins with a digit: whatever does is read as an address by somebody,
    // as in `127.1` and `0x7f.0x1`.
    is_dns_name(text)
        && labels.next().is_some()
        && last.starts_with(|first: char| first.is_ascii_lowercase())
        && !["localhost", "svc"].contains(&last)
        && !text.ends_with(".cluster.local")
}

/// A label's key: a name, perhaps with a DNS name and a slash before it.
pub(super) fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_dns_name(prefix) && is_label_word(name),
        None => is_label_word(text),
    }
}

/// A label's value, which may be empty.
pub(super) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_label_word(text)
}

fn is_label_word(text: &str) -> bool {
    let ends = |end: Option<char>| end.is_some_and(|letter| letter.is_ascii_alphanumeric());
    text.len() <= MAX_LABEL
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && ends(text.chars().next())
        && ends(text.chars().next_back())
}

/// `oci://`, registry, repository and perhaps a tag; no digest, which stands by itself.
pub(super) fn is_image(text: &str) -> bool {
    let Some((registry, rest)) = text.strip_prefix("oci://").and_then(|rest| rest.split_once('/'))
    else {
        return false;
    };
    let (repository, tag) = rest.split_once(':').unwrap_or((rest, "latest"));
    let plain = |text: &str, more: &[u8]| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || more.contains(&byte);
        text.starts_with(|first: char| first.is_ascii_alphanumeric()) && text.bytes().all(fits)
    };
    text.len() <= 512
        && plain(registry, b".-:")
        // Istio takes no repository of one letter.
        && repository.len() > 1
        && repository.split('/').all(|part| plain(part, b"._-"))
        && repository.bytes().all(|byte| !byte.is_ascii_uppercase())
        && tag.len() <= 128
        && plain(tag, b"._-")
}

/// A digest in hexadecimal, in lower case.
pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64
        && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// The absolute path of a file.
pub(super) fn is_file(text: &str) -> bool {
    text.len() <= 255
        && text.starts_with('/')
        && !text.ends_with('/')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(is: fn(&str) -> bool, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(is(text), "{text}");
        }
        for text in bad {
            assert!(!is(text), "{text}");
        }
    }

    #[test]
    fn a_host_is_a_whole_name_outside_the_cluster() {
        let long = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
        let longer = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(62)].join(".");
        let label = format!("{}.example", "a".repeat(64));
        assert_eq!((long.len(), longer.len()), (253, 254));
        check(
            is_host,
            &["graph.microsoft.com", "a.b.example", "xn--bcher-kva.example", "4.example", &long],
            &[
                "",
                "example",
                "*.example.com",
                "*",
                "Graph.microsoft.com",
                "graph.microsoft.com.",
                ".example.com",
                "a..example",
                "-a.example",
                "a-.example",
                "a_b.example",
                "a.example:443",
                "https://a.example",
                "a.example/path",
                "user@a.example",
                "a b.example",
                "a\n.example",
                "b\u{fc}cher.example",
                "10.0.0.1",
                "127.1",
                "0x7f.0x1",
                "[::1]",
                "::1",
                "api.shop.svc",
                "api.shop.svc.cluster.local",
                "a.localhost",
                &longer,
                &label,
            ],
        );
    }

    #[test]
    fn an_image_has_a_registry_and_a_repository_and_no_digest() {
        check(
            is_image,
            &[
                "oci://registry.example/entra-sidecar/filter:1.0",
                "oci://10.88.0.1:5000/entra-sidecar/filter",
                "oci://r.example/ab",
            ],
            &[
                "registry.example/entra-sidecar/filter:1.0",
                "https://registry.example/filter.wasm",
                "file:///filter.wasm",
                "oci://registry.example",
                "oci:///filter",
                "oci://registry.example/a",
                "oci://registry.example/Filter",
                "oci://registry.example//filter",
                "oci://registry.example/filter:",
                "oci://registry.example/filter:1:2",
                "oci://registry.example/filter 1",
                "oci://user@registry.example/filter",
                "oci://registry.example/filter?x=1",
                &format!("oci://registry.example/filter@sha256:{}", "0".repeat(64)),
                &format!("oci://registry.example/{}", "a".repeat(512)),
                &format!("oci://registry.example/filter:{}", "a".repeat(129)),
            ],
        );
    }

    #[test]
    fn labels_are_those_of_kubernetes() {
        let (longest, long) = ("a".repeat(63), "a".repeat(64));
        check(
            is_label_key,
            &["app", "entra-sidecar/injected", "A_b.c"],
            &["", "/a", "a/", "a/b/c", "A/b", "-a", "a-", "a b", &long],
        );
        check(is_label_value, &["", "true", "a.B_c"], &["-a", "a-", "a b", "a/b", &long]);
        check(is_dns_label, &["a", "a-1", &longest], &["", "A", "a.b", "-a", "a-", "a_b", &long]);
    }

    #[test]
    fn a_digest_is_written_out_and_a_file_absolute() {
        let digest = "0123456789abcdef".repeat(4);
        check(
            is_sha256,
            &[&digest],
            &["", &"0".repeat(63), &digest.to_uppercase(), &digest.replace('0', "g")],
        );
        check(
            is_file,
            &["/etc/ssl/ca.crt"],
            &["", "ca.crt", "/etc/", "/a b", "/a\"", &format!("/{}", "a".repeat(255))],
        );
    }
}
