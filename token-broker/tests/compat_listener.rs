//! The compat listener itself: who is answered, what is counted, and that it is off unasked.

use std::sync::Arc;

use hyper::http::Request;
use serde_json::json;
use token_broker::{
    config::{Api, Listen},
    server::Listeners,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    compat_imds::{ALL, config, secret_file, text},
    identity_access::{Pod, running},
    support::{Broker, Entra, SECRET, ask, from_pod, pass, seconds},
};

const PATHS: [&str; 2] = [
    "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://graph.microsoft.com",
    "/msi/token?api-version=2019-08-01&resource=https://graph.microsoft.com",
];

fn broker(directory: &tempfile::TempDir) -> Broker {
    let header = secret_file(directory, "header");
    let endpoint = format!("{ALL}, identity_header_file: {header}");
    let config = config(&text(&secret_file(directory, SECRET), &endpoint)).unwrap();
    Broker::with_config(&Entra::new(), &config)
}

#[tokio::test(start_paused = true)]
async fn b03_the_compat_listener_runs_no_strangers_errand() {
    let directory = tempfile::tempdir().unwrap();
    let router = broker(&directory).compat();
    let known = [("metadata", "true"), ("x-identity-header", "header")];
    for path in PATHS {
        assert_eq!(ask(&router, from_pod(path, &known)).await.0, 200, "{path}");
        for (name, value, expected) in [
            ("x-forwarded-for", "127.0.0.1", 400),
            ("forwarded", "for=127.0.0.1", 400),
            ("via", "1.1 proxy", 400),
            ("origin", "null", 400),
            ("referer", "http://127.0.0.1:7173/", 400),
            ("sec-fetch-site", "none", 400),
            ("cookie", "a=b", 400),
            ("host", "evil.example:7173", 403),
        ] {
            let fields = [known[0], known[1], (name, value)];
            let (status, _, body) = ask(&router, from_pod(path, &fields)).await;
            assert_eq!(status, expected, "{name}: {body}");
            assert!(!body.contains("canary"), "{body}");
        }
        for method in ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"] {
            let mut request = from_pod(path, &known);
            *request.method_mut() = method.parse().unwrap();
            let (status, headers, _) = ask(&router, request).await;
            assert_eq!((status, &headers["allow"]), (405, &"GET".parse().unwrap()), "{method}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn b01_nothing_is_served_where_nothing_is_configured() {
    let broker = Broker::start(&Entra::new());
    let known = [("metadata", "true"), ("x-identity-header", "header")];
    for path in PATHS {
        assert_eq!(ask(&broker.compat(), from_pod(path, &known)).await.0, 404, "{path}");
    }
    let api = Api::Tcp("127.0.0.1:0".parse().unwrap());
    let listen = Listen { api, admin: "127.0.0.1:0".parse().unwrap(), compat: None };
    let listeners = Listeners::bind(&listen).await.unwrap();
    assert_eq!(listeners.compat_address(), None);
}

#[tokio::test(start_paused = true)]
async fn b05_identity_access_holds_for_the_compat_listener_too() {
    let access = json!([{"namespace": "tenant-a", "identities": ["a"]}]);
    let pod = Pod::new(&access);
    for (identity, resource, expected) in
        [("a", "https://graph.microsoft.com", 200), ("b", "https://vault.azure.net", 403)]
    {
        let mut document = pod.config(&access);
        document["listen"] = json!({"compat": {
            "address": "127.0.0.1:7173", "trust_whole_pod": true,
            "managed_identity": {"identities": [identity], "default": identity},
        }});
        pod.write("broker.yaml", &document.to_string());
        running(&pod, async |broker| {
            pass(seconds(1)).await;
            let path = PATHS[0].replace("https://graph.microsoft.com", resource);
            let request = from_pod(&path, &[("metadata", "true")]);
            let (status, _, body) = ask(&broker.compat(), request).await;
            assert_eq!(status, expected, "{body}");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn requests_are_counted_by_a_closed_list_of_routes() {
    let directory = tempfile::tempdir().unwrap();
    let broker = broker(&directory);
    let known = [("metadata", "true"), ("x-identity-header", "header")];
    for path in PATHS {
        ask(&broker.compat(), from_pod(path, &known)).await;
        ask(&broker.compat(), from_pod(&path.replace('?', "/?"), &[])).await;
    }
    let unknown = Request::get("/x/y").header("host", "localhost:7173");
    ask(&broker.compat(), unknown.body(axum::body::Body::empty()).unwrap()).await;
    let metrics = broker.state.metrics.text();
    for (route, status) in [
        ("/metadata/identity/oauth2/token", 200),
        ("/metadata/identity/oauth2/token", 400),
        ("/msi/token", 200),
        ("/msi/token", 401),
        ("unknown", 404),
    ] {
        let line = format!(
            "entra_broker_requests_total{{listener=\"compat\",route=\"{route}\",\
             status=\"{status}\"}} 1"
        );
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn the_listener_answers_on_its_own_port_only() {
    let directory = tempfile::tempdir().unwrap();
    let broker = broker(&directory);
    let any = "127.0.0.1:0".parse().unwrap();
    let api = Api::Tcp(any);
    let listeners = Listeners::bind(&Listen { api, admin: any, compat: Some(any) }).await.unwrap();
    let (compat, admin) = (listeners.compat_address().unwrap(), listeners.admin_address().unwrap());
    let _serving = tokio::spawn(listeners.serve(Arc::clone(&broker.state), std::future::pending()));
    for (host, expected) in [(compat, "200"), (admin, "403")] {
        let mut stream = TcpStream::connect(compat).await.unwrap();
        let head = format!(
            "GET {} HTTP/1.1\r\nhost: {host}\r\nmetadata: true\r\nconnection: close\r\n\r\n",
            PATHS[0]
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.get(9..12), Some(expected), "{answer}");
    }
}
