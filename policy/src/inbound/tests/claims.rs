//! Claims of good signature: which tokens are an access token for us, now.

use super::*;

fn check(claims: &Value, expected: Reason) {
    check_claims(&mut ready(&config()), claims, expected);
}

fn check_table(cases: &[(Value, Reason)]) {
    let mut inbound = ready(&config());
    for (claims, expected) in cases {
        check_claims(&mut inbound, claims, *expected);
    }
}

/// Signs a payload that is no `serde_json` value.
fn raw(payload: &str) -> String {
    let header = json!({"typ": "JWT", "alg": "RS256", "kid": "k1"}).to_string();
    KEY.sign_text(header.as_bytes(), payload.as_bytes())
}

#[test]
fn good_tokens_of_both_versions_and_kinds_are_allowed() {
    let v1_application = with(
        without(v1_user(), "scp"),
        json!({"roles": ["Orders.Read.All"], "oid": CLIENT, "sub": CLIENT, "appidacr": "2"}),
    );
    for claims in [user(), application(), v1_user(), v1_application] {
        check(&claims, Reason::Allowed);
    }
}

#[test]
fn c01_a_token_without_a_time_is_malformed() {
    check_table(&[
        (without(user(), "exp"), Reason::ClaimsMalformed),
        (without(user(), "iat"), Reason::ClaimsMalformed),
        (without(user(), "nbf"), Reason::Allowed),
    ]);
}

#[test]
fn c02_p12_times_are_whole_positive_numbers() {
    let mut inbound = ready(&config());
    for name in ["exp", "nbf", "iat"] {
        for bad in [
            json!(0),
            json!(-1),
            json!(NOW.0.to_string()),
            json!(0.5),
            json!(1e-5),
            json!(-0.0),
            json!(true),
            json!(null),
            json!([NOW.0]),
            json!({}),
            json!(1e300),
            json!(-1e300),
            json!(1_u64 << 53),
            json!((1_u64 << 53) + 1),
            json!(1_u64 << 63),
            json!(u64::MAX),
            json!(18_446_744_073_709_551_616.0),
        ] {
            check_claims(&mut inbound, &with(user(), json!({name: bad})), Reason::ClaimsMalformed);
        }
    }
    let seconds = with(user(), json!({"exp": NOW.0 as f64 + 3600.9, "iat": NOW.0 as f64 - 60.1}));
    check_claims(&mut inbound, &seconds, Reason::Allowed);
    let last = with(user(), json!({"exp": (1_u64 << 53) - 1}));
    check_claims(&mut inbound, &last, Reason::LifetimeExcessive);
    // Beyond what a parser can hold: no JSON for us.
    let digits = format!("\"exp\":{}", "9".repeat(400));
    let token = raw(&user().to_string().replace(&format!("\"exp\":{}", NOW.0 + 3600), &digits));
    check_token(&mut inbound, &token, Reason::TokenMalformed);
}

#[test]
fn c03_expiry_has_the_skew_on_its_side_and_not_a_second_more() {
    for (skew, config) in [
        (60, config()),
        (0, with(config(), json!({"clock_skew_seconds": 0}))),
        (300, with(config(), json!({"clock_skew_seconds": 300}))),
    ] {
        let mut inbound = ready(&config);
        for (seconds, expected) in [
            (0, Reason::Allowed),
            (skew, Reason::Allowed),
            (skew + 1, Reason::TokenExpired),
            (skew + 3600, Reason::TokenExpired),
        ] {
            let times = json!({"exp": NOW.0 - seconds, "iat": NOW.0 - 7200, "nbf": NOW.0 - 7200});
            check_claims(&mut inbound, &with(user(), times), expected);
        }
        for name in ["nbf", "iat"] {
            for (seconds, expected) in [
                (0, Reason::Allowed),
                (skew, Reason::Allowed),
                (skew + 1, Reason::TokenNotYetValid),
            ] {
                let times = json!({name: NOW.0 + seconds});
                check_claims(&mut inbound, &with(user(), times), expected);
            }
        }
    }
}

