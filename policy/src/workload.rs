//! Which workload calls: the SPIFFE id in the client certificate of the connection.
//!
//! It comes from the TLS handshake, never from a header (`x-forwarded-client-cert` is what anybody
//! wrote). The host gives the certificate's first URI name; that the certificate has just one, as
//! SPIFFE asks for (X509-SVID §2), is for whoever issues and checks certificates.

/// Longest SPIFFE id, in bytes (SPIFFE-ID §2.3).
const MAX_BYTES: usize = 2048;
/// Longest trust domain, in bytes (SPIFFE-ID §2.1).
const MAX_TRUST_DOMAIN_BYTES: usize = 255;
/// Longest value in a record, in bytes; what is longer is cut there.
const MAX_RECORD_BYTES: usize = 512;

/// A calling workload as records show it: without spaces, whatever the certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload(String);

impl Workload {
    /// Writes what is no plain character of an id percent-encoded, so that no certificate can forge
    /// a second member or line.
    pub fn new(id: &[u8]) -> Self {
        let mut shown = String::with_capacity(id.len().min(MAX_RECORD_BYTES));
        for byte in id {
            let plain = byte.is_ascii_alphanumeric() || b"-_.:/".contains(byte);
            let bytes = if plain { 1 } else { 3 };
            if shown.len().saturating_add(bytes) > MAX_RECORD_BYTES {
                break;
            }
            if plain {
                shown.push(char::from(*byte));
            } else {
                const HEX: [char; 16] = [
                    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
                ];
                shown.push('%');
                shown.extend(HEX.get(usize::from(byte >> 4)));
                shown.extend(HEX.get(usize::from(byte & 15)));
            }
        }
        Self(shown)
    }

    /// The value of the record's `workload`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a text is the SPIFFE id of a workload: a trust domain and a path (SPIFFE-ID §2).
pub fn is_spiffe_id(text: &str) -> bool {
    let Some((domain, path)) = text.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/'))
    else {
        return false;
    };
    let in_domain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    let in_path = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_segment =
        |segment: &str| !["", ".", ".."].contains(&segment) && segment.bytes().all(in_path);
    text.len() <= MAX_BYTES
        && (1..=MAX_TRUST_DOMAIN_BYTES).contains(&domain.len())
        && domain.bytes().all(in_domain)
        && path.split('/').all(is_segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_id_of_a_workload_is_one() {
        for good in [
            "spiffe://cluster.local/ns/shop/sa/till",
            "spiffe://a/b",
            "spiffe://td_1-x.example/A.b_c-9/...",
        ] {
            assert!(is_spiffe_id(good), "{good}");
        }
        for bad in [
            "",
            "spiffe://",
            "spiffe://cluster.local",
            "spiffe://cluster.local/",
            "spiffe:///ns/shop",
            "spiffe://cluster.local/ns//till",
            "spiffe://cluster.local/ns/till/",
            "spiffe://cluster.local/./till",
            "spiffe://cluster.local/../till",
            "SPIFFE://cluster.local/ns/till",
            "Spiffe://cluster.local/ns/till",
            "spiffe://Cluster.local/ns/till",
            "spiffe://cluster.local:8443/ns/till",
            "spiffe://user@cluster.local/ns/till",
            "spiffe://cluster.local/ns/t%69ll",
            "spiffe://cluster.local/ns/till?x=1",
            "spiffe://cluster.local/ns/till#x",
            "spiffe://cluster.local/ns/*",
            "spiffe://cluster.local/ns/é",
            "spiffe://cluster.local/ns/till ",
            "https://cluster.local/ns/till",
            "cluster.local/ns/shop/sa/till",
        ] {
            assert!(!is_spiffe_id(bad), "{bad}");
        }
    }

    #[test]
    fn the_length_of_an_id_is_bounded_on_both_sides() {
        let of = |bytes: usize| format!("spiffe://a/{}", "b".repeat(bytes - "spiffe://a/".len()));
        assert!(is_spiffe_id(&of(MAX_BYTES)));
        assert!(!is_spiffe_id(&of(MAX_BYTES + 1)));
        let domain = |bytes: usize| format!("spiffe://{}/b", "a".repeat(bytes));
        assert!(is_spiffe_id(&domain(MAX_TRUST_DOMAIN_BYTES)));
        assert!(!is_spiffe_id(&domain(MAX_TRUST_DOMAIN_BYTES + 1)));
    }

    #[test]
    fn no_certificate_can_forge_a_member_or_a_line_of_a_record() {
        for (id, shown) in [
            (
                &b"spiffe://cluster.local/ns/shop/sa/till"[..],
                "spiffe://cluster.local/ns/shop/sa/till",
            ),
            (b"spiffe://a/b reason=allowed", "spiffe://a/b%20reason%3Dallowed"),
            (b"a\r\nb\t\"\xc3\xa9\xff%", "a%0D%0Ab%09%22%C3%A9%FF%25"),
        ] {
            assert_eq!(Workload::new(id).as_str(), shown);
        }
        assert_eq!(Workload::new(&[b'a'; MAX_RECORD_BYTES]).as_str().len(), MAX_RECORD_BYTES);
        assert_eq!(Workload::new(&[b'a'; MAX_RECORD_BYTES + 1]).as_str().len(), MAX_RECORD_BYTES);
        // Never half an escape.
        let cut = Workload::new(&[b' '; MAX_RECORD_BYTES]);
        assert!(cut.as_str().len() <= MAX_RECORD_BYTES && cut.as_str().ends_with("%20"));
    }
}
