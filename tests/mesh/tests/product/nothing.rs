//! What the application's container can get of the identity beside it: nothing. A shell in that
//! container, as root, is what these tests have; the pod has tokens for its calls all the time.

use serde_json::{Value, json};

use crate::outbound::stage::{Staged, claims, stage};

/// The pod, whose broker and filter hold a token when this is called.
fn used() -> Staged {
    let stage = stage();
    stage.until_answered(&["GET", "http://stock.contoso.com/used"], 200);
    assert!(stage.server("stock").latest().bearer().is_some());
    stage
}

/// What a line of shell in the application's container writes.
fn shell(line: &str) -> String {
    let ran = used().open.shell(&["sh", "-c", line]);
    assert_eq!(ran.code, 0, "{line}: {}", ran.stderr);
    ran.stdout
}

/// The ports at which something in the pod listens.
fn listening() -> Vec<u16> {
    let tables = shell("cat /proc/net/tcp /proc/net/tcp6");
    let rows = tables.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let open = rows.filter(|row| row.get(3) == Some(&"0A"));
    let port = |row: Vec<&str>| u16::from_str_radix(row[1].rsplit(':').next().unwrap(), 16);
    let mut ports: Vec<u16> = open.map(|row| port(row).unwrap()).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// The events of many calls made by one shell.
fn calls(lines: &[String]) -> Vec<(String, Value)> {
    let said = shell(&format!("{}\ntrue", lines.join("\n")));
    let mut line = "";
    let mut events = Vec::new();
    for text in said.lines() {
        match text.strip_prefix("== ") {
            Some(next) => line = next,
            None => events.push((line.to_owned(), serde_json::from_str(text).unwrap())),
        }
    }
    events
}

fn call(method: &str, url: &str, options: &str) -> String {
    format!(
        "echo '== {method} {url}'; \
         mesh-app call {method} {url} --timeout-ms 2000 {options} | head -n 1"
    )
}

#[test]
fn no_file_in_the_container_is_a_token_for_entra() {
    let found = shell(
        "find / -path /proc -prune -o -path /sys -prune -o -type f -exec \
         grep -l 'eyJ[A-Za-z0-9_-]*[.]eyJ' {} + || true",
    );
    // Kubernetes' own, for its API server: that it is found shows that the search finds.
    let usual = "/run/secrets/kubernetes.io/serviceaccount/";
    assert_eq!(found.lines().count(), 1, "files with a token: {found}");
    assert!(found.contains(usual), "{found}");
    let token = shell(&format!("cat {}", found.trim()));
    let audience = claims(&token)["aud"].to_string();
    assert!(!audience.to_lowercase().contains("azuread"), "{audience}");
    let mounts = shell("cut -d ' ' -f 2 /proc/mounts");
    assert!(mounts.contains(usual.trim_end_matches('/')), "{mounts}");
    assert!(!mounts.contains("entra"), "{mounts}");
    let missing = shell("ls -d /var/run/secrets/entra /etc/entra /run/entra 2>/dev/null || true");
    assert_eq!(missing, "");
}

#[test]
fn no_process_that_the_container_sees_has_a_word_of_the_identity_in_its_environment() {
    let environments = shell("cat /proc/[0-9]*/environ | tr '\\0' '\\n'");
    assert!(environments.contains("KUBERNETES_SERVICE_HOST"), "nothing was read");
    for word in ["AZURE", "IDENTITY_", "MSI_", "eyJ", "broker"] {
        assert!(!environments.contains(word), "{word}: {environments}");
    }
    let programs = shell("cat /proc/[0-9]*/cmdline | tr '\\0' ' '");
    for program in ["envoy", "pilot-agent", "token-broker"] {
        assert!(!programs.contains(program), "{programs}");
    }
}

#[test]
fn the_brokers_socket_has_a_name_and_cannot_be_reached() {
    let sockets = shell("cat /proc/net/unix");
    // It was bound under a name of its own and then renamed; the kernel shows the first.
    assert!(sockets.contains(" /run/entra/.1"), "the broker's socket moved: {sockets}");
    assert!(!sockets.contains(" @"), "an abstract socket: {sockets}");
    for root in ["", "/proc/1/root", "/proc/self/root"] {
        for path in ["/run/entra/broker.sock", "/run/entra/.1"] {
            let place = format!("{root}{path}");
            let ran = used().open.shell(&["mesh-app", "unix", &place, "GET", "/v1/keys"]);
            assert_ne!(ran.code, 0, "{place}: {}", ran.stdout);
        }
    }
}

#[test]
fn instance_metadata_gives_no_token() {
    let url = "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01\
               &resource=https://graph.microsoft.com";
    let words = ["GET", url, "-H", "metadata: true", "--timeout-ms", "5000"];
    let answer = used().call(&words);
    assert_ne!(answer["status"], 200, "{answer}");
    assert!(!answer.to_string().contains("access_token"), "{answer}");
}

#[test]
fn no_listener_of_the_pod_answers_with_a_secret() {
    let ports = listening();
    for port in [7172, 15001, 15006, 15020, 15021, 15090] {
        assert!(ports.contains(&port), "{port} is not among {ports:?}");
    }
    let pod = used().open.address;
    let paths = [
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/keys",
        "/v1/token",
        "/v1/keys/refresh",
        "/config_dump?include_eds",
        "/certs",
        "/clusters",
        "/stats",
        "/server_info",
        "/memory",
        "/debug/pprof/cmdline",
        "/debug/ndsz",
        "/stats/prometheus",
        "/healthz/ready",
    ];
    let token = json!({
        "identity": "default", "scope": "https://graph.microsoft.com/.default",
        "destination": "graph",
    });
    let mut lines = Vec::new();
    // What the application serves itself is no secret of ours.
    for port in ports.iter().filter(|port| !matches!(port, 8080 | 8081)) {
        for host in ["127.0.0.1".to_owned(), pod.to_string()] {
            let url = |path: &str| format!("'http://{host}:{port}{path}'");
            lines.extend(paths.iter().map(|path| call("GET", &url(path), "")));
            let body = format!("-H 'content-type: application/json' --data '{token}'");
            for path in ["/v1/token", "/v1/keys/refresh", "/logging?level=debug", "/quitquitquit"] {
                // pilot-agent stops the proxy for whoever asks it on loopback: that is Istio's.
                if (*port, path) != (15020, "/quitquitquit") {
                    lines.push(call("POST", &url(path), &body));
                }
            }
        }
    }
    let events = calls(&lines);
    assert_eq!(events.len(), lines.len());
    for (what, event) in &events {
        let text = event.to_string();
        for word in ["eyJ", "PRIVATE KEY", "access_token\\\"", "client_assertion"] {
            assert!(!text.contains(word), "{word} in the answer of {what}");
        }
        if what.contains(":15000/") {
            assert_eq!(event["event"], "failure", "Envoy's admin answers {what}");
        }
        if what.contains("/v1/") {
            assert_ne!(event["status"], 200, "{what}: {text}");
        }
    }
    // The broker's page was among them, and is open on purpose.
    let page = events.iter().find(|(what, _)| what.ends_with("127.0.0.1:7172/"));
    assert_eq!(page.map(|(_, event)| &event["status"]), Some(&json!(200)));
}
