//! Identities of the machine, from a scripted instance metadata service.

use contract::{ErrorKind, TokenRequest};
use serde_json::json;
use token_broker::config::{Config, document};

use crate::support::{
    Broker, CLIENT, Endpoint, Entra, OTHER_SCOPE, Reply, environment, pass, request, seconds,
};

fn config(identity: &str) -> Result<Config, Vec<String>> {
    let text = format!("{{identities: {{batch: {{{identity}, scopes: [{OTHER_SCOPE}]}}}}}}");
    document::read(&text, &environment(&[]))
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn batch() -> TokenRequest {
    request("batch", OTHER_SCOPE)
}

fn started() -> Broker {
    let config = config(&format!("managed_identity: {{client_id: {CLIENT}}}")).unwrap();
    Broker::with_config(&Entra::new(), &config)
}

#[tokio::test(start_paused = true)]
async fn a_token_comes_from_the_metadata_service_and_is_renewed_past_half_of_its_life() {
    let entra = Entra::new();
    entra.life(json!("86399"), None);
    let config = config(&format!("managed_identity: {{client_id: {CLIENT}}}")).unwrap();
    let broker = Broker::with_config(&entra, &config);
    let first = broker.issue(&batch()).await.unwrap();
    assert_eq!(entra.count(Endpoint::Token), 0);
    let asked = &entra.calls(Endpoint::Machine)[0];
    assert!(asked.uri.starts_with("http://169.254.169.254/metadata/"), "{}", asked.uri);
    assert!(asked.uri.ends_with(&format!("&client_id={CLIENT}")), "{}", asked.uri);
    assert_eq!(asked.headers["metadata"], "true");
    pass(seconds(43_000)).await;
    assert_eq!(entra.count(Endpoint::Machine), 1);
    pass(seconds(17_500)).await;
    assert_eq!(entra.count(Endpoint::Machine), 2);
    assert_ne!(broker.issue(&batch()).await.unwrap().access_token, first.access_token);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_being_updated_is_asked_again_for_more_than_a_minute() {
    let broker = started();
    let gone = Reply::json(410, &json!({"error": "gone"}));
    broker.entra.always(Endpoint::Machine, Some(gone));
    pass(seconds(64)).await;
    assert!(broker.entra.count(Endpoint::Machine) >= 6);
    broker.entra.always(Endpoint::Machine, None);
    pass(seconds(70)).await;
    broker.issue(&batch()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_the_machine_lacks_is_a_persons_to_mend() {
    let broker = started();
    let refusal = json!({"error": "invalid_request", "error_description": "Identity not found"});
    broker.entra.always(Endpoint::Machine, Some(Reply::json(400, &refusal)));
    let refused = broker.issue(&batch()).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Config);
    assert!(refused.error.starts_with("metadata_service_status_400: invalid_request"));
}

#[tokio::test(start_paused = true)]
async fn a_claims_challenge_to_a_managed_identity_asks_nobody() {
    let broker = started();
    let held = broker.issue(&batch()).await.unwrap();
    let challenged = TokenRequest {
        claims: Some(r#"{"access_token":{"nbf":{"essential":true,"value":"1"}}}"#.to_owned()),
        refused: held.token_hash,
        claims_challenges: true,
        ..batch()
    };
    let refused = broker.issue(&challenged).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Denied);
    assert!(refused.error.starts_with("claims_not_supported"), "{}", refused.error);
    assert_eq!(broker.entra.count(Endpoint::Machine), 1);
}

#[test]
fn exactly_one_identity_of_the_machine_is_named() {
    let id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/\
              userAssignedIdentities/orders";
    for good in [
        format!("{{client_id: {CLIENT}}}"),
        format!("{{object_id: {}}}", CLIENT.to_uppercase()),
        format!("{{resource_id: {id}}}"),
        "{system_assigned: true}".to_owned(),
    ] {
        config(&format!("managed_identity: {good}")).unwrap();
    }
    let one = "managed_identity: expected exactly one of";
    let cases = [
        ("{}".to_owned(), one),
        ("{system_assigned: false}".to_owned(), one),
        (format!("{{client_id: {CLIENT}, object_id: {CLIENT}}}"), one),
        (format!("{{client_id: {CLIENT}, system_assigned: true}}"), one),
        ("{client_id: me}".to_owned(), "managed_identity.client_id: expected a client id: a GUID"),
        ("{object_id: me}".to_owned(), "managed_identity.object_id: expected an object id"),
        ("{resource_id: /subscriptions/s}".to_owned(), "managed_identity.resource_id: expected"),
        (format!("{{resource_id: '{id}/x'}}"), "managed_identity.resource_id: expected"),
        (format!("{{resource_id: 'x{id}'}}"), "managed_identity.resource_id: expected"),
        (format!("{{resource_id: '{id} x'}}"), "managed_identity.resource_id: expected"),
    ];
    for (written, expected) in cases {
        let errors = config(&format!("managed_identity: {written}")).unwrap_err();
        assert_eq!(errors.len(), 1, "{written}: {errors:?}");
        let expected = format!("identities.batch.{expected}");
        assert!(errors[0].starts_with(&expected), "{written}: {errors:?}");
    }
    let cp1 = "managed_identity: {system_assigned: true}, client_capabilities: [cp1]";
    let errors = config(cp1).unwrap_err();
    assert!(errors[0].starts_with("identities.batch.client_capabilities: not with"), "{errors:?}");
    let two = "managed_identity: {system_assigned: true}, workload_identity: {}";
    let errors = config(two).unwrap_err();
    assert!(errors[0].contains("found more"), "{errors:?}");
}
