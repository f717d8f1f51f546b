//! The pod's token of its service account: what the cluster says that the pod is.
//!
//! Verified as a stranger's token would be (RFC 7519, RFC 8725), though it comes from a volume that
//! only the kubelet writes: whoever gets another file there gets nothing by it. Another pod's token
//! is as well signed as this pod's, so its claims are compared with what the kubelet says of this pod
//! in the environment. Kubernetes' claims are described at
//! kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin.

use std::collections::BTreeMap;

use policy::{
    json::{self, Node, Object},
    jwt::{self, MAX_TOKEN_BYTES},
};

use super::keys::{Algorithm, ClusterKey};
use crate::config::environment::Environment;

/// By how much the node's clock may be behind the API server's, in seconds. A token's end is taken
/// at its word: the kubelet renews it long before.
const SKEW_SECONDS: u64 = 60;
const SUBJECT: &str = "system:serviceaccount:";
/// Where Kubernetes' own claims are.
const OWN: &str = "kubernetes.io";
/// The variable without which it is not known which pod this is (Downward API, `metadata.uid`).
const POD_UID: &str = "POD_UID";

/// What a token must say of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The cluster.
    pub issuer: String,
    /// Us, and nobody else.
    pub audience: String,
    /// The pod.
    pub this_pod: ThisPod,
}

/// What the environment says of the pod that this is, by variable. Nothing where there is no
/// `POD_UID`: a token of any pod is this one's then.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ThisPod(BTreeMap<&'static str, String>);

impl ThisPod {
    /// What the injection template has the kubelet write.
    pub fn from_environment(environment: &dyn Environment) -> Self {
        let names = [POD_UID, "POD_NAME", "POD_NAMESPACE", "SERVICE_ACCOUNT"];
        let said = |name| Some((name, environment.variable(name)?));
        let all: BTreeMap<_, _> = names.into_iter().filter_map(said).collect();
        Self(if all.contains_key(POD_UID) { all } else { BTreeMap::new() })
    }

    /// Whether these claims are this pod's, or the variable that says something else.
    fn is(&self, claims: &Claims) -> Result<(), NotProven> {
        for (&variable, said) in &self.0 {
            let found = match variable {
                POD_UID => &claims.uid,
                "POD_NAME" => &claims.pod,
                "POD_NAMESPACE" => &claims.namespace,
                _ => &claims.service_account,
            };
            if found != said {
                return Err(NotProven::NotThisPod(variable));
            }
        }
        Ok(())
    }
}

/// Whose token it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's service account.
    pub service_account: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's unique id.
    pub uid: String,
}

/// Why it cannot be told what the pod is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotProven {
    /// The broker has only just started, or was just told to ask.
    NotYet,
    /// The token cannot be read.
    Unreadable(String),
    /// There are no keys to verify with, for this reason.
    NoKeys(String),
    /// The cluster's keys that are held do not have the token's.
    UnknownKey,
    /// The token has ended.
    Expired,
    /// The token begins in the future.
    NotYetValid,
    /// It is no token, or not one that can be read in one way only.
    Malformed,
    /// It is signed in another way than the two that there are.
    Algorithm,
    /// The cluster's key has not signed it.
    Signature,
    /// It is another cluster's.
    Issuer,
    /// It is for somebody else, or for somebody else as well.
    Audience,
    /// It is not a service account's, or says two things of whose it is.
    Subject,
    /// It is bound to no pod: somebody made it by hand.
    NotOfAPod,
    /// It is another pod's, by what this variable says of this one.
    NotThisPod(&'static str),
}

impl NotProven {
    /// Whether the token is wrong, rather than something missing that comes by itself.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::NotYet
            | Self::Unreadable(_)
            | Self::NoKeys(_)
            | Self::UnknownKey
            | Self::Expired
            | Self::NotYetValid => false,
            Self::Malformed
            | Self::Algorithm
            | Self::Signature
            | Self::Issuer
            | Self::Audience
            | Self::Subject
            | Self::NotOfAPod
            | Self::NotThisPod(_) => true,
        }
    }
}

impl std::fmt::Display for NotProven {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotYet => formatter.write_str("the pod's token has not been verified yet"),
            Self::Unreadable(reason) => write!(formatter, "the pod's token: {reason}"),
            Self::NoKeys(reason) => write!(formatter, "no keys of the cluster: {reason}"),
            Self::UnknownKey => {
                formatter.write_str("the cluster's keys do not have the one of the pod's token")
            }
            Self::Expired => formatter.write_str("the pod's token has ended"),
            Self::NotYetValid => formatter.write_str("the pod's token begins in the future"),
            Self::Malformed => formatter.write_str("the pod's token is malformed"),
            Self::Algorithm => {
                formatter.write_str("the pod's token is signed by neither RS256 nor ES256")
            }
            Self::Signature => {
                formatter.write_str("the pod's token is not signed by the cluster's key")
            }
            Self::Issuer => formatter.write_str("the pod's token is not of `pod.cluster.issuer`"),
            Self::Audience => {
                formatter.write_str("the pod's token is not for `pod.audience` alone")
            }
            Self::Subject => formatter.write_str("the pod's token is not a service account's"),
            Self::NotOfAPod => formatter.write_str("the pod's token is bound to no pod"),
            Self::NotThisPod(variable) => {
                write!(formatter, "the pod's token is another pod's: {variable} says otherwise")
            }
        }
    }
}

