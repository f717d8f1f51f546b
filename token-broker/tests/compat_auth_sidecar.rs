//! The endpoints of Microsoft's auth sidecar, as its clients see them.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::HeaderMap;
use serde_json::{Value, json};
use token_broker::https::TransportFailure;
use tokens::SigningKey;

use crate::{
    compat_imds::{config, secret_file},
    support::{
        Broker, CLIENT, Endpoint, Entra, Reply, SCOPE, SECRET, START, TENANT, TOKEN, ask, from_pod,
        key, pass, seconds,
    },
};

const USER_READ: &str = "https://graph.microsoft.com/User.Read";
const ISSUER: &str = "https://login.microsoftonline.com/{tenantid}/v2.0";

/// A configuration with an API of each kind, and callers' tokens that need a scope.
fn text(secret: &str) -> String {
    format!(
        "
authorities: [{{cloud: public, tenants: [{TENANT}]}}]
identities:
  default: {{client_secret: {{tenant: {TENANT}, client_id: {CLIENT}, file: {secret}}},
            scopes: [{SCOPE}], delegated_scopes: [{SCOPE}, {USER_READ}]}}
  bare: {{client_secret: {{tenant: {TENANT}, client_id: {CLIENT}, file: {secret}}},
          scopes: [{SCOPE}]}}
listen:
  compat:
    address: 127.0.0.1:7173
    trust_whole_pod: true
    auth_sidecar:
      callers: {{tenants: [{TENANT}], audiences: [{CLIENT}], scopes: [access_as_user]}}
      apis:
        graph: {{identity: default, scope: {SCOPE}}}
        app: {{identity: default, scope: {SCOPE}, request_app_token: true}}
        me: {{identity: default, scope: {USER_READ}}}
        bare: {{identity: bare, scope: {SCOPE}}}
"
    )
}

struct Sidecar {
    broker: Broker,
    _directory: tempfile::TempDir,
}

impl Sidecar {
    async fn start() -> Self {
        Self::with(|text| text).await
    }

    async fn with(change: impl FnOnce(String) -> String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = config(&change(text(&secret_file(&directory, SECRET)))).unwrap();
        let broker = Broker::with_config(&Entra::new(), &config);
        // The keys come.
        pass(seconds(1)).await;
        Self { broker, _directory: directory }
    }

