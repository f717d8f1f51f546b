//! The configuration file changes under a running broker.

use std::{os::unix::fs::symlink, path::Path, sync::Arc};

use contract::{ErrorKind, TokenRequest};
use token_broker::{
    config::{Config, document},
    https::{Replaceable, Transport, TransportFailure},
    reload::{Connect, Reload},
};
use tokio::task::LocalSet;

use crate::support::{
    Broker, CLIENT, Endpoint, Entra, OTHER_SCOPE, Reply, SCOPE, TENANT, ask, environment, from_pod,
    get, issue, pass, request, seconds,
};

/// A mounted ConfigMap: the file is a link by way of `..data`, which the kubelet swaps.
pub(crate) struct ConfigMap(tempfile::TempDir);

impl ConfigMap {
    fn new(text: &str) -> Self {
        let map = Self(tempfile::tempdir().unwrap());
        symlink("..data/broker.yaml", map.file()).unwrap();
        std::fs::write(map.0.path().join("secret"), "canary").unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o400);
        std::fs::set_permissions(map.0.path().join("secret"), private).unwrap();
        map.set(text);
        map
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.path().join("broker.yaml")
    }

    pub(crate) fn set(&self, text: &str) {
        let version = tempfile::tempdir_in(self.0.path()).unwrap().keep();
        std::fs::write(version.join("broker.yaml"), text).unwrap();
        let next = self.0.path().join("..data_tmp");
        symlink(&version, &next).unwrap();
        std::fs::rename(next, self.0.path().join("..data")).unwrap();
    }

    /// A configuration of identities, each with its scopes.
    pub(crate) fn text(&self, identities: &[(&str, &str)]) -> String {
        config(self.0.path(), identities)
    }
}

fn config(directory: &Path, identities: &[(&str, &str)]) -> String {
    let secret = directory.join("secret");
    let identities: Vec<String> = identities
        .iter()
        .map(|(name, scopes)| {
            format!(
                "{name}: {{client_secret: {{tenant: {TENANT}, client_id: {CLIENT}, file: {}}}, \
                 scopes: [{scopes}]}}",
                secret.display()
            )
        })
        .collect();
    format!(
        "{{authorities: [{{cloud: public, tenants: [{TENANT}]}}], identities: {{{}}}}}",
        identities.join(", ")
    )
}

/// Runs `check` beside a broker that follows a ConfigMap with one identity, `default`.
pub(crate) async fn following(check: impl AsyncFnOnce(&ConfigMap, &Broker)) {
    let map = ConfigMap::new("");
    map.set(&map.text(&[("default", SCOPE)]));
    following_from(&map, check).await;
}

/// The same from what the ConfigMap says now.
async fn following_from(map: &ConfigMap, check: impl AsyncFnOnce(&ConfigMap, &Broker)) {
    let entra = Entra::new();
    let read: Config =
        document::read(&document::text(&map.file()).unwrap(), &environment(&[])).unwrap();
    let scripted: Arc<dyn Transport> = Arc::<Entra>::clone(&entra);
    let replaceable = Arc::new(Replaceable::new(Arc::clone(&scripted)));
    let broker = Broker::with_config(&entra, &read);
    let connect: Connect = Box::new(move |config| match &config.ca_file {
        Some(file) => std::fs::read(file).map(|_| Arc::clone(&scripted)).map_err(|e| e.to_string()),
        None => Ok(Arc::clone(&scripted)),
    });
    let reload = Reload::new(map.file(), Box::new(environment(&[])), read, replaceable, connect);
    let local = LocalSet::new();
    let state = Arc::clone(&broker.state);
    local.spawn_local(async move { reload.follow(&state).await });
    local.run_until(check(map, &broker)).await;
}

async fn page(broker: &Broker, path: &str) -> String {
    ask(&broker.admin(), get(path)).await.2
}

