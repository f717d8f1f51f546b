//! The host that a request is for, as rules compare it.

use std::borrow::Cow;

/// A host pattern: an exact name, or `*.` and a suffix for every name below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    name: String,
    below: bool,
}

impl HostPattern {
    /// Reads a pattern; `None` where it is no lower-case host name.
    pub fn read(text: &str) -> Option<Self> {
        let (name, below) = match text.strip_prefix("*.") {
            Some(suffix) => (suffix, true),
            None => (text, false),
        };
        let folded = host(name.as_bytes())?;
        (folded == name).then(|| Self { name: name.to_owned(), below })
    }

    /// Whether a host, as [`host`] gives it, fits.
    pub fn fits(&self, host: &str) -> bool {
        if self.below {
            host.strip_suffix(&self.name).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        } else {
            host == self.name
        }
    }
}

/// The host of an authority (RFC 9110 §7.2): lower case, without port and final dot.
///
/// `None` for anything that is not a name or address with an optional port: userinfo, spaces,
/// two ports, non-ASCII.
pub fn host(authority: &[u8]) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(authority).ok()?;
    let (name, port) = match text.strip_prefix('[') {
        // An IPv6 address brings its own colons.
        Some(rest) => {
            let (address, after) = rest.split_once(']')?;
            if !address.bytes().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(&byte)) {
                return None;
            }
            (address, after.strip_prefix(':').or(after.is_empty().then_some("0"))?)
        }
        None => {
            let (name, port) = text.split_once(':').unwrap_or((text, "0"));
            if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
                return None;
            }
            (name.strip_suffix('.').unwrap_or(name), port)
        }
    };
    let port_is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    (port_is_number && !name.is_empty()).then(|| {
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(name.to_ascii_lowercase())
        } else {
            Cow::Borrowed(name)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h16_one_host_has_one_spelling() {
        for (authority, expected) in [
            ("example.com", Some("example.com")),
            ("EXAMPLE.com:8080", Some("example.com")),
            ("example.com.", Some("example.com")),
            ("example.com.:443", Some("example.com")),
            ("127.0.0.1:8080", Some("127.0.0.1")),
            ("[::1]:8080", Some("::1")),
            ("[::1]", Some("::1")),
            ("my_service", Some("my_service")),
            ("", None),
            (".", None),
            (":80", None),
            ("a:", None),
            ("a:b", None),
            ("a:80:80", None),
            ("user@example.com", None),
            ("a b", None),
            ("a,b", None),
            ("a/b", None),
            ("é.example", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[x]", None),
        ] {
            assert_eq!(host(authority.as_bytes()).as_deref(), expected, "{authority}");
        }
        assert_eq!(host(b"a\xff"), None);
    }

    #[test]
    fn patterns_match_whole_labels() {
        let exact = HostPattern::read("api.example.com").unwrap();
        let below = HostPattern::read("*.example.com").unwrap();
        for (name, by_exact, by_below) in [
            ("api.example.com", true, true),
            ("a.b.example.com", false, true),
            ("example.com", false, false),
            (".example.com", false, false),
            ("evilexample.com", false, false),
            ("api.example.com.evil.io", false, false),
            ("xapi.example.com", false, true),
        ] {
            assert_eq!(exact.fits(name), by_exact, "{name}");
            assert_eq!(below.fits(name), by_below, "{name}");
        }
        for bad in ["", "*", "*.", "*.*.com", "API.example.com", "a:80", "a.", "*a.com", "a.*"] {
            assert_eq!(HostPattern::read(bad), None, "{bad}");
        }
    }
}
