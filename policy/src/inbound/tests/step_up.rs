//! An authentication context that a rule asks for: who is sent to sign in again, and who is not.

use super::*;

const AUTHORIZE: &str =
    "https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/oauth2/v2.0/authorize";
/// `{"access_token":{"acrs":{"essential":true,"value":"c2"}}}`
const CLAIMS_C2: &str =
    "eyJhY2Nlc3NfdG9rZW4iOnsiYWNycyI6eyJlc3NlbnRpYWwiOnRydWUsInZhbHVlIjoiYzIifX19";
/// The same for `c3`.
const CLAIMS_C3: &str =
    "eyJhY2Nlc3NfdG9rZW4iOnsiYWNycyI6eyJlc3NlbnRpYWwiOnRydWUsInZhbHVlIjoiYzMifX19";

/// One rule with these alternatives, of an API with one client id.
fn asking(allow: Value) -> Value {
    with(allowing(allow), json!({"audiences": [API, API_URI]}))
}

fn pay() -> Value {
    asking(json!([{"scopes": ["Orders.Pay"], "authentication_context": "c2"}]))
}

/// A user's token that has these contexts, of a client that answers challenges.
fn stepped(contexts: Value) -> Value {
    with(user(), json!({"acrs": contexts, "xms_cc": ["cp1"]}))
}

/// The `WWW-Authenticate` of the answer, once its reason is seen; none where the request passes.
fn challenge(config: &Value, claims: &Value, expected: Reason) -> Option<String> {
    let effect = ask(&mut ready(config), &read(&KEY.token(claims)));
    assert_eq!(reason(&effect), Some(expected), "{claims}");
    let Effect::Reply(reply, _) = effect else { return None };
    let mut headers = reply.headers.into_iter();
    headers.find(|(name, _)| *name == "www-authenticate").map(|(_, value)| value)
}

fn claims_challenge(claims: &str) -> String {
    format!(
        "Bearer realm=\"{TENANT}\", authorization_uri=\"{AUTHORIZE}\", client_id=\"{API}\", \
         error=\"insufficient_claims\", claims=\"{claims}\", cc_type=\"authcontext\""
    )
}

fn insufficient_scope() -> String {
    format!("Bearer authorization_uri=\"{AUTHORIZE}\", error=\"insufficient_scope\"")
}

#[test]
fn a_client_that_answers_challenges_is_told_byte_for_byte_what_to_ask_for() {
    for contexts in [json!([]), json!(["c1"]), json!(["C2"]), json!(["c20", "c22", "c2 "])] {
        let found = challenge(&pay(), &stepped(contexts), Reason::StepUpRequired);
        assert_eq!(found, Some(claims_challenge(CLAIMS_C2)));
    }
    let no_contexts = with(user(), json!({"xms_cc": ["x", "CP1"]}));
    let found = challenge(&pay(), &no_contexts, Reason::StepUpRequired);
    assert_eq!(found, Some(claims_challenge(CLAIMS_C2)));
    // A v1 token says both under the same names.
    let v1 = with(v1_user(), json!({"xms_cc": ["cp1"]}));
    let found = challenge(&pay(), &v1, Reason::StepUpRequired);
    assert_eq!(found, Some(claims_challenge(CLAIMS_C2)));
}

#[test]
fn a_token_with_the_context_passes_whatever_its_client_can() {
    for contexts in [json!(["c2"]), json!(["c1", "c2", "c3"])] {
        assert_eq!(challenge(&pay(), &stepped(contexts.clone()), Reason::Allowed), None);
        let incapable = with(user(), json!({"acrs": contexts}));
        assert_eq!(challenge(&pay(), &incapable, Reason::Allowed), None);
    }
}

#[test]
fn a_client_that_does_not_declare_the_capability_is_refused_without_a_challenge() {
    for capabilities in [json!(null), json!([]), json!(["cp10"]), json!(["cp"]), json!(["protapp"])]
    {
        let claims = match capabilities {
            Value::Null => with(user(), json!({"acrs": ["c1"]})),
            capabilities => with(user(), json!({"acrs": ["c1"], "xms_cc": capabilities})),
        };
        let found = challenge(&pay(), &claims, Reason::AuthenticationContextMissing);
        assert_eq!(found, Some(insufficient_scope()), "{claims}");
    }
}

#[test]
fn nobody_signs_in_again_for_what_would_be_refused_all_the_same() {
    let allow = json!([{
        "scopes": ["Orders.Pay"], "roles": ["Buyer"], "clients": [CLIENT], "groups": [GROUP],
        "client_credential": "secret", "authentication_context": "c2",
    }]);
    let good = with(stepped(json!([])), json!({"roles": ["Buyer"], "groups": [GROUP]}));
    let cases = [
        (json!({"scp": "Orders.Read"}), Reason::ScopeMissing),
        (json!({"roles": ["x"]}), Reason::RoleMissing),
        (json!({"azp": OTHER_CLIENT}), Reason::ClientRefused),
        (json!({"azpacr": "0"}), Reason::ClientCredentialWeak),
        (json!({"groups": []}), Reason::GroupMissing),
        (json!({"hasgroups": true}), Reason::GroupsOverage),
    ];
    for (changes, expected) in cases {
        let found = challenge(&asking(allow.clone()), &with(good.clone(), changes), expected);
        assert_eq!(found, Some(insufficient_scope()), "{expected:?}");
    }
    let found = challenge(&asking(allow), &good, Reason::StepUpRequired);
    assert_eq!(found, Some(claims_challenge(CLAIMS_C2)));
    // A token that is not good is not stepped up either, but refused as such.
    let expired = with(stepped(json!(["c2"])), json!({"exp": NOW.0 - 61, "iat": NOW.0 - 7200}));
    let found = challenge(&pay(), &expired, Reason::TokenExpired).unwrap();
    assert!(found.ends_with("error=\"invalid_token\""), "{found}");
}

