//! Whose tokens are accepted: cloud, tenants, audiences and clocks, read alike in both directions.

use super::{Errors, inbound::one_of};
use crate::{
    claims::{Audiences, Tenants},
    cloud::{Cloud, ORGANIZATIONS, is_tenant_id},
};

/// Tolerated difference of clocks where none is configured, in seconds.
const DEFAULT_SKEW_SECONDS: u64 = 60;
/// Most that may be configured: beyond it an expired token is simply accepted.
const MAX_SKEW_SECONDS: u64 = 300;

/// Which tokens of callers are accepted, whatever rules say of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Whose tokens.
    pub cloud: Cloud,
    /// From which tenants.
    pub tenants: Tenants,
    /// The tenant that a client without a token is sent to.
    pub challenge_tenant: String,
    /// For which API.
    pub audiences: Audiences,
    /// Tolerated difference of clocks, in seconds.
    pub clock_skew: u64,
}

impl Accepted {
    /// Tokens of these tenants for these audiences, with the usual tolerance.
    pub fn new(cloud: Cloud, tenants: Tenants, audiences: Audiences) -> Self {
        let challenge_tenant = challenge_tenant(&tenants);
        Self { cloud, tenants, challenge_tenant, audiences, clock_skew: DEFAULT_SKEW_SECONDS }
    }

    /// Where a client without a token gets one.
    pub fn authorization_uri(&self) -> String {
        self.cloud.authorization_uri(&self.challenge_tenant)
    }
}

/// The members as they are written.
pub(super) struct RawAccepted {
    pub(super) cloud: Option<String>,
    pub(super) tenants: Option<Vec<Option<String>>>,
    pub(super) audiences: Option<Vec<Option<String>>>,
    pub(super) clock_skew_seconds: Option<u64>,
}

impl RawAccepted {
    /// Where anything is wrong with it, `errors` says so, and nobody is accepted.
    pub(super) fn validate(self, errors: &mut Errors) -> Accepted {
        let cloud = self.cloud.as_deref();
        let cloud = one_of(errors, "cloud", cloud, Cloud::Public, Cloud::from_name);
        let clock_skew = self.clock_skew_seconds.unwrap_or(DEFAULT_SKEW_SECONDS);
        if clock_skew > MAX_SKEW_SECONDS {
            errors.add("clock_skew_seconds", format!("expected 0 to {MAX_SKEW_SECONDS}"));
        }
        let tenants = tenants(errors, self.tenants);
        let audiences = self.audiences;
        let audiences = errors.required("audiences", audiences, "the client id or URIs of the API");
        // `*` and the like would be compared literally and never match: surely meant otherwise.
        let audience = |text: &str| {
            let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
            (plain && !text.contains(['*', '{', '}'])).then(|| text.to_owned())
        };
        let audiences = errors.list("audiences", audiences, "an exact audience", &audience);
        Accepted { clock_skew, ..Accepted::new(cloud, tenants, Audiences(audiences)) }
    }

    /// Where nothing is verified: a member that is there seems to do something and does not.
    pub(super) fn refuse(&self, errors: &mut Errors) {
        for (key, is_there) in [
            ("cloud", self.cloud.is_some()),
            ("tenants", self.tenants.is_some()),
            ("audiences", self.audiences.is_some()),
            ("clock_skew_seconds", self.clock_skew_seconds.is_some()),
        ] {
            if is_there {
                errors.add(key, "is only for rules with `on_behalf_of`: no others verify a token");
            }
        }
    }
}

/// The only tenant, or whichever the client's user is of.
fn challenge_tenant(tenants: &Tenants) -> String {
    let only = match tenants {
        Tenants::Listed(listed) if listed.len() == 1 => listed.iter().next(),
        Tenants::Listed(_) | Tenants::Any => None,
    };
    only.map_or(ORGANIZATIONS, String::as_str).to_owned()
}

fn tenants(errors: &mut Errors, raw: Option<Vec<Option<String>>>) -> Tenants {
    const EXPECTED: &str = "tenant ids as lower-case GUIDs, or `organizations` alone";
    let raw = errors.required("tenants", raw, EXPECTED);
    if let Some([Some(only)]) = raw.as_deref()
        && only == ORGANIZATIONS
    {
        return Tenants::Any;
    }
    let listed =
        errors.list("tenants", raw, EXPECTED, &|text| is_tenant_id(text).then(|| text.to_owned()));
    Tenants::Listed(listed.into_iter().collect())
}
