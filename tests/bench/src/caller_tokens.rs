//! Tokens as Entra issues them, many and all different, for the inbound rows.
//!
//! The key is made at start and never leaves the process; signing goes through *ring*, because
//! thousands are needed. All rows, ours and the peers', are shown tokens from this one pool.

use std::{
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use contract::{Jwk, KeySet, KeySetState, KeySets};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use ring::{rand::SystemRandom, signature};
use rsa::{RsaPrivateKey, pkcs8::EncodePrivateKey, traits::PublicKeyParts};
use serde_json::json;

use crate::demo_policy::DemoPolicy;

/// Tokens, and the keys that verify them.
pub(crate) struct CallerTokens {
    /// Distinct valid tokens of one user of the demo's tenant.
    pub(crate) tokens: Vec<String>,
    /// The key set as the broker hands it out.
    pub(crate) key_sets: KeySets,
}

/// Signs `count` tokens that the demo's policy lets pass, on as many threads as there are cores.
pub(crate) fn sign(policy: &DemoPolicy, count: usize) -> Result<CallerTokens> {
    let mut entropy = ChaCha20Rng::seed_from_u64(now()?);
    let private = RsaPrivateKey::new(&mut entropy, 2048)?;
    let public = private.to_public_key();
    let pair = signature::RsaKeyPair::from_pkcs8(private.to_pkcs8_der()?.as_bytes())
        .map_err(|reason| anyhow!("ring refuses the key: {reason}"))?;
    let key = Jwk {
        kid: Some("bench-key".to_owned()),
        kty: Some("RSA".to_owned()),
        usage: Some("sig".to_owned()),
        alg: Some("RS256".to_owned()),
        n: Some(URL_SAFE_NO_PAD.encode(public.n().to_bytes_be())),
        e: Some(URL_SAFE_NO_PAD.encode(public.e().to_bytes_be())),
        issuer: Some(policy.issuer()),
        cloud_instance_name: Some("microsoftonline.com".to_owned()),
    };
    let set = KeySet {
        issuer: policy.issuer(),
        fetched_at: now()?,
        state: KeySetState::Fresh,
        keys: vec![key],
    };
    let tokens = sign_on_all_cores(&pair, policy, now()?, count)?;
    Ok(CallerTokens { tokens, key_sets: KeySets { key_sets: vec![set] } })
}

fn sign_on_all_cores(
    pair: &signature::RsaKeyPair,
    policy: &DemoPolicy,
    now: u64,
    count: usize,
) -> Result<Vec<String>> {
    let threads = thread::available_parallelism()?.get();
    let numbers: Vec<usize> = (0..count).collect();
    thread::scope(|scope| {
        let parts: Vec<_> = numbers
            .chunks(count.div_ceil(threads).max(1))
            .map(|part| {
                scope.spawn(move || {
                    part.iter().map(|number| token(pair, policy, now, *number)).collect()
                })
            })
            .collect();
        let mut tokens = Vec::with_capacity(count);
        for part in parts {
            let part: Result<Vec<String>> =
                part.join().map_err(|_| anyhow!("a signing thread panicked"))?;
            tokens.append(&mut part?);
        }
        Ok(tokens)
    })
}

/// A v2.0 user token with the members and sizes of a real one (about 1.1 KB).
fn token(
    pair: &signature::RsaKeyPair,
    policy: &DemoPolicy,
    now: u64,
    number: usize,
) -> Result<String> {
    let header = json!({"typ": "JWT", "alg": "RS256", "kid": "bench-key"});
    let claims = json!({
        "aud": policy.audience,
        "iss": policy.issuer(),
        "iat": now.saturating_sub(300),
        "nbf": now.saturating_sub(300),
        "exp": now.saturating_add(7_200),
        "acrs": ["p1", "c2"],
        "aio": format!("AVQAq/8TAAAA7rK2o0Qm{number:08}bYbCkXbUpR1nN8nC3vE0lJ6wQZx2oHk="),
        "azp": "22223333-cccc-4444-dddd-5555eeee6666",
        "azpacr": "2",
        "groups": ["9a8b7c6d-1111-4222-8333-444455556666"],
        "name": "Megan Bowen",
        "oid": "33334444-dddd-5555-eeee-6666ffff7777",
        "preferred_username": "megan.bowen@orders.example",
        "rh": "1.AXoAv4j5cvGGr0GRqy180BHbR2eZAAAAAAAAwAAAAAAAAACUAAA.",
        "roles": ["Orders.Clerk"],
        "scp": policy.scope,
        "sid": "44445555-eeee-6666-ffff-7777aaaa8888",
        "sub": "kJ0pD2hWb1m9VvT6nUu7o0q1a5r8yXcE4gLzSsQxYtI",
        "tid": policy.tenant,
        "uti": format!("Zm9vYmFyYmF6cXV4{number:06}"),
        "ver": "2.0",
        "xms_cc": ["cp1"],
    });
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(
        &signature::RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        signed.as_bytes(),
        &mut signature,
    )
    .map_err(|_| anyhow!("signing failed"))?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// Unix seconds.
pub(crate) fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).context("a clock before 1970")?.as_secs())
}
