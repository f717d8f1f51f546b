//! Where a credential can be seen that the broker has used: nowhere that it writes, whatever the log
//! level, and not in an image of its memory either.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test: what goes wrong fails it"
)]

use std::{
    collections::HashMap,
    fs::{self, File, Permissions},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::Path,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use e2e::{
    broker::{Broker, BrokerIdentity, BrokerSettings},
    fake_entra::{
        Endpoint, FakeEntra, Fault,
        sample::{ORDERS_API, TENANT, TILL, WORKLOAD, WORKLOAD_SUBJECT, ada},
    },
};
use serde_json::{Value, json};
use tokens::SigningKey;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

const SCOPE: &str = "https://graph.microsoft.com/.default";
/// With characters that a form escapes: it passes through memory in two spellings.
const SECRET: &str = "canary~client+secret/of&the=broker%0123456789";
const DELEGATED_SCOPE: &str = "https://graph.microsoft.com/User.Read";
const TOKEN: &str = "canary-access-token-0123456789-0123456789-0123456789";
/// How long what was used may be found in memory: connections to Entra are kept for 20 s.
const KEPT: Duration = Duration::from_secs(60);

struct Running {
    broker: Broker,
    _entra: FakeEntra,
    socket: std::path::PathBuf,
    key: SigningKey,
    federated: String,
    /// A user's token.
    assertion: String,
    _directory: tempfile::TempDir,
}

/// A broker at trace level with an identity of each kind that has a credential. Whether Entra would
/// take the credentials is not the question: each is sent, and answered with a token.
async fn start() -> Running {
    let (entra, cluster) = FakeEntra::sample();
    let token = json!({"token_type": "Bearer", "expires_in": 3_599, "access_token": TOKEN});
    let answer = Fault::Answer { status: 200, headers: Vec::new(), body: token.to_string() };
    entra.fail_next(Endpoint::Token, 1_000, answer);

    let directory = tempfile::tempdir().expect("a directory");
    let closed = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
    closed(directory.path(), 0o700).expect("the mode");
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).expect("a file");
        closed(&path, 0o600).expect("the mode");
        path
    };
    let federated =
        cluster.token(WORKLOAD_SUBJECT, "api://AzureADTokenExchange", entra.now(), 3_600);
    let key = SigningKey::new(77, "", "");
    let user = entra.token(TENANT, TILL, ORDERS_API).user(&ada(), &["Orders.Read"]);
    let identity = BrokerIdentity {
        tenant: TENANT.to_owned(),
        client_id: WORKLOAD.to_owned(),
        token_file: write("federated", &federated),
        scope: SCOPE.to_owned(),
    };
    let mut settings = BrokerSettings::new(directory.path(), &identity, &entra);
    settings.log_everything();
    let application = |file| json!({"tenant": TENANT, "client_id": TILL, "file": file});
    let identities = &mut settings.config_mut()["identities"];
    identities["secret"] = json!({
        "client_secret": application(write("secret", SECRET)),
        "scopes": [SCOPE],
        "delegated_scopes": [DELEGATED_SCOPE],
    });
    identities["certificate"] = json!({
        "client_certificate": application(write("client.pem", &certificate(&key))),
        "scopes": [SCOPE],
    });
    let broker = Broker::start(&settings).await;
    Running {
        broker,
        assertion: user.sign(),
        _entra: entra,
        socket: settings.socket,
        key,
        federated,
        _directory: directory,
    }
}

/// Key and certificate, as a person has them made.
fn certificate(key: &SigningKey) -> String {
    let pem = key.private_pem();
    let pair = rcgen::KeyPair::from_pkcs8_pem_and_sign_algo(&pem, &rcgen::PKCS_RSA_SHA256)
        .expect("a key pair");
    let params = rcgen::CertificateParams::new(vec!["orders".to_owned()]).expect("a name");
    format!("{pem}{}", params.self_signed(&pair).expect("a certificate").pem())
}

impl Running {
    /// Has every credential used; gives all answers.
    async fn use_all(&self) -> String {
        let mut answers = String::new();
        for identity in ["default", "secret", "certificate"] {
            self.token(json!({"identity": identity, "scope": SCOPE})).await;
            // With an assertion that is no user's, and for what nobody may ask for a user.
            for assertion in [format!("canary-a{}", self.assertion), self.assertion.clone()] {
                let wrong = json!({"identity": identity, "scope": SCOPE, "assertion": assertion});
                answers += &self.ask(wrong).await.1;
            }
        }
        let scope = DELEGATED_SCOPE;
        self.token(json!({"identity": "secret", "scope": scope, "assertion": self.assertion}))
            .await;
        answers += &self.ask(json!({"identity": "canary-identity", "scope": SCOPE})).await.1;
        answers
    }

    /// An answer of the api is where a token goes.
    async fn token(&self, request: Value) {
        let (status, answer) = self.ask(request).await;
        assert_eq!(status, 200, "{answer}");
        let token: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(token["access_token"], TOKEN);
    }