#[test]
fn c04_a_life_longer_than_any_of_entras_is_refused() {
    const MOST: u64 = 29 * 3600;
    let life = |iat: u64, nbf: u64, seconds: u64| {
        with(user(), json!({"iat": iat, "nbf": nbf, "exp": iat.min(nbf) + seconds}))
    };
    let start = NOW.0 - 100;
    check_table(&[
        (life(start, start, MOST), Reason::Allowed),
        (life(start, start, MOST + 1), Reason::LifetimeExcessive),
        // From the earlier of the two.
        (life(start, start - 50, MOST), Reason::Allowed),
        (life(start, start - 50, MOST + 1), Reason::LifetimeExcessive),
        (life(start - 50, start, MOST + 1), Reason::LifetimeExcessive),
        (with(user(), json!({"iat": NOW.0 + 10 * 365 * 86_400})), Reason::TokenNotYetValid),
        (with(user(), json!({"nbf": NOW.0 + 7200})), Reason::TokenNotYetValid),
    ]);
}

#[test]
fn c04_a_token_that_ends_before_it_begins_is_refused() {
    let times = json!({"iat": NOW.0 - 90, "nbf": NOW.0 + 30, "exp": NOW.0 - 30});
    check(&with(user(), times), Reason::TokenNotYetValid);
    let times = json!({"iat": NOW.0 + 30, "nbf": NOW.0 - 90, "exp": NOW.0 - 30});
    check(&with(user(), times), Reason::TokenNotYetValid);
    let instant = json!({"iat": NOW.0, "nbf": NOW.0, "exp": NOW.0});
    check(&with(user(), instant), Reason::Allowed);
}

#[test]
fn c05_a_jump_of_the_clock_never_makes_an_expired_token_good() {
    let token = read(&KEY.token(&user()));
    let mut inbound = ready(&config());
    let years = 20 * 365 * 86_400;
    for (now, expected) in [
        (NOW, Reason::Allowed),
        (NOW.plus(3600), Reason::Allowed),
        (NOW.plus(3600 + 61), Reason::TokenExpired),
        (NOW.plus(3600), Reason::Allowed),
        (UnixTime(NOW.0 - 3600), Reason::TokenNotYetValid),
        (UnixTime(NOW.0 - years), Reason::TokenNotYetValid),
        (UnixTime(0), Reason::TokenNotYetValid),
        (NOW, Reason::Allowed),
        (NOW.plus(years), Reason::KeysUnavailable),
        (UnixTime(u64::MAX), Reason::KeysUnavailable),
    ] {
        let effect = ask_with(&mut inbound, &token, true, now, &tokens::verify);
        let found = reason(&effect);
        // Beyond the keys' life it waits for newer ones, which also lets nothing pass.
        assert!(
            found == Some(expected) || (found.is_none() && expected == Reason::KeysUnavailable),
            "{now:?}: {effect:?}"
        );
    }
}

#[test]
fn c06_the_audience_is_one_string() {
    let many = |count: usize| vec![API; count];
    for (audience, expected) in [
        (json!(null), Reason::ClaimsMalformed),
        (json!(""), Reason::AudienceMismatch),
        (json!([]), Reason::ClaimsMalformed),
        (json!([""]), Reason::ClaimsMalformed),
        (json!([API]), Reason::ClaimsMalformed),
        (json!(["x", API]), Reason::ClaimsMalformed),
        (json!([[API]]), Reason::ClaimsMalformed),
        (json!(many(100)), Reason::ClaimsMalformed),
        (json!(many(10_000)), Reason::TokenTooLarge),
        (json!(7), Reason::ClaimsMalformed),
        (json!({API: API}), Reason::ClaimsMalformed),
    ] {
        check(&with(user(), json!({"aud": audience})), expected);
    }
    check(&without(user(), "aud"), Reason::ClaimsMalformed);
}

#[test]
fn c07_the_audience_is_compared_exactly() {
    let mut inbound = ready(&config());
    for audience in [
        format!("{API}/"),
        format!("{API} "),
        API.to_uppercase(),
        API[..35].to_owned(),
        format!("{API}0"),
        format!("https://{API}"),
        OTHER_CLIENT.to_owned(),
        "00000003-0000-0000-c000-000000000000".to_owned(),
    ] {
        let claims = with(user(), json!({"aud": audience}));
        check_claims(&mut inbound, &claims, Reason::AudienceMismatch);
    }
    for audience in [
        "api://orders/",
        "api://order",
        "api://ordersx",
        "API://orders",
        "api://Orders",
        "https://orders",
        "orders",
        "api://orders api://orders",
    ] {
        let claims = with(v1_user(), json!({"aud": audience}));
        check_claims(&mut inbound, &claims, Reason::AudienceMismatch);
    }
}