    async fn get(&self, path: &str, fields: &[(&str, &str)]) -> (u16, HeaderMap, Value) {
        let (status, headers, body) = ask(&self.broker.compat(), from_pod(path, fields)).await;
        assert!(!body.contains(SECRET), "{body}");
        (status, headers, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    async fn with_token(&self, path: &str, token: &str) -> (u16, HeaderMap, Value) {
        self.get(path, &[("authorization", &format!("Bearer {token}"))]).await
    }

    /// The status and error code of a request with this token.
    async fn refused(&self, path: &str, token: &str) -> (u16, String) {
        let (status, headers, body) = self.with_token(path, token).await;
        assert_eq!(headers["content-type"], "application/problem+json", "{body}");
        assert_eq!(body["status"], status, "{body}");
        let code = body["errorCode"].as_str().unwrap();
        assert_eq!(body["type"], format!("urn:entra-sidecar:{code}"));
        assert!(body["title"].as_str().unwrap().starts_with(&format!("{code}: ")), "{body}");
        (status, body["errorCode"].as_str().unwrap().to_owned())
    }
}

fn claims() -> Value {
    json!({
        "ver": "2.0", "tid": TENANT, "aud": CLIENT, "azp": CLIENT, "azpacr": "1",
        "iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0"),
        "iat": START - 60, "nbf": START - 60, "exp": START + 3_600,
        "oid": "o", "sub": "s", "scp": "access_as_user other", "name": "Ada",
    })
}

fn changed(member: &str, value: impl Into<Value>) -> Value {
    let mut claims = claims();
    claims[member] = value.into();
    claims
}

fn signed(claims: &Value) -> String {
    SigningKey::new(1, "k1", ISSUER).token(claims)
}

fn application() -> Value {
    let mut claims = changed("idtyp", "app");
    claims.as_object_mut().unwrap().remove("scp");
    claims["sub"] = json!("o");
    claims
}

#[tokio::test(start_paused = true)]
async fn a_callers_token_is_validated_and_its_claims_are_told() {
    let sidecar = Sidecar::start().await;
    let token = signed(&claims());
    let (status, headers, body) = sidecar.with_token("/Validate", &token).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body, json!({"protocol": "Bearer", "token": token, "claims": claims()}));
    assert_eq!(headers["cache-control"], "no-cache, no-store, must-revalidate");
    assert_eq!(
        (&headers["pragma"], &headers["expires"]),
        (&"no-cache".parse().unwrap(), &"0".parse().unwrap())
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_that_the_filter_would_refuse_is_refused() {
    let sidecar = Sidecar::start().await;
    let other_key = SigningKey::new(2, "k1", ISSUER).token(&claims());
    let unknown = SigningKey::new(1, "k9", ISSUER).token(&claims());
    let other_tenant = "aaaaaaaa-86f1-41af-91ab-2d7cd011db47";
    for (token, status, code) in [
        (other_key, 401, "signature_invalid"),
        (unknown, 401, "key_unknown"),
        (signed(&changed("aud", "aaaaaaaa-0d2c-4a39-9a63-3f6c2c7a9d10")), 401, "audience_mismatch"),
        (signed(&changed("tid", other_tenant)), 401, "tenant_refused"),
        (signed(&changed("iss", "https://evil.example")), 401, "issuer_mismatch"),
        (signed(&changed("exp", START - 61)), 401, "token_expired"),
        (signed(&changed("nbf", START + 120)), 401, "token_not_yet_valid"),
        (signed(&changed("scp", "elsewhere")), 403, "scope_missing"),
        (signed(&application()), 401, "user_required"),
        ("a.b".to_owned(), 401, "token_malformed"),
        ("a b".to_owned(), 401, "authorization_malformed"),
    ] {
        for path in ["/Validate", "/AuthorizationHeader/app"] {
            assert_eq!(sidecar.refused(path, &token).await, (status, code.to_owned()), "{path}");
        }
    }
    let token = signed(&claims());
    let bearer = format!("Bearer {token}");
    let (pop, twice) = (format!("PoP {token}"), [("authorization", bearer.as_str()); 2]);
    for fields in [&[][..], &[("authorization", pop.as_str())], &twice] {
        let (status, headers, _) = sidecar.get("/Validate", fields).await;
        assert_eq!(status, 401, "{fields:?}");
        let uri = format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/authorize");
        let expected = format!("Bearer authorization_uri=\"{uri}\"");
        assert_eq!(headers["www-authenticate"], expected);
    }
    let asked = sidecar.broker.entra.count(Endpoint::Token);
    assert_eq!(asked, 2, "who is not accepted makes no call; these are those of the start");
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_fetched_for_the_token_that_names_it() {
    let sidecar = Sidecar::start().await;
    sidecar.broker.entra.keys(vec![key(1, "k1"), key(2, "k2")]);
    let token = SigningKey::new(2, "k2", ISSUER).token(&claims());
    assert_eq!(sidecar.with_token("/Validate", &token).await.0, 200);
    // An unknown one does not make the next call so soon.
    let fetched = sidecar.broker.entra.count(Endpoint::Keys);
    let unknown = SigningKey::new(1, "k9", ISSUER).token(&claims());
    assert_eq!(sidecar.refused("/Validate", &unknown).await, (401, "key_unknown".to_owned()));
    assert_eq!(sidecar.broker.entra.count(Endpoint::Keys), fetched);
}

#[tokio::test(start_paused = true)]
async fn the_keys_are_made_ready_once_for_each_change_and_grow_old_all_the_same() {
    let sidecar = Sidecar::start().await;
    let entra = &sidecar.broker.entra;
    let trusted = || sidecar.broker.state.serving().keys.trusted();
    let first = trusted();
    for token in [signed(&claims()), "a.b".to_owned(), signed(&changed("exp", START - 61))] {
        sidecar.with_token("/Validate", &token).await;
        assert!(Arc::ptr_eq(&first, &trusted()));
    }
    entra.keys(vec![key(2, "k2")]);
    let token = SigningKey::new(2, "k2", ISSUER).token(&claims());
    assert_eq!(sidecar.with_token("/Validate", &token).await.0, 200);
    assert!(!Arc::ptr_eq(&first, &trusted()));
    // The one that was withdrawn is no longer good.
    let withdrawn = signed(&claims());
    assert_eq!(sidecar.refused("/Validate", &withdrawn).await, (401, "key_unknown".to_owned()));
    entra.always(Endpoint::Keys, Some(Reply::Fail(TransportFailure::Timeout)));
    pass(seconds(25 * 3_600)).await;
    assert_eq!(sidecar.refused("/Validate", &token).await, (503, "keys_unavailable".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_cannot_be_judged_is_no_authentication_failure() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(&text(&secret_file(&directory, SECRET))).unwrap();
    let entra = Entra::new();
    entra.always(Endpoint::Keys, Some(Reply::Fail(TransportFailure::Timeout)));
    let sidecar = Sidecar { broker: Broker::with_config(&entra, &config), _directory: directory };
    let (status, headers, body) = sidecar.with_token("/Validate", &signed(&claims())).await;
    assert_eq!((status, &body["errorCode"]), (503, &json!("keys_unavailable")));
    assert_eq!(headers["retry-after"], "1");
    assert!(!headers.contains_key("www-authenticate"));
}

#[tokio::test(start_paused = true)]
async fn the_applications_own_header_says_when_it_ends() {
    let sidecar = Sidecar::start().await;
    let user = signed(&claims());
    let bearer = format!("Bearer {user}");
    let with_token = [("authorization", bearer.as_str())];
    let asked = "/AuthorizationHeader/graph?optionsOverride.RequestAppToken=true";
    for (path, fields) in [
        ("/AuthorizationHeaderUnauthenticated/graph", &[][..]),
        ("/AuthorizationHeaderUnauthenticated/app", &[]),
        ("/AuthorizationHeader/app", &with_token),
        (asked, &with_token),
    ] {
        let (status, headers, body) = sidecar.get(path, fields).await;
        assert_eq!(status, 200, "{path}: {body}");
        let header = body["authorizationHeader"].as_str().unwrap();
        assert!(header.starts_with(&format!("Bearer {TOKEN}")), "{body}");
        assert_eq!(body["expiresOn"], START + 3_600);
        assert!(body["correlationId"].is_string(), "{body}");
        assert_eq!(headers["cache-control"], "no-cache, no-store, must-revalidate");
    }
    assert_eq!(sidecar.broker.entra.count(Endpoint::Token), 2, "one for each identity");
}

/// The exchanges that Entra was asked for.
fn exchanges(entra: &Entra) -> Vec<(String, String)> {
    let calls = entra.calls(Endpoint::Token).into_iter();
    calls
        .filter_map(|call| Some((call.form.get("assertion")?.clone(), call.form["scope"].clone())))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_callers_token_is_exchanged_once_for_each_scope() {
    let sidecar = Sidecar::start().await;
    let user = signed(&claims());
    let scopes = "/AuthorizationHeader/graph?optionsOverride.Scopes=User.Read";
    let (status, _, own) = sidecar.get("/AuthorizationHeaderUnauthenticated/graph", &[]).await;
    assert_eq!(status, 200);
    let mut seen = vec![own["authorizationHeader"].clone()];
    for path in ["/AuthorizationHeader/graph", "/AuthorizationHeader/me", scopes] {
        let (status, _, body) = sidecar.with_token(path, &user).await;
        assert_eq!(status, 200, "{path}: {body}");
        assert_eq!(body["expiresOn"], START + 3_600);
        seen.push(body["authorizationHeader"].clone());
    }
    let found = exchanges(&sidecar.broker.entra);
    let expected = [SCOPE, USER_READ].map(|scope| (user.clone(), scope.to_owned()));
    assert_eq!(found, expected);
    assert_eq!(seen.pop(), seen.last().cloned(), "the same scope is the same token");
    seen.dedup();
    assert_eq!(seen.len(), 3);
    // Another user's is another's.
    let other = signed(&changed("oid", "another"));
    let (_, _, body) = sidecar.with_token("/AuthorizationHeader/graph", &other).await;
    assert!(!seen.contains(&body["authorizationHeader"]));
}

#[tokio::test(start_paused = true)]
async fn what_entra_wants_more_of_the_user_reaches_who_can_sign_in_again() {
    let sidecar = Sidecar::start().await;
    let wanted = r#"{"access_token":{"polids":{"essential":true,"values":["p"]}}}"#;
    let reply = json!({"error": "interaction_required", "error_codes": [50_076],
                       "error_description": "AADSTS50076", "claims": wanted,
                       "correlation_id": "aaaa-1"});
    sidecar.broker.entra.always(Endpoint::Token, Some(Reply::json(400, &reply)));
    let user = signed(&claims());
    let (status, headers, body) = sidecar.with_token("/AuthorizationHeader/me", &user).await;
    assert_eq!(status, 401, "{body}");
    let uri = format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/authorize");
    let encoded = STANDARD.encode(wanted);
    let expected = format!(
        "Bearer authorization_uri=\"{uri}\", error=\"insufficient_claims\", claims=\"{encoded}\""
    );
    assert_eq!(headers["www-authenticate"], expected);
    assert_eq!(headers["content-type"], "application/problem+json");
    assert_eq!(
        (&body["claims"], &body["errorCode"]),
        (&json!(wanted), &json!("interaction_required"))
    );
    // The application's own tokens are not concerned.
    let own = "/AuthorizationHeader/app";
    assert_eq!(sidecar.with_token(own, &user).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn on_behalf_of_a_caller_an_outage_is_no_authentication_failure() {
    for (reply, expected) in [
        (Reply::Fail(TransportFailure::Broken), 503),
        (
            Reply::error(429, "temporarily_unavailable", 90_055).with_header("retry-after", "17"),
            429,
        ),
        (Reply::error(401, "invalid_client", 7_000_215), 503),
    ] {
        let sidecar = Sidecar::start().await;
        sidecar.broker.entra.always(Endpoint::Token, Some(reply));
        let user = signed(&claims());
        let (status, headers, body) = sidecar.with_token("/AuthorizationHeader/me", &user).await;
        assert_eq!(status, expected, "{body}");
        assert!(!headers.contains_key("www-authenticate"));
        assert!(expected != 429 || headers["retry-after"] == "17", "{headers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn b05_on_behalf_of_a_caller_there_is_no_falling_back_to_the_application() {
    let sidecar = Sidecar::start().await;
    let user = signed(&claims());
    // The identity lists no delegated scope, so the broker denies it.
    let (status, _, body) = sidecar.with_token("/AuthorizationHeader/bare", &user).await;
    assert_eq!((status, &body["errorCode"]), (403, &json!("not_allowed")), "{body}");
    // An application's token is nobody's to act for, whatever scopes are asked of it.
    let sidecar = Sidecar::with(|text| text.replace(", scopes: [access_as_user]", "")).await;
    let application = signed(&application());
    assert_eq!(sidecar.with_token("/Validate", &application).await.0, 200);
    let refused = sidecar.refused("/AuthorizationHeader/graph", &application).await;
    assert_eq!(refused, (401, "user_required".to_owned()));
    let (status, _, body) = sidecar.get("/AuthorizationHeader/graph", &[]).await;
    assert_eq!((status, &body["errorCode"]), (401, &json!("token_missing")));
}

#[tokio::test(start_paused = true)]
async fn b05_only_configured_apis_and_listed_scopes_have_headers() {
    let sidecar = Sidecar::start().await;
    let unauthenticated = "/AuthorizationHeaderUnauthenticated";
    for (path, status, code) in [
        ("/unknown", 404, "unknown_api"),
        ("/GRAPH", 404, "unknown_api"),
        // A user's permission is nothing that an application has for itself.
        ("/me", 403, "not_allowed"),
        ("/graph?optionsOverride.Scopes=https://vault.azure.net/.default", 400, "invalid_request"),
        ("/graph?AgentIdentity=a", 400, "invalid_request"),
        ("/graph?optionsOverride.BaseUrl=https://evil.example", 400, "invalid_request"),
    ] {
        let (found, _, body) = sidecar.get(&format!("{unauthenticated}{path}"), &[]).await;
        assert_eq!((found, &body["errorCode"]), (status, &json!(code)), "{path}: {body}");
    }
    let path = "/AuthorizationHeader/app?optionsOverride.Scopes=https://vault.azure.net/.default";
    let refused = sidecar.refused(path, &signed(&claims())).await;
    assert_eq!(refused, (403, "not_allowed".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn an_outage_and_throttling_are_no_authentication_failures() {
    for (reply, expected, retry_after) in [
        (Reply::Fail(TransportFailure::Broken), 503, None),
        (Reply::error(503, "temporarily_unavailable", 90_033), 503, None),
        (
            Reply::error(429, "temporarily_unavailable", 90_055).with_header("retry-after", "17"),
            429,
            Some("17"),
        ),
        (Reply::error(401, "invalid_client", 7_000_215), 503, None),
        (Reply::error(400, "unauthorized_client", 7_000_112), 403, None),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let config = config(&text(&secret_file(&directory, SECRET))).unwrap();
        let entra = Entra::new();
        entra.always(Endpoint::Token, Some(reply));
        let sidecar =
            Sidecar { broker: Broker::with_config(&entra, &config), _directory: directory };
        let path = "/AuthorizationHeaderUnauthenticated/graph";
        let (status, headers, body) = sidecar.get(path, &[]).await;
        assert_eq!(status, expected, "{body}");
        assert!(!headers.contains_key("www-authenticate"));
        if let Some(seconds) = retry_after {
            assert_eq!(headers["retry-after"], seconds);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_applications_conditional_access_block_is_told_with_its_claims() {
    let sidecar = Sidecar::start().await;
    let claims = r#"{"access_token":{"capolids":{"essential":true,"values":["p"]}}}"#;
    let reply = json!({"error": "interaction_required", "error_codes": [53_003],
                       "error_description": "AADSTS53003", "claims": claims,
                       "correlation_id": "aaaa-1"});
    sidecar.broker.entra.always(Endpoint::Token, Some(Reply::json(400, &reply)));
    pass(seconds(4_000)).await;
    let path = "/AuthorizationHeaderUnauthenticated/graph";
    let (status, _, body) = sidecar.get(path, &[]).await;
    // No caller is there who could sign in again.
    assert_eq!(status, 403, "{body}");
    assert_eq!((&body["claims"], &body["correlationId"]), (&json!(claims), &json!("aaaa-1")));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_served_says_so() {
    let sidecar = Sidecar::start().await;
    for path in ["/DownstreamApi/graph", "/DownstreamApiUnauthenticated/graph"] {
        let mut request = from_pod(path, &[]);
        *request.method_mut() = "POST".parse().unwrap();
        let (status, headers, body) = ask(&sidecar.broker.compat(), request).await;
        assert_eq!(status, 501, "{body}");
        assert_eq!(headers["content-type"], "application/problem+json");
        assert!(body.contains("makes no calls for others"), "{body}");
    }
    let (status, _, body) = sidecar.get("/healthz", &[]).await;
    assert_eq!((status, body), (200, json!("Healthy")));
    let (status, _, body) = sidecar.get("/openapi/v1.json", &[]).await;
    assert_eq!(
        (status, &body["title"]),
        (404, &json!("not_found: nothing is served under this path"))
    );
    // Without callers there is nobody to validate.
    let without = |text: String| {
        let (start, rest) = text.split_once("      callers:").unwrap();
        let rest = rest.split_once('\n').unwrap().1;
        let (apis, me) = rest.split_once("        me:").unwrap();
        format!("{start}{apis}{}", me.split_once('\n').unwrap().1)
    };
    let sidecar = Sidecar::with(without).await;
    let token = signed(&claims());
    for path in ["/Validate", "/AuthorizationHeader/app"] {
        assert_eq!(sidecar.refused(path, &token).await, (404, "not_found".to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn b03_a_head_request_gets_no_token() {
    let sidecar = Sidecar::start().await;
    let bearer = format!("Bearer {}", signed(&claims()));
    for path in ["/Validate", "/AuthorizationHeader/me", "/AuthorizationHeaderUnauthenticated/app"]
    {
        let mut request = from_pod(path, &[("authorization", &bearer)]);
        *request.method_mut() = "HEAD".parse().unwrap();
        let (status, _, body) = ask(&sidecar.broker.compat(), request).await;
        assert_eq!(status, 405, "{path}: {body}");
    }
    assert_eq!(exchanges(&sidecar.broker.entra), []);
}

#[tokio::test(start_paused = true)]
async fn b03_the_sidecars_endpoints_run_no_strangers_errand() {
    let sidecar = Sidecar::start().await;
    let path = "/AuthorizationHeaderUnauthenticated/graph";
    for (name, value, expected) in [
        ("x-forwarded-for", "127.0.0.1", 400),
        ("via", "1.1 proxy", 400),
        ("origin", "null", 400),
        ("sec-fetch-site", "none", 400),
        ("host", "evil.example:7173", 403),
    ] {
        let (status, headers, body) = sidecar.get(path, &[(name, value)]).await;
        assert_eq!((status, &body["errorCode"]), (expected, &json!("foreign_caller")), "{name}");
        assert_eq!(headers["content-type"], "application/problem+json");
    }
}
