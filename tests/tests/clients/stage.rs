//! What the clients of managed identity endpoints are shown: a broker whose Entra is well, one whose
//! Entra is down, and one whose Entra throttles; and what each client has to make of it.

use std::{net::SocketAddr, os::unix::fs::PermissionsExt};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use e2e::{
    broker::{Broker, BrokerIdentity, BrokerSettings, own_directory},
    fake_entra::{
        Endpoint, FakeEntra, Fault,
        sample::{GRAPH_URI, ORDERS_API, ORDERS_URI, TENANT, TILL, TILL_SECRET, WORKLOAD},
    },
    independent_client,
};
use serde_json::{Value, json};

/// What an application proves with `X-IDENTITY-HEADER`.
const HEADER: &str = "a-value-that-only-the-pod-knows";
const NOBODY: &str = "aaaaaaaa-0000-4000-8000-00000000000f";

/// A broker with two identities on its compat listener, and the Entra behind it.
pub(crate) struct Stage {
    pub(crate) entra: FakeEntra,
    pub(crate) address: SocketAddr,
    _broker: Broker,
    _directory: tempfile::TempDir,
}

impl Stage {
    pub(crate) async fn start(fault: Option<Fault>) -> Self {
        let (entra, cluster) = FakeEntra::sample();
        if let Some(fault) = fault {
            entra.fail_next(Endpoint::Token, usize::MAX, fault);
        }
        let directory = own_directory();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).expect("a file");
            let own = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(&path, own).expect("the mode");
            path
        };
        let (sample, scope) = ((&entra, &cluster), format!("{GRAPH_URI}/.default"));
        let identity = BrokerIdentity::federated(directory.path(), sample, WORKLOAD, &scope);
        let mut settings = BrokerSettings::new(directory.path(), &identity, &entra);
        settings.config_mut()["identities"]["till"] = json!({
            "client_secret": {"tenant": TENANT, "client_id": TILL,
                "file": file("secret", TILL_SECRET)},
            "scopes": [format!("{ORDERS_URI}/.default")],
        });
        let address = settings.compat(json!({
            "managed_identity": {"identities": ["default", "till"], "default": "default",
                "identity_header_file": file("header", HEADER)},
            "auth_sidecar": {"apis": {
                "default": {"identity": "default", "scope": format!("{GRAPH_URI}/.default")},
                "orders": {"identity": "till", "scope": format!("{ORDERS_URI}/.default")},
            }},
        }));
        let broker = Broker::start(&settings).await;
        Self { entra, address, _broker: broker, _directory: directory }
    }

    /// As a virtual machine's metadata service.
    fn imds(&self) -> Value {
        json!({"AZURE_POD_IDENTITY_AUTHORITY_HOST": format!("http://{}", self.address)})
    }

    /// As App Service.
    fn app_service(&self, header: &str) -> Value {
        let endpoint = format!("http://{}/msi/token", self.address);
        json!({"IDENTITY_ENDPOINT": endpoint, "IDENTITY_HEADER": header})
    }
}

/// Asserts what a script for managed identities gets in the shapes of both services, in one start
/// of it, and that what its library says of a refusal is what the broker said.
pub(crate) async fn check(script: &str) {
    let well = Stage::start(None).await;
    let down = Stage::start(Some(Fault::Status { status: 503, retry_after: None })).await;
    let throttling =
        Stage::start(Some(Fault::Status { status: 429, retry_after: Some("7".into()) })).await;
    let mut cases = Vec::new();
    let mut case = |environment: &Value, client: Option<&str>, resource: &str, outcome| {
        let asked = json!({"environment": environment, "client_id": client, "resource": resource});
        cases.push((asked, outcome));
    };
    for is_imds in [true, false] {
        let of = |stage: &Stage| if is_imds { stage.imds() } else { stage.app_service(HEADER) };
        let unknown: &[&str] =
            if is_imds { &["Identity not found"] } else { &["No Managed Identity found"] };
        // After some calls without an answer the broker leaves Entra alone for a while.
        case(&of(&down), None, GRAPH_URI, Err(&["entra_status_503", "entra_unreachable"][..]));
        case(&of(&throttling), None, GRAPH_URI, Err(&["entra_status_429"][..]));
        let of_it = of(&well);
        case(&of_it, Some(NOBODY), GRAPH_URI, Err(unknown));
        case(&of_it, Some(TILL), GRAPH_URI, Err(&["not_allowed"][..]));
        case(&of_it, None, GRAPH_URI, Ok((WORKLOAD, GRAPH_URI)));
        case(&of_it, Some(WORKLOAD), GRAPH_URI, Ok((WORKLOAD, GRAPH_URI)));
        case(&of_it, Some(TILL), ORDERS_URI, Ok((TILL, ORDERS_API)));
    }
    case(&well.app_service("guessed"), None, GRAPH_URI, Err(&["X-IDENTITY-HEADER"][..]));
    let asked: Vec<_> = cases.iter().map(|(asked, _)| asked.clone()).collect();
    let answers = independent_client::run(script, &json!(asked), &[]);
    let answers = answers.as_array().expect("a list of answers");
    assert_eq!(answers.len(), cases.len());
    let mut failures = Vec::new();
    for (answer, (asked, outcome)) in answers.iter().zip(&cases) {
        let as_expected = match outcome {
            Ok((client, audience)) => has_token(answer, client, audience),
            Err(pieces) => {
                let said = answer["error"].as_str().unwrap_or_default();
                answer["token"].is_null() && pieces.iter().any(|piece| said.contains(piece))
            }
        };
        if !as_expected {
            failures.push(format!("{asked}: {outcome:?}, but {answer}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    // However many ask: one call for each identity and scope.
    assert_eq!(well.entra.issued(), 2);
}

/// Whether there is a token of this application for this API, and its end was told.
fn has_token(answer: &Value, client: &str, audience: &str) -> bool {
    let Some(token) = answer["token"].as_str() else { return false };
    let claims = claims(token);
    let life = claims["exp"].as_i64().zip(answer["expires_on"].as_i64());
    let whose = if claims["azp"].is_null() { &claims["appid"] } else { &claims["azp"] };
    // Some libraries count seconds from their own clock.
    life.is_some_and(|(exp, told)| (exp - told).abs() <= 2)
        && whose == client
        && claims["aud"] == *audience
}

/// The claims of a token, unverified.
pub(crate) fn claims(token: &str) -> Value {
    part(token, 1)
}

/// A JSON part of a token.
pub(crate) fn part(token: &str, number: usize) -> Value {
    let part = token.split('.').nth(number).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
}
