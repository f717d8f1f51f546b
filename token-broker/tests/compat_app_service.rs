//! The managed identity endpoint of App Service, as its clients see it.

use serde_json::{Value, json};

use crate::{
    compat_imds::{ALL, OTHER_CLIENT, config, secret_file, text},
    support::{
        Broker, CLIENT, Endpoint, Entra, Reply, SECRET, START, TOKEN, ask, from_pod, pass, seconds,
    },
};

const HEADER: &str = "canary-identity-header";
const PATH: &str = "/msi/token?api-version=2019-08-01&resource=https://graph.microsoft.com";

struct App {
    broker: Broker,
    directory: tempfile::TempDir,
}

impl App {
    fn start(with_header: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let header = secret_file(&directory, HEADER);
        let header =
            if with_header { format!(", identity_header_file: {header}") } else { "".into() };
        let config =
            config(&text(&secret_file(&directory, SECRET), &format!("{ALL}{header}"))).unwrap();
        Self { broker: Broker::with_config(&Entra::new(), &config), directory }
    }

    async fn get(&self, path: &str, fields: &[(&str, &str)]) -> (u16, Value) {
        let (status, _, body) = ask(&self.broker.compat(), from_pod(path, fields)).await;
        assert!(!body.contains(HEADER), "{body}");
        (status, serde_json::from_str(&body).unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_answered_in_the_words_of_app_service() {
    let app = App::start(true);
    pass(seconds(60)).await;
    let slash = PATH.replace('?', "/?");
    let later = PATH.replace("2019-08-01", "2025-03-30") + "&xms_cc=cp1";
    for path in [PATH, &slash, &later] {
        let (status, body) = app.get(path, &[("x-identity-header", HEADER)]).await;
        let token = body["access_token"].as_str().unwrap();
        assert!(token.starts_with(TOKEN), "{body}");
        let expected = json!({
            "access_token": token,
            "client_id": CLIENT,
            "expires_on": (START + 3_600).to_string(),
            "not_before": (START + 60).to_string(),
            "resource": "https://graph.microsoft.com",
            "token_type": "Bearer",
        });
        assert_eq!((status, body), (200, expected));
    }
    let path = format!("{PATH}&client_id={OTHER_CLIENT}");
    let (status, body) = app.get(&path, &[("x-identity-header", HEADER)]).await;
    assert_eq!((status, &body["client_id"]), (200, &json!(OTHER_CLIENT)));
}

#[tokio::test(start_paused = true)]
async fn b02_who_does_not_know_the_identity_header_gets_nothing() {
    let app = App::start(true);
    let longer = format!("{HEADER}x");
    for fields in [
        &[][..],
        &[("x-identity-header", "")],
        &[("x-identity-header", "canary-identity-heade")],
        &[("x-identity-header", &longer)],
        &[("x-identity-header", HEADER), ("x-identity-header", HEADER)],
        &[("secret", HEADER)],
        &[("metadata", "true")],
    ] {
        let (status, body) = app.get(PATH, fields).await;
        assert_eq!((status, &body["statusCode"]), (401, &json!(401)), "{fields:?}");
        assert!(body["message"].as_str().unwrap().starts_with("X-IDENTITY-HEADER"), "{body}");
    }
    // A new value is in force at once; one that everybody can read is none.
    let path = app.directory.path().join("identity-header");
    std::fs::write(&path, "another").unwrap();
    assert_eq!(app.get(PATH, &[("x-identity-header", HEADER)]).await.0, 401);
    assert_eq!(app.get(PATH, &[("x-identity-header", "another")]).await.0, 200);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&path, mode).unwrap();
    cannot_be_told(&app).await;
    std::fs::remove_file(&path).unwrap();
    cannot_be_told(&app).await;
}

/// Nobody gets anything, and nobody learns where the file is; who shows nothing is no reason to read.
async fn cannot_be_told(app: &App) {
    let (status, body) = app.get(PATH, &[("x-identity-header", "another")]).await;
    assert_eq!((status, &body["error"]), (503, &json!("identity_header_unreadable")));
    let directory = app.directory.path().to_str().unwrap();
    assert!(!body.to_string().contains(directory), "{body}");
    assert_eq!(app.get(PATH, &[]).await.0, 401);
}

#[tokio::test(start_paused = true)]
async fn b02_where_the_header_is_the_only_way_there_is_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let header = secret_file(&directory, HEADER);
    let endpoint = format!("{ALL}, identity_header_file: {header}, imds: false");
    let config = config(&text(&secret_file(&directory, SECRET), &endpoint)).unwrap();
    let app = App { broker: Broker::with_config(&Entra::new(), &config), directory };
    assert_eq!(app.get(PATH, &[("x-identity-header", HEADER)]).await.0, 200);
    let imds = "/metadata/identity/oauth2/token?api-version=2018-02-01\
                &resource=https://graph.microsoft.com";
    let known = [("metadata", "true"), ("x-identity-header", HEADER)];
    assert_eq!(app.get(imds, &known).await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn without_a_file_there_is_no_app_service_form() {
    let app = App::start(false);
    let (status, body) = app.get(PATH, &[("x-identity-header", HEADER)]).await;
    assert_eq!((status, &body["statusCode"]), (404, &json!(404)));
}

#[tokio::test(start_paused = true)]
async fn refusals_are_in_the_shape_of_app_service() {
    let app = App::start(true);
    let known = [("x-identity-header", HEADER)];
    let no_identity = "No Managed Identity found for specified ClientId/ResourceId/PrincipalId.";
    for (query, status, message) in [
        ("&client_id=x", 400, no_identity),
        ("&clientid=x", 400, "unknown parameter: clientid"),
        ("&resource=x", 400, "parameter more than once: resource"),
    ] {
        let (found, body) = app.get(&format!("{PATH}{query}"), &known).await;
        let expected =
            json!({"statusCode": status, "message": message, "error": "invalid_request"});
        assert_eq!((found, body), (status, expected));
    }
    let (status, body) = app.get(&PATH.replace("2019-08", "2017-09"), &known).await;
    assert_eq!(status, 400);
    assert!(body["message"].as_str().unwrap().starts_with("Unsupported api-version"), "{body}");
    let path = PATH.replace("graph.microsoft.com", "elsewhere");
    assert_eq!(app.get(&path, &known).await.0, 403);

    let refused = Reply::error(401, "invalid_client", 7_000_215);
    app.broker.entra.always(Endpoint::Token, Some(refused));
    pass(seconds(3_600)).await;
    let (status, body) = app.get(PATH, &known).await;
    assert_eq!((status, &body["correlationId"]), (400, &json!("aaaa-1")), "{body}");
}