#[test]
fn c08_a_v2_token_names_the_api_by_its_client_id() {
    check_table(&[
        (with(user(), json!({"aud": API})), Reason::Allowed),
        (with(user(), json!({"aud": API_URI})), Reason::AudienceMismatch),
        (with(v1_user(), json!({"aud": API})), Reason::Allowed),
        (with(v1_user(), json!({"aud": API_URI})), Reason::Allowed),
    ]);
}

#[test]
fn c09_the_issuer_is_compared_exactly() {
    let mut inbound = ready(&config());
    let (v1, v2) = (Cloud::Public.v1_issuer(TENANT).unwrap(), Cloud::Public.v2_issuer(TENANT));
    for issuer in [
        format!("{v2}/"),
        v2.replace("v2.0", "V2.0"),
        v2.replace("/v2.0", ""),
        v2.replace("https", "http"),
        v2.replace(".com/", ".com:443/"),
        v2.replace("login", "user@login"),
        v2.replace("login", "LOGIN"),
        v2.replace("microsoft", "rnicrosoft"),
        v2.replace("microsoft", "micr\u{43e}soft"),
        v2.replace(".com", ".com.evil.example"),
        v2.replace(TENANT, "{tenantid}"),
        v2.replace(TENANT, "organizations"),
        v2.replace(TENANT, "common"),
        v2.replace(TENANT, OTHER_TENANT),
        v2.to_uppercase(),
        format!(" {v2}"),
        String::new(),
        v1.clone(),
    ] {
        let claims = with(user(), json!({"iss": issuer}));
        check_claims(&mut inbound, &claims, Reason::IssuerMismatch);
    }
    for issuer in
        [v1.trim_end_matches('/').to_owned(), v1.replace("https", "http"), format!("{v1}/"), v2]
    {
        let claims = with(v1_user(), json!({"iss": issuer}));
        check_claims(&mut inbound, &claims, Reason::IssuerMismatch);
    }
}

#[test]
fn c10_every_cloud_and_version_has_its_own_issuer() {
    for ours in Cloud::ALL {
        let config = with(config(), json!({"cloud": ours.name()}));
        let mut key = SigningKey::new(1, "k1", &ours.v2_issuer(TENANT)).jwk();
        key.cloud_instance_name = Some(ours.instance_name().to_owned());
        let keys = key_sets(vec![key_set(&ours.v2_issuer(TENANT), NOW, vec![key])]);
        let mut inbound = holding(&config, &keys);
        for theirs in Cloud::ALL {
            let v2 = theirs.v2_issuer(TENANT);
            // Where it is not known, the one that a guess would have.
            let guess = || format!("https://sts.{}/{TENANT}/", theirs.instance_name());
            let v1 = theirs.v1_issuer(TENANT).unwrap_or_else(guess);
            let expected = |same| if same { Reason::Allowed } else { Reason::IssuerMismatch };
            // The worldwide host issues v1 tokens for the US government's cloud too.
            let same_v1 = Some(&v1) == ours.v1_issuer(TENANT).as_ref();
            for (claims, issuer, expected) in [
                (user(), &v2, expected(ours == theirs)),
                (user(), &v1, Reason::IssuerMismatch),
                (v1_user(), &v1, expected(same_v1)),
                (v1_user(), &v2, Reason::IssuerMismatch),
            ] {
                check_claims(&mut inbound, &with(claims, json!({"iss": issuer})), expected);
            }
        }
        let preview = "https://login.windows-ppe.net/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0";
        let claims = with(user(), json!({"iss": preview}));
        check_claims(&mut inbound, &claims, Reason::IssuerMismatch);
    }
}

#[test]
fn c11_the_tenant_is_a_guid_in_lower_case_and_on_the_list() {
    let tenant = |tenant: Value| with(user(), json!({"tid": tenant}));
    check_table(&[
        (without(user(), "tid"), Reason::ClaimsMalformed),
        (tenant(json!(null)), Reason::ClaimsMalformed),
        (tenant(json!(7)), Reason::ClaimsMalformed),
        (tenant(json!([TENANT])), Reason::ClaimsMalformed),
        (tenant(json!("")), Reason::ClaimsMalformed),
        (tenant(json!("organizations")), Reason::ClaimsMalformed),
        (tenant(json!("contoso.onmicrosoft.com")), Reason::ClaimsMalformed),
        (tenant(json!(TENANT.to_uppercase())), Reason::ClaimsMalformed),
        (tenant(json!(format!("{{{TENANT}}}"))), Reason::ClaimsMalformed),
        (tenant(json!(format!("{TENANT}\0"))), Reason::ClaimsMalformed),
        (tenant(json!(OTHER_TENANT)), Reason::TenantRefused),
    ]);
    let all = with(config(), json!({"tenants": ["organizations"]}));
    let claims = tenant(json!("organizations"));
    let template = Cloud::Public.authority_issuer("organizations");
    let keys = key_sets(vec![key_set(&template, NOW, vec![KEY.jwk()])]);
    check_claims(&mut holding(&all, &keys), &claims, Reason::ClaimsMalformed);
    let claims = with(user(), json!({"tid": "{tenantid}", "iss": template}));
    check_claims(&mut holding(&all, &keys), &claims, Reason::ClaimsMalformed);
}

