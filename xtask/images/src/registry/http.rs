//! The HTTP client: one request, one whole answer, no redirects, a limit on what is read.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use ureq::{
    Agent, Error,
    http::{HeaderMap, Request},
    tls::{RootCerts, TlsConfig},
};

use crate::address::{Address, Scheme};

/// More than any manifest or message of a registry.
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// The longest message of a registry that is shown.
const MAX_REASON: usize = 300;

/// Sends requests.
pub(super) struct Http {
    agent: Agent,
}

/// An answer, read to its end.
pub(super) struct Response {
    /// The status.
    pub(super) status: u16,
    headers: HeaderMap,
    /// The body.
    pub(super) body: Vec<u8>,
}

/// The two forms of a registry's error: of the API, and of its token service.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    errors: Vec<Problem>,
    code: String,
    message: String,
    details: String,
    error: String,
    error_description: String,
}

/// A client and the registry's base URL, with its answer to a first request without a login.
pub(super) fn reach(address: &Address) -> Result<(Http, String, Response)> {
    let (https, http) =
        (format!("https://{}", address.server()), format!("http://{}", address.server()));
    if address.scheme != Scheme::Http {
        let client = Http::new(false);
        match client.try_get(&format!("{https}/v2/")) {
            Ok(answer) => return Ok((client, https, answer)),
            Err(error) if address.scheme == Scheme::Either && speaks_no_tls(&error) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot reach {https}")),
        }
    }
    let client = Http::new(true);
    let answer =
        client.try_get(&format!("{http}/v2/")).with_context(|| format!("cannot reach {http}"))?;
    Ok((client, http, answer))
}

/// Whether the other side answered a TLS greeting with something else. A wrong certificate is not
/// that: who holds one must not be able to ask for the login in plain.
fn speaks_no_tls(error: &Error) -> bool {
    let is_other = |error: &str| error.contains("corrupt message of type InvalidContentType");
    match error {
        Error::Rustls(error) => is_other(&error.to_string()),
        Error::Io(error) => is_other(&error.to_string()),
        _ => false,
    }
}

impl Http {
    fn new(near: bool) -> Self {
        // What the system trusts: a company's registry has a company's certificate.
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let mut config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_recv_response(Some(Duration::from_secs(120)))
            .user_agent(concat!("entra-sidecar-images/", env!("CARGO_PKG_VERSION")));
        if near {
            config = config.proxy(None);
        }
        Self { agent: config.build().new_agent() }
    }

    fn try_get(&self, url: &str) -> Result<Response, Error> {
        Response::read(self.agent.run(Request::get(url).body(())?)?)
    }

    /// Gets, with what is accepted.
    pub(super) fn get(
        &self,
        url: &str,
        authorization: Option<&str>,
        accept: Option<&str>,
    ) -> Result<Response> {
        let headers = [("authorization", authorization), ("accept", accept)];
        self.request("GET", url, &headers, &[])
    }

    /// Sends a body, with what it is.
    pub(super) fn send(
        &self,
        method: &str,
        url: &str,
        authorization: Option<&str>,
        content_type: Option<&str>,
        body: &[u8],
    ) -> Result<Response> {
        let headers = [("authorization", authorization), ("content-type", content_type)];
        self.request(method, url, &headers, body)
    }

    fn request(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, Option<&str>)],
        body: &[u8],
    ) -> Result<Response> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            if let Some(value) = value {
                request = request.header(*name, *value);
            }
        }
        let answer = if matches!(method, "GET" | "HEAD") {
            request.body(()).map_err(Error::from).and_then(|request| self.agent.run(request))
        } else {
            request.body(body).map_err(Error::from).and_then(|request| self.agent.run(request))
        };
        // The query may hold what the registry keeps of an upload: of no use to a person.
        let shown = url.split('?').next().unwrap_or(url);
        answer.and_then(Response::read).with_context(|| format!("{method} {shown}"))
    }
}

impl Response {
    fn read(mut answer: ureq::http::Response<ureq::Body>) -> Result<Self, Error> {
        let body = answer.body_mut().with_config().limit(MAX_BYTES).read_to_vec()?;
        let (parts, _) = answer.into_parts();
        Ok(Self { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    /// Every value of a header.
    pub(super) fn all(&self, name: &str) -> Vec<String> {
        let values = self.headers.get_all(name).iter();
        values.filter_map(|value| value.to_str().ok().map(str::to_owned)).collect()
    }

    /// The first value of a header.
    pub(super) fn one(&self, name: &str) -> Option<String> {
        self.all(name).into_iter().next()
    }

    /// What the registry says about an error, as far as a terminal can show it.
    pub(super) fn reason(&self) -> String {
        let problem: Problem = serde_json::from_slice(&self.body).unwrap_or_default();
        let one = |problem: &Problem| {
            let Problem { code, message, details, error, error_description, .. } = problem;
            let parts = [code, message, details, error, error_description];
            let parts: Vec<&str> = parts
                .into_iter()
                .map(|part| part.as_str())
                .filter(|part| !part.is_empty())
                .collect();
            parts.join(" ")
        };
        let mut reasons: Vec<String> = problem.errors.iter().map(one).collect();
        reasons.push(one(&problem));
        reasons.retain(|reason| !reason.is_empty());
        if reasons.is_empty() {
            return format!("status {}", self.status);
        }
        let reasons = reasons.join("; ");
        reasons.chars().filter(|letter| !letter.is_control()).take(MAX_REASON).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(body: &str) -> String {
        Response { status: 401, headers: HeaderMap::new(), body: body.into() }.reason()
    }

    #[test]
    fn both_forms_of_an_error_are_shown_without_control_characters() {
        let api = r#"{"errors":[{"code":"DENIED","message":"no\u001b[31m","detail":{"a":1}}]}"#;
        assert_eq!(reason(api), "DENIED no[31m");
        assert_eq!(reason(r#"{"details":"incorrect username"}"#), "incorrect username");
        let grant = r#"{"error":"invalid_grant","error_description":"expired"}"#;
        assert_eq!(reason(grant), "invalid_grant expired");
        assert_eq!(reason("<html>"), "status 401");
        assert!(reason(&format!(r#"{{"error":"{}"}}"#, "x".repeat(9000))).len() <= MAX_REASON);
    }
}
