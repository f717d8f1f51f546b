//! The claims of test tokens: what a person writes, completed to what Entra would send.
//!
//! Only what is not written is added, and `null` keeps a claim away, so that every wrong token can
//! be made, too.

use policy::{
    claims::Audiences,
    cloud::{Cloud, is_tenant_id},
    config::Accepted,
    time::UnixTime,
};
use serde_json::{Map, Value, json};

/// How long a test token is good, in seconds.
const LIFETIME_SECONDS: u64 = 3600;
/// Whoever has no other name.
const SOMEBODY: &str = "00000000-0000-4000-8000-00000000000a";
/// Its application.
const SOME_CLIENT: &str = "00000000-0000-4000-8000-00000000000b";

/// What the claims are completed from.
#[derive(Debug)]
pub(crate) struct Issuer {
    /// The cloud that would issue the token.
    pub(crate) cloud: Cloud,
    /// Its tenant, where the claims name none.
    pub(crate) tenant: Option<String>,
    /// The API's names, where the claims name none.
    pub(crate) audiences: Vec<String>,
}

impl Issuer {
    /// One whose tokens a configuration accepts.
    pub(crate) fn of(accepted: &Accepted) -> Self {
        let Audiences(audiences) = &accepted.audiences;
        let tenant =
            is_tenant_id(&accepted.challenge_tenant).then(|| accepted.challenge_tenant.clone());
        Self { cloud: accepted.cloud, tenant, audiences: audiences.clone() }
    }

    /// The claims as a token has them.
    pub(crate) fn complete(&self, written: &Map<String, Value>, now: UnixTime) -> Value {
        let mut claims = written.clone();
        let text = |name: &str| written.get(name).and_then(Value::as_str);
        let v1 = text("ver") == Some("1.0");
        let mut add = |name: &str, value: Option<Value>| {
            if let Some(value) = value
                && !claims.contains_key(name)
            {
                claims.insert(name.to_owned(), value);
            }
        };
        let tenant = text("tid").or(self.tenant.as_deref());
        let application = text("idtyp").map_or(!written.contains_key("scp"), |kind| kind == "app");
        // A v2 token names the API by its client id.
        let audience = self.audiences.iter().find(|audience| v1 || is_tenant_id(audience));
        let start = now.0;
        add("ver", Some(json!("2.0")));
        add("tid", tenant.map(Value::from));
        add(
            "iss",
            tenant.and_then(|tenant| {
                let v2_issuer = || Some(self.cloud.v2_issuer(tenant));
                let issuer = if v1 { self.cloud.v1_issuer(tenant) } else { v2_issuer() };
                issuer.map(Value::from)
            }),
        );
        add("aud", audience.map(|audience| json!(audience)));
        add("iat", Some(json!(start)));
        add("nbf", Some(json!(start)));
        add("exp", Some(json!(now.plus(LIFETIME_SECONDS).0)));
        add("oid", Some(json!(SOMEBODY)));
        let oid = text("oid").unwrap_or(SOMEBODY);
        add("sub", Some(json!(if application { oid } else { "entra-sidecar-test" })));
        add("idtyp", application.then(|| json!("app")));
        let (client, credential) = if v1 { ("appid", "appidacr") } else { ("azp", "azpacr") };
        add(client, Some(json!(SOME_CLIENT)));
        add(credential, Some(json!("1")));
        add("uti", Some(json!("entra-sidecar-test")));
        claims.retain(|_, value| !value.is_null());
        Value::Object(claims)
    }
}
