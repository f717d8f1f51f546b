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

/// Whether the host verifies what is right and refuses what is wrong: a text signed by a key that
/// was made for this and thrown away, and the same with its last character changed.
pub(crate) fn host_verifies() -> bool {
    const TEXT: &[u8] = b"entra-sidecar: known answer";
    const WRONG: &[u8] = b"entra-sidecar: known answes";
    const MODULUS: &str = "uoHR0P90SbeVPDsNXs6TAolURZZlxJbPK8QoPvvYisD1h0aa195hP2BozLRKP-QuMJSeuE-70f1-bCojvIjl_7jlWQoR2hrAf5N20CWJebQaaEev589dcn3SkAqMNoPydmaKa8dPjqUdedTieLxSrSFGeyeEeS0yKgR2KYV-K4MoobsJ-ocMXaxWZlO5T8Gy0JlajnFgQCkn76Plp2sTtwPBr3fOAhOwTIhoupC24DFzdO6MH0AoeK4TGCI9ji7NWLxEYAMrqWvR37wz5t7saw-miOveUJpGg06u_vx6WDWRksgdV12LbPFylEBBVCgkPAMCvIJJm2FVug_2eXUSFQ";
    const SIGNATURE: &str = "rtCJixV_uyTSRhH-4Jl62kX5cLUbeoMw-5DtCtsAp4GdwlJIYsNO96VEbAjfmP2Om8FCtqcehWlhdyXIVkO0zef8yHw2YjJWARlmxsFOrq44Drr7In2KH2tMg4BVzyDf446CAxbVPMA4TIb7HBPFe78kz_Nhe9-ybkZIP-z-nyAr0nKVqP8m6NEZDnMsxwW_13bnmKHkqNUjgjysyJyMMAWpef0Mu7ZAZ9VlgQau27t3svL32VhcpZJmhrJPhlXzwRec0_9rmKdY095TzK0yb0Sy3CEediDFlrZ_gSPOHVd_JDJPSvenxIZlR8Hj0r0F9VOKHwz08trvgULC5-CShw";
    let text = |text: &str| Some(text.to_owned());
    let key = TrustedKey::from_jwk(&Jwk {
        kid: text("known-answer"),
        kty: text("RSA"),
        n: text(MODULUS),
        e: text("AQAB"),
        issuer: text("known-answer"),
        ..Jwk::default()
    });
    let (Ok(key), Ok(signature)) = (key, policy::jwt::decode(SIGNATURE.as_bytes())) else {
        return false;
    };
    verify(&key.spki, TEXT, &signature) && !verify(&key.spki, WRONG, &signature)
}
