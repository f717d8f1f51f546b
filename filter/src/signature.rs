//! Signatures are verified by the host: Envoy's `verify_signature`, which is BoringSSL.
//!
//! No cryptography in the module: in wasm an RSA verification costs ten times as much, and a
//! second verifier is a second thing to get wrong.

use contract::Jwk;
use policy::keys::TrustedKey;

use crate::host;

/// Verifies RS256: RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518 §3.3).
pub(crate) fn verify(key: &[u8], text: &[u8], signature: &[u8]) -> bool {
    // envoy.source.extensions.common.wasm.VerifySignatureArguments.
    const HASH_FUNCTION: u8 = 1;
    const PUBLIC_KEY: u8 = 2;
    const SIGNATURE: u8 = 3;
    const TEXT: u8 = 4;
    // VerifySignatureResult with `result` true and nothing else.
    const VERIFIED: [u8; 2] = [0x08, 0x01];
    let size = [key, text, signature].iter().map(|part| part.len()).fold(64, usize::saturating_add);
    let mut arguments = Vec::with_capacity(size);
    for (number, bytes) in [
        (HASH_FUNCTION, b"sha256".as_slice()),
        (PUBLIC_KEY, key),
        (SIGNATURE, signature),
        (TEXT, text),
    ] {
        append(&mut arguments, number, bytes);
    }
    host::foreign_function("verify_signature", &arguments).is_some_and(|answer| answer == VERIFIED)
}

/// Appends a length-delimited protobuf field.
fn append(message: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    const LENGTH_DELIMITED: u8 = 2;
    message.push(number << 3 | LENGTH_DELIMITED);
    let mut length = bytes.len();
    while length >= 0x80 {
        // The mask makes the value fit.
        message.push(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
        length >>= 7;
    }
    message.push(u8::try_from(length).unwrap_or(0));
    message.extend_from_slice(bytes);
}

/// Whether the host verifies what is right and refuses what is wrong: the example of RFC 7515
/// appendix A.2, and the same with one character of the text changed.
pub(crate) fn host_verifies() -> bool {
    const TEXT: &[u8] = b"eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    const WRONG: &[u8] = b"eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfR";
    const MODULUS: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    const SIGNATURE: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTvWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let text = |text: &str| Some(text.to_owned());
    let key = TrustedKey::from_jwk(&Jwk {
        kid: text("rfc7515-a2"),
        kty: text("RSA"),
        n: text(MODULUS),
        e: text("AQAB"),
        issuer: text("rfc7515"),
        ..Jwk::default()
    });
    let (Ok(key), Ok(signature)) = (key, policy::jwt::decode(SIGNATURE.as_bytes())) else {
        return false;
    };
    verify(&key.spki, TEXT, &signature) && !verify(&key.spki, WRONG, &signature)
}
