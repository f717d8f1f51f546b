//! Which identities a pod gets: `identity_access` with a real token, labels that change, and keys
//! that are there or not.

use std::{os::unix::fs::symlink, path::Path, sync::Arc};

use contract::{ErrorKind, TypedError};
use serde_json::{Value, json};
use token_broker::{
    config::{Config, document},
    https::{Replaceable, Transport},
    reload::{Connect, Reload},
};
use tokens::SigningKey;
use tokio::task::LocalSet;

use crate::support::{
    Broker, CLIENT, Endpoint, Entra, START, TENANT, ask, environment, get, pass, post, request,
    seconds,
};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const GRAPH: &str = "https://graph.microsoft.com/.default";
const VAULT: &str = "https://vault.azure.net/.default";

/// The files of a pod of `tenant-a`, service account `orders`, label `tier=gold`, and of a broker
/// with the identities `a` and `b`.
pub(crate) struct Pod(tempfile::TempDir);

impl Pod {
    pub(crate) fn new(access: &Value) -> Self {
        let pod = Self(tempfile::tempdir().unwrap());
        pod.write("secret", "canary");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o400);
        std::fs::set_permissions(pod.path("secret"), private).unwrap();
        pod.labels(&[("app", "orders"), ("tier", "gold")]);
        pod.token(&key(), &claims());
        let shown = key().jwk();
        let jwk = json!({"kty": "RSA", "kid": "k1", "alg": "RS256", "n": shown.n, "e": shown.e});
        pod.write("keys", &json!({"keys": [jwk]}).to_string());
        pod.configure(access);
        pod
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        // As the kubelet does: what is there is never half of it.
        let next = self.path("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, self.path(name)).unwrap();
    }

    fn labels(&self, labels: &[(&str, &str)]) {
        let lines: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        self.write("labels", &lines.join("\n"));
    }

    fn token(&self, key: &SigningKey, claims: &Value) {
        self.write("token", &key.token_with(&json!({"alg": "RS256", "kid": key.kid}), claims));
    }

    /// Puts a token of these claims there, signed by the cluster.
    pub(crate) fn show(&self, claims: &Value) {
        self.token(&key(), claims);
    }

    pub(crate) fn config(&self, access: &Value) -> Value {
        let identity = |scope: &str| {
            json!({"client_secret": {"tenant": TENANT, "client_id": CLIENT,
                "file": self.path("secret")}, "scopes": [scope]})
        };
        json!({
            "identities": {"a": identity(GRAPH), "b": identity(VAULT)},
            "identity_access": access,
            "pod": {
                "token_file": self.path("token"), "labels_file": self.path("labels"),
                "cluster": {"issuer": ISSUER, "keys_file": self.path("keys")},
            },
        })
    }

    fn configure(&self, access: &Value) {
        self.write("broker.yaml", &self.config(access).to_string());
    }
}

fn key() -> SigningKey {
    SigningKey::new(1, "k1", "")
}

pub(crate) fn claims() -> Value {
    json!({
        "aud": ["entra-sidecar"], "exp": START + 100_000, "nbf": 1_700_000_000, "iss": ISSUER,
        "kubernetes.io": {
            "namespace": "tenant-a",
            "pod": {"name": "orders-1", "uid": "71c2"},
            "serviceaccount": {"name": "orders", "uid": "0b1d"},
        },
        "sub": "system:serviceaccount:tenant-a:orders",
    })
}

/// Two tenants, each with its own identity.
fn tenants() -> Value {
    json!([
        {"namespace": "tenant-a", "service_account": "orders", "labels": {"tier": "gold"},
         "identities": ["a"]},
        {"namespace": "tenant-b", "service_account": "orders", "identities": ["b"]},
    ])
}

/// Runs `check` beside a broker that runs in this pod.
pub(crate) async fn running(pod: &Pod, check: impl AsyncFnOnce(&Broker)) {
    let entra = Entra::new();
    let ours = environment(&[("POD_UID", "71c2"), ("POD_NAMESPACE", "tenant-a")]);
    let file = pod.path("broker.yaml");
    let config: Config = document::read(&document::text(&file).unwrap(), &ours).unwrap();
    let scripted: Arc<dyn Transport> = Arc::<Entra>::clone(&entra);
    let replaceable = Arc::new(Replaceable::new(Arc::clone(&scripted)));
    let broker = Broker::with_config(&entra, &config);
    let connect: Connect = Box::new(move |_| Ok(Arc::clone(&scripted)));
    let reload = Reload::new(file, Box::new(ours), config, replaceable, connect);
    let local = LocalSet::new();
    let state = Arc::clone(&broker.state);
    local.spawn_local(async move { reload.follow(&state).await });
    local.run_until(check(&broker)).await;
}

