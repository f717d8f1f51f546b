//! Only what the configuration lists is handed out, and what is refused never reaches Entra.

use contract::ErrorKind;

use crate::support::{Broker, Endpoint, Entra, SCOPE, ask, post, request};

#[tokio::test(start_paused = true)]
async fn b05_b06_a_scope_or_identity_that_is_not_listed_is_denied() {
    let entra = Entra::new();
    let broker = Broker::start(&entra);
    broker.text().await.unwrap();
    let before = entra.count(Endpoint::Token);
    let long = "x".repeat(50_000);
    let two = format!("{SCOPE} https://vault.azure.net/.default");
    let newline = format!("{SCOPE}\n");
    let cases = [
        ("default", "https://graph.microsoft.com/User.Read"),
        ("default", "https://graph.microsoft.com/.Default"),
        ("default", "https://graph.microsoft.com/"),
        ("default", two.as_str()),
        ("default", newline.as_str()),
        ("default", long.as_str()),
        ("default", ""),
        ("Default", SCOPE),
        ("other", SCOPE),
        ("", SCOPE),
    ];
    for (identity, scope) in cases {
        let refused = broker.issue(&request(identity, scope)).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Denied, "{identity} {scope:.60}");
        let body = serde_json::to_string(&request(identity, scope)).unwrap();
        let (status, _, answer) = ask(&broker.api(), post("/v1/token", body)).await;
        assert_eq!(status, 403);
        // The same words whatever does not exist.
        assert_eq!(answer, serde_json::to_string(&refused).unwrap());
        assert!(!answer.contains("retry_after"));
    }
    assert_eq!(entra.count(Endpoint::Token), before);
}

#[tokio::test(start_paused = true)]
async fn an_identity_with_an_empty_list_denies_all() {
    let entra = Entra::new();
    let mut config = crate::support::config();
    config.identities.get_mut("default").unwrap().scopes.clear();
    let broker = Broker::with_config(&entra, &config);
    assert_eq!(broker.text().await.unwrap_err().kind, ErrorKind::Denied);
    assert_eq!(entra.count(Endpoint::Token), 0);
}