    async fn ask(&self, mut body: Value) -> (u16, String) {
        body["destination"] = json!("graph");
        let body = body.to_string();
        let request = format!(
            "POST /v1/token HTTP/1.1\r\nhost: token-broker\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let mut stream = UnixStream::connect(&self.socket).await.expect("the socket");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        (status, body.to_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b12_at_trace_level_no_output_of_the_broker_shows_a_secret() {
    let running = start().await;
    let mut shown = vec![("answers to the api", running.use_all().await)];
    for path in ["/", "/readyz", "/metrics", "/healthz", "/canary-path?canary=1"] {
        shown.push((path, running.broker.admin(path).await.text()));
    }
    shown.push(("the log", running.broker.log()));
    for name in ["cmdline", "environ"] {
        let read = fs::read(format!("/proc/{}/{name}", running.broker.id()));
        // Who is not root is not shown the environment at all.
        shown.push((name, String::from_utf8_lossy(&read.unwrap_or_default()).into_owned()));
    }
    assert!(shown.iter().any(|(_, text)| text.contains("token acquired")));
    let pem = running.key.private_pem();
    let line_of_key = pem.lines().nth(14).expect("a line of the key");
    for (name, text) in &shown {
        let (_, signature) = running.assertion.rsplit_once('.').expect("a token");
        for secret in ["canary~", "canary-a", line_of_key, &running.federated, signature] {
            assert!(!text.contains(secret), "{name} shows {secret:.9}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b12_after_use_neither_client_secret_nor_private_key_is_in_memory() {
    let running = start().await;
    let mut process = None;
    if fs::metadata("/proc/self").expect("/proc").uid() == 0 {
        process = Some(Memory::of(running.broker.id()));
    }
    running.use_all().await;
    let of_process = |name| format!("/proc/{}/{name}", running.broker.id());
    let limits = fs::read_to_string(of_process("limits")).expect("its limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size"));
    assert_eq!(core.map(|line| line.matches(" 0 ").count()), Some(2), "{limits}");
    let Some(memory) = process else {
        // No other process of the same user can look: that is the promise, too.
        let refused = File::open(of_process("mem")).expect_err("a memory that is closed to others");
        assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
        return;
    };
    // That this finds what is there: the token, which the broker holds.
    let token = Patterns::new([("the token", TOKEN.as_bytes().to_vec())]);
    assert!(!memory.found(&token).is_empty());

    let secrets = Patterns::new(
        spellings(SECRET).into_iter().chain(pieces_of_key(&running.key.private_pem())),
    );
    let began = Instant::now();
    loop {
        let found = memory.found(&secrets);
        if found.is_empty() {
            println!("clean {:?} after use", began.elapsed());
            return;
        }
        assert!(began.elapsed() < KEPT, "still in memory: {found:#?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// A secret as it is in its file and as it is in a form.
fn spellings(secret: &str) -> Vec<(&'static str, Vec<u8>)> {
    let form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    vec![("the secret", secret.as_bytes().to_vec()), ("the secret in a form", form.into_bytes())]
}

/// Pieces of a private key as PEM, as DER, and as numbers in a machine's order.
fn pieces_of_key(pem: &str) -> Vec<(&'static str, Vec<u8>)> {
    const PIECE: usize = 24;
    let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(lines.concat()).expect("base64");
    // PKCS #8 (RFC 5958) of 2048 bits: before this are the modulus and the public exponent.
    const PRIVATE: usize = 320;
    let mut pieces: Vec<(&'static str, Vec<u8>)> = Vec::new();
    for line in &lines[PRIVATE * 4 / 3 / 64 + 1..] {
        pieces.push(("the key as PEM", line.as_bytes().to_vec()));
    }
    for piece in der[PRIVATE..].chunks_exact(PIECE) {
        pieces.push(("the key as DER", piece.to_vec()));
        pieces.push(("the key as numbers", piece.iter().rev().copied().collect()));
    }
    // Most of memory is zero.
    pieces.retain(|(_, piece)| piece[0] != 0);
    pieces
}

/// What is looked for, by its first bytes; and which first bytes there are, for there is much to look
/// through.
struct Patterns(HashMap<[u8; 8], Vec<(&'static str, Vec<u8>)>>, [bool; 256]);

impl Patterns {
    fn new(patterns: impl IntoIterator<Item = (&'static str, Vec<u8>)>) -> Self {
        let (mut by_start, mut first) = (HashMap::<_, Vec<_>>::new(), [false; 256]);
        for (name, pattern) in patterns {
            let start: [u8; 8] = pattern[..8].try_into().expect("eight bytes");
            first[usize::from(start[0])] = true;
            by_start.entry(start).or_default().push((name, pattern));
        }
        Self(by_start, first)
    }
}

/// The memory of a process, as a core dump has it.
struct Memory {
    id: u32,
    file: File,
}

impl Memory {
    fn of(id: u32) -> Self {
        Self { id, file: File::open(format!("/proc/{id}/mem")).expect("root may look") }
    }

    /// What is there of the patterns: name, and which mapping it is in. What the process cannot write
    /// holds what its files hold.
    fn found(&self, patterns: &Patterns) -> Vec<(&'static str, String)> {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.id)).expect("the mappings");
        let mut found = Vec::new();
        for line in maps
            .lines()
            .filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw")))
        {
            let (start, end) =
                line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
            let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).expect("hex"));
            let mut bytes = vec![0; usize::try_from(end - start).expect("a length")];
            // Some of the kernel's own pages cannot be read.
            if self.file.read_exact_at(&mut bytes, start).is_err() {
                continue;
            }
            for (offset, window) in bytes.windows(8).enumerate() {
                if !patterns.1[usize::from(window[0])] {
                    continue;
                }
                let Some(candidates) = patterns.0.get(window) else { continue };
                for (name, pattern) in candidates {
                    if bytes[offset..].starts_with(pattern) {
                        found.push((*name, format!("{line} +{offset:x}")));
                    }
                }
            }
        }
        found
    }
}