#[tokio::test(start_paused = true)]
async fn a_new_identity_is_served_and_the_others_keep_their_tokens() {
    following(async |map, broker| {
        let before = broker.text().await.unwrap();
        let keys = broker.entra.count(Endpoint::Keys);
        map.set(&map.text(&[("default", SCOPE), ("batch", OTHER_SCOPE)]));
        let batch = request("batch", OTHER_SCOPE);
        broker.issue(&batch).await.unwrap_err();
        pass(seconds(6)).await;
        broker.issue(&batch).await.unwrap();
        assert_eq!(broker.text().await.unwrap(), before);
        // One call for each token: what was held was not asked for again, nor were the keys.
        assert_eq!(broker.entra.count(Endpoint::Token), 2);
        assert_eq!(broker.entra.count(Endpoint::Keys), keys);
        let metrics = page(broker, "/metrics").await;
        assert!(metrics.contains("configurations_total{outcome=\"applied\"} 1"), "{metrics}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_is_taken_out_is_denied_and_no_longer_shown() {
    following(async |map, broker| {
        map.set(&map.text(&[("default", SCOPE), ("batch", OTHER_SCOPE)]));
        pass(seconds(6)).await;
        let batch = request("batch", OTHER_SCOPE);
        broker.issue(&batch).await.unwrap();
        assert!(page(broker, "/metrics").await.contains("token_life_seconds{identity=\"batch\"}"));
        map.set(&map.text(&[("default", SCOPE)]));
        pass(seconds(6)).await;
        let refused = broker.issue(&batch).await.unwrap_err();
        assert_eq!(refused.kind, contract::ErrorKind::Denied);
        assert!(!page(broker, "/metrics").await.contains("token_life_seconds{identity=\"batch\"}"));
        assert!(!page(broker, "/").await.contains("batch"));
        // Nothing renews what nobody may have.
        let calls = broker.entra.count(Endpoint::Token);
        broker.clock.jump(3_000);
        pass(seconds(60)).await;
        assert!(broker.entra.count(Endpoint::Token) <= calls + 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_scope_that_is_taken_out_is_denied() {
    following(async |map, broker| {
        let both = format!("{SCOPE}, {OTHER_SCOPE}");
        map.set(&map.text(&[("default", &both)]));
        pass(seconds(6)).await;
        broker.token(OTHER_SCOPE).await.unwrap();
        map.set(&map.text(&[("default", SCOPE)]));
        pass(seconds(6)).await;
        broker.token(OTHER_SCOPE).await.unwrap_err();
        broker.token(SCOPE).await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_configuration_is_reported_and_the_one_before_stays() {
    following(async |map, broker| {
        let before = broker.text().await.unwrap();
        let good = map.text(&[("default", SCOPE)]);
        let unix = "listen: {api: {unix: /elsewhere.sock}}, authorities";
        let cases = [
            ("half-written", good.chars().take(good.len() / 2).collect()),
            ("empty", String::new()),
            ("unknown member", good.replacen("identities", "identity_access: [], identities", 1)),
            ("another listener", good.replacen("authorities", unix, 1)),
            (
                "another key_snapshot",
                good.replacen("authorities", "key_snapshot: {file: /k.json}, authorities", 1),
            ),
            ("no such ca_file", good.replacen("authorities", "ca_file: /no/ca, authorities", 1)),
        ];
        for (refused, (name, text)) in cases.iter().enumerate() {
            map.set(text);
            pass(seconds(30)).await;
            assert_eq!(broker.text().await.unwrap(), before, "{name}");
            let metrics = page(broker, "/metrics").await;
            let count = refused + 1;
            assert!(
                metrics.contains(&format!("configurations_total{{outcome=\"refused\"}} {count}")),
                "{name}: {metrics}"
            );
            assert!(!metrics.contains("entra_broker_configuration_errors 0"), "{name}");
            let ready = page(broker, "/readyz").await;
            assert!(ready.contains("\"ready\":true"), "{name}: {ready}");
            assert!(!ready.contains("\"configuration_errors\":0"), "{name}: {ready}");
            assert!(page(broker, "/").await.starts_with("THE CONFIGURATION"), "{name}");
        }
        map.set(&good);
        pass(seconds(6)).await;
        assert_eq!(broker.text().await.unwrap(), before);
        assert!(page(broker, "/readyz").await.contains("\"configuration_errors\":0"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_gone_changes_nothing_until_it_is_back() {
    following(async |map, broker| {
        let before = broker.text().await.unwrap();
        std::fs::remove_file(map.file()).unwrap();
        pass(seconds(30)).await;
        assert_eq!(broker.text().await.unwrap(), before);
        assert!(page(broker, "/readyz").await.contains("\"configuration_errors\":1"));
        symlink("..data/broker.yaml", map.file()).unwrap();
        pass(seconds(6)).await;
        assert_eq!(broker.text().await.unwrap(), before);
        assert!(page(broker, "/readyz").await.contains("\"configuration_errors\":0"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn another_file_of_authorities_is_one_change() {
    following(async |map, broker| {
        let authorities = map.0.path().join("ca.pem");
        std::fs::write(&authorities, "first").unwrap();
        let member = format!("ca_file: {}, authorities", authorities.display());
        map.set(&map.text(&[("default", SCOPE)]).replacen("authorities", &member, 1));
        pass(seconds(60)).await;
        let metrics = page(broker, "/metrics").await;
        assert!(metrics.contains("configurations_total{outcome=\"applied\"} 1"), "{metrics}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn mended_authorities_are_used_at_once_however_long_the_pause_has_become() {
    let map = ConfigMap::new("");
    let authorities = map.0.path().join("ca.pem");
    std::fs::write(&authorities, "first").unwrap();
    let member = format!("ca_file: {}, authorities", authorities.display());
    map.set(&map.text(&[("default", SCOPE)]).replacen("authorities", &member, 1));
    following_from(&map, async |_, broker| {
        let untrusted = Reply::Fail(TransportFailure::Connection("tls".to_owned()));
        for endpoint in [Endpoint::Token, Endpoint::Metadata] {
            broker.entra.always(endpoint, Some(untrusted.clone()));
        }
        // The first token came before that, and has ended.
        pass(seconds(4_000)).await;
        broker.text().await.unwrap_err();
        while broker.state.circuits.open()[0].pause < seconds(30) {
            pass(seconds(1)).await;
        }
        for endpoint in [Endpoint::Token, Endpoint::Metadata] {
            broker.entra.always(endpoint, None);
        }
        std::fs::write(&authorities, "mended").unwrap();
        pass(seconds(6)).await;
        broker.text().await.unwrap();
        assert!(broker.state.circuits.open().is_empty());
        let metrics = page(broker, "/metrics").await;
        assert!(!metrics.contains("circuit_open{"), "{metrics}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn other_authorities_in_the_same_file_are_trusted_from_the_first_look_on() {
    let map = ConfigMap::new("");
    let authorities = map.0.path().join("ca.pem");
    std::fs::write(&authorities, "first").unwrap();
    let text = map.text(&[("default", SCOPE)]);
    let member = format!("ca_file: {}, authorities", authorities.display());
    map.set(&text.replacen("authorities", &member, 1));
    following_from(&map, async |_, broker| {
        let applied = async |count: u32| {
            let metrics = page(broker, "/metrics").await;
            let expected = format!("configurations_total{{outcome=\"applied\"}} {count}");
            assert!(metrics.contains(&expected), "{metrics}");
        };
        // Before the file was ever looked at, and after.
        std::fs::write(&authorities, "second").unwrap();
        pass(seconds(6)).await;
        applied(1).await;
        std::fs::write(&authorities, "third").unwrap();
        pass(seconds(6)).await;
        applied(2).await;
        pass(seconds(60)).await;
        applied(2).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_is_answered_by_the_configuration_that_is_in_force_by_then() {
    following(async |map, broker| {
        map.set(&map.text(&[("default", SCOPE), ("batch", OTHER_SCOPE)]));
        broker.entra.delay(std::time::Duration::from_secs(6));
        pass(seconds(6)).await;
        let (batch, default) = (request("batch", OTHER_SCOPE), request("default", SCOPE));
        let change = async {
            map.set(&map.text(&[("default", SCOPE)]));
            pass(seconds(6)).await;
        };
        let (taken, kept, ()) = tokio::join!(broker.issue(&batch), broker.issue(&default), change);
        assert_eq!(taken.unwrap_err().kind, ErrorKind::Denied);
        kept.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn w08_a_thousand_changes_ask_entra_for_nothing_that_is_held() {
    following(async |map, broker| {
        let before = broker.text().await.unwrap();
        pass(seconds(6)).await;
        let calls = broker.entra.count(Endpoint::Token);
        for change in 0..1_000 {
            let text = map.text(&[("default", SCOPE)]);
            map.set(&format!("# change {change}\n{text}"));
            pass(seconds(6)).await;
            broker.text().await.unwrap();
        }
        let metrics = page(broker, "/metrics").await;
        assert!(metrics.contains("configurations_total{outcome=\"applied\"} 1000"), "{metrics}");
        // 6,000 s are more than one life; only renewals asked.
        assert!(broker.entra.count(Endpoint::Token) <= calls + 3);
        assert!(broker.text().await.unwrap() != before);
    })
    .await;
}

/// The configuration with a compat listener that offers one identity.
fn with_compat(text: &str, identity: &str) -> String {
    let listen = format!(
        "listen: {{compat: {{address: '127.0.0.1:7173', trust_whole_pod: true, \
         managed_identity: {{identities: [{identity}], default: {identity}}}}}}}}}"
    );
    text.strip_suffix('}').unwrap().to_owned() + ", " + &listen
}

/// What the compat listener answers a request with that names no identity.
async fn of_machine(broker: &Broker) -> (u16, serde_json::Value) {
    let path = "/metadata/identity/oauth2/token?api-version=2018-02-01\
                &resource=https://graph.microsoft.com";
    let request = from_pod(path, &[("metadata", "true")]);
    let (status, _, body) = ask(&broker.compat(), request).await;
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test(start_paused = true)]
async fn b01_a_compat_listener_does_not_come_while_the_broker_runs() {
    following(async |map, broker| {
        map.set(&with_compat(&map.text(&[("default", SCOPE)]), "default"));
        pass(seconds(6)).await;
        assert_eq!(broker.state.metrics.configuration_errors(), 1);
        assert_eq!(of_machine(broker).await.0, 404);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_reloads_under_load_lose_no_request_and_leave_nothing_behind() {
    following(async |map, broker| {
        broker.text().await.unwrap();
        let state = Arc::clone(&broker.state);
        let asked = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let counted = Arc::clone(&asked);
        let load = tokio::task::spawn_local(async move {
            loop {
                issue(&state, &request("default", SCOPE)).await.unwrap();
                counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                pass(std::time::Duration::from_millis(700)).await;
            }
        });
        let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let mut after_ten = 0;
        for number in 0..1_000 {
            // Another identity and another tenant come and go; the third change is refused.
            let mut text = match number % 4 {
                0 => map.text(&[("default", SCOPE), ("batch", OTHER_SCOPE)]),
                1 => map.text(&[("default", SCOPE), ("batch", SCOPE)]),
                _ => map.text(&[("default", SCOPE)]),
            };
            if number % 4 == 2 {
                text.push_str("nonsense");
            }
            if number % 2 == 0 {
                text = text.replacen(TENANT, &format!("{TENANT}, organizations"), 1);
            }
            map.set(&text);
            pass(seconds(6)).await;
            if number == 11 {
                after_ten = alive();
            }
        }
        assert_eq!(alive(), after_ten);
        assert!(!load.is_finished(), "a request failed");
        load.abort();
        assert!(asked.load(std::sync::atomic::Ordering::Relaxed) > 8_000);
        let metrics = page(broker, "/metrics").await;
        let applied = "configurations_total{outcome=\"applied\"} 750";
        assert!(metrics.contains(applied), "{metrics}");
        // What was kept went on as if nothing had been: one token each half an hour to 42 minutes.
        let calls = broker.entra.calls(Endpoint::Token);
        let own = calls.iter().filter(|call| call.form["scope"] == SCOPE).count();
        assert!((252..=255).contains(&own), "{own}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_the_compat_listener_offers_follows_the_file() {
    let map = ConfigMap::new("");
    let text = map.text(&[("default", SCOPE), ("batch", SCOPE)]);
    map.set(&with_compat(&text, "default"));
    following_from(&map, async |map, broker| {
        let held = broker.text().await.unwrap();
        assert_eq!(of_machine(broker).await.1["access_token"], held);
        map.set(&with_compat(&text, "batch"));
        pass(seconds(6)).await;
        let batch = broker.issue(&request("batch", SCOPE)).await.unwrap();
        assert_ne!(held, batch.access_token.expose());
        assert_eq!(of_machine(broker).await.1["access_token"], batch.access_token.expose());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_identity_forgets_its_users_tokens_and_another_keeps_them() {
    following(async |map, broker| {
        let users = "delegated_scopes: [api://orders/Read], scopes";
        let text = |batch: &str| {
            map.text(&[("default", SCOPE), ("batch", batch)]).replace("scopes", users)
        };
        map.set(&text(SCOPE));
        pass(seconds(6)).await;
        let exchanges = || {
            let calls = broker.entra.calls(Endpoint::Token);
            calls.iter().filter(|call| call.form.contains_key("assertion")).count()
        };
        let ask = async |identity: &str| {
            let assertion = Some(crate::on_behalf_of::user("alice"));
            let request = request(identity, "api://orders/Read");
            broker.issue(&TokenRequest { assertion, ..request }).await.unwrap();
        };
        for _ in 0..2 {
            ask("default").await;
            ask("batch").await;
        }
        assert_eq!(exchanges(), 2);
        map.set(&text(OTHER_SCOPE));
        pass(seconds(6)).await;
        for _ in 0..2 {
            ask("default").await;
            ask("batch").await;
        }
        assert_eq!(exchanges(), 3);
        assert!(page(broker, "/").await.contains("on behalf of users: 1 tokens held"));
    })
    .await;
}
