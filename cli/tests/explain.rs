//! Requests that come in, explained.

use crate::program::{API, AT, Done, Folder, policy, repository};

const RULES: &str = "[
  {name: health, match: {path: /healthz}, allow: anyone},
  {name: refund, match: {path: '/orders/{*}/refund', methods: [POST]},
   allow: [{scopes: [Orders.Pay], authentication_context: c2}, {roles: [Refund.All]}]},
  {name: read, match: {path: '/orders/{*}'}, allow: [{scopes: [Orders.Read]}]}]";

fn folder() -> Folder {
    Folder::with(&[("policy.yaml", &policy(RULES))]).with_key()
}

/// Explains a request with the token in `token`, signed by a key that is trusted.
fn explain(folder: &Folder, more: &[&str]) -> Done {
    let usual = ["explain", "--config", "policy.yaml", "--at", AT];
    folder.run(&[&usual[..], more].concat())
}

const SIGNED: [&str; 4] = ["--keys", "keys.json", "--token-file", "token"];
const REFUND: [&str; 4] = ["--method", "POST", "--path", "/orders/7/refund"];

/// The names of the checks that were made, and the verdict of the last.
fn made(done: &Done) -> (usize, String) {
    let checks: Vec<&str> = done
        .out
        .lines()
        .skip(2)
        .take_while(|line| !line.is_empty())
        .filter(|line| !line.starts_with("    ") && !line.starts_with("  not "))
        .collect();
    let last = checks.last().unwrap().split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    (checks.len(), last)
}

