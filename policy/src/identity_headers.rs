//! Identity headers: which are ours alone, and how claims are written into them.
//!
//! Whoever may set one of these headers is whom the application believes. So a caller's are
//! removed on every path, in every spelling that some server could read as ours.

use std::{collections::BTreeMap, rc::Rc};

use crate::{
    claims::Version,
    json::{Node, Object},
};

/// A header's name and value, ready for as many requests as want them.
pub type Header = (Rc<str>, Rc<str>);

/// What the application gets where nothing is configured.
const DEFAULT_HEADERS: [(&str, &str); 3] =
    [("x-entra-object-id", "oid"), ("x-entra-tenant-id", "tid"), ("x-entra-client-id", "azp")];
/// The permit marker where nothing is configured.
const DEFAULT_MARKER: &str = "x-entra-permit";

/// Identity headers of App Service, which applications written for it believe.
const APP_SERVICE_PREFIXES: [&[u8]; 2] = [b"x-ms-client-principal", b"x-ms-token-"];

/// Headers that mean something to a proxy, a server or a browser: no claim may be written there.
const RESERVED: [&str; 24] = [
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "grpc-timeout",
    "host",
    "keep-alive",
    "origin",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-request-id",
];
const RESERVED_PREFIXES: [&str; 4] = ["access-control-", "sec-", "x-envoy-", "x-forwarded-"];

/// The headers that only this filter may set.
#[derive(Debug, Default)]
pub struct HeaderNames {
    folded: Vec<Vec<u8>>,
}

impl HeaderNames {
    /// Whether a server could take this name for one of ours.
    ///
    /// Case is ignored, and everything that is no letter or digit is a dash: gateways in the CGI
    /// tradition turn both `-` and `_` (and some also `.`) into `_`.
    pub fn contain(&self, name: &[u8]) -> bool {
        APP_SERVICE_PREFIXES.iter().any(|prefix| {
            name.get(..prefix.len()).is_some_and(|start| same_when_folded(start, prefix))
        }) || self.folded.iter().any(|own| same_when_folded(name, own))
    }
}

fn same_when_folded(name: &[u8], folded: &[u8]) -> bool {
    name.len() == folded.len() && name.iter().zip(folded).all(|(byte, own)| fold(*byte) == *own)
}

fn fold(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' }
}

/// Which header carries which claim.
#[derive(Debug, Default)]
pub struct IdentityHeaders(Vec<(Rc<str>, String)>);

impl IdentityHeaders {
    /// The headers of a verified token; a claim that it does not have sets none.
    pub fn of(&self, payload: &Object<'_>, version: Version) -> impl Iterator<Item = Header> {
        let value = move |claim: &str| {
            // The client has another name in v1 tokens; the application need not know.
            let claim = match (claim, version) {
                ("azp", Version::V1) => "appid",
                ("azpacr", Version::V1) => "appidacr",
                _ => claim,
            };
            payload.get(claim).and_then(header_value)
        };
        self.0
            .iter()
            .filter_map(move |(header, claim)| Some((header.clone(), value(claim)?.into())))
    }
}

/// A claim as a header value: lists joined with commas, objects never.
pub(crate) fn header_value(claim: &Node<'_>) -> Option<String> {
    let value = match claim {
        Node::Text(text) => encoded(text),
        Node::Unsigned(number) => number.to_string(),
        Node::Number(number) => number.to_string(),
        Node::Bool(value) => value.to_string(),
        Node::List(elements) => {
            let elements: Option<Vec<String>> = elements
                .iter()
                .map(|element| match element {
                    Node::List(_) | Node::Object(_) | Node::Null => None,
                    scalar => header_value(scalar),
                })
                .collect();
            elements?.join(",")
        }
        Node::Null | Node::Object(_) => return None,
    };
    (!value.is_empty()).then_some(value)
}

