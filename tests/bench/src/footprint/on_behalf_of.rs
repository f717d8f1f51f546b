//! The broker's memory with the tokens of many users: one on-behalf-of exchange each.

use std::{io::Write, os::unix::net::UnixStream, path::Path, thread};

use anyhow::{Context, Result, anyhow};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use e2e::{fake_entra::sample, stack::unix_now};
use serde_json::json;

use super::{
    hits::{first_answer, token_request},
    stage::{DELEGATED_SCOPE, Stage},
};

/// Who asks at one time: as many as the broker has calls to Entra under way.
const ASKERS: usize = 16;

/// Memory with so many tokens held, in MiB.
pub(super) fn memory_mib(stage: &Stage, tokens: usize) -> Result<f64> {
    let broker = stage.start()?;
    stage.give(tokens);
    let socket = stage.socket();
    let ask = |first: usize| -> Result<()> {
        for number in (first..tokens).step_by(ASKERS) {
            ask(&socket, number)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let askers: Vec<_> = (0..ASKERS).map(|first| scope.spawn(move || ask(first))).collect();
        askers.into_iter().try_for_each(|asker| asker.join().map_err(|_| anyhow!("an asker"))?)
    })?;
    broker.settled_memory_mib()
}

/// One user's token is exchanged, on a connection of its own.
fn ask(socket: &Path, number: usize) -> Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    let request = token_request(DELEGATED_SCOPE, Some(&assertion(number)))?;
    stream.write_all(&request)?;
    stream.set_nonblocking(true)?;
    first_answer(&mut stream).map(drop).with_context(|| format!("user {number}"))
}

/// A user's token for the identity's own application, of the usual size. Its signature is nobody's:
/// the filter has verified it before the broker gets it, and the fake answers whatever comes.
fn assertion(number: usize) -> String {
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": "bench"});
    let claims = json!({
        "aud": sample::WORKLOAD,
        "iss": format!("https://login.microsoftonline.com/{}/v2.0", sample::TENANT),
        "tid": sample::TENANT,
        "oid": format!("4a9d8e1c-2f3b-4c5d-9e6f-{number:012}"),
        "sub": format!("user-{number}"),
        "scp": "access_as_user",
        "ver": "2.0",
        "iat": unix_now(),
        "exp": unix_now().saturating_add(3_600),
        "padding": "p".repeat(200),
    });
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let (header, claims) = (header.to_string(), claims.to_string());
    format!("{}.{}.{}", part(header.as_bytes()), part(claims.as_bytes()), part(&[7; 256]))
}
