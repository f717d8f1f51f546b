//! What a registry wants to see, as its `WWW-Authenticate` says (RFC 9110 11.6.1).

use std::fmt::Write;

/// How to log in.
#[derive(Debug, PartialEq)]
pub(super) enum Challenge {
    /// Not at all.
    None,
    /// With user and password at each request.
    Basic,
    /// With a token from another service.
    Bearer { realm: String, service: String },
}

impl Challenge {
    /// Reads all headers; a token is preferred to a password.
    pub(super) fn read(headers: &[String]) -> Option<Self> {
        let scheme = |name: &'static str| {
            headers.iter().find_map(|header| {
                let (scheme, rest) = header.split_once(' ').unwrap_or((header, ""));
                scheme.eq_ignore_ascii_case(name).then_some(rest)
            })
        };
        if let Some(parameters) = scheme("bearer") {
            let service = parameter(parameters, "service").unwrap_or_default();
            return Some(Self::Bearer { realm: parameter(parameters, "realm")?, service });
        }
        scheme("basic").map(|_| Self::Basic)
    }
}

/// `name="value"`; no registry escapes anything in the ones that are read.
fn parameter(parameters: &str, name: &str) -> Option<String> {
    parameters.match_indices(name).find_map(|(at, _)| {
        let before = parameters.get(..at)?;
        let rest = parameters.get(at..)?.strip_prefix(name)?.strip_prefix("=\"")?;
        let starts = before.is_empty() || before.ends_with([' ', ',']);
        starts.then(|| rest.split('"').next().unwrap_or_default().to_owned())
    })
}

/// Text as a value in a query or a form: all but unreserved letters (RFC 3986 2.3) escaped.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[&str]) -> Option<Challenge> {
        Challenge::read(&headers.iter().map(|header| (*header).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_challenge_is_read_as_registries_write_it() {
        let bearer = |realm: &str, service: &str| {
            Some(Challenge::Bearer { realm: realm.to_owned(), service: service.to_owned() })
        };
        let docker = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io""#;
        assert_eq!(read(&[docker]), bearer("https://auth.docker.io/token", "registry.docker.io"));
        let spaced = r#"bearer service="s", realm="https://a/b?c=d", scope="x:y:pull,push""#;
        assert_eq!(read(&[spaced]), bearer("https://a/b?c=d", "s"));
        assert_eq!(read(&[r#"Basic realm="r""#, docker]), read(&[docker]));
        assert_eq!(read(&[r#"Basic realm="r""#]), Some(Challenge::Basic));
    }

    #[test]
    fn an_unknown_challenge_is_none() {
        for headers in [&[][..], &["Negotiate"], &["Bearer"], &[r#"Bearer xrealm="a""#]] {
            assert_eq!(read(headers), None, "{headers:?}");
        }
    }

    #[test]
    fn text_in_a_query_changes_nothing_of_it() {
        assert_eq!(
            encoded("repository:a/b:pull,push&x=1"),
            "repository%3Aa%2Fb%3Apull%2Cpush%26x%3D1"
        );
    }
}