#[test]
fn an_allowed_request_shows_every_check_and_what_the_application_gets() {
    let folder = folder();
    folder.token(r#"{"scp": "Orders.Read", "oid": "4a9d8e1c-2f3b-4c5d-9e6f-7a8b9c0d1e2f"}"#);
    let spoofed = ["--path", "/orders/7?secret=1", "--header", "X-Entra-Object-Id: administrator"];
    let done = explain(&folder, &[&SIGNED[..], &spoofed].concat());
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(made(&done), (17, "allow ok".to_owned()));
    done.says("GET /orders/7 on localhost, at 2026-11-24T12:00:00Z\n");
    done.says("  rule           ok             rules[2], read\n");
    done.says("passes: allowed, by rule read\n");
    done.says("  without x-entra-object-id\n  without authorization\n");
    done.says("  with x-entra-object-id: 4a9d8e1c-2f3b-4c5d-9e6f-7a8b9c0d1e2f\n");
    done.says("  with x-entra-permit: 1\n");
    done.is_silent_about("secret=1");
    done.is_silent_about("not checked");
}

#[test]
fn a_client_that_answers_challenges_gets_the_exact_one() {
    let folder = folder();
    folder.token(r#"{"scp": "Orders.Pay", "xms_cc": ["cp1"]}"#);
    let done = explain(&folder, &[&SIGNED[..], &REFUND].concat());
    assert_eq!(done.code, 1);
    assert_eq!(made(&done), (17, "allow step_up_required".to_owned()));
    done.says("    [0].scopes                 ok                     Orders.Pay\n");
    done.says("    [0].authentication_context step_up_required       c2\n");
    done.says("    [1].kind                   application_required   an application's token\n");
    done.says(&format!(
        "  HTTP 401\n  www-authenticate: Bearer realm=\"8f2c3a6e-5b1d-4c47-9c0a-2d7e5f90b1c3\", \
         authorization_uri=\"https://login.microsoftonline.com/8f2c3a6e-5b1d-4c47-9c0a-2d7e5f90b1c3\
         /oauth2/v2.0/authorize\", client_id=\"{API}\", error=\"insufficient_claims\", \
         claims=\"eyJhY2Nlc3NfdG9rZW4iOnsiYWNycyI6eyJlc3NlbnRpYWwiOnRydWUsInZhbHVlIjoiYzIifX19\", \
         cc_type=\"authcontext\"\n"
    ));
    folder.token(r#"{"scp": "Orders.Pay", "acrs": ["c1", "c2"]}"#);
    assert_eq!(explain(&folder, &[&SIGNED[..], &REFUND].concat()).code, 0);
}

#[test]
fn the_first_check_that_fails_is_the_last_that_is_made() {
    let folder = folder();
    for (claims, more, expected) in [
        (r#"{"scp": "S"}"#, &["--path", "/a/../b"][..], (1, "path path_ambiguous")),
        (r#"{"scp": "S"}"#, &["--path", "/x", "--host", "a b"], (2, "host host_malformed")),
        (r#"{"scp": "S"}"#, &["--path", "/nowhere"], (3, "rule no_rule")),
        (r#"{"scp": "S"}"#, &["--path", "/orders/7?access_token=x"], (4, "query token_in_query")),
        (r#"{"scp": "S", "exp": null}"#, &["--path", "/orders/7"], (7, "claims claims_malformed")),
        (
            r#"{"scp": "S", "tid": "00000000-0000-0000-0000-000000000001"}"#,
            &["--path", "/orders/7"],
            (8, "tenant tenant_refused"),
        ),
        (r#"{"scp": "S", "iss": "x"}"#, &["--path", "/orders/7"], (9, "issuer issuer_mismatch")),
        (
            r#"{"scp": "S", "aud": "x"}"#,
            &["--path", "/orders/7"],
            (12, "audience audience_mismatch"),
        ),
        (
            r#"{"scp": "S"}"#,
            &["--path", "/orders/7", "--at", "2026-11-24T13:01:01Z"],
            (13, "end token_expired"),
        ),
        (
            r#"{"scp": "S"}"#,
            &["--path", "/orders/7", "--at", "2026-11-24T11:58:59Z"],
            (14, "start token_not_yet_valid"),
        ),
        (
            r#"{"scp": "S", "idtyp": "app"}"#,
            &["--path", "/orders/7"],
            (16, "kind token_kind_unknown"),
        ),
        (r#"{"scp": "S"}"#, &["--path", "/orders/7"], (17, "allow scope_missing")),
        (r#"{}"#, &["--path", "/orders/7"], (17, "allow user_required")),
    ] {
        folder.token(claims);
        let usual = ["explain", "--config", "policy.yaml"];
        let at: &[&str] = if more.contains(&"--at") { &[] } else { &["--at", AT] };
        let done = folder.run(&[&usual[..], &SIGNED, at, more].concat());
        assert_eq!(done.code, 1, "{done:?}");
        assert_eq!(made(&done), (expected.0, expected.1.to_owned()), "{}", done.out);
    }
}

#[test]
fn without_keys_the_signature_is_called_unchecked() {
    let folder = folder();
    let token = folder.token(r#"{"scp": "Orders.Read"}"#);
    // The signature of another token: whoever made this one has no key.
    let (signed, _) = token.rsplit_once('.').unwrap();
    folder.write("token", &format!("{signed}.{}", "A".repeat(342)));
    let unsigned = ["--token-file", "token", "--path", "/orders/7"];
    let done = explain(&folder, &unsigned);
    assert_eq!(done.code, 0);
    done.says(
        "  key            not checked    no --keys\n  signature      not checked    no --keys\n",
    );
    done.says("passes: allowed, by rule read\nonly if the signature is good: it was not checked\n");
    let done = explain(&folder, &[&unsigned[..], &["--keys", "keys.json"]].concat());
    assert_eq!(done.code, 1);
    assert_eq!(made(&done), (11, "signature signature_invalid".to_owned()));
}

#[test]
fn a_key_that_nobody_published_is_unknown() {
    let folder = folder();
    folder.token(r#"{"scp": "Orders.Read"}"#);
    folder.write("keys.json", r#"{"keys": []}"#);
    let done = explain(&folder, &[&SIGNED[..], &["--path", "/orders/7"]].concat());
    assert_eq!(made(&done), (10, "key keys_unavailable".to_owned()));
    done.says("  HTTP 503\n  retry-after: 1\n");
    let other = ["test-token", "--new-key", "--key", "k", "--keys", "keys.json"];
    assert_eq!(folder.run(&other).code, 0);
    let done = explain(&folder, &[&SIGNED[..], &["--path", "/orders/7"]].concat());
    assert_eq!(made(&done), (10, "key key_unknown".to_owned()));
}

#[test]
fn the_brokers_answer_is_a_key_file_however_old() {
    let folder = folder();
    folder.token(r#"{"scp": "Orders.Read"}"#);
    let keys: serde_json::Value = serde_json::from_str(&folder.read("keys.json")).unwrap();
    let issuer = "https://login.microsoftonline.com/8f2c3a6e-5b1d-4c47-9c0a-2d7e5f90b1c3/v2.0";
    let set = |issuer: &str| {
        serde_json::json!({"key_sets": [{
            "issuer": issuer, "fetched_at": 1, "state": "fresh", "keys": keys["keys"],
        }]})
    };
    folder.write("keys.json", &set(issuer).to_string());
    let arguments = [&SIGNED[..], &["--path", "/orders/7"]].concat();
    assert_eq!(explain(&folder, &arguments).code, 0);
    // Another tenant's authority is not this one's.
    folder.write("keys.json", &set(&issuer.replace('8', "9")).to_string());
    assert_eq!(made(&explain(&folder, &arguments)), (10, "key keys_unavailable".to_owned()));
    folder.write("keys.json", "[]");
    let done = explain(&folder, &arguments);
    assert_eq!(done.code, 2);
    assert!(done.err.contains("neither a key set nor"), "{done:?}");
}

#[test]
fn the_token_is_never_printed() {
    let folder = folder();
    for claims in [r#"{"scp": "Orders.Read"}"#, r#"{"scp": "S"}"#, r#"{"scp": "S", "exp": 1}"#] {
        let token = folder.token(claims);
        for request in [&["--path", "/orders/7"][..], &["--path", "/healthz"], &REFUND] {
            let done = explain(&folder, &[&["--token-file", "token"], request].concat());
            for part in token.split('.') {
                done.is_silent_about(part);
            }
        }
    }
    for wrong in ["not-a-token", "a.b.c"] {
        folder.write("token", wrong);
        let done = explain(&folder, &[&SIGNED[..], &["--path", "/orders/7"]].concat());
        assert_eq!(made(&done), (6, "token token_malformed".to_owned()));
        done.is_silent_about(wrong);
    }
}

#[test]
fn what_a_token_says_cannot_forge_a_line() {
    let folder = folder();
    folder.token(r#"{"scp": "Orders.Read", "uti": "a\n\u001b[2Jpasses: allowed", "aud": "x"}"#);
    let done = explain(&folder, &[&SIGNED[..], &["--path", "/orders/7"]].concat());
    assert_eq!(done.code, 1);
    assert!(!done.out.contains('\u{1b}') && !done.out.contains("\npasses"), "{}", done.out);
}

#[test]
fn anyone_needs_no_token_and_the_rest_is_not_needed() {
    let done = explain(&folder(), &["--path", "/healthz"]);
    assert_eq!(done.code, 0);
    done.says(
        "  rule           allowed_anyone rules[0], health\n  not needed: query, authorization,",
    );
    done.says("passes: allowed_anyone, by rule health\n");
}

#[test]
fn an_observed_refusal_says_both() {
    let folder = folder();
    folder.write("policy.yaml", &policy("[{name: all, mode: observe, allow: [{scopes: [S]}]}]"));
    let done = explain(&folder, &["--path", "/"]);
    assert_eq!(done.code, 0);
    done.says("passes, only observed: token_missing, by rule all\n");
}

#[test]
fn a_grpc_caller_gets_a_grpc_answer() {
    let grpc = ["--path", "/orders/7", "--header", "content-type: application/grpc"];
    let done = explain(&folder(), &grpc);
    done.says("  HTTP 401\n  grpc-status: 16\n");
}

#[test]
fn a_configuration_with_errors_is_not_explained() {
    let folder = Folder::with(&[("policy.yaml", &policy("[{name: all}]"))]);
    let done = folder.run(&["explain", "--config", "policy.yaml", "--path", "/"]);
    assert_eq!((done.code, done.out.as_str()), (2, ""));
    assert!(done.err.contains("policy.yaml:5: rules[0].allow: required"), "{}", done.err);
}

#[test]
fn one_of_several_filters_is_chosen_by_name() {
    let shipped = std::fs::read_to_string(repository().join("envoy.yaml")).unwrap();
    let folder = Folder::with(&[("envoy.yaml", &shipped)]);
    let explain = |more: &[&str]| {
        folder.run(&[&["explain", "--config", "envoy.yaml", "--path", "/healthz"], more].concat())
    };
    assert_eq!(explain(&[]).code, 0);
    assert_eq!(explain(&["--filter", "entra-inbound"]).code, 0);
    assert_eq!(explain(&["--filter", "entra-outbound"]).code, 2);
    let twice = shipped.replace(
        "name: entra-inbound\n                # Never",
        "name: other\n                # Never",
    );
    folder.write("envoy.yaml", &format!("{shipped}---\n{twice}"));
    let done = explain(&[]);
    assert_eq!(done.code, 2);
    assert!(done.err.contains("more than one inbound configuration"), "{}", done.err);
    assert_eq!(explain(&["--filter", "other"]).code, 0);
}
