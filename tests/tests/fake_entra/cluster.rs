//! A real cluster's issuer: its published keys count, its service accounts are applications, and
//! the fake is reached at an address instead of through the proxy.

use std::{path::Path, process::Command, time::Duration};

use e2e::fake_entra::{
    Config, FakeEntra, KeySetError,
    client::Client,
    read_key_set,
    sample::{self, BILLING, BILLING_SUBJECT, Cluster, TENANT, WORKLOAD, WORKLOAD_SUBJECT},
    service_account,
};
use serde_json::{Value, json};
use tokens::SigningKey;

use crate::{
    ask::{AUDIENCE, HOST, assert_refused, claims, post, with_assertion},
    faults::control,
};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const GRAPH_SCOPE: &str = "https://graph.microsoft.com/.default";

/// A key set as the API server writes it.
fn key_set(keys: &[&SigningKey]) -> Value {
    let keys = keys.iter().map(|key| {
        let jwk = key.jwk();
        json!({"use": "sig", "kty": "RSA", "kid": key.kid, "alg": "RS256", "n": jwk.n, "e": jwk.e})
    });
    json!({"keys": keys.collect::<Vec<_>>()})
}

fn with_cluster() -> (FakeEntra, Cluster) {
    let cluster = Cluster::new(ISSUER, 0x0c1);
    let issuer = read_key_set(ISSUER, &key_set(&[&cluster.key]).to_string()).expect("a key set");
    let subjects = [WORKLOAD_SUBJECT, BILLING_SUBJECT];
    (FakeEntra::start(sample::directory_of_cluster(issuer, subjects)), cluster)
}

#[test]
fn two_service_accounts_are_two_applications_and_neither_is_the_other() {
    let (entra, cluster) = with_cluster();
    let ask = |client: &str, subject: &str| {
        let assertion = cluster.token(subject, AUDIENCE, entra.now(), 600);
        post(&entra, TENANT, &with_assertion(&assertion, &[("client_id", client)]))
    };
    for (client, subject) in [(WORKLOAD, BILLING_SUBJECT), (BILLING, WORKLOAD_SUBJECT)] {
        assert_refused(&entra, subject, &ask(client, subject), 401, 700_213, "invalid_client");
    }
    for (client, subject) in [(WORKLOAD, WORKLOAD_SUBJECT), (BILLING, BILLING_SUBJECT)] {
        let reply = ask(client, subject).json();
        let token = reply["access_token"].as_str().expect("a token");
        assert_eq!(claims(token)["appid"], client);
        let seen = entra.calls_of_subject(subject);
        let outcomes: Vec<_> =
            seen.iter().map(|call| (call.client_id().expect("a client"), call.refused)).collect();
        let other = if client == WORKLOAD { BILLING } else { WORKLOAD };
        assert_eq!(outcomes, [(other, Some(700_213)), (client, None)], "{subject}");
    }
    entra.federate(TENANT, BILLING, ISSUER, &service_account("shop", "night"));
    assert_eq!(ask(BILLING, "system:serviceaccount:shop:night").status, 200);
}

#[test]
fn the_sample_s_own_cluster_is_no_issuer_where_a_real_one_is() {
    let (entra, _) = with_cluster();
    let assertion = Cluster::sample().token(WORKLOAD_SUBJECT, AUDIENCE, entra.now(), 600);
    let reply = post(&entra, TENANT, &with_assertion(&assertion, &[]));
    assert_refused(&entra, "sample", &reply, 401, 700_211, "invalid_client");
}

#[test]
fn keys_change_while_it_runs_and_a_bad_set_changes_nothing() {
    let (entra, cluster) = with_cluster();
    let next = Cluster { issuer: ISSUER.to_owned(), key: SigningKey::new(0x0c2, "next", ISSUER) };
    let ask = |cluster: &Cluster| {
        let assertion = cluster.token(WORKLOAD_SUBJECT, AUDIENCE, entra.now(), 600);
        post(&entra, TENANT, &with_assertion(&assertion, &[]))
    };
    let publish = |keys: &Value| entra.trust_issuer(ISSUER, &keys.to_string());
    assert_refused(&entra, "unknown", &ask(&next), 401, 700_027, "invalid_client");
    assert_eq!(publish(&json!({"keys": []})), Err(KeySetError::Empty));
    assert_eq!((ask(&cluster).status, ask(&next).status), (200, 401), "nothing changed");
    publish(&key_set(&[&cluster.key, &next.key])).expect("both keys");
    assert_eq!((ask(&cluster).status, ask(&next).status), (200, 200), "with overlap");
    publish(&key_set(&[&next.key])).expect("the next key");
    assert_eq!((ask(&cluster).status, ask(&next).status), (401, 200), "the old one is gone");
}