#[test]
fn c16_personal_accounts_are_no_entra_tenant_unless_listed() {
    const CONSUMERS: &str = crate::claims::CONSUMERS_TENANT;
    let issuer = Cloud::Public.v2_issuer(CONSUMERS);
    let claims = with(user(), json!({"tid": CONSUMERS, "iss": issuer}));
    let key = SigningKey::new(1, "k1", &issuer);
    for (tenants, expected) in [
        (json!([TENANT]), Reason::TenantRefused),
        (json!(["organizations"]), Reason::TenantRefused),
        (json!([TENANT, CONSUMERS]), Reason::Allowed),
    ] {
        let template = Cloud::Public.authority_issuer("organizations");
        let keys = [issuer.as_str(), template.as_str()];
        let sets = keys.map(|authority| key_set(authority, NOW, vec![key.jwk()])).to_vec();
        let config = with(config(), json!({"tenants": tenants}));
        check_claims(&mut holding(&config, &key_sets(sets)), &claims, expected);
    }
}

#[test]
fn c13_c14_the_kind_of_a_token_decides_and_not_the_absence_of_a_claim() {
    let scope = |scope: &str| with(user(), json!({"scp": scope}));
    let bare = || {
        let bare = without(without(application(), "idtyp"), "roles");
        with(bare, json!({"roles": ["Orders.Read.All"]}))
    };
    check_table(&[
        (with(user(), json!({"idtyp": "user"})), Reason::Allowed),
        // Both a user's and an application's.
        (with(user(), json!({"idtyp": "app"})), Reason::TokenKindUnknown),
        (with(user(), json!({"idtyp": "device"})), Reason::TokenKindUnknown),
        (with(user(), json!({"idtyp": ""})), Reason::TokenKindUnknown),
        (with(application(), json!({"idtyp": "App"})), Reason::TokenKindUnknown),
        (with(application(), json!({"idtyp": "user"})), Reason::TokenKindUnknown),
        (with(application(), json!({"idtyp": "agent"})), Reason::TokenKindUnknown),
        (with(application(), json!({"idtyp": 1})), Reason::ClaimsMalformed),
        // Without `idtyp` it is an application's where the object is the subject.
        (bare(), Reason::Allowed),
        (with(bare(), json!({"sub": "pairwise"})), Reason::TokenKindUnknown),
        (without(bare(), "oid"), Reason::TokenKindUnknown),
        (without(without(bare(), "oid"), "sub"), Reason::TokenKindUnknown),
        (without(bare(), "azp"), Reason::TokenKindUnknown),
        // An ID token.
        (without(without(user(), "scp"), "azp"), Reason::TokenKindUnknown),
        (without(user(), "scp"), Reason::TokenKindUnknown),
        // An agent's: its scope of `/` grants nothing.
        (with(application(), json!({"scp": "/"})), Reason::Allowed),
        (with(bare(), json!({"scp": "/"})), Reason::Allowed),
        (scope("/"), Reason::TokenKindUnknown),
        (scope(""), Reason::TokenKindUnknown),
        (scope(" "), Reason::TokenKindUnknown),
        (scope("/ /"), Reason::TokenKindUnknown),
        (scope("/ Orders.Read"), Reason::Allowed),
        (with(application(), json!({"scp": ""})), Reason::TokenKindUnknown),
        (with(application(), json!({"scp": " "})), Reason::TokenKindUnknown),
        (with(application(), json!({"scp": "/ /"})), Reason::TokenKindUnknown),
        (with(user(), json!({"scp": ["Orders.Read"]})), Reason::ClaimsMalformed),
    ]);
}

