//! The Microsoft 365 Agents SDK, which is written for Microsoft's auth sidecar, with ours in its
//! place: what a script of it gets, and what it is told.

use e2e::{
    fake_entra::{
        Fault,
        sample::{GRAPH_URI, ORDERS_API, ORDERS_URI, TENANT, TILL, WORKLOAD},
    },
    independent_client,
};
use serde_json::{Value, json};

use crate::stage::{Stage, claims};

/// What the library makes of each kind of refusal: pieces of what it says.
pub(crate) struct Says {
    pub(crate) bad_request: &'static str,
    pub(crate) not_found: &'static str,
    pub(crate) outage: &'static str,
    pub(crate) throttled: &'static str,
}

/// Asserts what a script gets, in one start of it.
pub(crate) async fn check(script: &str, says: &Says) {
    let well = Stage::start(None).await;
    let down = Stage::start(Some(Fault::Status { status: 503, retry_after: None })).await;
    let throttling =
        Stage::start(Some(Fault::Status { status: 429, retry_after: Some("7".into()) })).await;
    let asked = |stage: &Stage, service: &str, resource: &str, agent: Option<&str>| {
        json!({"url": format!("http://{}", stage.address), "service": service,
            "scopes": [format!("{resource}/.default")], "agent": agent, "tenant": TENANT})
    };
    let cases = [
        (asked(&well, "default", GRAPH_URI, None), Ok((WORKLOAD, GRAPH_URI))),
        (asked(&well, "orders", ORDERS_URI, None), Ok((TILL, ORDERS_API))),
        (asked(&well, "ledger", GRAPH_URI, None), Err(says.not_found)),
        // The original would ignore these two, and hand out a token that was not asked for.
        (asked(&well, "default", ORDERS_URI, None), Err(says.bad_request)),
        (asked(&well, "default", GRAPH_URI, Some(TILL)), Err(says.bad_request)),
        // With the original these are 401, as if the application were to blame.
        (asked(&down, "default", GRAPH_URI, None), Err(says.outage)),
        (asked(&throttling, "default", GRAPH_URI, None), Err(says.throttled)),
    ];
    let all: Vec<_> = cases.iter().map(|(asked, _)| asked.clone()).collect();
    let answers = independent_client::run(script, &json!(all), &[]);
    let answers = answers.as_array().expect("a list of answers");
    assert_eq!(answers.len(), cases.len());
    for (answer, (asked, outcome)) in answers.iter().zip(&cases) {
        assert_eq!(answer["healthy"], json!(true), "{asked}: {answer}");
        match outcome {
            Ok((client, audience)) => {
                let token = answer["token"].as_str().unwrap_or_else(|| panic!("{asked}: {answer}"));
                let claims = claims(token);
                let whose = if claims["azp"].is_null() { &claims["appid"] } else { &claims["azp"] };
                assert_eq!((whose, &claims["aud"]), (&json!(client), &json!(audience)));
            }
            Err(piece) => {
                assert_eq!(answer["token"], Value::Null, "{asked}");
                let said = answer["error"].as_str().unwrap_or_default();
                assert!(said.contains(piece), "{asked}: {said}");
            }
        }
    }
}