impl std::error::Error for NotProven {}

/// Whose token `text` is, at `unix_now`.
pub fn verify(
    text: &str,
    expected: &Expected,
    keys: &[ClusterKey],
    unix_now: u64,
) -> Result<Claims, NotProven> {
    if text.len() > MAX_TOKEN_BYTES {
        return Err(NotProven::Malformed);
    }
    let (signed, signature) = text.rsplit_once('.').ok_or(NotProven::Malformed)?;
    let (header, payload) = signed.split_once('.').ok_or(NotProven::Malformed)?;
    let [header, payload, signature] = [header, payload, signature].map(decode);
    let header = header?;
    let (algorithm, key_id) = read_header(&header)?;
    let key = keys.iter().find(|key| key.id() == key_id).ok_or(NotProven::UnknownKey)?;
    if !key.verifies(algorithm, signed.as_bytes(), &signature?) {
        return Err(NotProven::Signature);
    }
    let payload = payload?;
    let claims = json::object(&payload).ok_or(NotProven::Malformed)?;
    read_claims(&claims, expected, unix_now)
}

fn decode(part: &str) -> Result<Vec<u8>, NotProven> {
    jwt::decode(part.as_bytes()).map_err(|_malformed| NotProven::Malformed)
}

/// The header says which key to try, and must say nothing that is not understood here.
fn read_header(header: &[u8]) -> Result<(Algorithm, String), NotProven> {
    let header = json::object(header).ok_or(NotProven::Malformed)?;
    let text = |name| header.get(name).and_then(Node::text);
    let algorithm = text("alg").and_then(Algorithm::from_name).ok_or(NotProven::Algorithm)?;
    // The API server writes these and no others.
    let known = header.names().all(|name| ["alg", "kid", "typ"].contains(&name));
    if !known || header.get("typ").is_some_and(|kind| kind.text() != Some("JWT")) {
        return Err(NotProven::Malformed);
    }
    let key_id = text("kid").filter(|id| !id.is_empty()).ok_or(NotProven::Malformed)?;
    Ok((algorithm, key_id.to_owned()))
}

fn read_claims(
    claims: &Object<'_>,
    expected: &Expected,
    unix_now: u64,
) -> Result<Claims, NotProven> {
    let text = |name| claims.get(name).and_then(Node::text);
    if text("iss") != Some(&expected.issuer) {
        return Err(NotProven::Issuer);
    }
    // One text or a list of them (RFC 7519 §4.1.3). For somebody else as well means that this one
    // has seen it, and can show it.
    let for_us = match claims.get("aud") {
        Some(audience @ Node::List(_)) => {
            audience.texts().is_some_and(|all| all == [expected.audience.as_str()])
        }
        audience => audience.and_then(Node::text) == Some(&expected.audience),
    };
    if !for_us {
        return Err(NotProven::Audience);
    }
    let time = |name| match claims.get(name) {
        Some(Node::Unsigned(seconds)) => Ok(*seconds),
        _ => Err(NotProven::Malformed),
    };
    let (ends, begins) = (time("exp")?, time("nbf")?);
    if ends <= unix_now {
        return Err(NotProven::Expired);
    }
    if begins > unix_now.saturating_add(SKEW_SECONDS) {
        return Err(NotProven::NotYetValid);
    }
    let Some(Node::Object(own)) = claims.get(OWN) else { return Err(NotProven::Subject) };
    let namespace = own.get("namespace").and_then(Node::text).ok_or(NotProven::Subject)?;
    let account = member(own, "serviceaccount", "name").ok_or(NotProven::Subject)?;
    // Two places say it. They are one server's words: where they differ, it is not its token.
    if text("sub") != Some(format!("{SUBJECT}{namespace}:{account}").as_str())
        || !super::names::is_namespace(namespace)
        || !super::names::is_service_account(account)
    {
        return Err(NotProven::Subject);
    }
    let (Some(pod), Some(uid)) = (member(own, "pod", "name"), member(own, "pod", "uid")) else {
        return Err(NotProven::NotOfAPod);
    };
    let claims = Claims {
        namespace: namespace.to_owned(),
        service_account: account.to_owned(),
        pod: pod.to_owned(),
        uid: uid.to_owned(),
    };
    expected.this_pod.is(&claims).map(|()| claims)
}

fn member<'a>(own: &'a Object<'_>, object: &str, name: &str) -> Option<&'a str> {
    let Some(Node::Object(object)) = own.get(object) else { return None };
    object.get(name).and_then(Node::text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