#[test]
fn c13_scopes_and_roles_are_whole_words_in_their_own_case() {
    let scope = |scope: &str| with(user(), json!({"scp": scope}));
    let roles = |roles: Value| with(application(), json!({"roles": roles}));
    check_table(&[
        (scope("Orders.Read"), Reason::Allowed),
        (scope("a  Orders.Read "), Reason::Allowed),
        (scope("Orders.ReadWrite"), Reason::ScopeMissing),
        (scope("Orders"), Reason::ScopeMissing),
        (scope("orders.read"), Reason::ScopeMissing),
        (scope("a\tOrders.Read"), Reason::ScopeMissing),
        (scope("a,Orders.Read"), Reason::ScopeMissing),
        (scope("Orders.Read.All"), Reason::ScopeMissing),
        (roles(json!(["x", "Orders.Read.All"])), Reason::Allowed),
        (roles(json!(["orders.read.all"])), Reason::RoleMissing),
        (roles(json!(["Orders.Read.All2"])), Reason::RoleMissing),
        (roles(json!(["x Orders.Read.All"])), Reason::RoleMissing),
        (roles(json!([])), Reason::RoleMissing),
        (without(application(), "roles"), Reason::RoleMissing),
        (roles(json!("Orders.Read.All")), Reason::ClaimsMalformed),
        (roles(json!(["Orders.Read.All", 7])), Reason::ClaimsMalformed),
        (roles(json!(null)), Reason::ClaimsMalformed),
        // A user's role is no application's, and an application's scope none at all.
        (with(scope("x"), json!({"roles": ["Orders.Read.All"]})), Reason::ScopeMissing),
    ]);
}

#[test]
fn c15_groups_that_did_not_fit_are_unknown_and_never_none() {
    let config = allowing(json!([{"scopes": ["Orders.Read"], "groups": [GROUP]}]));
    let mut inbound = ready(&config);
    let sources = json!({"groups": "src1"});
    for (members, expected) in [
        (json!({}), Reason::GroupMissing),
        (json!({"groups": []}), Reason::GroupMissing),
        (json!({"groups": [USER]}), Reason::GroupMissing),
        (json!({"groups": [GROUP.to_uppercase()]}), Reason::GroupMissing),
        (json!({"groups": [USER, GROUP]}), Reason::Allowed),
        (json!({"groups": GROUP}), Reason::ClaimsMalformed),
        (json!({"groups": [7]}), Reason::ClaimsMalformed),
        (json!({"_claim_names": sources}), Reason::GroupsOverage),
        (json!({"_claim_names": sources, "groups": [GROUP]}), Reason::GroupsOverage),
        (json!({"_claim_names": {"other": "src1"}}), Reason::GroupMissing),
        (json!({"_claim_names": "groups"}), Reason::ClaimsMalformed),
        (json!({"hasgroups": true}), Reason::GroupsOverage),
        (json!({"hasgroups": "true"}), Reason::GroupsOverage),
        (json!({"hasgroups": "false"}), Reason::GroupsOverage),
        (json!({"hasgroups": null}), Reason::GroupsOverage),
        (json!({"hasgroups": false}), Reason::GroupMissing),
        (json!({"hasgroups": false, "groups": [GROUP]}), Reason::Allowed),
        (json!({"groups:src1": "x"}), Reason::GroupsOverage),
        (json!({"groupsx": "x"}), Reason::GroupMissing),
    ] {
        check_claims(&mut inbound, &with(user(), members), expected);
    }
    // Where no rule asks for groups, overage is no reason to refuse.
    check_claims(
        &mut ready(&super::config()),
        &with(user(), json!({"hasgroups": true})),
        Reason::Allowed,
    );
}

#[test]
fn the_version_decides_which_claims_name_the_client() {
    check_table(&[
        (without(user(), "ver"), Reason::ClaimsMalformed),
        (with(user(), json!({"ver": "3.0"})), Reason::ClaimsMalformed),
        (with(user(), json!({"ver": "2"})), Reason::ClaimsMalformed),
        (with(user(), json!({"ver": 2.0})), Reason::ClaimsMalformed),
        (with(user(), json!({"ver": "1.0"})), Reason::IssuerMismatch),
        (with(v1_user(), json!({"ver": "2.0"})), Reason::IssuerMismatch),
        (with(user(), json!({"azp": 7})), Reason::ClaimsMalformed),
        (with(user(), json!({"appid": 7})), Reason::Allowed),
        (with(user(), json!({"azpacr": "3"})), Reason::ClaimsMalformed),
        (with(user(), json!({"azpacr": 1})), Reason::ClaimsMalformed),
        (with(user(), json!({"azpacr": ""})), Reason::ClaimsMalformed),
        (with(user(), json!({"uti": 7})), Reason::ClaimsMalformed),
        (with(user(), json!({"oid": 7})), Reason::ClaimsMalformed),
        (with(user(), json!({"sub": ["s"]})), Reason::ClaimsMalformed),
        (without(user(), "iss"), Reason::ClaimsMalformed),
        (with(user(), json!({"iss": [Cloud::Public.v2_issuer(TENANT)]})), Reason::ClaimsMalformed),
    ]);
}

