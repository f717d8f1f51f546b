//! What is held for users, when the configuration changes.

use contract::TokenRequest;
use serde_json::json;

use crate::{
    on_behalf_of::{HOUR, user},
    reload::following,
    support::{Endpoint, Reply, ask, get, pass, request, seconds},
};

#[tokio::test(start_paused = true)]
async fn what_an_identity_held_for_users_goes_with_it_and_takes_no_room_from_the_next() {
    const SCOPE: &str = "api://orders/Read";
    following(async |map, broker| {
        let of =
            |name| map.text(&[(name, SCOPE)]).replace("scopes", "scopes: [], delegated_scopes");
        let large = "x".repeat(16 * 1_024);
        let reply = json!({"token_type": "Bearer", "access_token": large, "expires_in": HOUR});
        broker.entra.always(Endpoint::Token, Some(Reply::json(200, &reply)));
        // Each time most of the room for all.
        for identity in ["batch", "other"] {
            map.set(&of(identity));
            pass(seconds(6)).await;
            for number in 0..600 {
                let assertion = Some(user(&format!("user-{number}")));
                let request = TokenRequest { assertion, ..request(identity, SCOPE) };
                broker.issue(&request).await.unwrap();
            }
        }
        let metrics = ask(&broker.admin(), get("/metrics")).await.2;
        assert!(metrics.contains("entra_broker_on_behalf_of_evictions_total 0\n"), "{metrics}");
    })
    .await;
}
