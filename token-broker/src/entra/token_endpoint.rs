//! The v2.0 token endpoint: tokens of an application itself by the client credentials grant
//! (learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow), and those of a
//! user by the on-behalf-of flow
//! (learn.microsoft.com/entra/identity-platform/v2-oauth2-on-behalf-of-flow).
//!
//! Makes the request, and takes from the answer only what is sound: a Bearer token that can stand
//! in a header, with a sane end.

use std::time::Duration;

use contract::{ErrorKind, Secret, TypedError};
use hyper::http::{Method, Request, Uri, header};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::refusal::{self, Assertions};
use crate::{
    config::Application,
    failure::{NoToken, failure, retry_in},
    https::{Transport, TransportFailure, circuit::OnBehalfOf, login_uri},
};

/// Largest answer that is read.
pub(super) const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// Largest token that is taken: what the filter takes, too.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Longest life that is believed. Entra's longest is 28 h
/// (learn.microsoft.com/entra/identity/conditional-access/concept-continuous-access-evaluation);
/// the hour more is for rounding.
const MAX_LIFE_SECONDS: u64 = 29 * 3_600;
/// RFC 7523 §2.2: how a client proves itself.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// RFC 7523 §2.1: a token as the grant.
const JWT_BEARER_GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// How an application proves that it is itself.
#[derive(Debug, Clone)]
pub enum Proof {
    /// A client secret.
    Secret(Secret),
    /// An assertion that it has signed itself.
    Assertion(Secret),
    /// Somebody else's token, whom the application trusts.
    Federated(Secret),
}

/// A token as Entra gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acquired {
    /// The token.
    pub access_token: Secret,
    /// Its life from the moment of the request.
    pub life: Duration,
    /// When Entra would like to be asked again.
    pub refresh_in: Option<Duration>,
    /// Names this acquisition in Entra's sign-in log.
    pub correlation_id: String,
}

/// What a token is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// One scope; for the application itself `<resource>/.default`.
    pub scope: &'a str,
    /// The user's token on whose behalf; without it the token is the application's own.
    pub assertion: Option<&'a Secret>,
    /// The `claims` parameter, where there is one.
    pub claims: Option<&'a str>,
}

/// Asks for a token of the application itself, or on behalf of a user.
pub async fn ask(
    transport: &dyn Transport,
    application: &Application,
    wanted: Wanted<'_>,
    proof: &Proof,
) -> Result<Acquired, NoToken> {
    let correlation_id = Uuid::new_v4().to_string();
    let mut request =
        request(application, wanted, proof, &correlation_id).map_err(|_malformed| {
            failure(ErrorKind::Config, "malformed_request: the identity makes no valid request")
        })?;
    if wanted.assertion.is_some() {
        request.extensions_mut().insert(OnBehalfOf);
    }
    let outcome = match transport.send(request, MAX_ANSWER_BYTES).await {
        Ok(answer) if answer.status == hyper::StatusCode::OK => {
            let id = refusal::correlation_id(&answer.headers);
            accept(&answer.body).map_err(NoToken::from).map(|(access_token, life, refresh_in)| {
                let correlation_id = id.unwrap_or_else(|| correlation_id.clone());
                Acquired { access_token, life, refresh_in, correlation_id }
            })
        }
        Ok(answer) => Err(refusal::read(&answer, Assertions::of(wanted, proof))),
        Err(failed) => Err(unreachable_entra(&failed).into()),
    };
    outcome.map_err(|mut refused| {
        refused.error.correlation_id.get_or_insert(correlation_id);
        refused
    })
}

impl Assertions {
    fn of(wanted: Wanted<'_>, proof: &Proof) -> Self {
        match (wanted.assertion, proof) {
            (None, _) => Self::OfApplication,
            (Some(_), Proof::Federated(_)) => Self::OfBoth,
            (Some(_), Proof::Secret(_) | Proof::Assertion(_)) => Self::OfUser,
        }
    }
}

