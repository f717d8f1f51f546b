//! The login for a registry, where `docker login` left it.
//!
//! `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`: a helper program for this registry, a
//! helper for all, or the login itself. Nothing here prints a login, and none has a `Debug`.

use std::{
    collections::BTreeMap,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use base64::{
    Engine,
    engine::{DecodePaddingMode, general_purpose},
};
use serde::Deserialize;

/// How Docker names its own registry among the logins.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// What a registry is shown.
pub(crate) enum Login {
    /// Nothing is stored for it.
    None,
    /// A user's name and password.
    Password { user: String, password: String },
    /// What an identity provider gave, to be changed for access tokens (`az acr login`).
    Identity(String),
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: String,
}

#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    identitytoken: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// The login for a host.
pub(crate) fn find(host: &str) -> Result<Login> {
    let folder = std::env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker")));
    let Some(path) = folder.map(|folder| folder.join("config.json")) else {
        return Ok(Login::None);
    };
    match std::fs::read(&path) {
        Ok(text) => look_up(host, &text, &helper).with_context(|| path.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Login::None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Asks a helper by its name for a server; `None` if it has no login for that.
type Helper<'a> = &'a dyn Fn(&str, &str) -> Result<Option<Vec<u8>>>;

fn look_up(host: &str, config: &[u8], helper: Helper<'_>) -> Result<Login> {
    // serde's message could quote the text, so only the place is passed on.
    let config: Config = serde_json::from_slice(config).map_err(|error| {
        anyhow::anyhow!("not as Docker writes it, line {} column {}", error.line(), error.column())
    })?;
    let server = match host {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
        host => host,
    };
    let named = config.cred_helpers.get(server).unwrap_or(&config.creds_store);
    if !named.is_empty()
        && let Some(answer) = helper(named, server)?
    {
        let answer: Answer = serde_json::from_slice(&answer).map_err(|_malformed| {
            anyhow::anyhow!("docker-credential-{named} gave an answer that cannot be read")
        })?;
        return Ok(match &*answer.username {
            "<token>" => Login::Identity(answer.secret),
            _ => Login::Password { user: answer.username, password: answer.secret },
        });
    }
    let entry = config.auths.get(server).or_else(|| {
        let same = |(key, _): &(&String, &Entry)| host_of(key) == host_of(server);
        config.auths.iter().find(same).map(|(_, entry)| entry)
    });
    match entry {
        Some(entry) if !entry.identitytoken.is_empty() => {
            Ok(Login::Identity(entry.identitytoken.clone()))
        }
        Some(entry) if !entry.auth.is_empty() => decode(&entry.auth),
        _ => Ok(Login::None),
    }
}

/// Keys are hosts, and in older files URLs.
fn host_of(key: &str) -> &str {
    let host = key.split_once("://").map_or(key, |(_, rest)| rest);
    host.split('/').next().unwrap_or(host)
}

fn decode(auth: &str) -> Result<Login> {
    let config = general_purpose::GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = general_purpose::GeneralPurpose::new(&base64::alphabet::STANDARD, config);
    let text = engine.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match text.as_deref().and_then(|text| text.split_once(':')) {
        Some((user, password)) => Ok(Login::Password {
            user: user.to_owned(),
            password: password.trim_end_matches('\0').to_owned(),
        }),
        None => bail!("the login that is stored there cannot be read: log in again"),
    }
}

/// Runs `docker-credential-NAME get`, the server on its input.
fn helper(name: &str, server: &str) -> Result<Option<Vec<u8>>> {
    let program = format!("docker-credential-{name}");
    if !name.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter)) {
        bail!("`{name}` is no name of a credential helper");
    }
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    // Dropped at the end of the statement: the helper reads to the end.
    child.stdin.take().context("no pipe")?.write_all(server.as_bytes())?;
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(Some(output.stdout));
    }
    // The protocol has no other way to say that there is none.
    if String::from_utf8_lossy(&output.stdout).contains("credentials not found") {
        return Ok(None);
    }
    bail!("{program} failed: {}", output.status);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Helpers that know one login each.
    fn helpers(name: &str, server: &str) -> Result<Option<Vec<u8>>> {
        Ok(match (name, server) {
            ("one", "a.example") => Some(br#"{"Username":"helped","Secret":"s1"}"#.to_vec()),
            ("all", "b.example") => Some(br#"{"Username":"<token>","Secret":"s2"}"#.to_vec()),
            ("all", DOCKER_HUB) => Some(br#"{"Username":"hub","Secret":"s3"}"#.to_vec()),
            ("broken", _) => Some(b"secret nonsense".to_vec()),
            _ => None,
        })
    }

    fn found(host: &str, config: &str) -> String {
        match look_up(host, config.as_bytes(), &helpers) {
            Ok(Login::None) => "none".to_owned(),
            Ok(Login::Password { user, password }) => format!("{user}:{password}"),
            Ok(Login::Identity(token)) => format!("identity {token}"),
            Err(error) => format!("error: {error:#}"),
        }
    }

    #[test]
    fn a_stored_login_is_found_under_every_spelling_of_its_host() {
        // `user:pass:word`
        for key in ["r.example:5000", "https://r.example:5000", "http://r.example:5000/v2/"] {
            let config = format!(r#"{{"auths":{{"{key}":{{"auth":"dXNlcjpwYXNzOndvcmQ="}}}}}}"#);
            assert_eq!(found("r.example:5000", &config), "user:pass:word", "{key}");
            assert_eq!(found("r.example", &config), "none", "{key}");
        }
        let config = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dXNlcjpwYXNz"}}}"#;
        assert_eq!(found("docker.io", config), "user:pass");
    }

    #[test]
    fn a_helper_for_the_registry_comes_before_the_one_for_all() {
        let config = r#"{"credHelpers":{"a.example":"one"},"credsStore":"all",
                         "auths":{"c.example":{"auth":"dXNlcjpwYXNz"},"b.example":{}}}"#;
        assert_eq!(found("a.example", config), "helped:s1");
        assert_eq!(found("b.example", config), "identity s2");
        assert_eq!(found("docker.io", config), "hub:s3");
        assert_eq!(found("c.example", config), "user:pass");
        assert_eq!(found("d.example", config), "none");
    }

    #[test]
    fn an_identity_token_comes_before_the_name_beside_it() {
        let config = r#"{"auths":{"x.azurecr.io":{"auth":"MDowOg==","identitytoken":"it"}}}"#;
        assert_eq!(found("x.azurecr.io", config), "identity it");
    }

    #[test]
    fn what_cannot_be_read_is_an_error_without_the_secret() {
        for config in [
            r#"{"auths":{"a":{"auth":"secret!"}}}"#,
            r#"{"auths":{"a":"secret"}}"#,
            r#"{"credsStore":"broken"}"#,
            "secret",
        ] {
            let found = found("a", config);
            assert!(found.starts_with("error: ") && !found.contains("secret"), "{found}");
        }
        assert!(helper("../x", "a").is_err());
    }
}
