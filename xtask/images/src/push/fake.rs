//! A registry with a token service, for the tests: it refuses what a real one refuses.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use crate::{address::Address, oci};

/// How a registry differs from others.
#[derive(Clone, Default)]
pub(crate) struct Kind {
    /// Keeps the list of artifacts itself.
    pub(crate) lists_artifacts: bool,
    /// Serves another manifest than the one that was pushed.
    pub(crate) lies: bool,
    /// Where it says that its token service is, if not here.
    pub(crate) realm: Option<String>,
}

/// A running registry.
pub(crate) struct Fake {
    pub(crate) address: Address,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    requests: Vec<String>,
    blobs: BTreeMap<String, Vec<u8>>,
    manifests: BTreeMap<String, Vec<u8>>,
}

struct Request {
    method: String,
    path: String,
    query: String,
    authorization: String,
    body: Vec<u8>,
}

type Answer = (u16, Vec<String>, Vec<u8>);

impl Fake {
    pub(crate) fn start(kind: Kind) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let (own, name) = (state.clone(), host.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), &name, &kind, &own);
            }
        });
        Self { address: Address::parse(&format!("{host}/team")).unwrap(), state }
    }

    /// Method and path of every request so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }

    /// `REPOSITORY REFERENCE` of every manifest that it holds.
    pub(crate) fn manifests(&self) -> Vec<String> {
        self.state.lock().unwrap().manifests.keys().cloned().collect()
    }
}

/// One request a connection; a TLS greeting is answered in plain, as a plain registry does.
fn serve(mut stream: TcpStream, host: &str, kind: &Kind, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (status, headers, body) = match reader.fill_buf().unwrap().first() {
        Some(b'A'..=b'Z') => {
            let request = read(&mut reader);
            answer(&request, host, kind, &mut state.lock().unwrap())
        }
        _ => (400, Vec::new(), Vec::new()),
    };
    let mut head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\n");
    for header in headers {
        head.push_str(&format!("{header}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    // The client may have gone: that is its affair.
    let _ = stream.write_all(&[head.into_bytes(), body].concat());
}

fn read(reader: &mut BufReader<TcpStream>) -> Request {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let header = |name: &str| {
        let find = |line: &String| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then(|| value.to_owned())
        };
        lines.iter().find_map(find).unwrap_or_default()
    };
    let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    let mut words = lines[0].split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        authorization: header("authorization"),
        body,
    }
}

fn refused(status: u16, code: &str) -> Answer {
    (status, Vec::new(), format!(r#"{{"errors":[{{"code":"{code}","message":"m"}}]}}"#).into())
}

fn answer(request: &Request, host: &str, kind: &Kind, state: &mut State) -> Answer {
    state.requests.push(format!("{} {}", request.method, request.path));
    if request.path == "/token" {
        return token(request);
    }
    let Some(rest) = request.path.strip_prefix("/v2/") else { return refused(404, "NONE") };
    let challenge = || {
        let realm = kind.realm.clone().unwrap_or_else(|| format!("http://{host}/token"));
        let header = format!("www-authenticate: Bearer realm=\"{realm}\",service=\"fake\"");
        (401, vec![header], br#"{"errors":[{"code":"UNAUTHORIZED","message":"m"}]}"#.to_vec())
    };
    let Some((repository, kind_of, name)) = ["/blobs/", "/manifests/"].iter().find_map(|part| {
        let (repository, name) = rest.split_once(part)?;
        Some((repository, *part, name))
    }) else {
        return challenge();
    };
    if request.authorization != format!("Bearer for-{repository}") {
        return challenge();
    }
    match (&*request.method, kind_of, name) {
        ("HEAD", "/blobs/", _) => {
            let known = state.blobs.contains_key(&format!("{repository} {name}"));
            (if known { 200 } else { 404 }, Vec::new(), Vec::new())
        }
        ("POST", "/blobs/", "uploads/") => {
            let location = format!("location: /v2/{repository}/blobs/uploads/1?state=x");
            (202, vec![location], Vec::new())
        }
        ("PUT", "/blobs/", "uploads/1") => {
            let digest = oci::digest(&request.body);
            let escaped = digest.replace(':', "%3A");
            if request.query != format!("state=x&digest={escaped}") {
                return refused(400, "DIGEST_INVALID");
            }
            state.blobs.insert(format!("{repository} {digest}"), request.body.clone());
            (201, Vec::new(), Vec::new())
        }
        ("PUT", "/manifests/", _) => put_manifest(request, kind, state, repository, name),
        ("GET", "/manifests/", _) => match state.manifests.get(&format!("{repository} {name}")) {
            Some(_) if kind.lies => (200, Vec::new(), b"{}".to_vec()),
            Some(bytes) => (200, Vec::new(), bytes.clone()),
            None => refused(404, "MANIFEST_UNKNOWN"),
        },
        _ => refused(405, "UNSUPPORTED"),
    }
}

/// A manifest is taken only after all that it names.
fn put_manifest(
    request: &Request,
    kind: &Kind,
    state: &mut State,
    repository: &str,
    reference: &str,
) -> Answer {
    let digest = oci::digest(&request.body);
    if reference.starts_with("sha256:") && reference != digest {
        return refused(400, "DIGEST_INVALID");
    }
    let document: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    let named = |member: &str| document[member].as_array().cloned().unwrap_or_default();
    let has = |known: &BTreeMap<String, Vec<u8>>, named: &serde_json::Value| {
        known.contains_key(&format!("{repository} {}", named["digest"].as_str().unwrap()))
    };
    let mut blobs = named("layers");
    blobs.extend(document.get("config").cloned());
    if !blobs.iter().all(|blob| has(&state.blobs, blob)) {
        return refused(400, "MANIFEST_BLOB_UNKNOWN");
    }
    if !named("manifests").iter().all(|manifest| has(&state.manifests, manifest)) {
        return refused(400, "MANIFEST_UNKNOWN");
    }
    for name in [reference, &digest] {
        state.manifests.insert(format!("{repository} {name}"), request.body.clone());
    }
    let listed = kind.lists_artifacts && document.get("subject").is_some();
    let header = listed.then(|| "oci-subject: sha256:x".to_owned());
    (201, header.into_iter().collect(), Vec::new())
}

/// Tokens for `user:password` and for the identity token `identity`, for one repository each.
fn token(request: &Request) -> Answer {
    let by_password =
        request.method == "GET" && request.authorization == "Basic dXNlcjpwYXNzd29yZA==";
    let form = String::from_utf8(request.body.clone()).unwrap();
    let by_identity = request.method == "POST"
        && form.starts_with("grant_type=refresh_token&")
        && form.ends_with("&refresh_token=identity");
    if !by_password && !by_identity {
        return (401, Vec::new(), br#"{"details":"incorrect username or password"}"#.to_vec());
    }
    let asked = if by_password { &request.query } else { &form };
    let scope = asked.split('&').find_map(|pair| pair.strip_prefix("scope=")).unwrap();
    let scope = scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
    let Some(repository) =
        scope.strip_prefix("repository:").and_then(|rest| rest.strip_suffix(":pull,push"))
    else {
        return refused(400, "SCOPE");
    };
    if !asked.contains("service=fake&") {
        return refused(400, "SERVICE");
    }
    let member = if by_password { "token" } else { "access_token" };
    (200, Vec::new(), format!(r#"{{"{member}":"for-{repository}"}}"#).into())
}
