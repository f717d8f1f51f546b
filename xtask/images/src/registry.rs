//! A registry's HTTP API, as far as a push needs it (OCI distribution specification 1.1).
//!
//! A login goes to the registry and to the token service that it names, over TLS or, with a
//! registry that was reached in plain, to that same host; a token goes to the registry only. No
//! redirect is followed. Errors name the user, never the password.

mod challenge;
mod http;

use std::{cell::RefCell, collections::BTreeMap};

use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;

use self::{
    challenge::{Challenge, encoded},
    http::{Http, Response},
};
use crate::{address::Address, login::Login, oci};

/// A registry that is there and takes the login, as far as that can be told in advance.
pub(crate) struct Registry {
    http: Http,
    /// Scheme, host and port.
    base: String,
    login: Login,
    challenge: Challenge,
    /// The `Authorization` for each repository.
    tokens: RefCell<BTreeMap<String, Option<String>>>,
}

/// One repository of it.
pub(crate) struct Repository<'a> {
    registry: &'a Registry,
    name: String,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Registry {
    /// Reaches a registry and shows it the login.
    pub(crate) fn connect(address: &Address, login: Login) -> Result<Self> {
        let (http, base, answer) = http::reach(address)?;
        let challenge = match answer.status {
            200 => Challenge::None,
            401 => Challenge::read(&answer.all("www-authenticate"))
                .with_context(|| format!("{base} wants a kind of login that is not known here"))?,
            other => bail!("{base}/v2/ answers {other}: is that a registry?"),
        };
        let tokens = RefCell::default();
        let registry = Self { http, base, login, challenge, tokens };
        if matches!(registry.challenge, Challenge::Basic) {
            let header = registry.basic()?;
            let answer = registry.http.get(&registry.url("/v2/"), header.as_deref(), None)?;
            registry.expect(&answer, &[200], "the login")?;
        }
        Ok(registry)
    }

    /// A repository by its name in this registry.
    pub(crate) fn repository(&self, name: &str) -> Repository<'_> {
        Repository { registry: self, name: name.to_owned() }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// The header with user and password; with an identity token there is none.
    fn basic(&self) -> Result<Option<String>> {
        match &self.login {
            Login::None => bail!("{} wants a login and none is stored: `docker login`", self.base),
            Login::Password { user, password } => {
                Ok(Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))))
            }
            Login::Identity(_) => {
                bail!("{} wants a password, and an identity token is stored", self.base)
            }
        }
    }

    /// The `Authorization` for a repository.
    fn authorization(&self, repository: &str) -> Result<Option<String>> {
        if let Some(known) = self.tokens.borrow().get(repository) {
            return Ok(known.clone());
        }
        let header = match &self.challenge {
            Challenge::None => None,
            Challenge::Basic => self.basic()?,
            Challenge::Bearer { realm, service } => {
                Some(format!("Bearer {}", self.token(realm, service, repository)?))
            }
        };
        self.tokens.borrow_mut().insert(repository.to_owned(), header.clone());
        Ok(header)
    }

    /// A token for a repository from the token service that the registry named.
    fn token(&self, realm: &str, service: &str, repository: &str) -> Result<String> {
        if !realm.starts_with("https://") && !self.is_own(realm) {
            bail!("{} names a token service that is not reached by TLS: {realm}", self.base);
        }
        let service = encoded(service);
        let scope = encoded(&format!("repository:{repository}:pull,push"));
        let mark = if realm.contains('?') { '&' } else { '?' };
        let query = format!("{realm}{mark}service={service}&scope={scope}");
        let answer = match &self.login {
            Login::None => self.http.get(&query, None, None)?,
            Login::Password { .. } => self.http.get(&query, self.basic()?.as_deref(), None)?,
            Login::Identity(identity) => {
                let identity = encoded(identity);
                let form = format!(
                    "grant_type=refresh_token&service={service}&scope={scope}\
                     &refresh_token={identity}"
                );
                let kind = "application/x-www-form-urlencoded";
                self.http.send("POST", realm, None, Some(kind), form.as_bytes())?
            }
        };
        self.expect(&answer, &[200], &format!("a token for {repository}"))?;
        let token: Token = serde_json::from_slice(&answer.body)
            .map_err(|_malformed| anyhow::anyhow!("{realm} gave no token that can be read"))?;
        token.token.or(token.access_token).with_context(|| format!("{realm} gave no token"))
    }

    fn is_own(&self, url: &str) -> bool {
        url.strip_prefix(&self.base).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Anything but these statuses is an error with what the registry says about it.
    fn expect(&self, answer: &Response, statuses: &[u16], what: &str) -> Result<()> {
        if statuses.contains(&answer.status) {
            return Ok(());
        }
        let who = match &self.login {
            Login::None => "without a login (none is stored: `docker login`)".to_owned(),
            Login::Password { user, .. } => format!("as {user}"),
            Login::Identity(_) => "with the stored identity token".to_owned(),
        };
        let reason = answer.reason();
        match answer.status {
            401 | 403 => bail!("{} refuses {what} {who}: {reason}", self.base),
            status => bail!("{} answers {status} to {what}: {reason}", self.base),
        }
    }
}

