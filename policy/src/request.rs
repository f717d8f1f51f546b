//! A request's head as decisions see it, read in one pass over all header lines.
//!
//! The whole map is needed anyway, to find identity headers in every spelling; reading it once
//! costs the filter one host call instead of one per header.

use crate::{decision::Reason, identity_headers::HeaderNames};

/// What decides about a request.
#[derive(Default)]
pub struct RequestHead<'a> {
    /// `:method`
    pub method: &'a [u8],
    /// `:path`; none for `CONNECT host:port`.
    pub path: Option<&'a [u8]>,
    /// `:authority`
    pub authority: Option<&'a [u8]>,
    /// How a refusal must look.
    pub protocol: Protocol,
    /// The names, as they were sent, of headers that only we may set.
    pub foreign: Vec<&'a [u8]>,
    /// Whether an Authorization header is there at all.
    pub has_authorization: bool,
    /// Which workload calls, as the connection's certificate says; not from a header.
    pub workload: Option<&'a [u8]>,
    authorization: Option<&'a [u8]>,
    origin: bool,
    preflight_method: bool,
}

impl std::fmt::Debug for RequestHead<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither Authorization nor the path, whose query may hold a secret.
        let mut shown = formatter.debug_struct("RequestHead");
        shown.field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

/// What the caller speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// HTTP: status and a problem document.
    #[default]
    Http,
    /// gRPC: the status goes into `grpc-status`.
    Grpc,
    /// gRPC-Web that nobody translated before us: the same, under its content type.
    GrpcWeb,
}

impl<'a> RequestHead<'a> {
    /// Reads header lines in any order.
    pub fn read(lines: impl Iterator<Item = (&'a [u8], &'a [u8])>, own: &HeaderNames) -> Self {
        let mut head = Self::default();
        for (name, value) in lines {
            match name {
                b":method" => head.method = value,
                b":path" => head.path = Some(value),
                b":authority" => head.authority = Some(value),
                b"authorization" => {
                    // A second line leaves none that could be chosen. (Envoy joins lines with a
                    // comma, which [`bearer_token`] refuses; no host is trusted to.)
                    head.authorization = (!head.has_authorization).then_some(value);
                    head.has_authorization = true;
                }
                b"content-type" => head.protocol = Protocol::of(value),
                b"origin" => head.origin = true,
                b"access-control-request-method" => head.preflight_method = true,
                name if own.contain(name) && !head.foreign.contains(&name) => {
                    head.foreign.push(name)
                }
                _ => {}
            }
        }
        head
    }

    /// Whether this is a CORS preflight (fetch.spec.whatwg.org, "CORS-preflight request").
    pub fn is_cors_preflight(&self) -> bool {
        self.method == b"OPTIONS" && self.origin && self.preflight_method
    }

    /// [`credentials`] of the one Authorization header.
    pub fn credentials(&self) -> Result<&'a [u8], Reason> {
        if !self.has_authorization {
            return Err(Reason::TokenMissing);
        }
        credentials(self.authorization.ok_or(Reason::AuthorizationMalformed)?)
    }
}

/// What follows the scheme of an `Authorization: Bearer` (RFC 9110 §11.1): the scheme in any case,
/// one or more spaces.
///
/// A token only once it is looked up whole or passed through [`bearer_token`].
pub(crate) fn credentials(authorization: &[u8]) -> Result<&[u8], Reason> {
    const SCHEME: &[u8] = b"bearer";
    match authorization.split_at_checked(SCHEME.len()) {
        Some((scheme, [b' ', rest @ ..])) if scheme.eq_ignore_ascii_case(SCHEME) => {
            let start = rest.iter().position(|byte| *byte != b' ');
            start.and_then(|start| rest.get(start..)).ok_or(Reason::AuthorizationMalformed)
        }
        _ => Err(Reason::AuthorizationMalformed),
    }
}

/// The token that credentials consist of: one, and nothing else (RFC 6750 §2.1, `b64token`).
pub fn bearer_token(credentials: &[u8]) -> Result<&[u8], Reason> {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
    if credentials.iter().all(is_token) {
        Ok(credentials)
    } else {
        Err(Reason::AuthorizationMalformed)
    }
}

impl Protocol {
    /// The protocol of a request with this Content-Type.
    pub fn of(content_type: &[u8]) -> Self {
        let is = |media_type: &[u8]| {
            content_type.get(..media_type.len()).is_some_and(|s| s.eq_ignore_ascii_case(media_type))
                && matches!(content_type.get(media_type.len()), None | Some(b'+' | b';' | b' '))
        };
        if is(b"application/grpc") {
            Self::Grpc
        } else if is(b"application/grpc-web") || is(b"application/grpc-web-text") {
            Self::GrpcWeb
        } else {
            Self::Http
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head<'a>(lines: &'a [(&'a str, &'a [u8])]) -> RequestHead<'a> {
        let lines = lines.iter().map(|(name, value)| (name.as_bytes(), *value));
        RequestHead::read(lines, &HeaderNames::default())
    }