/// Percent-encodes (RFC 3986 §2.1) whatever could end a header, separate two values, or get lost
/// on the way: control and non-ASCII bytes, `%`, `,`, `;`, and spaces at either end.
fn encoded(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    let last = text.len().saturating_sub(1);
    for (index, byte) in text.bytes().enumerate() {
        let inner_space = byte == b' ' && index != 0 && index != last;
        if inner_space || (byte.is_ascii_graphic() && !b"%,;".contains(&byte)) {
            value.push(char::from(byte));
        } else {
            value.push_str(&format!("%{byte:02X}"));
        }
    }
    value
}

/// Validates the configured names, and says which headers are ours.
pub(crate) fn validate(
    headers: Option<BTreeMap<String, Option<String>>>,
    marker: Option<String>,
    error: &mut dyn FnMut(&str, String),
) -> (IdentityHeaders, Rc<str>, HeaderNames) {
    let headers = headers.unwrap_or_else(|| {
        let default = DEFAULT_HEADERS.iter();
        default.map(|(header, claim)| ((*header).to_owned(), Some((*claim).to_owned()))).collect()
    });
    let marker = marker.unwrap_or_else(|| DEFAULT_MARKER.to_owned());
    let own = DEFAULT_HEADERS.iter().map(|(header, _)| *header).chain([DEFAULT_MARKER]);
    let mut folded: Vec<Vec<u8>> = own.map(|name| name.as_bytes().to_vec()).collect();
    // Each name once: every header of every request is compared with all of them.
    let add = |folded: &mut Vec<Vec<u8>>, name: &str| {
        let name = name.bytes().map(fold).collect();
        if !folded.contains(&name) {
            folded.push(name);
        }
    };
    check_name("permit_marker", &marker, error);
    add(&mut folded, &marker);
    let mut read: Vec<(Rc<str>, String)> = Vec::new();
    for (header, claim) in headers {
        let path = format!("identity_headers.{header}");
        check_name(&path, &header, error);
        let same = |name: &str| name.bytes().map(fold).eq(header.bytes().map(fold));
        if same(&marker) {
            error(&path, "is the permit marker".to_owned());
        }
        if read.iter().any(|(earlier, _)| same(earlier)) {
            error(&path, "another header has the same name but for case or dashes".to_owned());
        }
        add(&mut folded, &header);
        match claim {
            Some(claim) if !claim.is_empty() => read.push((header.into(), claim)),
            _ => error(&path, "expected the name of a claim".to_owned()),
        }
    }
    (IdentityHeaders(read), marker.into(), HeaderNames { folded })
}