#[test]
fn a_renewed_service_account_token_is_seen_by_its_hash_and_never_shown() {
    let (entra, cluster) = with_cluster();
    let now = entra.now();
    let tokens = [now - 60, now].map(|at| cluster.token(WORKLOAD_SUBJECT, AUDIENCE, at, 600));
    for token in [&tokens[0], &tokens[0], &tokens[1]] {
        assert_eq!(post(&entra, TENANT, &with_assertion(token, &[])).status, 200);
    }
    let calls = entra.calls_of_subject(WORKLOAD_SUBJECT);
    let seen: Vec<_> = calls.iter().map(|call| call.presented.clone().expect("seen")).collect();
    assert_eq!(seen[0], seen[1], "the same token twice");
    assert_ne!((&seen[1].hash, &seen[1].id_hash), (&seen[2].hash, &seen[2].id_hash));
    assert_eq!((seen[0].issued_at, seen[0].expires_at), (Some(now - 60), Some(now + 540)));
    assert_eq!((seen[2].issued_at, seen[2].expires_at), (Some(now), Some(now + 600)));
    assert_eq!(seen[2].issuer.as_deref(), Some(ISSUER));
    assert_eq!(seen[2].audiences, [AUDIENCE]);
    let renewed = |call: &e2e::fake_entra::Call| {
        call.presented.as_ref().is_some_and(|seen| seen.issued_at == Some(now))
    };
    assert!(entra.wait_for_call(Duration::from_secs(20), renewed));
    let shown = format!("{calls:?}{}", json!(calls));
    for token in &tokens {
        let signature = token.rsplit('.').next().expect("a signature");
        let payload = token.split('.').nth(1).expect("a payload");
        assert!(!shown.contains(signature) && !shown.contains(payload), "a token is shown");
    }
}

#[test]
fn assertions_that_are_no_tokens_are_written_down_too() {
    let (entra, _) = with_cluster();
    for assertion in ["x", "a.b.c", "..", "e30.bnVsbA.e30"] {
        assert_eq!(post(&entra, TENANT, &with_assertion(assertion, &[])).status, 400);
    }
    let seen = entra.calls();
    assert_eq!(seen.len(), 4);
    for call in seen {
        let presented = call.presented.expect("an assertion came");
        assert_eq!((presented.subject, presented.hash.len()), (None, 64));
    }
}