fn request(
    application: &Application,
    wanted: Wanted<'_>,
    proof: &Proof,
    correlation_id: &str,
) -> Result<Request<Secret>, hyper::http::Error> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("client_id", &application.client_id).append_pair("scope", wanted.scope);
    match wanted.assertion {
        None => form.append_pair("grant_type", "client_credentials"),
        Some(assertion) => form
            .append_pair("grant_type", JWT_BEARER_GRANT)
            .append_pair("requested_token_use", "on_behalf_of")
            .append_pair("assertion", assertion.expose()),
    };
    match proof {
        Proof::Secret(secret) => form.append_pair("client_secret", secret.expose()),
        Proof::Assertion(assertion) | Proof::Federated(assertion) => form
            .append_pair("client_assertion_type", JWT_BEARER)
            .append_pair("client_assertion", assertion.expose()),
    };
    if let Some(claims) = wanted.claims {
        form.append_pair("claims", claims);
    }
    Request::builder()
        .method(Method::POST)
        .uri(token_uri(application)?)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::ACCEPT, "application/json")
        .header("client-request-id", correlation_id)
        .header("return-client-request-id", "true")
        .header("x-client-sku", "entra-sidecar")
        .header("x-client-ver", env!("CARGO_PKG_VERSION"))
        // Says that Retry-After is honoured, so that Entra sends it.
        .header("x-ms-lib-capability", "retry-after, h429")
        .body(Secret::new(form.finish()))
}

/// The token endpoint of the application's tenant.
pub fn token_uri(application: &Application) -> Result<Uri, hyper::http::Error> {
    let path = format!("/{}/oauth2/v2.0/token", application.tenant);
    login_uri(application.cloud.login_host(), &path)
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: Option<Secret>,
    token_type: Option<String>,
    expires_in: Option<Value>,
    refresh_in: Option<Value>,
}

/// Token, life, and when to ask again.
pub(super) type Accepted = (Secret, Duration, Option<Duration>);

/// Takes a 200's body, or says what is unsound about it; never with a piece of it.
pub(super) fn accept(body: &[u8]) -> Result<Accepted, TypedError> {
    let unsound = |what: &str| {
        failure(ErrorKind::Transient, format!("unsound_answer: Entra's answer has {what}"))
    };
    let answer: TokenAnswer =
        serde_json::from_slice(body).map_err(|_malformed| unsound("no readable JSON"))?;
    let token = answer
        .access_token
        .filter(|token| is_bearer_token(token.expose()))
        .ok_or_else(|| unsound("no usable access_token"))?;
    if !answer.token_type.is_some_and(|kind| kind.eq_ignore_ascii_case("Bearer")) {
        return Err(unsound("a token_type other than Bearer"));
    }
    let life = answer
        .expires_in
        .as_ref()
        .and_then(seconds)
        .filter(|seconds| (1..=MAX_LIFE_SECONDS).contains(seconds))
        .ok_or_else(|| unsound("no sane expires_in"))?;
    // Advice only: what cannot be read is no advice.
    let refresh_in = answer.refresh_in.as_ref().and_then(seconds).map(Duration::from_secs);
    Ok((token, Duration::from_secs(life), refresh_in))
}

/// Whole seconds, which Entra's endpoints give as numbers and as strings.
fn seconds(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// RFC 6750 §2.1 `b64token`: what can stand behind `Bearer ` without breaking the header.
fn is_bearer_token(token: &str) -> bool {
    !token.is_empty()
        && token.len() <= MAX_TOKEN_BYTES
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte))
}

fn unreachable_entra(failed: &TransportFailure) -> TypedError {
    let unreachable = failure(ErrorKind::Transient, format!("entra_unreachable: {failed}"));
    match failed {
        TransportFailure::NotTried(rest) => retry_in(unreachable, *rest),
        _ => unreachable,
    }
}

#[cfg(test)]
mod tests {
    use policy::cloud::Cloud;

    use super::*;

    /// Life and advice, in seconds.
    type Sound = Option<(u64, Option<u64>)>;

    fn sound(life: u64, refresh_in: Option<u64>) -> Sound {
        Some((life, refresh_in))
    }

