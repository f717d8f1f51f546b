//! The file with the keys: what a broker takes out of it, what it leaves, and how it is written.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use contract::{KeySet, KeySetState};
use serde_json::{Value, json};
use tempfile::TempDir;
use token_broker::config::{Config, KeySnapshot, document::read};

use crate::support::{
    Broker, Endpoint, Entra, Reply, START, TENANT, ask, config, get, key, pass, seconds,
};

const HOUR: u64 = 3_600;

struct Stage {
    directory: TempDir,
    config: Config,
}

impl Stage {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config();
        let file = directory.path().join("keys.json");
        config.key_snapshot = Some(KeySnapshot { file, max_age: seconds(24 * HOUR) });
        Self { directory, config }
    }

    fn file(&self) -> &Path {
        &self.config.key_snapshot.as_ref().unwrap().file
    }

    fn put(&self, text: impl AsRef<[u8]>) {
        fs::write(self.file(), text).unwrap();
        fs::set_permissions(self.file(), Permissions::from_mode(0o600)).unwrap();
    }

    /// A broker that starts while Entra is down.
    fn start_alone(&self) -> Broker {
        let entra = Entra::new();
        entra.always(Endpoint::Metadata, Some(Reply::Answer(503, Vec::new(), Vec::new())));
        Broker::with_config(&entra, &self.config)
    }
}

fn issuer(tenant: &str) -> String {
    format!("https://login.microsoftonline.com/{tenant}/v2.0")
}

fn saved(issuer: &str, fetched_at: u64, keys: &Value) -> Value {
    json!({"issuer": issuer, "fetched_at": fetched_at, "keys": keys})
}

fn document(sets: &[Value]) -> Value {
    json!({"version": 1, "key_sets": sets})
}

/// As it is written by a broker whose last fetch was an hour ago.
fn good() -> Value {
    document(&[saved(&issuer(TENANT), START - HOUR, &json!([key(1, "k1")]))])
}

fn set(broker: &Broker) -> KeySet {
    broker.state.serving().keys.sets().key_sets.remove(0)
}

fn counted(broker: &Broker, outcome: &str) -> bool {
    counted_times(broker, outcome, 1)
}

fn counted_times(broker: &Broker, outcome: &str, times: u64) -> bool {
    let line = format!("entra_broker_key_snapshots_total{{outcome=\"{outcome}\"}} {times}");
    broker.state.metrics.text().lines().any(|found| found == line)
}

async fn is_ready(broker: &Broker) -> bool {
    ask(&broker.admin(), get("/readyz")).await.0 == 200
}

#[tokio::test(start_paused = true)]
async fn b11_a_broker_that_was_killed_has_its_keys_again_while_entra_is_down() {
    let stage = Stage::new();
    let entra = Entra::new();
    let before = Broker::with_config(&entra, &stage.config);
    pass(seconds(1)).await;
    assert!(counted(&before, "absent") && counted(&before, "written"));
    assert_eq!(fs::metadata(stage.file()).unwrap().permissions().mode() & 0o7777, 0o600);
    let text = fs::read_to_string(stage.file()).unwrap();
    assert!(text.contains("\"k1\"") && !text.contains("canary"), "{text}");
    drop(before);

    let broker = stage.start_alone();
    let restored = set(&broker);
    // From the first moment: an answer does not wait for a fetch that cannot succeed.
    assert_eq!((restored.state, restored.fetched_at), (KeySetState::Stale, START));
    assert_eq!(restored.keys.len(), 1);
    assert!(counted(&broker, "read"));
    assert!(is_ready(&broker).await);
    pass(seconds(1)).await;
    assert_eq!(set(&broker).state, KeySetState::Stale);
    assert!(broker.entra.count(Endpoint::Metadata) >= 1, "the first fetch starts at once");
    // Entra is back: its keys, and they are in the file.
    broker.entra.keys(vec![key(2, "k2")]);
    broker.entra.always(Endpoint::Metadata, None);
    pass(seconds(70)).await;
    assert_eq!(set(&broker).state, KeySetState::Fresh);
    assert!(fs::read_to_string(stage.file()).unwrap().contains("\"k2\""));
}

#[tokio::test(start_paused = true)]
async fn b11_kept_keys_grow_no_younger() {
    let stage = Stage::new();
    stage.put(good().to_string());
    let broker = stage.start_alone();
    // Neither by a clock that is set back nor by the restart itself.
    broker.clock.jump(-10 * 3_600);
    pass(seconds(23 * HOUR)).await;
    assert_eq!(set(&broker).state, KeySetState::Stale);
    pass(seconds(1)).await;
    assert_eq!((set(&broker).state, set(&broker).keys.len()), (KeySetState::None, 0));
    assert!(!is_ready(&broker).await);
}

