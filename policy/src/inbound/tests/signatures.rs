//! Header, signature, and copies of a token that somebody changed.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::*;

fn check(token: &str, expected: Reason) {
    check_token(&mut ready(&config()), token, expected);
}

fn parts(token: &str) -> [String; 3] {
    token.split('.').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap()
}

fn header(members: Value) -> String {
    KEY.token_with(&with(json!({"typ": "JWT", "alg": "RS256", "kid": "k1"}), members), &user())
}

/// The token with each single bit of one of its parts flipped, and the part encoded again.
fn flipped(token: &str, part: usize) -> Vec<String> {
    let decoded = URL_SAFE_NO_PAD.decode(&parts(token)[part]).unwrap();
    (0..decoded.len() * 8)
        .map(|bit| {
            let mut bytes = decoded.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut parts = parts(token);
            parts[part] = URL_SAFE_NO_PAD.encode(bytes);
            parts.join(".")
        })
        .collect()
}

#[test]
fn j17_every_flipped_bit_is_noticed() {
    let token = KEY.token(&user());
    let mut inbound = ready(&config());
    check_token(&mut inbound, &token, Reason::Allowed);
    for part in 0..3 {
        for changed in flipped(&token, part) {
            let effect = ask(&mut inbound, &read(&changed));
            let refused = match &effect {
                Effect::Reply(reply, _) => reply.status == 401,
                // A key id with a flipped bit is unknown: newer keys are asked for.
                Effect::Wait => part == 0,
                Effect::Continue(..) => false,
            };
            assert!(refused, "{changed}: {effect:?}");
        }
    }
    // The good one is still remembered, and none of the copies is.
    assert_eq!(inbound.callers().take_cache_counts().0, 0);
    check_token(&mut inbound, &token, Reason::Allowed);
    assert_eq!(inbound.callers().take_cache_counts(), (1, 0));
}

#[test]
fn j18_parts_of_different_tokens_are_no_token() {
    let first = parts(&KEY.token(&user()));
    let second = parts(&KEY.token(&with(user(), json!({"scp": "Orders.Read.More"}))));
    let third = parts(&FOREIGN_KEY.token(&user()));
    for [a, b, c] in [
        [&first[0], &first[1], &second[2]],
        [&first[0], &second[1], &first[2]],
        [&first[0], &first[1], &third[2]],
        [&third[0], &third[1], &first[2]],
    ] {
        let good = a == &first[0] && b == &first[1] && c == &first[2];
        let expected = if good { Reason::Allowed } else { Reason::SignatureInvalid };
        check(&format!("{a}.{b}.{c}"), expected);
    }
}

#[test]
fn j16_signatures_of_odd_form_are_refused() {
    let [header, payload, signature] = parts(&KEY.token(&user()));
    let good = URL_SAFE_NO_PAD.decode(&signature).unwrap();
    let modulus = URL_SAFE_NO_PAD.decode(KEY.jwk().n.unwrap()).unwrap();
    let mut one = vec![0; 256];
    one[255] = 1;
    for signature in [
        vec![0],
        vec![0; 256],
        one,
        vec![0xff; 256],
        modulus,
        good[1..].to_vec(),
        good[..255].to_vec(),
        [&[0], good.as_slice()].concat(),
        [good.as_slice(), &[0]].concat(),
        [good.as_slice(), good.as_slice()].concat(),
        good.iter().rev().copied().collect(),
    ] {
        let signature = URL_SAFE_NO_PAD.encode(signature);
        check(&format!("{header}.{payload}.{signature}"), Reason::SignatureInvalid);
    }
    check(&format!("{header}.{payload}."), Reason::TokenMalformed);
}

#[test]
fn j01_j02_j03_j04_the_algorithm_is_not_the_tokens_to_choose() {
    for algorithm in [
        "none", "None", "HS256", "HS512", "RS384", "RS512", "PS256", "ES256", "rs256", "RS256 ", "",
    ] {
        check(&header(json!({"alg": algorithm})), Reason::AlgorithmRefused);
    }
    for algorithm in [json!(256), json!(null), json!(["RS256"])] {
        check(&header(json!({"alg": algorithm})), Reason::AlgorithmRefused);
    }
    let [_, payload, _] = parts(&KEY.token(&user()));
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
    check(&format!("{none}.{payload}."), Reason::AlgorithmRefused);
    check(&format!("{none}.{payload}.AA"), Reason::AlgorithmRefused);
}

#[test]
fn j06_keys_that_the_token_brings_are_not_used() {
    let brought = json!({
        "jwk": FOREIGN_KEY.jwk(), "jku": "https://evil.example/keys",
        "x5u": "https://evil.example/chain", "x5c": ["MIIB"], "x5t": "x", "x5t#S256": "x",
        "typ": "JWT", "alg": "RS256", "kid": "k1",
    });
    let mut inbound = ready(&config());
    let forged = FOREIGN_KEY.token_with(&brought, &user());
    check_token(&mut inbound, &forged, Reason::SignatureInvalid);
    assert_eq!(inbound.callers().next_call(NOW), None);
    // Entra itself sends `x5t`: it is ignored, not refused.
    check_token(&mut inbound, &KEY.token_with(&brought, &user()), Reason::Allowed);
}