    #[test]
    fn b08_only_sound_answers_are_taken() {
        let long = "x".repeat(16 * 1024 + 1);
        let cases: Vec<(String, Sound)> = vec![
            (r#"{"access_token":"a.b-c_","token_type":"Bearer","expires_in":3599}"#.into(), sound(3_599, None)),
            (r#"{"access_token":"a","token_type":"bearer","expires_in":"3599","refresh_in":"1800","x":1}"#.into(), sound(3_599, Some(1_800))),
            (r#"{"access_token":"a","token_type":"Bearer","expires_in":1,"refresh_in":"soon"}"#.into(), sound(1, None)),
            (r#"{"access_token":"a","token_type":"Bearer","expires_in":104400}"#.into(), sound(104_400, None)),
            (r#"{"access_token":"a","token_type":"Bearer","expires_in":104401}"#.into(), None),
            (r#"{"access_token":"a","token_type":"Bearer","expires_in":0}"#.into(), None),
            (r#"{"access_token":"a","token_type":"Bearer","expires_in":-1}"#.into(), None),
            (r#"{"access_token":"a","token_type":"Bearer","expires_in":1e12}"#.into(), None),
            (r#"{"access_token":"a","token_type":"Bearer","expires_in":null}"#.into(), None),
            (r#"{"access_token":"a","token_type":"Bearer","expires_in":" 5"}"#.into(), None),
            (r#"{"access_token":"a","token_type":"Bearer"}"#.into(), None),
            (r#"{"access_token":"a","token_type":"pop","expires_in":5}"#.into(), None),
            (r#"{"access_token":"a","expires_in":5}"#.into(), None),
            (r#"{"token_type":"Bearer","expires_in":5}"#.into(), None),
            (r#"{"access_token":"","token_type":"Bearer","expires_in":5}"#.into(), None),
            (r#"{"access_token":"a\r\nx: y","token_type":"Bearer","expires_in":5}"#.into(), None),
            (r#"{"access_token":"a b","token_type":"Bearer","expires_in":5}"#.into(), None),
            (r#"{"access_token":7,"token_type":"Bearer","expires_in":5}"#.into(), None),
            (format!(r#"{{"access_token":"{long}","token_type":"Bearer","expires_in":5}}"#), None),
            (r#"{"access_token":"a","access_token":"b","token_type":"Bearer","expires_in":5}"#.into(), None),
            ("<html></html>".into(), None),
            ("{}".into(), None),
            ("[]".into(), None),
            (String::new(), None),
        ];
        for (body, expected) in cases {
            let found = accept(body.as_bytes());
            let seen = found
                .as_ref()
                .ok()
                .map(|(_, life, refresh)| (life.as_secs(), refresh.map(|r| r.as_secs())));
            assert_eq!(seen, expected, "{body}");
            if let Err(refused) = found {
                assert_eq!(refused.kind, ErrorKind::Transient);
                assert!(refused.error.starts_with("unsound_answer"));
            }
        }
    }

    #[test]
    fn the_request_is_what_the_endpoint_wants() {
        let application = Application {
            cloud: Cloud::UsGovernment,
            tenant: "t".to_owned(),
            client_id: "c".to_owned(),
        };
        let secret = Secret::new("s+/=& ~");
        let plain = |scope| Wanted { scope, assertion: None, claims: None };
        let graph = plain("https://graph.microsoft.us/.default");
        let sent = request(&application, graph, &Proof::Secret(secret.clone()), "id-1").unwrap();
        assert_eq!(sent.uri(), "https://login.microsoftonline.us/t/oauth2/v2.0/token");
        assert_eq!(sent.method(), Method::POST);
        assert_eq!(sent.headers()["client-request-id"], "id-1");
        assert_eq!(sent.headers()["return-client-request-id"], "true");
        assert_eq!(sent.headers()["x-ms-lib-capability"], "retry-after, h429");
        assert_eq!(
            sent.body().expose(),
            "client_id=c&scope=https%3A%2F%2Fgraph.microsoft.us%2F.default\
             &grant_type=client_credentials&client_secret=s%2B%2F%3D%26+%7E"
        );
        let proof = Proof::Assertion(Secret::new("j.w.t"));
        let sent = request(&application, plain("a"), &proof, "i").unwrap();
        assert_eq!(
            sent.body().expose(),
            "client_id=c&scope=a&grant_type=client_credentials\
             &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer\
             &client_assertion=j.w.t"
        );
        let user = Secret::new("u.s.er");
        let delegated = Wanted { assertion: Some(&user), ..plain("https://x/User.Read") };
        let sent = request(&application, delegated, &Proof::Secret(secret.clone()), "i").unwrap();
        assert_eq!(
            sent.body().expose(),
            "client_id=c&scope=https%3A%2F%2Fx%2FUser.Read\
             &grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer\
             &requested_token_use=on_behalf_of&assertion=u.s.er\
             &client_secret=s%2B%2F%3D%26+%7E"
        );
        let challenged = Wanted { claims: Some(r#"{"access_token":{}}"#), ..plain("a") };
        let sent = request(&application, challenged, &Proof::Secret(secret), "i").unwrap();
        assert!(sent.body().expose().ends_with("&claims=%7B%22access_token%22%3A%7B%7D%7D"));
    }
}