/// A file that is not taken, or not whole.
async fn refused(stage: &Stage, outcome: &str, case: &str) {
    let broker = stage.start_alone();
    assert_eq!((set(&broker).state, set(&broker).fetched_at), (KeySetState::None, 0), "{case}");
    assert!(counted(&broker, outcome), "{case}: {}", broker.state.metrics.text());
    // It goes on without.
    broker.entra.always(Endpoint::Metadata, None);
    pass(seconds(70)).await;
    assert_eq!(set(&broker).state, KeySetState::Fresh, "{case}");
}

#[tokio::test(start_paused = true)]
async fn b11_a_file_that_somebody_else_may_have_made_is_not_believed() {
    let stage = Stage::new();
    for mode in [0o640, 0o604, 0o660, 0o666, 0o700, 0o4600] {
        stage.put(good().to_string());
        fs::set_permissions(stage.file(), Permissions::from_mode(mode)).unwrap();
        refused(&stage, "mode", &format!("{mode:o}")).await;
    }
    fs::remove_file(stage.file()).unwrap();
    let elsewhere = stage.directory.path().join("elsewhere");
    fs::write(&elsewhere, good().to_string()).unwrap();
    fs::set_permissions(&elsewhere, Permissions::from_mode(0o600)).unwrap();
    symlink(&elsewhere, stage.file()).unwrap();
    refused(&stage, "unreadable", "a symbolic link").await;
    // The fetch has put a file in the link's place, and nothing where it led to.
    assert!(fs::symlink_metadata(stage.file()).unwrap().is_file());
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), good().to_string());

    fs::remove_file(stage.file()).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        stage.file(),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    refused(&stage, "not_a_file", "a FIFO that nobody writes to").await;

    // Only root can give a file away; without it this case cannot be made.
    if rustix::process::geteuid().is_root() {
        stage.put(good().to_string());
        std::os::unix::fs::chown(stage.file(), Some(12_345), None).unwrap();
        refused(&stage, "owner", "another user's").await;
    }
}

#[tokio::test(start_paused = true)]
async fn b11_a_file_that_is_not_whole_or_not_ours_is_not_believed() {
    let stage = Stage::new();
    let keys = json!([key(1, "k1")]);
    let whole = good().to_string();
    let with = |member: &str, value: Value| {
        let mut document = good();
        document[member] = value;
        document.to_string()
    };
    let at = |fetched_at: u64| document(&[saved(&issuer(TENANT), fetched_at, &keys)]).to_string();
    let of = |keys: Value| document(&[saved(&issuer(TENANT), START, &keys)]).to_string();
    let many: Vec<Value> = vec![key(1, "k1"); 1_001];
    let mut foreign = key(1, "k1");
    foreign["cloud_instance_name"] = json!("microsoftonline.us");
    let cases = [
        ("malformed", String::new()),
        ("malformed", "\0".repeat(4_096)),
        ("malformed", whole.chars().take(whole.len() / 2).collect()),
        ("malformed", format!("{whole}{whole}")),
        ("malformed", with("more", json!(1))),
        ("malformed", with("key_sets", json!({}))),
        ("malformed", json!({"key_sets": []}).to_string()),
        ("version", with("version", json!(2))),
        ("version", with("version", json!(0))),
        ("too_large", whole.clone() + &" ".repeat(512 * 1024)),
        ("future", at(START + 1)),
        ("future", at(u64::MAX)),
        ("old", at(START - 24 * HOUR - 1)),
        ("old", at(0)),
        ("unknown_authority", document(&[saved(&issuer("x"), START, &keys)]).to_string()),
        ("no_usable_key", of(json!([]))),
        ("no_usable_key", of(json!([{"kty": "oct", "k": "c2VjcmV0"}]))),
        ("no_usable_key", of(json!([foreign]))),
        ("too_many_keys", of(json!(many))),
    ];
    for (outcome, text) in cases {
        stage.put(&text);
        refused(&stage, outcome, &format!("{text:.60}")).await;
    }
    // The last second is still good.
    stage.put(at(START - 24 * HOUR));
    assert_eq!(set(&stage.start_alone()).state, KeySetState::Stale);
}

#[tokio::test(start_paused = true)]
async fn the_age_limit_is_the_configurations() {
    let mut stage = Stage::new();
    stage.config.key_snapshot.as_mut().unwrap().max_age = seconds(HOUR);
    stage.put(good().to_string());
    assert_eq!(set(&stage.start_alone()).state, KeySetState::Stale);
    stage.config.key_snapshot.as_mut().unwrap().max_age = seconds(HOUR - 1);
    refused(&stage, "old", "a second too old").await;
}