#[test]
fn j07_j08_the_key_id_is_required_and_only_looked_up() {
    for kid in [json!(null), json!(1), json!(""), json!(["k1"]), json!("k".repeat(257))] {
        check(&header(json!({"kid": kid})), Reason::KeyIdMissing);
    }
    check(&KEY.token_with(&json!({"typ": "JWT", "alg": "RS256"}), &user()), Reason::KeyIdMissing);
    check(&header(json!({"kid": "k".repeat(1 << 20)})), Reason::TokenTooLarge);
    for kid in ["../../dev/null", "' OR 1=1 --", "http://evil.example/k", "k1\0", "K1", " k1"] {
        // A newer key of that name is asked for, once; then it is known not to exist.
        let mut inbound = ready(&config());
        assert_eq!(reason(&ask(&mut inbound, &read(&header(json!({"kid": kid}))))), None);
        inbound.callers().next_call(NOW);
        inbound.callers().on_unchanged_keys(NOW);
        check_token(&mut inbound, &header(json!({"kid": kid})), Reason::KeyUnknown);
    }
}

#[test]
fn j12_j13_j14_j15_extensions_and_other_kinds_are_refused() {
    for members in [
        json!({"crit": ["exp"]}),
        json!({"crit": []}),
        json!({"crit": null}),
        json!({"b64": false}),
        json!({"b64": false, "crit": ["b64"]}),
        json!({"b64": true}),
        json!({"zip": "DEF"}),
        json!({"enc": "A256GCM"}),
        json!({"typ": "at+jwt"}),
        json!({"typ": "dpop+jwt"}),
        json!({"typ": null}),
    ] {
        check(&header(members), Reason::HeaderRefused);
    }
    check(&header(json!({"typ": "jwt"})), Reason::Allowed);
    check(&KEY.token_with(&json!({"alg": "RS256", "kid": "k1"}), &user()), Reason::Allowed);
    let encrypted = header(json!({"enc": "A256GCM"}));
    check(&format!("{encrypted}.AA.AA"), Reason::TokenMalformed);
}

#[test]
fn p01_p02_p03_p04_j19_d07_copies_in_another_spelling_are_refused() {
    let token = KEY.token(&user());
    let [header, payload, signature] = parts(&token);
    let mut inbound = ready(&config());
    check_token(&mut inbound, &token, Reason::Allowed);
    // 256 bytes leave four unused bits in the last letter: 15 other spellings.
    let last = signature.chars().last().unwrap();
    let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let value = letters.find(last).unwrap();
    assert_eq!(value % 16, 0);
    let spellings = (1..16).map(|unused| {
        let letter = &letters[value + unused..=value + unused];
        format!("{header}.{payload}.{}{letter}", &signature[..signature.len() - 1])
    });
    let padded = [
        format!("{token}="),
        format!("{token}=="),
        format!("{header}=.{payload}.{signature}"),
        format!("{header}.{payload}=.{signature}"),
        format!("{header}.{payload}==.{signature}"),
        format!(".{token}"),
        format!("{token}."),
        format!("{header}..{payload}.{signature}"),
        format!("{header}.{payload}"),
        format!("{token}.{signature}"),
        token.replace(['-', '_'], "+"),
        format!("{header}.{payload}.{}", signature.replace(['-', '_'], "/")),
    ];
    for copy in spellings.chain(padded) {
        check_token(&mut inbound, &copy, Reason::TokenMalformed);
    }
    let serialised = json!({"payload": payload, "protected": header, "signature": signature});
    for copy in [format!("{token}\n"), format!("{token}\""), serialised.to_string()] {
        check_token(&mut inbound, &copy, Reason::AuthorizationMalformed);
    }
}

#[test]
fn p05_p07_the_header_is_strict_json() {
    let mut inbound = ready(&config());
    let payload = user().to_string();
    for header in [
        r#"{"alg":"RS256","kid":"k1","alg":"RS256"}"#,
        r#"{"alg":"RS256","kid":"k1","ALG":"none"}"#,
        r#"{"alg":"RS256","kid":"k1","kid":"k1"}"#,
        "{'alg':'RS256','kid':'k1'}",
        r#"{"alg":"RS256","kid":"k1",}"#,
        r#"["RS256"]"#,
        "null",
        "x",
    ] {
        let token = KEY.sign_text(header.as_bytes(), payload.as_bytes());
        check_token(&mut inbound, &token, Reason::TokenMalformed);
    }
}

#[test]
fn the_signature_is_asked_for_last_but_the_claims_and_never_for_a_bad_token() {
    // A verifier that says yes to everything, and counts.
    let asked = std::cell::Cell::new(0);
    let yes = |_: &[u8], _: &[u8], _: &[u8]| {
        asked.set(asked.get() + 1);
        true
    };
    let mut inbound = ready(&config());
    for token in [
        header(json!({"alg": "none"})),
        KEY.token(&with(user(), json!({"iss": "x"}))),
        KEY.token(&with(user(), json!({"tid": OTHER_TENANT}))),
        "x".to_owned(),
    ] {
        ask_with(&mut inbound, &read(&token), true, NOW, &yes);
        assert_eq!(asked.get(), 0);
    }
    ask_with(&mut inbound, &read(&FOREIGN_KEY.token(&user())), true, NOW, &yes);
    assert_eq!(asked.get(), 1);
}