#[test]
fn an_application_cannot_step_up() {
    let application = with(application(), json!({"xms_cc": ["cp1"], "acrs": ["c2"]}));
    let found = challenge(&pay(), &application, Reason::UserRequired);
    assert_eq!(found, Some(insufficient_scope()));
    let either = asking(json!([
        {"scopes": ["Orders.Pay"], "authentication_context": "c2"},
        {"roles": ["Orders.Read.All"]},
    ]));
    assert_eq!(challenge(&either, &application, Reason::Allowed), None);
}

#[test]
fn of_several_alternatives_the_first_that_lacks_only_the_context_is_asked_for() {
    let scoped =
        |scope: &str, context: &str| json!({"scopes": [scope], "authentication_context": context});
    let both = asking(json!([scoped("Orders.Pay", "c3"), scoped("Orders.Pay", "c2")]));
    let found = challenge(&both, &stepped(json!([])), Reason::StepUpRequired);
    assert_eq!(found, Some(claims_challenge(CLAIMS_C3)));
    assert_eq!(challenge(&both, &stepped(json!(["c2"])), Reason::Allowed), None);
    // The first alternative lacks more than the context, so it is the second that counts.
    let second = asking(json!([scoped("Orders.Refund", "c3"), scoped("Orders.Pay", "c2")]));
    let found = challenge(&second, &stepped(json!(["c3"])), Reason::StepUpRequired);
    assert_eq!(found, Some(claims_challenge(CLAIMS_C2)));
    // A way in that asks for no context is no reason to step up.
    let open = asking(json!([scoped("Orders.Pay", "c3"), {"scopes": ["Orders.Read"]}]));
    assert_eq!(challenge(&open, &stepped(json!([])), Reason::Allowed), None);
}

#[test]
fn the_challenge_names_no_tenant_where_there_are_several() {
    let config = with(pay(), json!({"tenants": ["organizations"]}));
    let organizations = Cloud::Public.v2_issuer("{tenantid}");
    let mut set = published(&[&KEY]).key_sets.remove(0);
    set.issuer.clone_from(&organizations);
    set.keys[0].issuer = Some(organizations);
    let mut inbound = holding(&config, &key_sets(vec![set]));
    let effect = ask(&mut inbound, &read(&KEY.token(&stepped(json!([])))));
    let Effect::Reply(reply, _) = effect else { panic!("{effect:?}") };
    let value = &reply.headers[0].1;
    let uri = "https://login.microsoftonline.com/organizations/oauth2/v2.0/authorize";
    let start = format!("Bearer realm=\"\", authorization_uri=\"{uri}\", client_id=\"{API}\", ");
    assert!(value.starts_with(&start), "{value}");
}

#[test]
fn a_remembered_token_is_asked_for_the_context_each_time() {
    let rule = |name: &str, context: &str| {
        json!({
            "name": name, "match": {"path": format!("/{name}")},
            "allow": [{"scopes": ["Orders.Pay"], "authentication_context": context}],
        })
    };
    let config = with(config(), json!({"rules": [rule("one", "c1"), rule("two", "c2")]}));
    let mut inbound = ready(&config);
    let token = format!("Bearer {}", KEY.token(&stepped(json!(["c1"]))));
    for _ in 0..2 {
        for (path, expected) in [("/one", Reason::Allowed), ("/two", Reason::StepUpRequired)] {
            let request = and(request("GET", path), "authorization", &token);
            assert_eq!(reason(&ask(&mut inbound, &request)), Some(expected), "{path}");
        }
    }
    assert_eq!(inbound.callers().take_cache_counts(), (3, 1));
}

#[test]
fn a_rule_that_observes_lets_pass_who_would_be_stepped_up() {
    let config = with(pay(), json!({"mode": "observe"}));
    for (claims, expected) in [
        (stepped(json!(["c1"])), Reason::StepUpRequired),
        (user(), Reason::AuthenticationContextMissing),
    ] {
        let effect = ask(&mut ready(&config), &read(&KEY.token(&claims)));
        assert_eq!(reason(&effect), Some(expected));
        let set = added(&edits(effect));
        assert!(set.contains(&format!("x-entra-object-id: {USER}")), "{set:?}");
    }
}

#[test]
fn contexts_and_capabilities_are_lists_of_text() {
    for claim in ["acrs", "xms_cc"] {
        for value in [json!("c2"), json!([2]), json!({"c2": true}), json!(true), json!(null)] {
            let mut claims = stepped(json!(["c2"]));
            claims[claim] = value;
            check_claims(&mut ready(&pay()), &claims, Reason::ClaimsMalformed);
        }
    }
}