#[tokio::test(start_paused = true)]
async fn one_bad_set_does_not_spoil_the_others() {
    let stage = Stage::new();
    let keys = json!([key(1, "k1")]);
    let own = issuer(TENANT);
    let sets = [
        saved(&issuer("organizations"), START, &keys),
        saved(&own, START - 1, &keys),
        saved(&own, START, &json!([key(2, "k2")])),
    ];
    stage.put(document(&sets).to_string());
    let broker = stage.start_alone();
    assert_eq!((set(&broker).state, set(&broker).fetched_at), (KeySetState::Stale, START - 1));
    let text = broker.state.metrics.text();
    assert!(text.contains("key_snapshots_total{outcome=\"unknown_authority\"} 2"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn b11_a_file_that_cannot_be_written_stops_nothing_and_leaves_no_half() {
    let stage = Stage::new();
    stage.put(good().to_string());
    // Where the new file would be made something is in the way, as a full disk is.
    let beside = stage.directory.path().join(".keys.json.new");
    fs::create_dir(&beside).unwrap();
    let entra = Entra::new();
    let broker = Broker::with_config(&entra, &stage.config);
    pass(seconds(10)).await;
    assert_eq!(set(&broker).state, KeySetState::Fresh);
    assert!(counted(&broker, "not_written"));
    assert_eq!(fs::read_to_string(stage.file()).unwrap(), good().to_string());
    // What a broker left that was killed while it wrote is in nobody's way.
    fs::remove_dir(&beside).unwrap();
    fs::write(&beside, "{\"version\":1,\"key_s").unwrap();
    pass(seconds(70)).await;
    assert!(counted(&broker, "written"));
    assert!(!beside.exists());
    assert_ne!(fs::read_to_string(stage.file()).unwrap(), good().to_string());
}

#[tokio::test(start_paused = true)]
async fn b11_a_write_that_failed_is_tried_again_before_there_are_newer_keys() {
    let stage = Stage::new();
    let beside = stage.directory.path().join(".keys.json.new");
    fs::create_dir(&beside).unwrap();
    let broker = Broker::with_config(&Entra::new(), &stage.config);
    // At once, then after 1, 2, 4, 8 and 10 minutes, and a pause of 2 s with each.
    for (times, wait) in [(1, 10), (2, 60), (3, 125), (4, 245), (5, 485), (6, 605)] {
        pass(seconds(wait)).await;
        assert!(counted_times(&broker, "not_written", times), "{times}");
    }
    fs::remove_dir(&beside).unwrap();
    pass(seconds(605)).await;
    assert!(counted(&broker, "written"));
    assert_eq!(broker.entra.count(Endpoint::Keys), 1, "there are no newer keys");
    assert!(fs::read_to_string(stage.file()).unwrap().contains("\"k1\""));
}

#[test]
fn the_file_and_the_age_limit_are_checked() {
    let found = |snapshot: &str| {
        let authority = format!("{{cloud: public, tenants: [{TENANT}]}}");
        let text = format!("{{authorities: [{authority}], key_snapshot: {snapshot}}}");
        let read = read(&text, &BTreeMap::new());
        read.map(|config| config.key_snapshot.unwrap())
            .map_err(|errors| errors.into_iter().map(|error| error.path).collect::<Vec<_>>())
    };
    let good = found("{file: /var/lib/entra/keys.json}").unwrap();
    assert_eq!(good.max_age, seconds(24 * HOUR));
    let limited = found("{file: /var/lib/entra/keys.json, max_age_seconds: 60}").unwrap();
    assert_eq!(limited.max_age, seconds(60));
    for (snapshot, path) in [
        ("{}", "key_snapshot.file"),
        ("{max_age_seconds: 60}", "key_snapshot.file"),
        ("{file: keys.json}", "key_snapshot.file"),
        ("{file: /var/lib/entra/}", "key_snapshot.file"),
        ("{file: /keys.json, max_age_seconds: 0}", "key_snapshot.max_age_seconds"),
        ("{file: /keys.json, max_age_seconds: 86401}", "key_snapshot.max_age_seconds"),
        ("{file: /keys.json, max_age_seconds: -1}", "key_snapshot.max_age_seconds"),
        ("{file: /keys.json, mode: 0600}", "key_snapshot.mode"),
    ] {
        assert_eq!(found(snapshot), Err(vec![path.to_owned()]), "{snapshot}");
    }
    // That the directory is there, is told before the broker runs: it is not made.
    let directory = tempfile::tempdir().unwrap();
    let place = |file: &str| {
        let file = directory.path().join(file);
        KeySnapshot { file, max_age: seconds(60) }.has_its_place()
    };
    place("keys.json").unwrap();
    assert_eq!(place("missing/keys.json").unwrap_err().path, "key_snapshot.file");
}