    fn check(value: &[u8], expected: Result<&str, Reason>) {
        let lines = [("authorization", value)];
        let found = head(&lines)
            .credentials()
            .and_then(bearer_token)
            .map(|token| String::from_utf8_lossy(token).into_owned());
        assert_eq!(
            found.as_deref().map_err(|r| *r),
            expected,
            "{}",
            String::from_utf8_lossy(value)
        );
    }

    #[test]
    fn h01_the_scheme_may_have_any_case() {
        for value in ["Bearer t", "bearer t", "BEARER t", "BeArEr t", "Bearer   t"] {
            check(value.as_bytes(), Ok("t"));
        }
        check(b"Bearer a.b-c_d~+/=", Ok("a.b-c_d~+/="));
    }

    #[test]
    fn h02_h03_h04_h07_only_one_bearer_token_is_read() {
        let malformed = Err(Reason::AuthorizationMalformed);
        for value in [
            &b""[..],
            b"Bearer",
            b"Bearer ",
            b"Bearer   ",
            b"Bearert",
            b"Bearer\tt",
            b"Bearer \tt",
            b"xx Bearer t",
            b"Bearer t junk",
            b"Bearer t ",
            b"Bearer a,Bearer b",
            b"Bearer a, Bearer b",
            b"Bearer a,b",
            b",Bearer a",
            b"Basic dDp0",
            b"Basic dDp0,Bearer t",
            b"Negotiate t",
            b"PoP t",
            b"t",
            b"Bearer t\x00",
            b"Bearer \xff\xfe",
            b"Bearer t\x80",
            b"\xffBearer t",
            b"Bearer t\r\nx: y",
            b"Bearer \"t\"",
            b"Bearer t;u",
        ] {
            check(value, malformed);
        }
        let good: &[u8] = b"Bearer t";
        for other in [good, b"Bearer u", b"Basic dDp0", b""] {
            for lines in [[good, other], [other, good]] {
                let lines = lines.map(|value| ("authorization", value));
                assert_eq!(head(&lines).credentials(), Err(Reason::AuthorizationMalformed));
            }
        }
        let three = [("authorization", good), ("authorization", good), ("authorization", good)];
        assert_eq!(head(&three).credentials(), Err(Reason::AuthorizationMalformed));
    }

    #[test]
    fn h05_a_token_anywhere_else_is_no_token() {
        for name in [
            "x-authorization",
            "proxy-authorization",
            "cookie",
            "x-forwarded-authorization",
            "sec-websocket-protocol",
            "x-ms-token-aad-access-token",
            "authorization_",
        ] {
            let lines = [(name, &b"Bearer t"[..])];
            assert_eq!(head(&lines).credentials(), Err(Reason::TokenMissing), "{name}");
        }
    }

    #[test]
    fn h17_a_preflight_needs_all_three_marks() {
        let method: &[u8] = b"OPTIONS";
        let all = [
            (":method", method),
            ("origin", b"https://a"),
            ("access-control-request-method", b"GET"),
        ];
        assert!(head(&all).is_cors_preflight());
        for missing in 0..3 {
            let mut lines = all.to_vec();
            lines.remove(missing);
            assert!(!head(&lines).is_cors_preflight(), "without {missing}");
        }
        let get = [(":method", &b"GET"[..]), all[1], all[2]];
        assert!(!head(&get).is_cors_preflight());
    }

    #[test]
    fn the_protocol_is_told_by_the_content_type() {
        for (content_type, expected) in [
            ("application/grpc", Protocol::Grpc),
            ("application/grpc+proto", Protocol::Grpc),
            ("Application/gRPC; x", Protocol::Grpc),
            ("application/grpc-web", Protocol::GrpcWeb),
            ("application/grpc-web+proto", Protocol::GrpcWeb),
            ("application/grpc-web-text", Protocol::GrpcWeb),
            ("application/grpc-web-text+proto", Protocol::GrpcWeb),
            ("application/grpcx", Protocol::Http),
            ("application/grpc-webx", Protocol::Http),
            ("application/json", Protocol::Http),
            ("", Protocol::Http),
        ] {
            let lines = [("content-type", content_type.as_bytes())];
            assert_eq!(head(&lines).protocol, expected, "{content_type}");
        }
    }
}
