//! Trust in issuers outside Entra, and what the callers who use it did.
//!
//! The real Entra fetches an issuer's key set from its address; the fake is given the text that
//! stands there, such as an API server's `/openid/v1/jwks`, and again when it changes. It is read
//! strictly: a set that is not understood whole is an error, never a set with fewer keys.

use std::{collections::HashSet, fmt, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use tokio_rustls::rustls::ServerConfig;

use super::{Call, Cloud, FakeEntra, directory::ExternalIssuer};

/// Smallest modulus of an RS256 key (RFC 7518 §3.3), and the largest that anybody uses.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// Why a key set is not trusted; keys are counted from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySetError {
    /// Not an object with an array `keys`.
    NoKeySet,
    /// There is no key in it.
    Empty,
    /// The issuer is not an `https` URL without query and fragment.
    Issuer,
    /// A key without an id.
    NoKeyId(usize),
    /// An id that an earlier key has.
    SameKeyId(usize),
    /// A key that is not an RSA key for RS256 signatures.
    NotRs256(usize),
    /// A private key, which no issuer publishes.
    Private(usize),
    /// A modulus or exponent that is no base64url, too short, or no RSA key.
    Numbers(usize),
}

impl fmt::Display for KeySetError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, what) = match self {
            Self::NoKeySet => return formatter.write_str("no JSON object with an array `keys`"),
            Self::Empty => return formatter.write_str("the key set has no key"),
            Self::Issuer => {
                return formatter
                    .write_str("the issuer is no https URL without query and fragment");
            }
            Self::NoKeyId(at) => (at, "has no `kid`"),
            Self::SameKeyId(at) => (at, "has the `kid` of an earlier one"),
            Self::NotRs256(at) => (at, "is no RSA key for RS256 signatures"),
            Self::Private(at) => (at, "is a private key"),
            Self::Numbers(at) => (at, "has no usable `n` and `e`"),
        };
        write!(formatter, "keys[{at}] {what}")
    }
}

impl std::error::Error for KeySetError {}

/// An issuer with the keys of its JSON Web Key Set (RFC 7517 §5).
pub fn read_key_set(issuer: &str, text: &str) -> Result<ExternalIssuer, KeySetError> {
    if !issuer.starts_with("https://") || issuer.contains(['?', '#', ' ']) {
        return Err(KeySetError::Issuer);
    }
    let set: Value = serde_json::from_str(text).map_err(|_| KeySetError::NoKeySet)?;
    let keys = set["keys"].as_array().ok_or(KeySetError::NoKeySet)?;
    if keys.is_empty() {
        return Err(KeySetError::Empty);
    }
    let mut seen = HashSet::new();
    let mut read = Vec::new();
    for (at, key) in keys.iter().enumerate() {
        let kid = key["kid"].as_str().filter(|kid| !kid.is_empty());
        let kid = kid.ok_or(KeySetError::NoKeyId(at))?.to_owned();
        if !seen.insert(kid.clone()) {
            return Err(KeySetError::SameKeyId(at));
        }
        let is = |name: &str, wanted: &str| key[name].as_str() == Some(wanted);
        let may_be = |name: &str, wanted: &str| key[name].is_null() || is(name, wanted);
        if !is("kty", "RSA") || !may_be("alg", "RS256") || !may_be("use", "sig") {
            return Err(KeySetError::NotRs256(at));
        }
        if !key["d"].is_null() {
            return Err(KeySetError::Private(at));
        }
        read.push((kid, public_key(key).ok_or(KeySetError::Numbers(at))?));
    }
    Ok(ExternalIssuer { issuer: issuer.to_owned(), keys: read })
}

fn public_key(key: &Value) -> Option<Vec<u8>> {
    let number = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str()?).ok();
    let modulus = number("n").filter(|n| MODULUS_BYTES.contains(&n.len()))?;
    tokens::public_der_of(&modulus, &number("e")?)
}

/// How Kubernetes names a service account in `sub`.
pub fn service_account(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

impl FakeEntra {
    /// Trusts an issuer with the keys of its key set from the next request on; keys that it had
    /// before and that the set does not have are gone. A set with an error changes nothing.
    pub fn trust_issuer(&self, issuer: &str, key_set: &str) -> Result<(), KeySetError> {
        let issuer = read_key_set(issuer, key_set)?;
        self.directory(|directory| directory.publish(issuer));
        Ok(())
    }

    /// Lets a service account of an issuer be an application, besides whoever else is.
    ///
    /// # Panics
    /// When the tenant has no such application: that is a mistake of the test.
    pub fn federate(&self, tenant: &str, client: &str, issuer: &str, subject: &str) {
        self.directory(|directory| {
            let known = directory.application_mut(tenant, client);
            let known = known.expect("an application of the tenant");
            let audience = Cloud::Public.exchange_audience();
            *known = known.clone().federated(issuer, subject, audience);
        });
    }

    /// The calls that brought an assertion of this subject, refused or not.
    pub fn calls_of_subject(&self, subject: &str) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.subject() == Some(subject)).collect()
    }

    /// Blocks until a call is what a function looks for; false when none came in time.
    pub fn wait_for_call(&self, patience: Duration, matches: impl Fn(&Call) -> bool) -> bool {
        self.state.calls.wait_within(patience, 1, matches)
    }
}

/// Certificates for servers of the test's own, such as an upstream that answers as
/// `graph.microsoft.com`.
impl FakeEntra {
    /// TLS that knows one host name and refuses a handshake for any other.
    pub fn tls_server(&self, host: &str) -> ServerConfig {
        self.tls_server_of(&[host])
    }

    /// TLS that knows several host names, each with a certificate of its own.
    pub fn tls_server_of(&self, hosts: &[&str]) -> ServerConfig {
        self.authority.tls_server(hosts).expect("host names for certificates")
    }

    /// TLS that shows the certificate of one host whatever name it is asked for: signed by the
    /// right authority, for the wrong server.
    pub fn tls_server_for_any_name(&self, host: &str) -> ServerConfig {
        self.authority.tls_server_for_any_name(host).expect("a host name for a certificate")
    }
}
