//! `WWW-Authenticate` from a stranger: whatever it is, what goes to the broker is one small JSON
//! object of known members, and reading it again changes nothing.
#![no_main]

use base64::{Engine, engine::general_purpose::STANDARD};
use libfuzzer_sys::fuzz_target;
use policy::{claims_challenge, www_authenticate};

// Lines of the header; and all of it as the claims of a challenge.
fuzz_target!(|data: &[u8]| {
    if let Some(claims) = www_authenticate::claims(data.split(|byte| *byte == b'\n')) {
        judged(&claims);
    }
    let header =
        format!(r#"Bearer error="insufficient_claims", claims="{}""#, STANDARD.encode(data));
    let claims = www_authenticate::claims([header.as_bytes()]);
    assert_eq!(claims.as_deref(), std::str::from_utf8(data).ok().filter(|_| header.len() <= 16384));
    if let Some(claims) = claims {
        judged(&claims);
    }
});

fn judged(claims: &str) {
    let Some(accepted) = claims_challenge::accepted(claims.as_bytes()) else { return };
    assert!(accepted.len() <= 4096 && accepted.bytes().all(|byte| byte.is_ascii_graphic()));
    assert_eq!(claims_challenge::accepted(accepted.as_bytes()), Some(accepted.clone()));
    assert!(serde_json::from_str::<serde_json::Value>(&accepted).is_ok());
}
