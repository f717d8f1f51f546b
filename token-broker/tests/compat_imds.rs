//! The token endpoint of Azure's instance metadata service, as its clients see it.

use axum::Router;
use policy::document::ConfigError;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use token_broker::{
    config::{Config, document::read},
    https::TransportFailure,
};

use crate::support::{
    Broker, CLIENT, Endpoint, Entra, OTHER_SCOPE, Reply, SCOPE, SECRET, START, TENANT, TOKEN, ask,
    from_pod, pass, seconds,
};

pub(crate) const OTHER_CLIENT: &str = "8f1b5b1e-0d2c-4a39-9a63-3f6c2c7a9d10";
const OBJECT: &str = "9f1b5b1e-0d2c-4a39-9a63-3f6c2c7a9d10";
const RESOURCE_ID: &str = "/subscriptions/s/resourceGroups/g/providers/\
                           Microsoft.ManagedIdentity/userAssignedIdentities/batch";
const GRAPH: &str = "https%3A%2F%2Fgraph.microsoft.com";

/// Identities of every kind, of which these endpoints offer all but `hidden`. The secrets are in
/// this file.
pub(crate) fn text(secret: &str, endpoint: &str) -> String {
    let scopes = format!("[{SCOPE}, {OTHER_SCOPE}, 'https://management.azure.com//.default']");
    format!(
        "
identities:
  default: {{client_secret: {{tenant: {TENANT}, client_id: {CLIENT}, file: {secret}}},
            scopes: {scopes}}}
  batch: {{client_secret: {{tenant: {TENANT}, client_id: {OTHER_CLIENT}, file: {secret}}},
          scopes: [{SCOPE}]}}
  by-object: {{managed_identity: {{object_id: {OBJECT}}}, scopes: [{SCOPE}]}}
  by-resource: {{managed_identity: {{resource_id: {RESOURCE_ID}}}, scopes: [{SCOPE}]}}
  machine: {{managed_identity: {{system_assigned: true}}, scopes: [{SCOPE}]}}
  hidden: {{client_secret: {{tenant: {TENANT}, client_id: {TENANT}, file: {secret}}},
           scopes: [{SCOPE}]}}
listen:
  compat:
    address: 127.0.0.1:7173
    trust_whole_pod: true
    managed_identity: {{{endpoint}}}
"
    )
}

pub(crate) const ALL: &str =
    "identities: [default, batch, by-object, by-resource, machine], default: default";

pub(crate) fn config(text: &str) -> Result<Config, Vec<ConfigError>> {
    read(text, &BTreeMap::new())
}