#[test]
fn p05_p06_p07_p08_p09_the_payload_is_read_in_one_way_or_not_at_all() {
    let mut inbound = ready(&config());
    let good = user().to_string();
    let and = |members: &str| good.replacen('{', &format!("{{{members},"), 1);
    check_token(&mut inbound, &raw(&good), Reason::Allowed);
    check_token(&mut inbound, &raw(&format!(" \n{good}\t")), Reason::Allowed);
    let mut bad: Vec<String> = ["iss", "aud", "exp", "tid", "scp", "oid", "ver", "azp"]
        .iter()
        .flat_map(|name| {
            // The same value, first or last, and in another case.
            let value = &user()[*name];
            [
                and(&format!("\"{name}\":{value}")),
                and(&format!("\"{}\":{value}", name.to_uppercase())),
                and(&format!("\"\\u{:04x}{}\":{value}", name.as_bytes()[0], &name[1..])),
            ]
        })
        .collect();
    bad.extend([and("\"tid\":\"x\""), and("\"TID\":null")]);
    bad.extend(["[]", "\"x\"", "1", "null", "true", "{", "{}x"].map(str::to_owned));
    bad.extend([
        format!("[{good}]"),
        good.replace('"', "'"),
        good.replace("\"ver\"", "ver"),
        good.replacen('}', ",}", 1),
        good.replacen('{', "{/**/", 1),
        and("\"x\":NaN"),
        and("\"x\":Infinity"),
        format!("\u{feff}{good}"),
        format!("{good}{good}"),
        format!("{good}\0"),
        and("\"x\":\"\\ud800\""),
        and("\"x\":\"\\udc00\\ud800\""),
    ]);
    for payload in &bad {
        check_token(&mut inbound, &raw(payload), Reason::TokenMalformed);
    }
    let header = json!({"typ": "JWT", "alg": "RS256", "kid": "k1"}).to_string();
    for bytes in [&b"\xff"[..], b"\xc0\xae", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"] {
        let payload = [br#"{"x":""#, bytes, br#"","#, &good.as_bytes()[1..]].concat();
        let token = KEY.sign_text(header.as_bytes(), &payload);
        check_token(&mut inbound, &token, Reason::TokenMalformed);
    }
    for name in ["iss", "aud", "tid", "oid", "sub", "scp", "azp", "uti"] {
        let value = format!("{}\0", user()[name].as_str().unwrap());
        check_claims(&mut inbound, &with(user(), json!({name: value})), Reason::ClaimsMalformed);
    }
}

#[test]
fn p10_p11_nesting_size_and_number_of_claims_are_bounded() {
    let mut inbound = ready(&config());
    let nested = |levels: usize| {
        let value = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        raw(&user().to_string().replacen('{', &format!("{{\"x\":{value},"), 1))
    };
    check_token(&mut inbound, &nested(31), Reason::Allowed);
    for levels in [32, 33, 100, 1_000, 5_000] {
        check_token(&mut inbound, &nested(levels), Reason::TokenMalformed);
    }
    let sized = |size: usize| with(user(), json!({"x": "x".repeat(size)}));
    let overhead = KEY.token(&sized(0)).len();
    // Base64 writes three bytes as four letters.
    let fits = (16 * 1024 - overhead) / 4 * 3;
    check_claims(&mut inbound, &sized(fits), Reason::Allowed);
    for size in [fits + 6, 60 * 1024, 750 * 1024] {
        check_claims(&mut inbound, &sized(size), Reason::TokenTooLarge);
    }
    let many = |count: usize| {
        let mut claims = user();
        for index in 0..count {
            claims[format!("x{index}")] = json!(1);
        }
        claims
    };
    let own = user().as_object().unwrap().len();
    check_claims(&mut inbound, &many(512 - own), Reason::Allowed);
    check_claims(&mut inbound, &many(513 - own), Reason::TokenMalformed);
    let groups: Vec<String> = (0..200).map(|index| format!("{index:0>8}{}", &USER[8..])).collect();
    check_claims(&mut inbound, &with(user(), json!({"groups": groups})), Reason::Allowed);
}
