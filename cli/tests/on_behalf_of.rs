//! Calls on behalf of their callers: explained, tested, and checked beside what they need.

use crate::program::{API, AT, Done, Folder, TENANT, policy};

const READ: &str = "[{name: all, allow: [{scopes: [Orders.Read]}]}]";
const USER: &str = r#"{"scp":"Orders.Read"}"#;

fn outbound() -> String {
    format!(
        "direction: outbound\ntenants: [{TENANT}]\naudiences: [{API}]\n\
         broker: {{cluster: token_broker}}\nrules:\n- name: graph\n  match: {{destination: graph}}\n  \
         token:\n    identity: orders\n    scope: g/User.Read\n    on_behalf_of: caller\n"
    )
}

/// A folder with both policies, a key, and a token with these claims.
fn folder(claims: &str) -> Folder {
    let files = [("policy.yaml", policy(READ)), ("out.yaml", outbound())];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let folder = Folder::with(&files).with_key();
    folder.token(claims);
    folder
}

fn explain(folder: &Folder, more: &[&str]) -> Done {
    let usual = ["explain", "--config", "out.yaml", "--destination", "graph", "--at", AT];
    folder.run(&[&usual[..], more].concat())
}

const WITH_TOKEN: [&str; 4] = ["--token-file", "token", "--keys", "keys.json"];

#[test]
fn the_exchange_is_named_and_neither_token_is_shown() {
    let folder = folder(USER);
    let done = explain(&folder, &WITH_TOKEN);
    assert_eq!(done.code, 0, "{done:?}");
    done.says("  authorization  ok             taken for the caller's token\n");
    done.says("  signature      ok\n");
    done.says("  user           ok             a user's token\n");
    done.says("  exchange       ok             taken for made by the broker\n");
    done.says("passes: injected, by rule graph\nwhat goes out:\n");
    done.says(
        "  authorization: Bearer <a token of the caller, exchanged by identity orders for g/User.Read>\n",
    );
    done.is_silent_about(folder.read("token").trim());
    done.is_silent_about("placeholder");
}

#[test]
fn without_keys_it_says_what_was_not_checked() {
    let done = explain(&folder(USER), &WITH_TOKEN[..2]);
    assert_eq!(done.code, 0, "{done:?}");
    done.says(
        "  key            not checked    no --keys\n  signature      not checked    no --keys\n",
    );
    done.says("only if the signature is good: it was not checked\n");
}

#[test]
fn what_is_no_users_token_is_refused_with_the_reason() {
    let done = explain(&folder(USER), &[]);
    assert_eq!(done.code, 1);
    done.says("  authorization  token_missing\n");
    done.says("refused: token_missing, by rule graph\nthe answer:\n  HTTP 401\n");
    done.says("  www-authenticate: Bearer authorization_uri=");
    for (claims, reason) in [
        (r#"{"roles":["R"]}"#, "assertion_refused"),
        (r#"{"scp":"S","aud":"00000000-0000-4000-8000-0000000000ff"}"#, "audience_mismatch"),
    ] {
        let done = explain(&folder(claims), &WITH_TOKEN);
        assert_eq!(done.code, 1, "{reason}");
        done.says(&format!("refused: {reason}, by rule graph\nthe answer:\n  HTTP 401\n"));
    }
    // A key that nobody published.
    let foreign = folder(USER);
    let new = ["test-token", "--new-key", "--key", "other.pem", "--keys", "other.json"];
    assert_eq!(foreign.run(&new).code, 0);
    let done = explain(&foreign, &["--token-file", "token", "--keys", "other.json"]);
    done.says("refused: key_unknown, by rule graph\n");
}

#[test]
fn keys_are_refused_where_nothing_is_verified() {
    let folder = folder(USER);
    let own = outbound().replace("\n    on_behalf_of: caller", "");
    let own = own.replace(&format!("tenants: [{TENANT}]\naudiences: [{API}]\n"), "");
    folder.write("out.yaml", &own);
    let done = explain(&folder, &["--keys", "keys.json"]);
    assert_eq!(done.code, 2);
    assert!(done.err.contains("nothing is verified"), "{done:?}");
}

#[test]
fn a_table_of_cases_knows_callers() {
    let folder = folder(USER);
    let case = |name: &str, token: &str, expect: &str| {
        format!(
            "- name: {name}\n  request: {{destination: graph}}\n{token}  expect: {{{expect}}}\n"
        )
    };
    let cases = [
        case(
            "a user",
            "  token: {claims: {scp: S}}\n",
            "passes: true, injects: {identity: orders, scope: g/User.Read}",
        ),
        case("nobody", "", "status: 401, reason: token_missing"),
        case(
            "an application",
            "  token: {claims: {roles: [R]}}\n",
            "status: 401, reason: assertion_refused",
        ),
    ];
    folder.write("t.yaml", &format!("config: out.yaml\nat: {AT}\ncases:\n{}", cases.concat()));
    let done = folder.run(&["test", "t.yaml"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(done.lines_with("ok  ").len(), 3);
}

#[test]
fn check_warns_where_the_application_never_sees_its_callers_tokens() {
    const WARNING: &str = "out.yaml:11: warning: rules[0].token.on_behalf_of: the application does \
                           not get its callers' tokens";
    let folder = folder(USER);
    let both = ["check", "out.yaml", "policy.yaml"];
    folder.run(&both).says(WARNING);
    // Where the inbound side is not there to be seen, nothing is said of it.
    folder.run(&["check", "out.yaml"]).says("1 configuration in order, 0 errors, 0 warnings");
    for forwarding in [
        policy(READ).replace("rules:", "forward_token: true\nrules:"),
        policy("[{name: all, forward_token: true, allow: [{scopes: [Orders.Read]}]}]"),
    ] {
        folder.write("policy.yaml", &forwarding);
        folder.run(&both).says("2 configurations in order, 0 errors, 0 warnings");
    }
}

#[test]
fn check_misses_what_the_broker_lacks_of_keys_and_scopes() {
    let folder = folder(USER);
    let broker = "authorities: [{cloud: public, tenants: [organizations]}]\nidentities:\n  orders:\n    \
                  client_secret: {tenant: 8f2c3a6e-5b1d-4c47-9c0a-2d7e5f90b1c3, client_id: \
                  3f1b5b1e-0d2c-4a39-9a63-3f6c2c7a9d10, file: /s}\n    scopes: [g/User.Read/.default]\n    \
                  delegated_scopes: [g/User.Read]\n";
    folder.write("broker.yaml", broker);
    let both = ["check", "out.yaml", "broker.yaml"];
    folder.run(&both).says("2 configurations in order, 0 errors, 0 warnings");
    // The scope is one of a user's, and not of the application's own.
    folder.write("broker.yaml", &broker.replace("[g/User.Read]", "[g/Mail.Read]"));
    folder.run(&both).says("not in the broker's `identities.orders.delegated_scopes`");
    folder.write("broker.yaml", &broker.replace("cloud: public", "cloud: china"));
    folder.run(&both).says("out.yaml:2: warning: tenants: the broker's `authorities` have no keys");
}
