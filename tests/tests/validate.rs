//! Inbound calls through a real Envoy with the shipped configuration: who passes, who does not,
//! what each is told, and what the application sees of it.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test: what goes wrong fails it"
)]

use e2e::{
    client::{Answer, Connection, Request},
    fake_entra::{
        Credential,
        sample::{ORDERS_API, STOCK_API, TENANT, TILL, ada},
    },
    stack::{
        Record, Stack, unix_now,
        world::{OTHER_TENANT, WEB, application, payer, use_version_1, user},
    },
    upstream::Reply,
};
use serde_json::{Value, json};
use tokens::SigningKey;

/// What a refusal looks like from outside.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    /// 400.
    BadRequest,
    /// 401 that asks for a token.
    TokenRequired,
    /// 401 that says the token is refused.
    InvalidToken,
    /// 403.
    Forbidden,
}

use Refusal::{BadRequest, Forbidden, InvalidToken, TokenRequired};

/// Sends a request that must be refused: it gets the right answer, the access log has the reason,
/// the body has neither reason nor token, and the application sees not one byte.
async fn refused(stack: &Stack, request: &Request, refusal: Refusal, reason: &str) -> Record {
    let before = (stack.application.count(), stack.application.bytes());
    let (answer, record) = stack.call_recorded(request).await;
    let context = format!("{request:?}\n{} {}\n{record:?}", answer.status, answer.text());
    assert_eq!(record.get("reason"), Some(reason), "{context}");
    let challenge = answer.header("www-authenticate").unwrap_or_default();
    let (status, in_challenge) = match refusal {
        BadRequest => (400, None),
        TokenRequired => (401, Some("authorization_uri=")),
        InvalidToken => (401, Some(r#"error="invalid_token""#)),
        Forbidden => (403, Some(r#"error="insufficient_scope""#)),
    };
    assert_eq!(answer.status, status, "{context}");
    if let Some(part) = in_challenge {
        assert!(challenge.starts_with("Bearer ") && challenge.contains(part), "{challenge}");
    }
    if matches!(refusal, TokenRequired) {
        assert!(!challenge.contains("error="), "RFC 6750 §3.1: {challenge}");
    }
    assert_eq!(answer.header("content-type").as_deref(), Some("application/problem+json"));
    assert_eq!(answer.json().get("status").and_then(Value::as_u64), Some(status.into()));
    assert!(!answer.text().contains(reason), "the body tells the reason: {context}");
    let after = (stack.application.count(), stack.application.bytes());
    assert_eq!(after, before, "the application saw something of it: {context}");
    record
}

/// Sends a request that must reach the application; gives what the application saw.
async fn passed(stack: &Stack, request: &Request) -> (Answer, e2e::upstream::Recorded, Record) {
    let before = stack.application.count();
    let (answer, record) = stack.call_recorded(request).await;
    assert_eq!(answer.status, 200, "{request:?}\n{}\n{record:?}", answer.text());
    assert_eq!(stack.application.count(), before + 1);
    (answer, stack.application.latest(), record)
}

fn read() -> Request {
    Request::get("/orders/7")
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_allowed_reach_the_application() {
    let stack = Stack::builder().start().await;
    let entra = &stack.entra;
    let weak = |builder: e2e::fake_entra::TokenBuilder| builder.credential(Credential::Secret);
    let rows = [
        ("user with the scope", read(), user(entra, &["Orders.Read"]).sign(), "read"),
        ("scope among others", read(), user(entra, &["a", "Orders.Read", "b"]).sign(), "read"),
        ("application", read(), application(entra, &["Orders.Read.All"]).sign(), "read"),
        ("secret", read(), weak(application(entra, &["Orders.Read.All"])).sign(), "read"),
        ("user who pays", Request::post("/orders/7/pay", b"{}"), payer(entra).sign(), "pay"),
        (
            "application with a certificate pays",
            Request::post("/orders/7/pay", b"{}"),
            application(entra, &["Orders.Pay.All"]).sign(),
            "pay",
        ),
        (
            "scraper",
            Request::get("/metrics"),
            application(entra, &["Metrics.Read.All"]).sign(),
            "metrics",
        ),
    ];
    for (name, request, token, rule) in rows {
        let (_, seen, record) = passed(&stack, &request.bearer(&token)).await;
        assert_eq!(record.get("reason"), Some("allowed"), "{name}");
        assert_eq!(record.get("rule"), Some(rule), "{name}");
        assert_eq!(record.get("tenant"), Some(TENANT), "{name}");
        assert!(record.get("uti").is_some(), "{name}: {record:?}");
        assert_eq!(seen.header("authorization"), None, "{name}: the token went on");
        assert_eq!(seen.header("x-entra-permit"), None, "{name}: the marker went on");
        assert_eq!(seen.header("x-entra-tenant-id").as_deref(), Some(TENANT), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_headers_come_from_the_token_alone() {
    let stack = Stack::builder().start().await;
    let token = user(&stack.entra, &["Orders.Read"]).sign();
    let spellings = [
        "x-entra-object-id",
        "X-Entra-Object-Id",
        "x_entra_object_id",
        "x-entra_object-id",
        "x-entra-tenant-id",
        "X_ENTRA_TENANT_ID",
        "x-entra-client-id",
        "x-entra-permit",
        "x_entra_permit",
    ];
    let spoofed = |request: Request| {
        spellings.iter().fold(request, |request, name| request.header(name, "spoofed"))
    };

    let (_, seen, _) = passed(&stack, &spoofed(read().bearer(&token))).await;
    assert!(!String::from_utf8_lossy(&seen.head).contains("spoofed"), "{seen:?}");
    let expected = [
        ("x-entra-object-id", ada().object_id),
        ("x-entra-tenant-id", TENANT.to_owned()),
        ("x-entra-client-id", WEB.to_owned()),
    ];
    for (name, value) in expected {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }

    // Where anyone may call, nobody is identified, token or not.
    for request in [Request::get("/healthz"), Request::get("/healthz").bearer(&token)] {
        let (_, seen, record) = passed(&stack, &spoofed(request)).await;
        assert_eq!(record.0, "reason=allowed_anyone rule=health");
        let head = String::from_utf8_lossy(&seen.head).to_lowercase();
        assert!(!head.contains("spoofed") && !head.contains("x-entra"), "{head}");
        assert_eq!(seen.header("authorization"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn anything_but_one_bearer_token_is_refused() {
    let stack = Stack::builder().start().await;
    let token = user(&stack.entra, &["Orders.Read"]).sign();
    let line = |value: String| read().header("authorization", value);
    let rows = [
        (read(), "token_missing"),
        (line(String::new()), "authorization_malformed"),
        (line("Bearer".into()), "authorization_malformed"),
        (line("Bearer ".into()), "authorization_malformed"),
        (line(token.clone()), "authorization_malformed"),
        (line(format!("Basic {token}")), "authorization_malformed"),
        (line(format!("PoP {token}")), "authorization_malformed"),
        (line(format!("Bearer {token},Bearer {token}")), "authorization_malformed"),
        (line(format!("Bearer {token} ")).header("authorization", "x"), "authorization_malformed"),
        (read().bearer(&token).bearer(&token), "authorization_malformed"),
        (line(format!("Bearer {token} more")), "authorization_malformed"),
        (line(format!("Bearer\t{token}")), "authorization_malformed"),
        (line(format!("Basic x, Bearer {token}")), "authorization_malformed"),
        (line(format!("Bearer \"{token}\"")), "authorization_malformed"),
        (Request::get(&format!("/orders/7?access_token={token}")), "token_in_query"),
        (
            Request::get(&format!("/orders/7?a=b&access_token={token}")).bearer(&token),
            "token_in_query",
        ),
        (read().header("cookie", format!("access_token={token}")), "token_missing"),
        (read().header("x-authorization", format!("Bearer {token}")), "token_missing"),
    ];
    for (request, reason) in rows {
        refused(&stack, &request, TokenRequired, reason).await;
    }
    // RFC 9110 §11.1 and §11.4: the scheme in any case, then one or more spaces.
    for scheme in ["bearer", "BEARER", "bEaReR", "Bearer  "] {
        passed(&stack, &line(format!("{scheme} {token}"))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_entra_would_not_have_issued_are_refused() {
    let stack = Stack::builder().start().await;
    let entra = &stack.entra;
    let good = || user(entra, &["Orders.Read"]);
    let claims = Value::Object(good().claims());
    let key = entra.signing_key();
    let headed = |header: Value| key.token_with(&header, &claims);
    let stranger = SigningKey::new(99, &key.kid, "");
    let unknown = SigningKey::new(98, "nobodys-key", "");
    let token = good().sign();
    let (signed, _) = token.rsplit_once('.').expect("a signed token");
    let now = unix_now();
    let rows = [
        ("no token at all", "abc".to_owned(), "token_malformed"),
        ("two parts", "abc.def".to_owned(), "token_malformed"),
        ("four parts", format!("{token}.x"), "token_malformed"),
        ("padded", format!("{token}="), "token_malformed"),
        ("no signature", format!("{signed}."), "token_malformed"),
        ("17 KiB", good().claim("name", "n".repeat(17 * 1024)).sign(), "token_too_large"),
        (
            "alg none",
            headed(json!({"typ": "JWT", "alg": "none", "kid": key.kid})),
            "algorithm_refused",
        ),
        (
            "alg HS256",
            headed(json!({"typ": "JWT", "alg": "HS256", "kid": key.kid})),
            "algorithm_refused",
        ),
        (
            "alg PS256",
            headed(json!({"typ": "JWT", "alg": "PS256", "kid": key.kid})),
            "algorithm_refused",
        ),
        ("no kid", headed(json!({"typ": "JWT", "alg": "RS256"})), "key_id_missing"),
        (
            "crit",
            headed(json!({"alg": "RS256", "kid": key.kid, "crit": ["b64"], "b64": true})),
            "header_refused",
        ),
        ("b64", headed(json!({"alg": "RS256", "kid": key.kid, "b64": false})), "header_refused"),
        ("another key under this id", stranger.token(&claims), "signature_invalid"),
        ("a key that nobody published", unknown.token(&claims), "key_unknown"),
        (
            "claims changed",
            swap_payload(&token, &good().claim("scp", "x").sign()),
            "signature_invalid",
        ),
        ("expired", good().lifetime(100).age(200).sign(), "token_expired"),
        ("not yet", good().claim("nbf", now + 3600).sign(), "token_not_yet_valid"),
        ("issued tomorrow", good().claim("iat", now + 3600).sign(), "token_not_yet_valid"),
        ("no exp", good().claim("exp", Value::Null).sign(), "claims_malformed"),
        ("exp a text", good().claim("exp", "4102444800").sign(), "claims_malformed"),
        (
            "two audiences",
            good().claim("aud", json!([ORDERS_API, STOCK_API])).sign(),
            "claims_malformed",
        ),
        (
            "audience of another API",
            entra.token(TENANT, WEB, STOCK_API).user(&ada(), &["Orders.Read"]).sign(),
            "audience_mismatch",
        ),
        (
            "longer audience",
            good().claim("aud", format!("{ORDERS_API}x")).sign(),
            "audience_mismatch",
        ),
        (
            "issuer of another tenant",
            good()
                .claim("iss", format!("https://login.microsoftonline.com/{OTHER_TENANT}/v2.0"))
                .sign(),
            "issuer_mismatch",
        ),
        (
            "issuer of another cloud",
            good().claim("iss", format!("https://login.microsoftonline.us/{TENANT}/v2.0")).sign(),
            "issuer_mismatch",
        ),
        (
            "issuer with a slash",
            good().claim("iss", format!("https://login.microsoftonline.com/{TENANT}/v2.0/")).sign(),
            "issuer_mismatch",
        ),
        (
            "another tenant's true token",
            entra.token(OTHER_TENANT, WEB, ORDERS_API).user(&ada(), &["Orders.Read"]).sign(),
            "tenant_refused",
        ),
        ("no tenant", good().claim("tid", Value::Null).sign(), "claims_malformed"),
        (
            "neither user nor application",
            good().claim("scp", Value::Null).claim("idtyp", Value::Null).sign(),
            "token_kind_unknown",
        ),
    ];
    for (name, token, reason) in rows {
        eprintln!("{name}");
        refused(&stack, &read().bearer(&token), InvalidToken, reason).await;
    }
    passed(&stack, &read().bearer(&token)).await;
}

/// The first token with the payload of the second.
fn swap_payload(token: &str, other: &str) -> String {
    let parts: Vec<_> = token.split('.').collect();
    let payload = other.split('.').nth(1).expect("three parts");
    format!("{}.{payload}.{}", parts[0], parts[2])
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_known_still_may_only_what_the_rules_say() {
    let stack = Stack::builder().start().await;
    let entra = &stack.entra;
    let pay = || Request::post("/orders/7/pay", b"{}");
    let secret = application(entra, &["Orders.Pay.All"]).credential(Credential::Secret);
    let rows = [
        ("another scope", read(), user(entra, &["Orders.Write"]), "scope_missing", Some("read")),
        (
            "scope in another case",
            read(),
            user(entra, &["orders.read"]),
            "scope_missing",
            Some("read"),
        ),
        (
            "application without the role",
            read(),
            application(entra, &["Else"]),
            "role_missing",
            Some("read"),
        ),
        (
            "application with a user's scope",
            read(),
            application(entra, &["Orders.Read"]),
            "role_missing",
            Some("read"),
        ),
        (
            "user with an application's role",
            Request::get("/metrics"),
            user(entra, &["x"]).roles(&["Metrics.Read.All"]),
            "application_required",
            Some("metrics"),
        ),
        ("paying with a mere secret", pay(), secret, "client_credential_weak", Some("pay")),
        (
            "reading does not allow paying",
            pay(),
            user(entra, &["Orders.Read"]),
            "scope_missing",
            Some("pay"),
        ),
        (
            "another method",
            Request::new("DELETE", "/orders/7"),
            user(entra, &["Orders.Read"]),
            "no_rule",
            None,
        ),
        ("another path", Request::get("/orders"), user(entra, &["Orders.Read"]), "no_rule", None),
        (
            "a segment more",
            Request::get("/orders/7/8"),
            user(entra, &["Orders.Read"]),
            "no_rule",
            None,
        ),
        ("another case", Request::get("/Orders/7"), user(entra, &["Orders.Read"]), "no_rule", None),
    ];
    for (name, request, token, reason, rule) in rows {
        let record = refused(&stack, &request.bearer(&token.sign()), Forbidden, reason).await;
        assert_eq!(record.get("rule"), rule, "{name}");
    }
    refused(&stack, &Request::get("/nothing"), Forbidden, "no_rule").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_with_two_readings_are_refused() {
    let stack = Stack::builder().start().await;
    let token = user(&stack.entra, &["Orders.Read"]).sign();
    let paths = [
        "/orders/../healthz",
        "/orders/./7",
        "/orders/%2e%2e/healthz",
        "/orders/7%2fpay",
        "/orders/7%5cpay",
        "//orders/7",
        "/orders//7",
        "/orders\\7",
        "/orders/7;a=b",
        "/orders/%zz",
        "/orders/%",
        "/orders/%00",
        "/healthz/..;/orders/7",
    ];
    for path in paths {
        refused(&stack, &Request::get(path).bearer(&token), BadRequest, "path_ambiguous").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_version_1_are_accepted_by_their_own_names() {
    let stack = Stack::builder().start().await;
    use_version_1(&stack.entra);
    for audience in ["api://orders", ORDERS_API] {
        let token = stack.entra.token(TENANT, WEB, audience).user(&ada(), &["Orders.Read"]).sign();
        let (_, seen, _) = passed(&stack, &read().bearer(&token)).await;
        assert_eq!(seen.header("x-entra-client-id").as_deref(), Some(WEB), "{audience}");
    }
    let token = stack.entra.token(TENANT, TILL, "api://orders").roles(&["Orders.Read.All"]);
    passed(&stack, &read().bearer(&token.sign())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_ends_when_it_expires_also_when_it_is_cached() {
    let stack = Stack::builder().inbound("/clock_skew_seconds", json!(0)).start().await;
    let token = user(&stack.entra, &["Orders.Read"]).lifetime(3).sign();
    let request = read().bearer(&token);
    passed(&stack, &request).await;
    let ends = async {
        while stack.call(&request).await.status == 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(e2e::client::DEADLINE, ends).await.expect("the token ends");
    refused(&stack, &request, InvalidToken, "token_expired").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_in_a_header_takes_the_filter_down() {
    let stack = Stack::builder().start().await;
    let token = user(&stack.entra, &["Orders.Read"]).sign();
    let names = ["x-any", "cookie", "user-agent", "x-entra-object-id", "origin", "x-forwarded-for"];
    for byte in 0x80..=0xFF_u8 {
        let value = [b'a', byte, b'b'];
        let request = names.iter().fold(read(), |request, name| request.header(name, value));
        passed(&stack, &request.bearer(&token)).await;
        let mut line = b"Bearer ".to_vec();
        line.push(byte);
        refused(
            &stack,
            &read().header("authorization", line),
            TokenRequired,
            "authorization_malformed",
        )
        .await;
        let mut line = format!("Bearer {token}").into_bytes();
        line.push(byte);
        refused(
            &stack,
            &read().header("authorization", line),
            TokenRequired,
            "authorization_malformed",
        )
        .await;
    }
    let stats = stack.envoy.stats().await;
    let reloads = stats.iter().filter(|(name, _)| name.contains("vm_reload"));
    assert_eq!(reloads.map(|(_, count)| count).sum::<u64>(), 0, "a VM trapped");
}

#[tokio::test(flavor = "multi_thread")]
async fn ordinary_traffic_has_its_answer() {
    let stack = Stack::builder().start().await;
    let token = user(&stack.entra, &["Orders.Read"]).sign();

    let preflight = Request::new("OPTIONS", "/orders/7")
        .header("origin", "https://shop.example")
        .header("access-control-request-method", "GET");
    let (_, _, record) = passed(&stack, &preflight).await;
    assert_eq!(record.get("rule"), Some("preflight"));
    refused(&stack, &Request::new("OPTIONS", "/orders/7"), Forbidden, "no_rule").await;

    let mut old = Connection::open(stack.envoy.inbound).await;
    old.write(
        format!("GET /orders/7 HTTP/1.0\r\nAuthorization: Bearer {token}\r\n\r\n").as_bytes(),
    )
    .await;
    assert_eq!(old.answer().await.status, 200, "HTTP/1.0");
    let mut old = Connection::open(stack.envoy.inbound).await;
    old.write(b"GET /orders/7 HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.answer().await.status, 401, "HTTP/1.0 without a token");

    let before = stack.application.count();
    let connect = Request::new("CONNECT", "orders.example:80").bearer(&token);
    assert!((400..500).contains(&stack.call(&connect).await.status), "CONNECT");
    assert_eq!(stack.application.count(), before, "CONNECT reached the application");
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_are_decided_by_their_headers() {
    let stack = Stack::builder().start().await;
    let token = user(&stack.entra, &["Orders.Read"]).sign();
    let upgrade = || {
        read()
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    };
    refused(&stack, &upgrade(), TokenRequired, "token_missing").await;

    let mut connection = Connection::open(stack.envoy.inbound).await;
    connection.write(&upgrade().bearer(&token).to_bytes()).await;
    assert_eq!(connection.answer().await.status, 101);
    connection.write(b"\x81\x02hi").await;
    assert_eq!(connection.read_exact(4).await, b"\x81\x02hi");
    assert_eq!(stack.application.latest().header("x-entra-tenant-id").as_deref(), Some(TENANT));
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_gets_its_status_where_it_looks_for_it() {
    let rules = json!([{
        "name": "grpc",
        "match": {"path": "/orders.Orders/{*}", "methods": ["POST"]},
        "allow": [{"scopes": ["Orders.Read"]}],
    }]);
    let stack = Stack::builder().inbound("/rules", rules).start().await;
    stack.application.respond_with(|_| Reply {
        trailers: vec![("grpc-status", "0".to_owned())],
        ..Reply::status(200).header("content-type", "application/grpc")
    });
    let message = [0, 0, 0, 0, 0];
    let call = || {
        Request::post("/orders.Orders/List", &message)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
    };
    let inbound = stack.envoy.inbound;
    let token = |scope| user(&stack.entra, &[scope]).sign();

    let allowed = call().bearer(&token("Orders.Read")).send_http2(inbound).await;
    assert_eq!((allowed.status, allowed.trailer("grpc-status").as_deref()), (200, Some("0")));
    assert_eq!(stack.application.latest().body, message);

    // 16 UNAUTHENTICATED, 7 PERMISSION_DENIED (grpc.github.io/grpc/core/md_doc_statuscodes.html).
    let rows = [(call(), "16"), (call().bearer("x.y.z"), "16"), (call().bearer(&token("x")), "7")];
    for (request, status) in rows {
        let before = stack.application.count();
        let answer = request.send_http2(inbound).await;
        assert_eq!(answer.status, 200, "a trailers-only answer");
        assert_eq!(answer.header("grpc-status").as_deref(), Some(status));
        assert_eq!(stack.application.count(), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_does_not_come_behind_the_decision_in_trailers() {
    let stack = Stack::builder().start().await;
    let request = Request::post("/orders/7/pay", b"{}")
        .bearer(&payer(&stack.entra).sign())
        .trailer("x-entra-object-id", "spoofed")
        .trailer("x_entra_tenant_id", "spoofed")
        .trailer("x-entra-permit", "spoofed")
        .trailer("authorization", "Bearer spoofed")
        .trailer("x-checksum", "kept");
    assert_eq!(request.send_http2(stack.envoy.inbound).await.status, 200);
    let trailers = stack.application.latest().trailers;
    assert_eq!(trailers, [("x-checksum".to_owned(), b"kept".to_vec())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn observing_lets_pass_and_says_what_it_would_have_done() {
    let stack = Stack::builder().inbound("/mode", json!("observe")).start().await;
    let spoofed = read().header("x-entra-object-id", "spoofed");
    let (_, seen, record) = passed(&stack, &spoofed).await;
    assert_eq!(record.get("reason"), Some("token_missing"));
    assert_eq!(record.get("mode"), Some("observe"));
    assert_eq!(seen.header("x-entra-object-id"), None);
    let (_, _, record) = passed(&stack, &Request::get("/orders/../healthz")).await;
    assert_eq!(record.0, "reason=path_ambiguous mode=observe");
}
