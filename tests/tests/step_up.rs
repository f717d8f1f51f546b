//! Step-up and App Service's headers through a real Envoy with the shipped configuration: who is
//! sent to sign in again and with which words, and that the application sees nothing of it.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: what goes wrong fails it"
)]

use base64::{Engine, engine::general_purpose::STANDARD};
use e2e::{
    client::Request,
    envoy::EnvoyConfig,
    fake_entra::{
        Credential, Endpoint,
        sample::{ORDERS_API, TENANT, ada},
    },
    independent_client,
    stack::{
        Stack,
        world::{WEB, WEB_REDIRECT_URI, WEB_SECRET, application, use_version_1, user},
    },
};
use serde_json::{Value, json};

fn pay() -> Request {
    Request::post("/orders/7/pay", b"{}")
}

fn authorize() -> String {
    format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/authorize")
}

/// The challenge as the specification has it, byte for byte.
fn challenge(context: &str) -> String {
    let claims =
        format!(r#"{{"access_token":{{"acrs":{{"essential":true,"value":"{context}"}}}}}}"#);
    format!(
        "Bearer realm=\"{TENANT}\", authorization_uri=\"{}\", client_id=\"{ORDERS_API}\", \
         error=\"insufficient_claims\", claims=\"{}\", cc_type=\"authcontext\"",
        authorize(),
        STANDARD.encode(claims)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_up_is_asked_for_in_entras_words_and_the_stronger_token_passes() {
    let stack = Stack::builder().start().await;
    let entra = &stack.entra;
    let token = |contexts: Value| {
        let token = user(entra, &["Orders.Pay"]).claim("xms_cc", json!(["cp1"]));
        token.claim("acrs", contexts).sign()
    };
    for contexts in [json!(null), json!(["c1"])] {
        let answer = stack.denied(&pay().bearer(&token(contexts)), 401, "step_up_required").await;
        assert_eq!(answer.header("www-authenticate"), Some(challenge("c2")));
        assert_eq!(
            answer.json(),
            json!({"type": "about:blank", "title": "Unauthorized", "status": 401})
        );
    }
    let stepped = token(json!(["c1", "c2"]));
    let seen = stack.passed(&pay().bearer(&stepped)).await;
    assert_eq!(seen.header("x-entra-object-id"), Some(ada().object_id));
    // What asks for no context is as it was.
    let reader = user(entra, &["Orders.Read"]).sign();
    stack.passed(&Request::get("/orders/7").bearer(&reader)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_step_up_gets_no_challenge() {
    let stack = Stack::builder().start().await;
    let entra = &stack.entra;
    let capable = |token: e2e::fake_entra::TokenBuilder| token.claim("xms_cc", json!(["cp1"]));
    let plain =
        format!("Bearer authorization_uri=\"{}\", error=\"insufficient_scope\"", authorize());
    for (token, reason) in [
        (user(entra, &["Orders.Pay"]), "authentication_context_missing"),
        (capable(user(entra, &["Orders.Read"])), "scope_missing"),
        (
            capable(application(entra, &["Orders.Pay.All"]).credential(Credential::Secret)),
            "client_credential_weak",
        ),
        (
            capable(application(entra, &["Orders.Pay.All"]).credential(Credential::None)),
            "client_credential_weak",
        ),
    ] {
        let answer = stack.denied(&pay().bearer(&token.sign()), 403, reason).await;
        assert_eq!(answer.header("www-authenticate").as_ref(), Some(&plain), "{reason}");
    }
    let certified = application(entra, &["Orders.Pay.All"]).credential(Credential::Assertion);
    stack.passed(&pay().bearer(&certified.sign())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_callers_get_the_same_challenge() {
    let rules = json!([{
        "name": "grpc", "match": {"path": "/orders.Orders/{*}", "methods": ["POST"]},
        "allow": [{"scopes": ["Orders.Pay"], "authentication_context": "c7"}],
    }]);
    let stack = Stack::builder().inbound("/rules", rules).start().await;
    let call = |capabilities: Value| {
        let token = user(&stack.entra, &["Orders.Pay"]).claim("xms_cc", capabilities).sign();
        Request::post("/orders.Orders/Pay", &[0, 0, 0, 0, 0])
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .bearer(&token)
    };
    let answer = call(json!(["cp1"])).send_http2(stack.envoy.inbound).await;
    assert_eq!(answer.status, 200, "a trailers-only answer");
    assert_eq!(answer.header("grpc-status").as_deref(), Some("16"));
    assert_eq!(answer.header("www-authenticate"), Some(challenge("c7")));
    let answer = call(json!([])).send_http2(stack.envoy.inbound).await;
    assert_eq!(answer.header("grpc-status").as_deref(), Some("7"));
    assert_eq!(stack.application.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_observes_records_the_step_up_and_lets_pass() {
    let stack = Stack::builder().inbound("/rules/4/mode", json!("observe")).start().await;
    let token = user(&stack.entra, &["Orders.Pay"]).claim("xms_cc", json!(["cp1"])).sign();
    let (answer, record) = stack.call_recorded(&pay().bearer(&token)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(record.get("reason"), Some("step_up_required"));
    assert_eq!(record.get("mode"), Some("observe"));
    assert_eq!(record.get("client"), Some(WEB));
    let seen = stack.application.latest();
    assert_eq!(seen.header("x-entra-object-id"), Some(ada().object_id));
}

/// Puts Envoy's CORS filter before ours, as `docs/traffic.md` advises.
fn with_cors(config: &mut EnvoyConfig) {
    const PACKAGE: &str = "type.googleapis.com/envoy.extensions.filters.http.cors.v3";
    let manager = config
        .listener_mut("inbound")
        .pointer_mut("/filter_chains/0/filters/0/typed_config")
        .expect("the connection manager");
    let filter = json!({
        "name": "envoy.filters.http.cors", "typed_config": {"@type": format!("{PACKAGE}.Cors")},
    });
    manager["http_filters"].as_array_mut().expect("filters").insert(0, filter);
    manager["route_config"]["virtual_hosts"][0]["typed_per_filter_config"] = json!({
        "envoy.filters.http.cors": {
            "@type": format!("{PACKAGE}.CorsPolicy"),
            "allow_origin_string_match": [{"exact": "https://app.example"}],
            "expose_headers": "www-authenticate",
        },
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_reads_the_challenge_where_envoys_cors_filter_lets_it() {
    let stack = Stack::builder().configure(with_cors).start().await;
    let token = user(&stack.entra, &["Orders.Pay"]).claim("xms_cc", json!(["cp1"])).sign();
    let request = pay().bearer(&token).header("origin", "https://app.example");
    let answer = stack.denied(&request, 401, "step_up_required").await;
    assert_eq!(answer.header("www-authenticate"), Some(challenge("c2")));
    let allowed = |name: &str| answer.header(&format!("access-control-{name}"));
    assert_eq!(allowed("allow-origin").as_deref(), Some("https://app.example"));
    assert_eq!(allowed("expose-headers").as_deref(), Some("www-authenticate"));
}

/// What an application does that was written for App Service: the header is Base64 of JSON.
fn principal(seen: &e2e::upstream::Recorded) -> Value {
    let header = seen.header("x-ms-client-principal").expect("a principal");
    let text = STANDARD.decode(header).expect("Base64");
    serde_json::from_slice(&text).expect("JSON")
}

/// The values of a claim type, as `ClaimsPrincipal.FindAll` gives them.
fn find_all<'a>(principal: &'a Value, typ: &str) -> Vec<&'a str> {
    let claims = principal["claims"].as_array().expect("a list of claims").iter();
    let of_type = claims.filter(|claim| claim["typ"] == typ);
    of_type.map(|claim| claim["val"].as_str().expect("a text")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_written_for_app_service_finds_its_user() {
    const OBJECT_ID: &str = "http://schemas.microsoft.com/identity/claims/objectidentifier";
    const TENANT_ID: &str = "http://schemas.microsoft.com/identity/claims/tenantid";
    const SCOPE: &str = "http://schemas.microsoft.com/identity/claims/scope";
    const UPN: &str = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/upn";
    let stack = Stack::builder().inbound("/app_service_headers", json!(true)).start().await;
    let read = || Request::get("/orders/7");
    let ada = ada();
    let spoofed = |request: Request| {
        ["X-MS-CLIENT-PRINCIPAL", "x-ms-client-principal-name", "x_ms_client_principal_id"]
            .iter()
            .fold(request, |request, name| request.header(name, "spoofed"))
    };
    // The second time the headers are those that were kept with the token.
    let token = user(&stack.entra, &["Orders.Read"]).roles(&["Buyer", "Clerk"]).sign();
    for _ in 0..2 {
        let seen = stack.passed(&spoofed(read().bearer(&token))).await;
        let principal = principal(&seen);
        assert_eq!(principal["auth_typ"], "aad");
        assert_eq!(find_all(&principal, OBJECT_ID), [&ada.object_id]);
        assert_eq!(find_all(&principal, TENANT_ID), [TENANT]);
        assert_eq!(find_all(&principal, SCOPE), ["Orders.Read"]);
        assert_eq!(find_all(&principal, "roles"), ["Buyer", "Clerk"]);
        assert_eq!(find_all(&principal, "name"), [&ada.name]);
        assert_eq!(seen.header("x-ms-client-principal-id"), Some(ada.object_id.clone()));
        assert_eq!(seen.header("x-ms-client-principal-name"), Some(ada.principal_name.clone()));
        assert_eq!(seen.header("x-ms-client-principal-idp").as_deref(), Some("aad"));
        assert_eq!(seen.header("x_ms_client_principal_id"), None);
    }
    let daemon = application(&stack.entra, &["Orders.Read.All"]).sign();
    let seen = stack.passed(&spoofed(read().bearer(&daemon))).await;
    assert_eq!(find_all(&principal(&seen), "idtyp"), ["app"]);
    assert_eq!(seen.header("x-ms-client-principal-name"), None);
    // Where nobody is verified, nobody is named.
    let seen = stack.passed(&spoofed(Request::get("/healthz"))).await;
    assert_eq!(seen.header("x-ms-client-principal"), None);

    use_version_1(&stack.entra);
    let token = user(&stack.entra, &["Orders.Read"]).sign();
    let seen = stack.passed(&read().bearer(&token)).await;
    assert_eq!(find_all(&principal(&seen), UPN), [&ada.principal_name]);
    assert_eq!(seen.header("x-ms-client-principal-name"), Some(ada.principal_name));
}

/// What became of an application that pays, with msal, on behalf of who sits at the browser.
fn msal(stack: &Stack, capable: bool) -> Value {
    let asked = json!({
        "authority": format!("https://login.microsoftonline.com/{TENANT}"),
        "client_id": WEB, "secret": WEB_SECRET, "redirect_uri": WEB_REDIRECT_URI,
        "scope": "api://orders/Orders.Pay", "capable": capable,
        "url": format!("http://{}/orders/7/pay", stack.envoy.inbound),
    });
    independent_client::run_against(&stack.entra, "step_up_client.py", &asked)
}

fn sign_ins(stack: &Stack) -> usize {
    stack.entra.count(Endpoint::Authorize)
}

#[tokio::test(flavor = "multi_thread")]
async fn msal_answers_a_step_up_by_signing_in_again() {
    let stack = Stack::builder().start().await;
    stack.entra.at_the_browser(&ada(), &["c1", "c2"]);
    let told = msal(&stack, true);
    let expected = json!({
        "answers": [
            {"status": 401, "challenge": challenge("c2")},
            {"status": 200, "challenge": null},
            {"status": 200, "challenge": null},
        ],
        "end": "done",
    });
    assert_eq!(told, expected);
    assert_eq!(stack.application.count(), 2, "the application sees what is allowed");
    assert_eq!(sign_ins(&stack), 2, "the second time for the context, and then no more");
    let seen = stack.application.latest();
    assert_eq!(seen.header("x-entra-object-id"), Some(ada().object_id));
    let calls = stack.entra.calls_of(Endpoint::Authorize);
    let sent = calls.last().expect("a sign-in").path.clone();
    let (_, query) = sent.split_once('?').expect("a query");
    let mut members = form_urlencoded::parse(query.as_bytes());
    let (_, claims) = members.find(|(name, _)| name == "claims").expect("claims");
    let claims: Value = serde_json::from_str(&claims).expect("JSON");
    let asked_for = json!({"access_token": {
        "acrs": {"essential": true, "value": "c2"}, "xms_cc": {"values": ["cp1"]},
    }});
    assert_eq!(claims, asked_for, "msal adds its capability to what our challenge asks for");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_satisfy_the_context_ends_at_entra_and_not_here() {
    let stack = Stack::builder().start().await;
    stack.entra.at_the_browser(&ada(), &["c1"]);
    let told = msal(&stack, true);
    assert_eq!(told["answers"], json!([{"status": 401, "challenge": challenge("c2")}]));
    let end = told["end"].as_str().expect("a text");
    assert!(end.contains("AADSTS53003"), "{end}");
    assert_eq!(stack.application.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn msal_without_the_capability_is_refused_for_good() {
    let stack = Stack::builder().start().await;
    stack.entra.at_the_browser(&ada(), &["c2"]);
    let told = msal(&stack, false);
    let plain =
        format!("Bearer authorization_uri=\"{}\", error=\"insufficient_scope\"", authorize());
    assert_eq!(told["answers"], json!([{"status": 403, "challenge": plain}]));
    assert_eq!((stack.application.count(), sign_ins(&stack)), (0, 1));
}
