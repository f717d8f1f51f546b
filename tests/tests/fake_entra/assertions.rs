//! A federated assertion counts only when it matches exactly, is signed, and is in time.

use e2e::fake_entra::{
    FakeEntra,
    sample::{Cluster, TENANT, TILL, WORKLOAD_SUBJECT},
};
use serde_json::{Value, json};
use tokens::SigningKey;

use crate::ask::{AUDIENCE, assert_refused, post, with_assertion};

/// A change to a service account token, and what Entra says to it.
struct AssertionRow {
    case: &'static str,
    assertion: String,
    status: u16,
    code: u64,
    error: &'static str,
}

#[test]
fn assertions_that_do_not_match_exactly_are_refused() {
    let (entra, cluster) = FakeEntra::sample();
    let now = entra.now();
    let good = |subject: &str, audience: &str| cluster.token(subject, audience, now, 3600);
    let of = |issuer: &str| {
        let other = Cluster { issuer: issuer.to_owned(), key: cluster.key.clone() };
        other.token(WORKLOAD_SUBJECT, AUDIENCE, now, 3600)
    };
    let claims = json!({"iss": cluster.issuer, "sub": WORKLOAD_SUBJECT, "aud": [AUDIENCE],
        "nbf": now, "exp": now + 3600});
    let without = |name: &str| {
        let mut claims = claims.clone();
        claims.as_object_mut().expect("an object").remove(name);
        cluster.key.token_with(&json!({"alg": "RS256", "kid": cluster.key.kid}), &claims)
    };
    let header = |header: Value| cluster.key.token_with(&header, &claims);
    let stranger = SigningKey::new(99, &cluster.key.kid, "");
    let tampered = {
        let token = good(WORKLOAD_SUBJECT, AUDIENCE);
        let (signed, _) = token.rsplit_once('.').expect("a token");
        format!("{signed}.{}", "AAAA".repeat(86))
    };
    let issuer = cluster.issuer.as_str();
    let slashless = issuer.trim_end_matches('/');
    let shouted = issuer.to_uppercase();
    let malformed = |case, assertion| AssertionRow {
        case,
        assertion,
        status: 400,
        code: 50027,
        error: "invalid_request",
    };
    let unproven = |case, assertion, code| AssertionRow {
        case,
        assertion,
        status: 401,
        code,
        error: "invalid_client",
    };
    let rows = [
        unproven("other issuer", of("https://token.actions.githubusercontent.com"), 700_211),
        unproven("issuer without its slash", of(slashless), 700_211),
        unproven("issuer in other case", of(&shouted), 700_211),
        unproven("other subject", good("system:serviceaccount:shop:till", AUDIENCE), 700_213),
        unproven(
            "subject with more",
            good("system:serviceaccount:shop:orders2", AUDIENCE),
            700_213,
        ),
        unproven(
            "subject in other case",
            good("system:serviceaccount:Shop:orders", AUDIENCE),
            7_002_138,
        ),
        unproven("other audience", good(WORKLOAD_SUBJECT, "api://orders"), 700_212),
        unproven(
            "audience in other case",
            good(WORKLOAD_SUBJECT, "api://azureadtokenexchange"),
            700_212,
        ),
        unproven(
            "other cloud's audience",
            good(WORKLOAD_SUBJECT, "api://AzureADTokenExchangeChina"),
            700_212,
        ),
        unproven(
            "other key",
            stranger.token_with(&json!({"alg": "RS256", "kid": "cluster-signing-key"}), &claims),
            700_027,
        ),
        unproven("no such key", header(json!({"alg": "RS256", "kid": "other"})), 700_027),
        unproven("wrong signature", tampered, 700_027),
        unproven("no key id", header(json!({"alg": "RS256"})), 5_002_723),
        unproven("HS256", header(json!({"alg": "HS256", "kid": "cluster-signing-key"})), 5_002_738),
        unproven("none", header(json!({"alg": "none", "kid": "cluster-signing-key"})), 5_002_738),
        unproven("ended", cluster.token(WORKLOAD_SUBJECT, AUDIENCE, now - 3901, 3600), 700_024),
        unproven("not begun", cluster.token(WORKLOAD_SUBJECT, AUDIENCE, now + 400, 3600), 700_024),
        malformed("no token", "secret".to_owned()),
        malformed("two parts", "e30.e30".to_owned()),
        malformed("five parts", "e30.e30.e30.e30.e30".to_owned()),
        malformed(
            "no JSON",
            cluster.key.sign_text(b"{\"alg\":\"RS256\",\"kid\":\"cluster-signing-key\"}", b"x"),
        ),
        malformed("no issuer", without("iss")),
        malformed("no subject", without("sub")),
        malformed("no audience", without("aud")),
        malformed("no end", without("exp")),
    ];
    for AssertionRow { case, assertion, status, code, error } in rows {
        let reply = post(&entra, TENANT, &with_assertion(&assertion, &[]));
        assert_refused(&entra, case, &reply, status, code, error);
    }
    let assertion = good(WORKLOAD_SUBJECT, AUDIENCE);
    for (case, changes, status, code, error) in [
        ("no type", [("client_assertion_type", "")], 400, 900_144, "invalid_request"),
        (
            "SAML type",
            [("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer")],
            400,
            9_002_313,
            "invalid_request",
        ),
        ("application without federation", [("client_id", TILL)], 400, 70021, "invalid_request"),
    ] {
        let reply = post(&entra, TENANT, &with_assertion(&assertion, &changes));
        assert_refused(&entra, case, &reply, status, code, error);
    }
    entra.directory(|directory| directory.issuers.clear());
    let reply = post(&entra, TENANT, &with_assertion(&assertion, &[]));
    assert_refused(&entra, "issuer out of reach", &reply, 400, 90061, "invalid_request");
}

#[test]
fn assertions_count_from_five_minutes_before_their_begin_to_five_after_their_end() {
    let (entra, cluster) = FakeEntra::sample();
    let now = entra.now();
    // Nobody's clock stands still, so the limits are taken a minute off.
    for (case, begin, status) in [
        ("about to begin", now + 240, 200),
        ("too early", now + 360, 401),
        ("just ended", now - 3600 - 240, 200),
        ("long ended", now - 3600 - 360, 401),
    ] {
        let assertion = cluster.token(WORKLOAD_SUBJECT, AUDIENCE, begin, 3600);
        let reply = post(&entra, TENANT, &with_assertion(&assertion, &[]));
        assert_eq!(reply.status, status, "{case}: {}", reply.json());
    }
}