#[test]
fn a_key_set_that_is_not_understood_whole_is_refused() {
    let key = SigningKey::new(0x0c1, "first", ISSUER);
    let good = key_set(&[&key]);
    let changed = |name: &str, value: Value| {
        let mut set = good.clone();
        set["keys"][0][name] = value;
        set.to_string()
    };
    let twice = json!({"keys": [good["keys"][0], good["keys"][0]]}).to_string();
    let short = SigningKey::with_bits(0x0c3, 1024, "short", ISSUER);
    let ec = json!({"keys": [good["keys"][0],
        {"use": "sig", "kty": "EC", "kid": "e", "alg": "ES256", "crv": "P-256"}]});
    let padded = format!("{}=", good["keys"][0]["n"].as_str().expect("a modulus"));
    for (case, text, error) in [
        ("no JSON", "keys".to_owned(), KeySetError::NoKeySet),
        ("no object", "[]".to_owned(), KeySetError::NoKeySet),
        ("keys no array", r#"{"keys": {}}"#.to_owned(), KeySetError::NoKeySet),
        ("no keys", r#"{"keys": []}"#.to_owned(), KeySetError::Empty),
        ("key no object", r#"{"keys": [1]}"#.to_owned(), KeySetError::NoKeyId(0)),
        ("no kid", changed("kid", Value::Null), KeySetError::NoKeyId(0)),
        ("empty kid", changed("kid", json!("")), KeySetError::NoKeyId(0)),
        ("kid twice", twice, KeySetError::SameKeyId(1)),
        ("HS256", changed("alg", json!("HS256")), KeySetError::NotRs256(0)),
        ("for encryption", changed("use", json!("enc")), KeySetError::NotRs256(0)),
        ("another kind of key", ec.to_string(), KeySetError::NotRs256(1)),
        ("a private key", changed("d", json!("AQAB")), KeySetError::Private(0)),
        ("a short modulus", key_set(&[&short]).to_string(), KeySetError::Numbers(0)),
        ("a padded modulus", changed("n", json!(padded)), KeySetError::Numbers(0)),
        ("exponent 1", changed("e", json!("AQ")), KeySetError::Numbers(0)),
        ("no exponent", changed("e", Value::Null), KeySetError::Numbers(0)),
    ] {
        assert_eq!(read_key_set(ISSUER, &text).map(|_| ()), Err(error), "{case}");
    }
    for issuer in ["http://kubernetes.default.svc", "https://a/?b", "https://a/#b", "kubernetes"] {
        let read = read_key_set(issuer, &good.to_string()).map(|_| ());
        assert_eq!(read, Err(KeySetError::Issuer), "{issuer}");
    }
    let known = read_key_set(ISSUER, &good.to_string()).expect("a key set");
    assert_eq!(known.keys, [("first".to_owned(), key.public_der())]);
}

#[test]
fn it_serves_its_names_on_an_address_of_its_own() {
    let cluster = Cluster::sample();
    let any = "127.0.0.1:0".parse().expect("an address");
    let entra = FakeEntra::start(Config::new(sample::directory(&cluster)).listen(any));
    let path = format!("/{TENANT}/v2.0/.well-known/openid-configuration");
    let direct = Client::direct(entra.address(), entra.ca_file()).expect("a CA file");
    assert_eq!(direct.get(HOST, &path).expect("an answer").status, 200);
    assert!(direct.get("evil.example", &path).is_err(), "an unknown name has no certificate");
    assert!(entra.connections().is_empty(), "the proxy had no part in it");
    assert_eq!(Client::of(&entra).get(HOST, &path).expect("an answer").status, 200);

    let again = Config::new(sample::directory(&cluster)).listen(entra.address());
    let error = FakeEntra::try_start(again).expect_err("the port is taken").to_string();
    assert!(error.contains(&format!("cannot listen on {}", entra.address())), "{error}");
}

#[test]
fn the_control_listener_publishes_an_issuers_keys() {
    let cluster = Cluster::new(ISSUER, 0x0c1);
    let mut config = Config::new(sample::directory(&Cluster::sample()));
    config.control_port = Some(0);
    let entra = FakeEntra::start(config);
    entra.federate(TENANT, WORKLOAD, ISSUER, WORKLOAD_SUBJECT);
    let assertion = || cluster.token(WORKLOAD_SUBJECT, AUDIENCE, entra.now(), 600);
    let reply = post(&entra, TENANT, &with_assertion(&assertion(), &[]));
    assert_refused(&entra, "no keys yet", &reply, 400, 90061, "invalid_request");
    let publish = |set: Value| {
        control(&entra, "POST", "/issuers", &json!({"issuer": ISSUER, "key_set": set}))
    };
    assert_eq!(publish(json!({"keys": []})), (400, json!({"error": "the key set has no key"})));
    let kids = json!({"kids": ["cluster-signing-key"]});
    assert_eq!(publish(key_set(&[&cluster.key])), (200, kids));
    assert_eq!(post(&entra, TENANT, &with_assertion(&assertion(), &[])).status, 200);
    let (_, calls) = control(&entra, "GET", "/calls", &Value::Null);
    assert_eq!(calls[1]["presented"]["subject"], WORKLOAD_SUBJECT);
}

#[test]
fn the_program_trusts_a_cluster_whose_key_set_it_is_given() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::new(ISSUER, 0x0c1);
    let file = folder.path().join("jwks.json");
    std::fs::write(&file, key_set(&[&cluster.key]).to_string()).expect("a file");
    let mut program = program(folder.path())
        .args(["--listen", "127.0.0.1:0", "--issuer", ISSUER, "--issuer-jwks"])
        .arg(&file)
        .args(["--service-account", "stock/keeper"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    let output = std::io::BufReader::new(program.stdout.take().expect("its output"));
    let mut said = String::new();
    for line in std::io::BufRead::lines(output) {
        let line = line.expect("a line");
        said = format!("{said}{line}\n");
        if line.contains("running until") {
            break;
        }
    }
    let address = said.split(" must lead clients to ").nth(1).and_then(|rest| rest.lines().next());
    let address = address.and_then(|address| address.parse().ok()).expect("an address");
    let client = Client::direct(address, &folder.path().join("entra-ca.pem")).expect("a CA file");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("a time").as_secs();
    let subject = "system:serviceaccount:stock:keeper";
    assert!(said.contains(&format!("{subject} is the application {WORKLOAD}")), "{said}");
    let assertion = cluster.token(subject, AUDIENCE, now, 600);
    let form = with_assertion(&assertion, &[("scope", GRAPH_SCOPE)]);
    let form: Vec<_> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let reply = client.post_form(HOST, &format!("/{TENANT}/oauth2/v2.0/token"), &form);
    program.kill().expect("it stops");
    program.wait().expect("it stopped");
    assert_eq!(reply.expect("an answer").status, 200, "{said}");
}

#[test]
fn the_program_says_what_is_wrong_with_its_arguments() {
    let folder = tempfile::tempdir().expect("a folder");
    let bad = folder.path().join("bad.json");
    std::fs::write(&bad, r#"{"keys": []}"#).expect("a file");
    let bad = bad.to_str().expect("a path");
    for (arguments, said) in [
        (vec!["--issuer", ISSUER], "--issuer and --issuer-jwks go together"),
        (vec!["--issuer-jwks", bad], "--issuer and --issuer-jwks go together"),
        (vec!["--service-account", "shop/orders"], "--issuer and --issuer-jwks go together"),
        (vec!["--service-account", "orders"], "no NAMESPACE/NAME: orders"),
        (vec!["--listen", "443"], "--listen: no address: 443"),
        (vec!["--issuer", ISSUER, "--issuer-jwks", bad], "bad.json: the key set has no key"),
        (vec!["--issuer", ISSUER, "--issuer-jwks", "/nowhere"], "/nowhere: "),
    ] {
        let output = program(folder.path()).args(&arguments).output().expect("the program runs");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(said), "{arguments:?}: {error}");
    }
}

fn program(out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fake-entra"));
    command.arg("--out").arg(out);
    command
}
