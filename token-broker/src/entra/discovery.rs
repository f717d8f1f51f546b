//! Where an authority's keys are, and what may be taken as its keys
//! (OpenID Connect Discovery 1.0 §4, learn.microsoft.com/entra/identity-platform/v2-protocols-oidc).
//!
//! Everything in an answer must fit what the configuration expects: the issuer exactly, the keys
//! on the same host. So an answer can change which keys there are, never where they come from.

use contract::{
    Jwk, Secret,
    route::{MAX_KEY_SET_BYTES, MAX_KEYS},
};
use hyper::{
    StatusCode,
    http::{Request, Uri, header},
};
use policy::{cloud::Cloud, keys::TrustedKey};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    config::Authority,
    https::{Transport, TransportFailure, login_uri},
};

/// Why an authority's answer gives no new keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoKeys {
    /// No answer.
    Transport(TransportFailure),
    /// An answer other than 200; redirects are not followed.
    Status(u16),
    /// Not the JSON that it should be.
    Malformed,
    /// Another issuer than the configured authority's.
    Issuer,
    /// The keys are not on the authority's own host, over https.
    KeysUri,
    /// More keys than a set may hold.
    TooManyKeys,
    /// Not one key that could verify a token.
    NoUsableKey,
}

impl NoKeys {
    /// A word for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Transport(TransportFailure::TooLarge) => "too_large",
            Self::Transport(_) => "unreachable",
            Self::Status(_) => "status",
            Self::Malformed => "malformed",
            Self::Issuer => "issuer",
            Self::KeysUri => "keys_uri",
            Self::TooManyKeys => "too_many_keys",
            Self::NoUsableKey => "no_usable_key",
        }
    }
}

impl std::fmt::Display for NoKeys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Transport(failed) => write!(formatter, "{failed}"),
            Self::Status(status) => write!(formatter, "answered with status {status}"),
            Self::Malformed => formatter.write_str("the answer is not what it should be"),
            Self::Issuer => formatter.write_str("the metadata names another issuer"),
            Self::KeysUri => formatter.write_str("the metadata leads to another host for the keys"),
            Self::TooManyKeys => write!(formatter, "more than {MAX_KEYS} keys"),
            Self::NoUsableKey => formatter.write_str("no usable key in the set"),
        }
    }
}

/// Fetches the keys of an authority: its metadata, then the set that this names.
pub async fn fetch(transport: &dyn Transport, authority: &Authority) -> Result<Vec<Jwk>, NoKeys> {
    let path = format!("/{}/v2.0/.well-known/openid-configuration", authority.tenant);
    let uri = login_uri(authority.cloud.login_host(), &path).map_err(|_odd| NoKeys::Malformed)?;
    let metadata = metadata(&get(transport, uri).await?, authority)?;
    keys(&get(transport, metadata.keys_uri).await?, metadata.instance.as_deref())
}

async fn get(transport: &dyn Transport, uri: Uri) -> Result<zeroize::Zeroizing<Vec<u8>>, NoKeys> {
    let request = Request::get(uri)
        .header(header::ACCEPT, "application/json")
        .body(Secret::new(String::new()))
        .map_err(|_odd| NoKeys::Malformed)?;
    let answer = transport.send(request, MAX_KEY_SET_BYTES).await.map_err(NoKeys::Transport)?;
    if answer.status != StatusCode::OK {
        return Err(NoKeys::Status(answer.status.as_u16()));
    }
    Ok(answer.body)
}

#[derive(Deserialize)]
struct MetadataAnswer {
    issuer: String,
    jwks_uri: String,
    cloud_instance_name: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Metadata {
    keys_uri: Uri,
    instance: Option<String>,
}

fn metadata(body: &[u8], authority: &Authority) -> Result<Metadata, NoKeys> {
    let answer: MetadataAnswer =
        serde_json::from_slice(body).map_err(|_malformed| NoKeys::Malformed)?;
    if answer.issuer != authority.issuer() {
        return Err(NoKeys::Issuer);
    }
    let keys_uri = own_uri(&answer.jwks_uri, authority.cloud).ok_or(NoKeys::KeysUri)?;
    Ok(Metadata { keys_uri, instance: answer.cloud_instance_name })
}

/// The URI, if it is https on the login host itself: no user, no port.
fn own_uri(text: &str, cloud: Cloud) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let own = uri.scheme_str() == Some("https")
        && uri.authority().is_some_and(|found| found.as_str() == cloud.login_host());
    own.then_some(uri)
}

#[derive(Deserialize)]
struct KeysAnswer {
    keys: Vec<Value>,
}

fn keys(body: &[u8], instance: Option<&str>) -> Result<Vec<Jwk>, NoKeys> {
    let answer: KeysAnswer =
        serde_json::from_slice(body).map_err(|_malformed| NoKeys::Malformed)?;
    sound(answer.keys, instance)
}

