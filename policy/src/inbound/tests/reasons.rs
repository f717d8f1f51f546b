//! Every reason that an inbound request can have, each reached by a request, and how it is
//! answered in each protocol.

use super::*;

/// A filter, and a request that has this reason; none where the reason is not an inbound one.
fn case(reason: Reason) -> Option<(Inbound, Request)> {
    let orders = || request("GET", "/orders/7");
    let token = |claims: &Value| read(&KEY.token(claims));
    let header = |members: Value| {
        let header = with(json!({"typ": "JWT", "alg": "RS256", "kid": "k1"}), members);
        read(&KEY.token_with(&header, &user()))
    };
    let ready = || ready(&config());
    let allowing = |allow: Value| super::ready(&allowing(json!([allow])));
    let step_up = json!({"scopes": ["Orders.Read"], "authentication_context": "c2"});
    Some(match reason {
        Reason::Allowed => (ready(), token(&user())),
        Reason::AllowedAnyone => (ready(), request("GET", "/healthz")),
        Reason::PathAmbiguous => (ready(), request("GET", "/a/../b")),
        Reason::HostMalformed => (ready(), and(orders(), ":authority", "a b")),
        Reason::NoRule => (ready(), request("GET", "/nowhere")),
        Reason::TokenMissing => (ready(), orders()),
        Reason::AuthorizationMalformed => (ready(), and(orders(), "authorization", "Basic x")),
        Reason::TokenInQuery => (ready(), request("GET", "/orders/7?access_token=x")),
        Reason::TokenTooLarge => (ready(), read(&"x".repeat(16 * 1024 + 1))),
        Reason::TokenMalformed => (ready(), read("a.b")),
        Reason::AlgorithmRefused => (ready(), header(json!({"alg": "none"}))),
        Reason::HeaderRefused => (ready(), header(json!({"crit": []}))),
        Reason::KeyIdMissing => (ready(), header(json!({"kid": ""}))),
        Reason::ClaimsMalformed => (ready(), token(&without(user(), "exp"))),
        Reason::IssuerMismatch => (ready(), token(&with(user(), json!({"iss": "x"})))),
        Reason::TenantRefused => (ready(), token(&with(user(), json!({"tid": OTHER_TENANT})))),
        Reason::KeyUnknown => {
            let (mut inbound, request) = (ready(), header(json!({"kid": "k2"})));
            assert!(matches!(ask(&mut inbound, &request), Effect::Wait));
            inbound.callers().next_call(NOW);
            inbound.callers().on_unchanged_keys(NOW);
            (inbound, request)
        }
        Reason::KeyIssuerMismatch => {
            let other = SigningKey::new(1, "k1", &Cloud::Public.v2_issuer(OTHER_TENANT));
            (holding(&config(), &published(&[&other])), token(&user()))
        }
        Reason::SignatureInvalid => (ready(), read(&FOREIGN_KEY.token(&user()))),
        Reason::AudienceMismatch => (ready(), token(&with(user(), json!({"aud": CLIENT})))),
        Reason::TokenExpired => (ready(), token(&with(user(), json!({"exp": NOW.0 - 61})))),
        Reason::TokenNotYetValid => (ready(), token(&with(user(), json!({"nbf": NOW.0 + 61})))),
        Reason::LifetimeExcessive => {
            (ready(), token(&with(user(), json!({"exp": NOW.0 + 30 * 3600}))))
        }
        Reason::TokenKindUnknown => (ready(), token(&with(user(), json!({"idtyp": "app"})))),
        Reason::UserRequired => {
            (allowing(json!({"scopes": ["Orders.Read"]})), token(&application()))
        }
        Reason::ApplicationRequired => (allowing(json!({"roles": ["R"]})), token(&user())),
        Reason::ScopeMissing => (allowing(json!({"scopes": ["S"]})), token(&user())),
        Reason::RoleMissing => (allowing(json!({"roles": ["R"]})), token(&application())),
        Reason::ClientRefused => (allowing(json!({"clients": [API]})), token(&application())),
        Reason::ClientCredentialWeak => {
            let rule = json!({"scopes": ["Orders.Read"], "client_credential": "certificate"});
            (allowing(rule), token(&user()))
        }
        Reason::GroupMissing => {
            (allowing(json!({"scopes": ["Orders.Read"], "groups": [GROUP]})), token(&user()))
        }
        Reason::GroupsOverage => {
            let claims = with(user(), json!({"hasgroups": true}));
            (allowing(json!({"scopes": ["Orders.Read"], "groups": [GROUP]})), token(&claims))
        }
        Reason::CallerWorkloadRefused => {
            let rule = json!({"scopes": ["Orders.Read"], "caller_workload": ["spiffe://a/b"]});
            (allowing(rule), token(&user()))
        }
        Reason::StepUpRequired => {
            (allowing(step_up), token(&with(user(), json!({"xms_cc": ["cp1"]}))))
        }
        Reason::AuthenticationContextMissing => (allowing(step_up), token(&user())),
        Reason::KeysUnavailable => {
            let mut inbound = inbound(&config());
            inbound.callers().next_call(NOW);
            inbound.callers().on_failure(NOW);
            (inbound, token(&user()))
        }
        Reason::TooManyWaiting => (inbound(&config()), token(&user())),
        Reason::Injected
        | Reason::NoDestination
        | Reason::Misplaced
        | Reason::AuthorizationKept
        | Reason::InjectionStopped
        | Reason::AuthorizationRefused
        | Reason::AssertionRefused
        | Reason::ClaimsRequired
        | Reason::SignInRequired
        | Reason::TokenDenied
        | Reason::TokenUnavailable => return None,
    })
}

