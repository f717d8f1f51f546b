//! However many ask for a token that is not there yet, Entra is asked once.

use tokio::task::JoinSet;

use crate::support::{Broker, Endpoint, Entra, OTHER_SCOPE, SCOPE, request, seconds};

#[tokio::test(start_paused = true)]
async fn b07_a_thousand_concurrent_misses_make_one_call() {
    let entra = Entra::new();
    entra.delay(seconds(2));
    let broker = Broker::start(&entra);
    let mut asking = JoinSet::new();
    for _ in 0..1_000 {
        let state = broker.state.clone();
        asking.spawn(async move {
            crate::support::issue(&state, &request("default", SCOPE)).await.unwrap()
        });
    }
    let tokens = asking.join_all().await;
    assert_eq!(tokens.len(), 1_000);
    assert!(tokens.iter().all(|token| token == &tokens[0]));
    let of_scope = |scope: &str| {
        let calls = entra.calls(Endpoint::Token);
        calls.iter().filter(|call| call.form["scope"] == scope).count()
    };
    assert_eq!(of_scope(SCOPE), 1);
    assert_eq!(of_scope(OTHER_SCOPE), 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_entra_is_waited_for_within_bounds() {
    let entra = Entra::new();
    entra.delay(seconds(60));
    let broker = Broker::start(&entra);
    let start = tokio::time::Instant::now();
    let refused = broker.text().await.unwrap_err();
    assert_eq!(refused.kind, contract::ErrorKind::Transient);
    assert_eq!(refused.retry_after, Some(1));
    assert_eq!(start.elapsed(), seconds(8));
    assert_eq!(entra.count(Endpoint::Token), 2);
}
