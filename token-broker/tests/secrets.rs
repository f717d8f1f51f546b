//! Canary secrets and tokens in everything that the broker writes for people: nowhere.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::{
    compat_imds::{ALL, secret_file},
    support::{
        Broker, Endpoint, Entra, Reply, SCOPE, SECRET, TENANT, ask, config, from_pod, get, pass,
        post, seconds,
    },
};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn b12_no_secret_is_in_logs_metrics_pages_or_errors() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    // For the process: tracing decides once for all threads whether an event is of interest, so a
    // subscriber of one thread can miss what another thread has seen first.
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let entra = Entra::new();
    let broker = Broker::start(&entra);
    broker.text().await.unwrap();
    let mut shown = String::new();
    let refusals = [
        Reply::error(401, "invalid_client", 7_000_215),
        Reply::error(400, "interaction_required", 53_003),
        Reply::error(503, "server_error", 90_033),
        Reply::json(200, &json!({"access_token": "canary token", "token_type": "Bearer"})),
        Reply::json(400, &json!({"error": "canary error!", "trace_id": "canary id"})),
        Reply::Answer(200, Vec::new(), b"canary".to_vec()),
    ];
    for refusal in refusals {
        entra.always(Endpoint::Token, Some(refusal));
        pass(seconds(4_000)).await;
        let request = json!({"identity": "default", "scope": SCOPE, "destination": "graph"});
        shown += &ask(&broker.api(), post("/v1/token", request.to_string())).await.2;
        for path in ["/", "/readyz", "/metrics"] {
            shown += &ask(&broker.admin(), get(path)).await.2;
        }
    }
    let canary =
        json!({"identity": "default", "scope": SCOPE, "destination": "d", "assertion": "canary"});
    shown += &ask(&broker.api(), post("/v1/token", canary.to_string())).await.2;
    shown += &compat().await;
    shown += &format!("{:?}", config());
    shown += &format!("{:?}", broker.state.serving().tokens.states());
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("token acquired") && log.contains("AADSTS7000215"), "{log}");
    assert!(shown.contains("AADSTS7000215"));
    for (name, text) in [("log", log), ("answers", shown)] {
        let found = text.lines().find(|line| line.contains("canary"));
        assert_eq!(found, None, "{name}");
    }
}

/// What the compat listener answers to canaries, all of which it refuses.
async fn compat() -> String {
    let directory = tempfile::tempdir().unwrap();
    let header = secret_file(&directory, "canary-header");
    let endpoint = format!("{ALL}, identity_header_file: {header}");
    let text = crate::compat_imds::text(&secret_file(&directory, SECRET), &endpoint)
        + &format!("    auth_sidecar: {{callers: {{tenants: [{TENANT}], audiences: [a]}}}}\n")
        + &format!("authorities: [{{cloud: public, tenants: [{TENANT}]}}]\n");
    let config = crate::compat_imds::config(&text).unwrap();
    let entra = Entra::new();
    entra.always(Endpoint::Token, Some(Reply::error(401, "invalid_client", 7_000_215)));
    let broker = Broker::with_config(&entra, &config);
    pass(seconds(1)).await;
    let mut shown = format!("{config:?}");
    let unsigned = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImNhbmFyeSJ9.eyJ2ZXIiOiIyLjAifQ.canary";
    for (path, fields) in [
        ("/msi/token?api-version=2019-08-01&resource=canary", ("x-identity-header", "canary")),
        (
            "/msi/token?api-version=2019-08-01&resource=https://graph.microsoft.com",
            ("x-identity-header", "canary-header"),
        ),
        (
            "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=canary&client_id=canary",
            ("metadata", "true"),
        ),
        ("/Validate", ("authorization", "Bearer canary")),
        ("/Validate", ("authorization", &format!("Bearer {unsigned}"))),
        ("/AuthorizationHeader/canary", ("authorization", "PoP canary")),
    ] {
        let (status, _, body) = ask(&broker.compat(), from_pod(path, &[fields])).await;
        assert!(status >= 400, "{path}: {body}");
        shown += &body;
    }
    shown
}
