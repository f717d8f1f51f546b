//! What names may be in Kubernetes (kubernetes.io/docs/concepts/overview/working-with-objects/names
//! and …/labels, RFC 1123).

/// Most characters of a label of RFC 1123, and of a label's name and value.
const MAX_LABEL: usize = 63;
/// Most characters of a subdomain; the API server does not count those of its parts.
const MAX_SUBDOMAIN: usize = 253;

/// What a namespace is called: a label of RFC 1123.
pub fn is_namespace(name: &str) -> bool {
    name.len() <= MAX_LABEL && is_part(name)
}

/// What a service account is called: a subdomain of RFC 1123.
pub fn is_service_account(name: &str) -> bool {
    name.len() <= MAX_SUBDOMAIN && name.split('.').all(is_part)
}

fn is_part(name: &str) -> bool {
    is_framed(name, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit(), b"-")
}

/// What a label is called: a name, and before it perhaps a subdomain and a slash.
pub fn is_label(name: &str) -> bool {
    let (prefix, name) = match name.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, name),
    };
    prefix.is_none_or(is_service_account) && is_qualified(name)
}

/// What a label's value is.
pub fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_qualified(value)
}

fn is_qualified(name: &str) -> bool {
    name.len() <= MAX_LABEL && is_framed(name, |byte| byte.is_ascii_alphanumeric(), b"-_.")
}

/// Begins and ends with `outer`, and has `outer` and `inner` between.
fn is_framed(name: &str, outer: fn(u8) -> bool, inner: &[u8]) -> bool {
    let bytes = name.as_bytes();
    bytes.first().is_some_and(|byte| outer(*byte))
        && bytes.last().is_some_and(|byte| outer(*byte))
        && bytes.iter().all(|byte| outer(*byte) || inner.contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(is: fn(&str) -> bool, good: &[&str], bad: &[&str]) {
        for name in good {
            assert!(is(name), "{name}");
        }
        for name in bad {
            assert!(!is(name), "{name}");
        }
    }

    #[test]
    fn names_are_those_that_the_api_server_takes() {
        let long = "a".repeat(63);
        let longer = "a".repeat(64);
        let bad = ["", "-a", "a-", "A", "a_b", "a*", "*", "a/b", "a b", "\u{e9}"];
        check(is_namespace, &["a", "tenant-a", "7", &long], &bad);
        check(is_namespace, &[], &["a.b", &longer]);
        let subdomain = [long.as_str(), &long, &long, &"a".repeat(61)].join(".");
        check(is_service_account, &["a", "a.b-c.d", &longer, &subdomain], &bad);
        check(is_service_account, &[], &["a..b", ".a", "a.", &format!("{subdomain}a")]);
        check(is_label, &["tier", "Tier_1.x", "app.kubernetes.io/name", &long], &[]);
        check(is_label, &[], &["", "/a", "a/", "a/b/c", "A/b", "_a", "a_", "a*", &longer]);
        check(
            is_label_value,
            &["", "gold", "G_1.2-x", &long],
            &["-a", "a b", "a*", "a/b", &longer],
        );
    }
}
