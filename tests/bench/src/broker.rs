//! A token broker's `api` listener with fixed answers, for the filter under measurement.
//!
//! On a hit the filter asks nobody, so what the broker costs is no part of any row; a fixed one
//! keeps it out of the noise as well. It speaks the contract's own types.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::Arc,
    thread,
};

use anyhow::{Context, Result, bail};
use contract::{IssuedToken, KeySets, Secret, TokenRequest, route};

use crate::caller_tokens::now;

/// Serves on a Unix socket until the process ends.
pub(crate) fn serve(socket: &Path, keys: KeySets, injected: String) -> Result<()> {
    let listener = UnixListener::bind(socket).context("the broker's socket")?;
    let answers = Arc::new(Answers { keys: serde_json::to_vec(&keys)?, injected });
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let answers = Arc::clone(&answers);
            // An error ends the connection; the filter then says 503 and the bench stops on it.
            thread::spawn(move || answers.serve_connection(connection));
        }
    });
    Ok(())
}

struct Answers {
    keys: Vec<u8>,
    injected: String,
}

impl Answers {
    fn serve_connection(&self, mut connection: UnixStream) -> Result<()> {
        let mut received = Vec::new();
        loop {
            while let Some((answer, used)) = self.answer(&received)? {
                received.drain(..used);
                write!(
                    connection,
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                    answer.len()
                )?;
                connection.write_all(&answer)?;
            }
            let mut part = [0; 4096];
            let length = connection.read(&mut part)?;
            if length == 0 {
                return Ok(());
            }
            received.extend(part.iter().take(length));
        }
    }

    /// The answer to the first whole request in `received`, and how many bytes that request has.
    fn answer(&self, received: &[u8]) -> Result<Option<(Vec<u8>, usize)>> {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        let httparse::Status::Complete(head) = request.parse(received)? else { return Ok(None) };
        let length = request
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("content-length"))
            .map_or(Ok(0), |header| {
                std::str::from_utf8(header.value)?.parse::<usize>().map_err(anyhow::Error::from)
            })?;
        let end = head.saturating_add(length);
        let Some(body) = received.get(head..end) else { return Ok(None) };
        let answer = match request.path {
            Some(route::KEYS | route::KEYS_REFRESH) => self.keys.clone(),
            Some(route::TOKEN) => self.token(serde_json::from_slice(body)?)?,
            path => bail!("the contract has no {path:?}"),
        };
        Ok(Some((answer, end)))
    }

    fn token(&self, request: TokenRequest) -> Result<Vec<u8>> {
        let now = now()?;
        Ok(serde_json::to_vec(&IssuedToken {
            // Another one where the first was refused.
            access_token: Secret::new(match &request.refused {
                None => self.injected.clone(),
                Some(_refused) => format!("{}2", self.injected),
            }),
            token_type: "Bearer".to_owned(),
            expires_on: now.saturating_add(7_200),
            refresh_on: now.saturating_add(3_600),
            scope: request.scope,
            identity: request.identity,
            correlation_id: "66667777-aaaa-8888-bbbb-9999cccc0000".to_owned(),
            token_hash: Some("0".repeat(64)),
        })?)
    }
}
