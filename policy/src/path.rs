//! A request's path as rules see it: decoded, without query, in one reading only.
//!
//! A form that two servers could read differently is refused, never rewritten: what the filter
//! judged must be what the application gets. `route` matches what comes out of here.

use std::borrow::Cow;

/// A path that every server reads the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path<'a>(Cow<'a, str>);

impl<'a> Path<'a> {
    /// Reads the path of a request target (RFC 9112 §3.2.1); `None` is ambiguous.
    ///
    /// Refused: dot segments, empty segments, encoded slashes and dots, backslashes, parameters
    /// (`;`), fragments, control and non-ASCII bytes, escapes that are no escapes, escapes of
    /// escapes, escaped bytes that are not UTF-8 (overlong forms among them).
    pub fn read(target: &'a [u8]) -> Option<Self> {
        let path = target.split(|byte| *byte == b'?').next()?;
        if path.first() != Some(&b'/') {
            return None;
        }
        if path.iter().any(|byte| matches!(byte, 0..=0x20 | 0x7f.. | b'\\' | b';' | b'#')) {
            return None;
        }
        let path = if path.contains(&b'%') {
            Cow::Owned(String::from_utf8(decoded(path)?).ok()?)
        } else {
            Cow::Borrowed(std::str::from_utf8(path).ok()?)
        };
        let mut segments = path.split('/').skip(1).peekable();
        while let Some(segment) = segments.next() {
            let last = segments.peek().is_none();
            if segment == "." || segment == ".." || (segment.is_empty() && !last) {
                return None;
            }
        }
        Some(Self(path))
    }

    /// The path: decoded, beginning with a slash.
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// Resolves escapes, where they are some and stand for nothing but themselves.
fn decoded(path: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let (high, low) = (hex(bytes.next()?)?, hex(bytes.next()?)?);
        let byte = high << 4 | low;
        // Decoded, these would be structure (`/ \ . ; ? #`), end a C string, or begin a second
        // escape.
        if byte < 0x20 || byte == 0x7f || b"/\\.;?#%".contains(&byte) {
            return None;
        }
        decoded.push(byte);
    }
    Some(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Whether the query holds an `access_token` parameter (RFC 6750 §2.3), in any escaping.
pub fn token_in_query(target: &[u8]) -> bool {
    let mut parts = target.splitn(2, |byte| *byte == b'?');
    let Some(query) = parts.nth(1) else { return false };
    // `;` separates parameters for some servers.
    query.split(|byte| *byte == b'&' || *byte == b';').any(|parameter| {
        let name = parameter.split(|byte| *byte == b'=').next().unwrap_or_default();
        unescaped(name).eq_ignore_ascii_case(b"access_token")
    })
}

fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escape = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                hex(*high).zip(hex(*low)).map(|(high, low)| (high << 4 | low, after))
            }
            _ => None,
        };
        let (byte, after) = escape.unwrap_or((*first, after));
        plain.push(byte);
        rest = after;
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(target: &str) -> Option<String> {
        Path::read(target.as_bytes()).map(|path| path.0.into_owned())
    }

    #[test]
    fn plain_paths_are_decoded_and_lose_their_query() {
        for (target, expected) in [
            ("/", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("/a/b?c=/../d#%00", "/a/b"),
            ("/a?", "/a"),
            ("/%41%7e%2d_b", "/A~-_b"),
            ("/a%20b", "/a b"),
            ("/caf%C3%A9", "/café"),
            ("/a.b/...", "/a.b/..."),
            ("/:*!$&'()+,=@~", "/:*!$&'()+,=@~"),
        ] {
            assert_eq!(read(target).as_deref(), Some(expected), "{target}");
        }
    }

    #[test]
    fn h14_ambiguous_paths_are_refused() {
        for target in [
            "",
            "a",
            "*",
            "?",
            "http://h/a",
            "//",
            "//a",
            "/a//b",
            "/a//",
            "/.",
            "/..",
            "/./a",
            "/../a",
            "/a/.",
            "/a/..",
            "/a/./b",
            "/a/../b",
            "/a/%2e%2e/b",
            "/%2e",
            "/%2E%2e/",
            "/.%2e/",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a%5Cb",
            "/a\\b",
            "/a;b=c",
            "/..;/a",
            "/a%3bb",
            "/a#b",
            "/a%23b",
            "/a%3fb",
            "/a%00",
            "/a%0a",
            "/a%1f",
            "/a%7f",
            "/a%252e",
            "/a%25",
            "/%",
            "/%4",
            "/%zz",
            "/%4g",
            "/a b",
            "/a\tb",
            "/a\u{1}",
            "/a\u{7f}",
            "/é",
            "/%c0%ae",
            "/%c0%af",
            "/%ff",
            "/%e0%80%ae",
        ] {
            assert_eq!(read(target), None, "{target}");
        }
        assert_eq!(Path::read(b"/\xff"), None);
        assert_eq!(Path::read(b"/\x80"), None);
    }

    #[test]
    fn h05_h06_tokens_in_the_query_are_seen_in_any_escaping() {
        for target in [
            "/?access_token=x",
            "/a?b=c&access_token=x",
            "/a?access_token",
            "/a?b;access_token=x",
            "/a?ACCESS_TOKEN=x",
            "/a?access%5Ftoken=x",
            "/a?%61ccess_token=x",
            "/a?a?&access_token=",
        ] {
            assert!(token_in_query(target.as_bytes()), "{target}");
        }
        for target in [
            "/access_token=x",
            "/a?my_access_token=x",
            "/a?access_tokens=x",
            "/a?b=access_token",
            "/a",
            "/a?",
            "/a?%",
            "/a?access%5token=x",
        ] {
            assert!(!token_in_query(target.as_bytes()), "{target}");
        }
    }
}