fn answer(reason: Reason, content_type: Option<&str>) -> Option<Effect> {
    let (mut inbound, mut request) = case(reason)?;
    if let Some(content_type) = content_type {
        request = and(request, "content-type", content_type);
    }
    Some(ask_with(&mut inbound, &request, false, NOW, &tokens::verify))
}

#[test]
fn every_reason_is_reached_and_answered_by_its_class() {
    const URI: &str = "https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/oauth2/v2.0/authorize";
    let bearer = format!("Bearer authorization_uri=\"{URI}\"");
    let step_up = format!(
        "Bearer realm=\"{TENANT}\", authorization_uri=\"{URI}\", client_id=\"{API}\", \
         error=\"insufficient_claims\", claims=\"eyJhY2Nlc3NfdG9rZW4iOnsiYWNycyI6eyJlc3NlbnRpYWwiOnRydWUsInZhbHVlIjoiYzIifX19\", \
         cc_type=\"authcontext\""
    );
    let mut reached = 0;
    for expected in Reason::ALL {
        let Some(effect) = answer(*expected, None) else { continue };
        reached += 1;
        assert_eq!(reason(&effect), Some(*expected), "{effect:?}");
        let reply = match effect {
            Effect::Continue(edits, _) => {
                assert!(added(&edits).contains(&"x-entra-permit: 1".to_owned()));
                continue;
            }
            Effect::Reply(reply, _) => reply,
            Effect::Wait => panic!("{expected:?} waits"),
        };
        let invalid = format!("{bearer}, error=\"invalid_token\"");
        let insufficient = format!("{bearer}, error=\"insufficient_scope\"");
        let (status, title, header, value) = match expected.class() {
            Class::BadRequest => (400, "Bad Request", None, String::new()),
            Class::TokenRequired => (401, "Unauthorized", Some("www-authenticate"), bearer.clone()),
            Class::InvalidToken => (401, "Unauthorized", Some("www-authenticate"), invalid),
            Class::InsufficientClaims => {
                (401, "Unauthorized", Some("www-authenticate"), step_up.to_owned())
            }
            Class::Forbidden => (403, "Forbidden", Some("www-authenticate"), insufficient),
            Class::Unavailable => (503, "Service Unavailable", Some("retry-after"), "1".to_owned()),
            Class::Pass => panic!("{expected:?} was answered"),
        };
        let problem = ("content-type", "application/problem+json".to_owned());
        let headers: Vec<_> =
            header.map(|name| (name, value)).into_iter().chain([problem]).collect();
        let body = format!(r#"{{"type":"about:blank","title":"{title}","status":{status}}}"#);
        assert_eq!((reply.status, &*reply.body), (status, body.as_str()), "{expected:?}");
        assert_eq!(reply.headers, headers, "{expected:?}");
        assert_eq!((reply.grpc_status, reply.details), (None, expected.code()));
    }
    assert_eq!(reached, Reason::ALL.len() - 11);
}

#[test]
fn every_refusal_has_its_form_for_grpc_and_grpc_web() {
    for expected in Reason::ALL {
        let code = match expected.class() {
            Class::Pass => continue,
            Class::BadRequest => 3,
            Class::TokenRequired | Class::InvalidToken | Class::InsufficientClaims => 16,
            Class::Forbidden => 7,
            Class::Unavailable => 14,
        };
        let Some(Effect::Reply(http, _)) = answer(*expected, None) else { continue };
        let Some(Effect::Reply(grpc, _)) = answer(*expected, Some("application/grpc+proto")) else {
            panic!("{expected:?} passes over gRPC");
        };
        let Some(Effect::Reply(web, _)) = answer(*expected, Some("application/grpc-web-text"))
        else {
            panic!("{expected:?} passes over gRPC-Web");
        };
        let own: Vec<_> =
            http.headers.iter().filter(|(name, _)| *name != "content-type").cloned().collect();
        assert_eq!((grpc.status, grpc.grpc_status, &*grpc.body), (http.status, Some(code), ""));
        assert_eq!(grpc.headers, own, "{expected:?}");
        assert_eq!((web.status, web.grpc_status, &*web.body), (200, None, ""));
        let mut headers = own;
        headers.push(("content-type", "application/grpc-web+proto".to_owned()));
        headers.push(("grpc-status", code.to_string()));
        assert_eq!(web.headers, headers, "{expected:?}");
    }
}

#[test]
fn h25_the_answer_tells_the_class_and_not_the_reason() {
    for expected in Reason::ALL {
        let Some(Effect::Reply(reply, _)) = answer(*expected, None) else { continue };
        let shown = format!("{:?}{}", reply.headers, reply.body);
        assert!(!shown.contains(expected.code()), "{expected:?}: {shown}");
    }
}

#[test]
fn the_challenge_names_the_one_tenant_or_organizations() {
    for (tenants, expected) in [
        (json!([TENANT]), TENANT),
        (json!([TENANT, TENANT]), TENANT),
        (json!([TENANT, OTHER_TENANT]), "organizations"),
        (json!(["organizations"]), "organizations"),
    ] {
        for cloud in Cloud::ALL {
            let config = with(config(), json!({"tenants": tenants, "cloud": cloud.name()}));
            let effect = ask(&mut inbound(&config), &request("GET", "/orders/7"));
            let Effect::Reply(reply, _) = effect else { panic!("{effect:?}") };
            let uri = cloud.authorization_uri(expected);
            let challenge = format!("Bearer authorization_uri=\"{uri}\"");
            assert_eq!(reply.headers[0], ("www-authenticate", challenge));
        }
    }
}

#[test]
fn an_expired_token_of_another_audience_is_one_of_another_audience() {
    // What is reported where several things are wrong: the first in the documented order.
    let all = json!({"aud": CLIENT, "exp": NOW.0 - 61, "idtyp": "app"});
    for (claims, expected) in [
        (with(user(), all.clone()), Reason::AudienceMismatch),
        (with(with(user(), all.clone()), json!({"aud": API})), Reason::TokenExpired),
        (with(with(user(), all), json!({"iss": "x"})), Reason::IssuerMismatch),
    ] {
        check_claims(&mut ready(&config()), &claims, expected);
    }
}