/// The keys of a set, wherever it comes from. Keys of a shape or of a cloud instance that is not
/// ours are left out; the filter judges the others again, against each token.
pub fn sound(keys: Vec<Value>, instance: Option<&str>) -> Result<Vec<Jwk>, NoKeys> {
    if keys.len() > MAX_KEYS {
        return Err(NoKeys::TooManyKeys);
    }
    let keys: Vec<Jwk> = keys
        .into_iter()
        .filter_map(|key| serde_json::from_value::<Jwk>(key).ok())
        .filter(|key| match (key.cloud_instance_name.as_deref(), instance) {
            (Some(of_key), Some(of_metadata)) => of_key == of_metadata,
            _ => true,
        })
        .collect();
    if keys.iter().all(|key| TrustedKey::from_jwk(key).is_err()) {
        return Err(NoKeys::NoUsableKey);
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokens::SigningKey;

    use super::*;

    const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";

    fn authority(tenant: &str) -> Authority {
        Authority { cloud: Cloud::Public, tenant: tenant.to_owned() }
    }

    fn read(tenant: &str, issuer: &str, jwks_uri: &str) -> Result<String, NoKeys> {
        let body = json!({"issuer": issuer, "jwks_uri": jwks_uri}).to_string();
        metadata(body.as_bytes(), &authority(tenant)).map(|found| found.keys_uri.to_string())
    }

    #[test]
    fn k09_only_the_expected_issuer_is_taken() {
        let keys = "https://login.microsoftonline.com/common/discovery/v2.0/keys";
        let own = format!("https://login.microsoftonline.com/{TENANT}/v2.0");
        let template = "https://login.microsoftonline.com/{tenantid}/v2.0";
        assert_eq!(read(TENANT, &own, keys).as_deref(), Ok(keys));
        assert_eq!(read("organizations", template, keys).as_deref(), Ok(keys));
        for (tenant, issuer) in [
            (TENANT, template.to_owned()),
            ("organizations", own.clone()),
            (TENANT, format!("{own}/")),
            (TENANT, own.replace(".com", ".us")),
            (TENANT, own.to_uppercase()),
            (TENANT, String::new()),
        ] {
            assert_eq!(read(tenant, &issuer, keys), Err(NoKeys::Issuer), "{issuer}");
        }
        for body in ["", "{}", "[]", "<html>", r#"{"issuer":1,"jwks_uri":2}"#] {
            assert_eq!(
                metadata(body.as_bytes(), &authority(TENANT)),
                Err(NoKeys::Malformed),
                "{body}"
            );
        }
    }

    #[test]
    fn k09_keys_come_from_the_authoritys_own_host_only() {
        let own = format!("https://login.microsoftonline.com/{TENANT}/v2.0");
        for uri in [
            "http://login.microsoftonline.com/keys",
            "https://login.microsoftonline.com:443/keys",
            "https://login.microsoftonline.com:8443/keys",
            "https://user@login.microsoftonline.com/keys",
            "https://login.microsoftonline.com@evil.example/keys",
            "https://login.microsoftonline.com.evil.example/keys",
            "https://login.microsoftonline.us/keys",
            "https://169.254.169.254/keys",
            "https://[::1]/keys",
            "https:login.microsoftonline.com/keys",
            "//login.microsoftonline.com/keys",
            "/keys",
            "file:///etc/passwd",
            "",
        ] {
            assert_eq!(read(TENANT, &own, uri), Err(NoKeys::KeysUri), "{uri}");
        }
    }

    #[test]
    fn k08_a_set_without_a_usable_key_is_refused() {
        let good = serde_json::to_value(SigningKey::new(1, "k1", "i").jwk()).unwrap();
        let mut many: Vec<Value> = vec![json!({}); 999];
        many.push(good.clone());
        let full = json!({"keys": many}).to_string();
        many.push(json!({}));
        let overfull = json!({"keys": many}).to_string();
        let cases = [
            (json!({"keys": [good]}).to_string(), Ok(1)),
            (
                json!({"keys": [good, {"kty": "oct", "k": "c2VjcmV0"}, {"kid": 7}]}).to_string(),
                Ok(2),
            ),
            (full, Ok(1_000)),
            (overfull, Err(NoKeys::TooManyKeys)),
            (json!({"keys": []}).to_string(), Err(NoKeys::NoUsableKey)),
            (json!({"keys": [{"kty": "EC"}]}).to_string(), Err(NoKeys::NoUsableKey)),
            (json!({"keys": "x"}).to_string(), Err(NoKeys::Malformed)),
            (json!({}).to_string(), Err(NoKeys::Malformed)),
            ("<html>".to_owned(), Err(NoKeys::Malformed)),
            (format!("{{\"keys\":[{good}"), Err(NoKeys::Malformed)),
        ];
        for (body, expected) in cases {
            let found = keys(body.as_bytes(), Some("microsoftonline.com")).map(|keys| keys.len());
            assert_eq!(found, expected, "{body:.80}");
        }
        let set = json!({"keys": [good]}).to_string();
        assert_eq!(keys(set.as_bytes(), Some("microsoftonline.us")), Err(NoKeys::NoUsableKey));
        assert_eq!(keys(set.as_bytes(), None).map(|keys| keys.len()), Ok(1));
    }
}
