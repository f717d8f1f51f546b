//! A managed identity's token as the proof of an application.

use contract::ErrorKind;
use serde_json::json;
use token_broker::config::{Config, document};

use crate::support::{
    Broker, CLIENT, Endpoint, Entra, OTHER_SCOPE, Reply, SCOPE, TENANT, TOKEN, environment, pass,
    seconds,
};

const MACHINE: &str = "aaaaaaaa-0d2c-4a39-9a63-3f6c2c7a9d10";

fn read(workload_identity: &str, scopes: &str) -> Result<Config, Vec<String>> {
    let text = format!(
        "{{identities: {{default: {{workload_identity: {workload_identity}, scopes: [{scopes}]}}}}}}"
    );
    document::read(&text, &environment(&[]))
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn config(scopes: &str) -> Config {
    read(&format!("{{managed_identity: {{client_id: {MACHINE}}}}}"), scopes).unwrap()
}

fn token(text: &str) -> Reply {
    Reply::json(200, &json!({"token_type": "Bearer", "access_token": text, "expires_in": 86_400}))
}

fn assertions(entra: &Entra) -> Vec<String> {
    entra.calls(Endpoint::Token).iter().map(|call| call.form["client_assertion"].clone()).collect()
}

fn refused(code: u64) -> Reply {
    Reply::error(401, "invalid_client", code)
}

#[tokio::test(start_paused = true)]
async fn the_machines_token_for_the_exchange_is_the_proof_of_all_scopes() {
    let entra = Entra::new();
    entra.script(Endpoint::Machine, [token("m.1.x")]);
    entra.delay(seconds(1));
    let broker = Broker::with_config(&entra, &config(&format!("{SCOPE}, {OTHER_SCOPE}")));
    let held = broker.text().await.unwrap();
    assert!(held.starts_with(TOKEN));
    broker.token(OTHER_SCOPE).await.unwrap();
    let asked = entra.calls(Endpoint::Machine);
    assert_eq!(asked.len(), 1, "one assertion for both");
    let expected = format!(
        "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01\
         &resource=api%3A%2F%2FAzureADTokenExchange&client_id={MACHINE}"
    );
    assert_eq!(asked[0].uri, expected);
    assert_eq!(assertions(&entra), ["m.1.x", "m.1.x"]);
    let form = &entra.calls(Endpoint::Token)[0].form;
    assert_eq!((form["client_id"].as_str(), form["scope"].as_str()), (CLIENT, SCOPE));
    assert_eq!(
        form["client_assertion_type"],
        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    );
}

#[tokio::test(start_paused = true)]
async fn an_assertion_is_used_for_its_life_less_five_minutes() {
    let entra = Entra::new();
    entra.script(
        Endpoint::Machine,
        [Reply::json(
            200,
            &json!({"token_type": "Bearer", "access_token": "m.1.x", "expires_in": "4000"}),
        )],
    );
    entra.life(json!(1_200), Some(json!(1_000)));
    let broker = Broker::with_config(&entra, &config(SCOPE));
    broker.text().await.unwrap();
    pass(seconds(3_500)).await;
    assert_eq!(entra.count(Endpoint::Machine), 1);
    pass(seconds(1_400)).await;
    assert_eq!(entra.count(Endpoint::Machine), 2);
    broker.text().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn b09_a_clock_set_forward_ends_an_assertion() {
    let entra = Entra::new();
    entra.script(Endpoint::Machine, [token("m.1.x"), token("m.2.x")]);
    let broker = Broker::with_config(&entra, &config(SCOPE));
    broker.text().await.unwrap();
    broker.clock.jump(90_000);
    broker.text().await.unwrap();
    assert_eq!(assertions(&entra), ["m.1.x", "m.2.x"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_assertion_is_asked_for_anew_once() {
    let entra = Entra::new();
    entra.script(Endpoint::Machine, [token("m.1.x"), token("m.2.x")]);
    entra.script(Endpoint::Token, [refused(700_024)]);
    let broker = Broker::with_config(&entra, &config(SCOPE));
    broker.text().await.unwrap();
    assert_eq!(assertions(&entra), ["m.1.x", "m.2.x"]);
    // The machine's service has no other one: then it is Entra's word that counts.
    let entra = Entra::new();
    entra.always(Endpoint::Machine, Some(token("m.1.x")));
    entra.always(Endpoint::Token, Some(refused(700_213)));
    let broker = Broker::with_config(&entra, &config(SCOPE));
    let told = broker.text().await.unwrap_err();
    assert_eq!(told.kind, ErrorKind::Config);
    assert!(told.error.contains("AADSTS700213"), "{}", told.error);
    assert_eq!((entra.count(Endpoint::Token), entra.count(Endpoint::Machine)), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn without_the_machines_token_entra_is_not_asked() {
    for (reply, kind) in [
        (Reply::json(400, &json!({"error": "invalid_request"})), ErrorKind::Config),
        (Reply::json(503, &json!({"error": "x"})), ErrorKind::Transient),
        (Reply::json(429, &json!({"error": "x"})), ErrorKind::Throttled),
    ] {
        let entra = Entra::new();
        entra.always(Endpoint::Machine, Some(reply));
        let broker = Broker::with_config(&entra, &config(SCOPE));
        assert_eq!(broker.text().await.unwrap_err().kind, kind);
        assert_eq!(entra.count(Endpoint::Token), 0);
        entra.always(Endpoint::Machine, None);
        pass(seconds(31)).await;
        broker.text().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn each_cloud_has_its_own_audience() {
    for (cloud, audience) in [
        ("us-government", "AzureADTokenExchangeUSGov"),
        ("china", "AzureADTokenExchangeChina"),
        ("germany", "AzureADTokenExchangeGermany"),
    ] {
        let entra = Entra::new();
        let of_machine = format!("{{cloud: {cloud}, managed_identity: {{object_id: {MACHINE}}}}}");
        let broker = Broker::with_config(&entra, &read(&of_machine, SCOPE).unwrap());
        broker.text().await.unwrap();
        let uri = &entra.calls(Endpoint::Machine)[0].uri;
        assert!(uri.contains(&format!("resource=api%3A%2F%2F{audience}&object_id=")), "{uri}");
    }
}

#[test]
fn w07_only_a_user_assigned_identity_can_be_the_proof() {
    let start = "identities.default.workload_identity";
    for (written, expected) in [
        (
            "{managed_identity: {system_assigned: true}}".to_owned(),
            format!("{start}.managed_identity: only a user-assigned identity"),
        ),
        (
            format!("{{tenant: {TENANT}, managed_identity: {{}}}}"),
            format!("{start}.managed_identity: expected exactly one of"),
        ),
        (
            format!("{{token_file: /t, managed_identity: {{client_id: {MACHINE}}}}}"),
            format!("{start}: expected one of `token_file` and `managed_identity`"),
        ),
    ] {
        let errors = read(&written, SCOPE).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with(&expected), "{errors:?}");
    }
}
