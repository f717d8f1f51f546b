//! A token from a stranger: whatever the bytes, the core answers, and what it accepts has one
//! spelling and one reading.
#![no_main]

use std::collections::HashSet;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;
use policy::{
    claims::{Audiences, Claims, Tenants},
    cloud::Cloud,
    json,
    jwt::UnverifiedToken,
    time::UnixTime,
};

const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";

fuzz_target!(|data: &[u8]| {
    compact_form(data);
    payload(data);
    // Most random bytes are no base64: header and payload in clear get further.
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let (header, claims) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let token = [header, claims, b"signature"].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    if let Ok(parsed) = UnverifiedToken::parse(token.as_bytes()) {
        assert_eq!(parsed.payload, claims);
    }
    compact_form(token.as_bytes());
});

fn compact_form(token: &[u8]) {
    if let Ok(parsed) = UnverifiedToken::parse(token) {
        // One token, one spelling: the decision cache compares what was sent.
        let payload = URL_SAFE_NO_PAD.encode(&parsed.payload);
        let signature = URL_SAFE_NO_PAD.encode(&parsed.signature);
        assert!(parsed.signed.ends_with(format!(".{payload}").as_bytes()));
        assert_eq!([parsed.signed, signature.as_bytes()].join(&b'.'), token);
    }
}

fn payload(text: &[u8]) {
    let Some(object) = json::object(text) else { return };
    // Another reader must see an object in it, too, with the same members.
    let other: serde_json::Value = serde_json::from_slice(text).expect("lenient JSON");
    let names: HashSet<&str> = object.names().collect();
    let others: HashSet<&str> =
        other.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(names, others);
    let Ok(claims) = Claims::read(&object) else { return };
    let audiences = Audiences(vec!["api://orders".to_owned(), TENANT.to_owned()]);
    let listed = Tenants::Listed(HashSet::from([TENANT.to_owned()]));
    for cloud in Cloud::ALL {
        for tenants in [&Tenants::Any, &listed] {
            let _ = claims.check_issuer(cloud, tenants);
        }
    }
    for now in [0, 1, claims.expires.0, u64::MAX] {
        let _ = claims.check(&audiences, 300, UnixTime(now));
    }
}