fn check_name(path: &str, name: &str, error: &mut dyn FnMut(&str, String)) {
    let plain =
        name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b));
    if name.is_empty() || !plain {
        return error(
            path,
            "expected a header name: lower-case letters, digits, `-`, `_`".to_owned(),
        );
    }
    let folded: String = name.bytes().map(|byte| char::from(fold(byte))).collect();
    let reserved = RESERVED.contains(&folded.as_str())
        || RESERVED_PREFIXES.iter().any(|prefix| folded.starts_with(prefix));
    if reserved {
        error(path, format!("`{name}` has a meaning of its own and must not carry a claim"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    fn value(claim: &str) -> Option<String> {
        let text = format!("{{\"c\":{claim}}}");
        header_value(json::object(text.as_bytes()).unwrap().get("c").unwrap())
    }

    #[test]
    fn p13_no_claim_can_break_a_header() {
        for (claim, expected) in [
            (r#""plain-1.2_3""#, Some("plain-1.2_3")),
            (r#""a b""#, Some("a b")),
            (r#"" a ""#, Some("%20a%20")),
            (r#"" ""#, Some("%20")),
            (r#""a\r\nx-evil: 1""#, Some("a%0D%0Ax-evil: 1")),
            (r#""a,b;c%d""#, Some("a%2Cb%3Bc%25d")),
            (r#""\u0000\u007f""#, Some("%00%7F")),
            (r#""é""#, Some("%C3%A9")),
            (r#""""#, None),
            ("[]", None),
            (r#"["a","b,c"]"#, Some("a,b%2Cc")),
            (r#"["a",1,true,-2]"#, Some("a,1,true,-2")),
            (r#"["a",["b"]]"#, None),
            (r#"["a",{}]"#, None),
            ("[null]", None),
            ("{}", None),
            ("null", None),
            ("7", Some("7")),
            ("-1.5", Some("-1.5")),
            ("false", Some("false")),
        ] {
            assert_eq!(value(claim).as_deref(), expected, "{claim}");
        }
    }

    fn names(configured: &[&str], marker: Option<&str>) -> (HeaderNames, Vec<(String, String)>) {
        let mut errors = Vec::new();
        let map = configured.iter().map(|n| ((*n).to_owned(), Some("oid".to_owned()))).collect();
        let (_, _, names) = validate(Some(map), marker.map(str::to_owned), &mut |path, message| {
            errors.push((path.to_owned(), message));
        });
        (names, errors)
    }

    #[test]
    fn h08_h09_our_headers_are_ours_in_every_spelling() {
        let (own, errors) = names(&["x-user"], Some("x-mark"));
        assert_eq!(errors, []);
        for name in [
            "x-user",
            "X-User",
            "x_user",
            "X_USER",
            "x.user",
            "x-mark",
            "x_mark",
            "x-entra-permit",
            "x-entra-object-id",
            "x_entra_object_id",
            "X-Entra_Tenant-Id",
            "x-entra-client-id",
            "x-ms-client-principal",
            "X_MS_CLIENT_PRINCIPAL",
            "x-ms-client_principal-id",
            "x-ms-client-principal-name",
            "x-ms-client-principal-idp",
            "x-ms-client-principalx",
            "x-ms-token-aad-access-token",
            "x_ms_token_aad_id_token",
            "x-ms-token-x",
        ] {
            assert!(own.contain(name.as_bytes()), "{name}");
        }
        for name in ["x-users", "x-use", "xuser", "x-ms-client", "x-ms-request-id", "user", ""] {
            assert!(!own.contain(name.as_bytes()), "{name}");
        }
        assert!(!own.contain(b"x-us\xffr"));
    }

    #[test]
    fn w07_names_with_a_meaning_of_their_own_are_refused() {
        for name in [
            "authorization",
            "host",
            "connection",
            "transfer-encoding",
            "content_length",
            "x-forwarded-for",
            "x_forwarded_host",
            "x-envoy-original-path",
            ":path",
            "X-User",
            "a b",
            "",
            "proxy-authorization",
            "x-entra-permit",
            "te",
            "sec-fetch-mode",
        ] {
            assert_eq!(names(&[name], None).1.len(), 1, "{name}");
        }
        assert_eq!(names(&["x-user", "x_user"], None).1.len(), 1);
        for marker in ["host", "", "x-forwarded-x", "É"] {
            assert_eq!(names(&[], Some(marker)).1.len(), 1, "{marker}");
        }
    }

    #[test]
    fn the_client_has_one_header_in_both_versions() {
        let mut none = |path: &str, message: String| panic!("{path}: {message}");
        let (headers, _, _) = validate(None, None, &mut none);
        let of = |text: &str, version| {
            let payload = json::object(text.as_bytes()).unwrap();
            headers.of(&payload, version).map(|(h, v)| format!("{h}={v}")).collect()
        };
        let v2: Vec<String> = of(r#"{"oid":"o","azp":"c","tid":"t","appid":"x"}"#, Version::V2);
        assert_eq!(v2, ["x-entra-client-id=c", "x-entra-object-id=o", "x-entra-tenant-id=t"]);
        let v1: Vec<String> = of(r#"{"appid":"c","azp":"x"}"#, Version::V1);
        assert_eq!(v1, ["x-entra-client-id=c"]);
    }
}