impl Repository<'_> {
    /// Sends a blob unless it is there.
    pub(crate) fn put_blob(&self, digest: &str, bytes: &[u8]) -> Result<()> {
        let authorization = self.registry.authorization(&self.name)?;
        let authorization = authorization.as_deref();
        let (http, what) = (&self.registry.http, format!("{} {digest}", self.name));
        let url = self.registry.url(&format!("/v2/{}/blobs/{digest}", self.name));
        let there = http.send("HEAD", &url, authorization, None, &[])?;
        // A blob that lies in another place is answered with where.
        if matches!(there.status, 200 | 302 | 307) {
            return Ok(());
        }
        let url = self.registry.url(&format!("/v2/{}/blobs/uploads/", self.name));
        let started = http.send("POST", &url, authorization, None, &[])?;
        self.registry.expect(&started, &[202], &format!("an upload to {}", self.name))?;
        let location = started.one("location").context("the registry names no upload location")?;
        let location =
            if location.starts_with('/') { self.registry.url(&location) } else { location };
        let own = self.registry.is_own(&location);
        if !own && !location.starts_with("https://") {
            bail!("{} wants the upload at {location}", self.registry.base);
        }
        let mark = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{mark}digest={}", encoded(digest));
        let kind = Some("application/octet-stream");
        let stored = http.send("PUT", &url, authorization.filter(|_| own), kind, bytes)?;
        self.registry.expect(&stored, &[201], &what)
    }

    /// Sends a manifest under a tag or its digest; whether the registry lists it for its subject.
    pub(crate) fn put_manifest(
        &self,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<bool> {
        let authorization = self.registry.authorization(&self.name)?;
        let url = self.registry.url(&format!("/v2/{}/manifests/{reference}", self.name));
        let kind = Some(media_type);
        let stored = self.registry.http.send("PUT", &url, authorization.as_deref(), kind, bytes)?;
        self.registry.expect(&stored, &[201], &format!("{}:{reference}", self.name))?;
        Ok(stored.one("oci-subject").is_some())
    }

    /// A manifest as the registry serves it, if it does.
    pub(crate) fn manifest(&self, reference: &str) -> Result<Option<Vec<u8>>> {
        let authorization = self.registry.authorization(&self.name)?;
        let url = self.registry.url(&format!("/v2/{}/manifests/{reference}", self.name));
        let accept = format!("{}, {}", oci::MANIFEST, oci::INDEX);
        let answer = self.registry.http.get(&url, authorization.as_deref(), Some(&accept))?;
        if answer.status == 404 {
            return Ok(None);
        }
        self.registry.expect(&answer, &[200], &format!("{}:{reference}", self.name))?;
        Ok(Some(answer.body))
    }
}