async fn got(broker: &Broker, identity: &str, scope: &str) -> Result<(), TypedError> {
    broker.issue(&request(identity, scope)).await.map(drop)
}

async fn kind(broker: &Broker, identity: &str, scope: &str) -> Option<ErrorKind> {
    got(broker, identity, scope).await.err().map(|refused| refused.kind)
}

async fn page(broker: &Broker, path: &str) -> (u16, String) {
    let (status, _, body) = ask(&broker.admin(), get(path)).await;
    (status, body)
}

#[tokio::test(start_paused = true)]
async fn b05_a_pod_gets_its_own_identity_and_not_its_neighbours() {
    let pod = Pod::new(&tenants());
    running(&pod, async |broker| {
        pass(seconds(1)).await;
        got(broker, "a", GRAPH).await.unwrap();
        let refused = got(broker, "b", VAULT).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Denied);
        // Nothing tells that there is such an identity, nor does the status of the answer.
        assert_eq!(refused, got(broker, "nobody", VAULT).await.unwrap_err());
        let body = json!({"identity": "b", "scope": VAULT, "destination": "vault"}).to_string();
        assert_eq!(ask(&broker.api(), post("/v1/token", body)).await.0, 403);
        // It was not acquired either.
        let asked = broker.entra.calls(Endpoint::Token);
        assert!(asked.iter().all(|call| call.form["scope"] == GRAPH), "{asked:?}");
        let (status, body) = page(broker, "/readyz").await;
        assert_eq!(status, 200, "{body}");
        let (_, status) = page(broker, "/").await;
        for line in [
            "identity access of namespace tenant-a, service account orders, labels app=orders \
             tier=gold, pod orders-1 (71c2)",
            "  a: allowed by identity_access[0]",
            "  b: denied, no entry allows it",
        ] {
            assert!(status.lines().any(|found| found == line), "{line}: {status}");
        }
        let (_, metrics) = page(broker, "/metrics").await;
        for line in [
            r#"identity_access_decisions_total{identity="a",outcome="allowed"} 1"#,
            r#"identity_access_decisions_total{identity="b",outcome="denied"} 1"#,
        ] {
            assert!(metrics.contains(line), "{line}: {metrics}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn b05_an_empty_list_denies_everything() {
    running(&Pod::new(&json!([])), async |broker| {
        pass(seconds(1)).await;
        assert_eq!(kind(broker, "a", GRAPH).await, Some(ErrorKind::Denied));
        assert_eq!(kind(broker, "b", VAULT).await, Some(ErrorKind::Denied));
        pass(seconds(60)).await;
        assert_eq!(broker.entra.count(Endpoint::Token), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn b05_a_label_that_is_taken_away_ends_the_use_within_five_seconds() {
    let pod = Pod::new(&tenants());
    running(&pod, async |broker| {
        pass(seconds(1)).await;
        got(broker, "a", GRAPH).await.unwrap();
        for labels in [&[("app", "orders")][..], &[("tier", "silver")], &[]] {
            pod.labels(labels);
            pass(seconds(6)).await;
            assert_eq!(kind(broker, "a", GRAPH).await, Some(ErrorKind::Denied), "{labels:?}");
            let (_, status) = page(broker, "/").await;
            assert!(status.contains("a: denied, no entry allows it"), "{status}");
            assert!(!status.contains("tokens held"), "{status}");
        }
        std::fs::remove_file(pod.path("labels")).unwrap();
        pass(seconds(6)).await;
        assert_eq!(kind(broker, "a", GRAPH).await, Some(ErrorKind::Denied));
        // What was held went with it: a new token is asked for.
        let before = broker.entra.count(Endpoint::Token);
        pod.labels(&[("tier", "gold")]);
        pass(seconds(6)).await;
        got(broker, "a", GRAPH).await.unwrap();
        assert_eq!(broker.entra.count(Endpoint::Token), before + 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_keeps_a_copy_asks_again_within_a_minute() {
    running(&Pod::new(&tenants()), async |broker| {
        pass(seconds(1)).await;
        let token = broker.issue(&request("a", GRAPH)).await.unwrap();
        let ahead = token.refresh_on.checked_sub(START + 1).unwrap();
        assert!((5..=60).contains(&ahead), "{ahead}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn b05_who_waits_while_the_pod_loses_the_identity_gets_no_token() {
    let pod = Pod::new(&tenants());
    running(&pod, async |broker| {
        broker.entra.delay(seconds(7));
        pass(seconds(1)).await;
        let taken = async {
            pass(seconds(1)).await;
            pod.labels(&[]);
        };
        let body = json!({"identity": "a", "scope": GRAPH, "destination": "graph"}).to_string();
        let api = broker.api();
        let (asked, answered, ()) =
            tokio::join!(kind(broker, "a", GRAPH), ask(&api, post("/v1/token", body)), taken);
        assert_eq!((asked, answered.0), (Some(ErrorKind::Denied), 403), "{}", answered.2);
        // It was acquired, and has gone.
        assert_eq!(broker.entra.count(Endpoint::Token), 1);
        // The same where it cannot be told any more what the pod is.
        pod.labels(&[("tier", "gold")]);
        pass(seconds(6)).await;
        let gone = async {
            pass(seconds(1)).await;
            std::fs::remove_file(pod.path("token")).unwrap();
        };
        let (asked, ()) = tokio::join!(kind(broker, "a", GRAPH), gone);
        assert_eq!(asked, Some(ErrorKind::Transient));
        assert_eq!(broker.entra.count(Endpoint::Token), 2);
        // It is held meanwhile, and is handed out when it is known again.
        pod.show(&claims());
        pass(seconds(6)).await;
        got(broker, "a", GRAPH).await.unwrap();
        assert_eq!(broker.entra.count(Endpoint::Token), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn b05_another_configuration_gives_and_takes_with_one_change() {
    let pod = Pod::new(&tenants());
    running(&pod, async |broker| {
        pass(seconds(1)).await;
        got(broker, "a", GRAPH).await.unwrap();
        let calls = broker.entra.count(Endpoint::Token);
        pod.configure(&json!([{"service_account": "orders", "identities": ["a", "b"]}]));
        pass(seconds(6)).await;
        got(broker, "a", GRAPH).await.unwrap();
        got(broker, "b", VAULT).await.unwrap();
        // What it had goes on.
        assert_eq!(broker.entra.count(Endpoint::Token), calls + 1);
        pod.configure(&json!([{"service_account": "orders", "identities": ["b"]}]));
        pass(seconds(6)).await;
        assert_eq!(kind(broker, "a", GRAPH).await, Some(ErrorKind::Denied));
        got(broker, "b", VAULT).await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn b05_while_it_cannot_be_decided_nothing_is_handed_out_and_nothing_is_lost() {
    let pod = Pod::new(&tenants());
    running(&pod, async |broker| {
        // Before anything was looked at.
        let refused = got(broker, "a", GRAPH).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Transient);
        assert_eq!(refused.retry_after, Some(1));
        pass(seconds(1)).await;
        got(broker, "a", GRAPH).await.unwrap();
        let calls = broker.entra.count(Endpoint::Token);
        let mut ended = claims();
        ended["exp"] = json!(START);
        let other = SigningKey::new(2, "k2", "");
        let spoil: [(&str, &dyn Fn()); 5] = [
            ("entity not found", &|| std::fs::remove_file(pod.path("token")).unwrap()),
            ("empty", &|| pod.write("token", "")),
            ("has ended", &|| pod.token(&key(), &ended)),
            ("do not have the one of", &|| pod.token(&other, &claims())),
            ("not a key set", &|| pod.write("keys", "half a fi")),
        ];
        let keys = std::fs::read_to_string(pod.path("keys")).unwrap();
        for (reason, spoil) in spoil {
            spoil();
            pass(seconds(6)).await;
            for (identity, scope) in [("a", GRAPH), ("b", VAULT), ("nobody", GRAPH)] {
                let refused = got(broker, identity, scope).await.unwrap_err();
                assert_eq!(refused.kind, ErrorKind::Transient, "{reason}");
                assert!(refused.error.starts_with("access_undecided: "), "{refused:?}");
            }
            let body = json!({"identity": "a", "scope": GRAPH, "destination": "d"}).to_string();
            assert_eq!(ask(&broker.api(), post("/v1/token", body)).await.0, 503);
            let (status, body) = page(broker, "/readyz").await;
            assert_eq!(status, 503);
            let body: Value = serde_json::from_str(&body).unwrap();
            let told = body["identity_access"].as_str().unwrap();
            assert!(told.contains(reason), "{reason}: {told}");
            pod.token(&key(), &claims());
            pod.write("keys", &keys);
            pass(seconds(6)).await;
            got(broker, "a", GRAPH).await.unwrap();
            assert_eq!(page(broker, "/readyz").await.0, 200);
        }
        // The token that was held served again: Entra was not asked.
        assert_eq!(broker.entra.count(Endpoint::Token), calls);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn b05_a_token_that_is_not_the_pods_denies_every_identity() {
    let pod = Pod::new(&json!([{"labels": {"tier": "gold"}, "identities": ["a", "b"]}]));
    running(&pod, async |broker| {
        pass(seconds(1)).await;
        got(broker, "a", GRAPH).await.unwrap();
        let (mut issuer, mut audience, mut copied) = (claims(), claims(), claims());
        issuer["iss"] = json!("https://other.example");
        audience["aud"] = json!(["api://AzureADTokenExchange"]);
        copied["kubernetes.io"]["pod"] = json!({"name": "orders-2", "uid": "9a0b"});
        let forger = SigningKey::new(2, "k1", "");
        let forge: [(&str, &dyn Fn()); 4] = [
            ("not signed by the cluster's key", &|| pod.token(&forger, &claims())),
            ("not of `pod.cluster.issuer`", &|| pod.token(&key(), &issuer)),
            ("not for `pod.audience` alone", &|| pod.token(&key(), &audience)),
            ("another pod's: POD_UID says otherwise", &|| pod.token(&key(), &copied)),
        ];
        for (reason, forge) in forge {
            forge();
            pass(seconds(6)).await;
            let refused = got(broker, "a", GRAPH).await.unwrap_err();
            assert_eq!(refused.kind, ErrorKind::Denied, "{reason}");
            assert_eq!(refused, got(broker, "nobody", GRAPH).await.unwrap_err());
            let (status, body) = page(broker, "/readyz").await;
            assert_eq!(status, 503);
            assert!(body.contains(reason), "{reason}: {body}");
            let (_, status) = page(broker, "/").await;
            assert!(status.contains("every identity is denied"), "{status}");
            assert!(!status.contains("tokens held"), "{status}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn b12_the_pods_token_is_nowhere_to_be_seen() {
    let pod = Pod::new(&tenants());
    running(&pod, async |broker| {
        pass(seconds(1)).await;
        let text = std::fs::read_to_string(pod.path("token")).unwrap();
        let (_, signature) = text.rsplit_once('.').unwrap();
        for path in ["/", "/metrics", "/readyz"] {
            assert!(!page(broker, path).await.1.contains(signature));
        }
    })
    .await;
}

/// The kubelet swaps a link: what is read is what the link leads to now.
#[tokio::test(start_paused = true)]
async fn labels_are_read_through_the_kubelets_links() {
    let pod = Pod::new(&tenants());
    let version = |name: &str, text: &str| {
        std::fs::create_dir(pod.path(name)).unwrap();
        std::fs::write(pod.path(name).join("labels"), text).unwrap();
    };
    let swap = |name: &str| {
        let next = pod.path("..data_tmp");
        symlink(Path::new(name), &next).unwrap();
        std::fs::rename(next, pod.path("..data")).unwrap();
    };
    version("..1", "tier=\"gold\"");
    version("..2", "tier=\"silver\"");
    std::fs::remove_file(pod.path("labels")).unwrap();
    symlink("..data/labels", pod.path("labels")).unwrap();
    swap("..1");
    running(&pod, async |broker| {
        pass(seconds(1)).await;
        got(broker, "a", GRAPH).await.unwrap();
        swap("..2");
        pass(seconds(6)).await;
        assert_eq!(kind(broker, "a", GRAPH).await, Some(ErrorKind::Denied));
    })
    .await;
}