/// A file of the broker's own with this content, named for it.
pub(crate) fn secret_file(directory: &tempfile::TempDir, content: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = directory.path().join(content.trim_start_matches("canary-"));
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

struct Machine {
    broker: Broker,
    router: Router,
    _directory: tempfile::TempDir,
}

impl Machine {
    fn start(endpoint: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = config(&text(&secret_file(&directory, SECRET), endpoint)).unwrap();
        let broker = Broker::with_config(&Entra::new(), &config);
        let router = broker.compat();
        Self { broker, router, _directory: directory }
    }

    /// Status and body of a request with this query.
    async fn query(&self, query: &str) -> (u16, Value) {
        let path = format!("/metadata/identity/oauth2/token?{query}");
        self.get(&path, &[("metadata", "true")]).await
    }

    async fn get(&self, path: &str, fields: &[(&str, &str)]) -> (u16, Value) {
        let (status, _, body) = ask(&self.router, from_pod(path, fields)).await;
        (status, serde_json::from_str(&body).unwrap())
    }

    /// The client id that the request with this choice of identity is answered with.
    async fn chosen(&self, choice: &str) -> (u16, Value) {
        let query = format!("api-version=2018-02-01&resource={GRAPH}{choice}");
        let (status, body) = self.query(&query).await;
        let member = if status == 200 { "client_id" } else { "error_description" };
        (status, body[member].clone())
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_answered_in_the_words_of_the_metadata_service() {
    let machine = Machine::start("identities: [default], default: default");
    pass(seconds(60)).await;
    for path in ["/metadata/identity/oauth2/token", "/metadata/identity/oauth2/token/"] {
        let path = format!("{path}?api-version=2018-02-01&resource={GRAPH}");
        let (status, body) = machine.get(&path, &[("metadata", "True")]).await;
        let token = body["access_token"].as_str().unwrap();
        assert!(token.starts_with(TOKEN), "{body}");
        let expected = json!({
            "access_token": token,
            "client_id": CLIENT,
            "expires_in": "3540",
            "expires_on": (START + 3_600).to_string(),
            "ext_expires_in": "3540",
            "not_before": (START + 60).to_string(),
            "resource": "https://graph.microsoft.com",
            "token_type": "Bearer",
        });
        assert_eq!((status, body), (200, expected));
    }
}

#[tokio::test(start_paused = true)]
async fn b05_a_request_chooses_among_the_offered_identities_and_no_other() {
    let machine = Machine::start(ALL);
    let upper = CLIENT.to_uppercase();
    let not_found = (400, json!("Identity not found"));
    for (choice, expected) in [
        (String::new(), (200, json!(CLIENT))),
        (format!("&client_id={CLIENT}"), (200, json!(CLIENT))),
        (format!("&client_id={upper}"), (200, json!(CLIENT))),
        (format!("&client_id={OTHER_CLIENT}"), (200, json!(OTHER_CLIENT))),
        // The configuration does not say what client id these have.
        (format!("&object_id={OBJECT}"), (200, Value::Null)),
        (format!("&principal_id={OBJECT}"), (200, Value::Null)),
        (format!("&msi_res_id={}", RESOURCE_ID.to_lowercase()), (200, Value::Null)),
        (format!("&mi_res_id={RESOURCE_ID}"), (200, Value::Null)),
        // Configured, and not offered here.
        (format!("&client_id={TENANT}"), not_found.clone()),
        (format!("&client_id={OBJECT}"), not_found.clone()),
        (format!("&object_id={CLIENT}"), not_found.clone()),
        (format!("&mi_res_id={CLIENT}"), not_found.clone()),
        ("&client_id=default".to_owned(), not_found.clone()),
        ("&client_id=".to_owned(), not_found.clone()),
        ("&object_id=".to_owned(), not_found.clone()),
    ] {
        assert_eq!(machine.chosen(&choice).await, expected, "{choice}");
    }
    let (status, body) = machine.chosen(&format!("&client_id={CLIENT}&object_id={OBJECT}")).await;
    assert_eq!(status, 400);
    assert!(body.as_str().unwrap().starts_with("expected at most one of"), "{body}");
}

#[tokio::test(start_paused = true)]
async fn without_a_default_identity_who_names_none_gets_none() {
    let machine = Machine::start("identities: [default]");
    assert_eq!(machine.chosen("").await, (400, json!("Identity not found")));
    assert_eq!(machine.chosen(&format!("&client_id={CLIENT}")).await, (200, json!(CLIENT)));
}

#[tokio::test(start_paused = true)]
async fn b05_b06_only_resources_on_the_identitys_list_are_asked_for() {
    let machine = Machine::start(ALL);
    let long = "x".repeat(10_000);
    for (resource, expected) in [
        ("https://graph.microsoft.com", 200),
        ("https://vault.azure.net", 200),
        // The slash is a part of the name, as it is to Entra.
        ("https://management.azure.com/", 200),
        ("https://management.azure.com", 403),
        ("https://graph.microsoft.com/", 403),
        ("https://graph.microsoft.com/.default", 403),
        ("https://graph.microsoft.com%20https://vault.azure.net", 403),
        ("https://graph.microsoft.com/.default%20https://vault.azure.net", 403),
        ("https://GRAPH.microsoft.com", 403),
        ("https://graph.microsoft.com%0A", 403),
        ("https://graph.microsoft.com%00", 403),
        ("api://elsewhere", 403),
        (long.as_str(), 403),
        ("", 400),
    ] {
        let query = format!("api-version=2018-02-01&resource={resource}");
        let (status, body) = machine.query(&query).await;
        assert_eq!(status, expected, "{resource}: {body}");
        if status == 403 {
            assert_eq!(body["error"], "not_allowed");
        }
    }
    let asked: Vec<_> = machine.broker.entra.calls(Endpoint::Token);
    assert!(asked.iter().all(|call| !call.form["scope"].contains("elsewhere")));
}

#[tokio::test(start_paused = true)]
async fn b03_what_is_not_the_interface_is_refused_in_its_shape() {
    let machine = Machine::start(ALL);
    let path = format!("/metadata/identity/oauth2/token?api-version=2018-02-01&resource={GRAPH}");
    let missing = json!({"error": "bad_request_102",
                         "error_description": "Required metadata header not specified"});
    for fields in [&[][..], &[("metadata", "false")], &[("metadata", "true"), ("metadata", "true")]]
    {
        assert_eq!(machine.get(&path, fields).await, (400, missing.clone()), "{fields:?}");
    }
    for (query, expected) in [
        ("resource=a", "Missing api-version"),
        ("api-version=2017-09-01&resource=a", "Unsupported api-version; supported: 2018-02-01, "),
        ("api-version=2018-02-01", "Missing required parameter: resource"),
        ("api-version=2018-02-01&resource=a&resource=a", "parameter more than once: resource"),
        ("api-version=2018-02-01&resource=a&clientid=b", "unknown parameter: clientid"),
        ("api-version=2018-02-01&resource=a&token_sha256_to_refresh=b", "unknown parameter: t"),
    ] {
        let (status, body) = machine.query(query).await;
        assert_eq!((status, &body["error"]), (400, &json!("invalid_request")), "{query}");
        let description = body["error_description"].as_str().unwrap();
        assert!(description.starts_with(expected), "{query}: {description}");
    }
    let (status, body) = machine.get("/metadata/instance", &[("metadata", "true")]).await;
    assert_eq!((status, &body["error"]), (404, &json!("not_found")));
}

#[tokio::test(start_paused = true)]
async fn what_passes_by_itself_is_repeatable_and_what_a_person_must_mend_is_final() {
    for (reply, expected, error, retry_after) in [
        (Reply::Fail(TransportFailure::Broken), 503, "entra_unreachable", false),
        (
            Reply::error(503, "temporarily_unavailable", 90_033),
            503,
            "temporarily_unavailable",
            false,
        ),
        (
            Reply::error(429, "temporarily_unavailable", 90_055).with_header("retry-after", "17"),
            429,
            "temporarily_unavailable",
            true,
        ),
        (Reply::error(401, "invalid_client", 7_000_215), 400, "invalid_client", false),
        (Reply::error(400, "invalid_resource", 500_011), 400, "invalid_resource", false),
        (Reply::error(400, "unauthorized_client", 7_000_112), 400, "unauthorized_client", false),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let endpoint = "identities: [default], default: default";
        let config = config(&text(&secret_file(&directory, SECRET), endpoint)).unwrap();
        let entra = Entra::new();
        entra.always(Endpoint::Token, Some(reply));
        let broker = Broker::with_config(&entra, &config);
        let path =
            format!("/metadata/identity/oauth2/token?api-version=2018-02-01&resource={GRAPH}");
        let request = from_pod(&path, &[("metadata", "true")]);
        let (status, headers, body) = ask(&broker.compat(), request).await;
        assert_eq!(status, expected, "{body}");
        assert!(!body.contains(SECRET), "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["error"], error, "{body}");
        assert!(body["error_description"].as_str().unwrap().starts_with(error), "{body}");
        assert!(!retry_after || headers["retry-after"] == "17", "{headers:?}");
        if error != "entra_unreachable" {
            assert_eq!(body["correlation_id"], "aaaa-1");
        }
    }
}
