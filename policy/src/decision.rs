//! What was decided about one request, and why: the one record that everything else reads.
//!
//! Filter state, metrics and the reply's status come from here and nowhere else.

use std::rc::Rc;

use crate::workload::Workload;

/// Defines the closed list of reasons once: variant, code, class, meaning.
macro_rules! reasons {
    ($($(#[doc = $meaning:literal])+ $name:ident = $code:literal, $class:ident;)+) => {
        /// Why a request was let through, refused or left alone. One code, one meaning, one status.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[doc = $meaning])+ $name,)+
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The code in access logs, metrics and documents.
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// How a request with this reason is answered.
            pub fn class(self) -> Class {
                match self { $(Self::$name => Class::$class,)+ }
            }
        }
    };
}

/// How a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Goes on.
    Pass,
    /// 400: cannot be read in one way only.
    BadRequest,
    /// 401 without an error code: no token was offered (RFC 6750 §3.1).
    TokenRequired,
    /// 401 `invalid_token`: the token was refused.
    InvalidToken,
    /// 401 `insufficient_claims` with a claims challenge: a stronger sign-in is asked for.
    InsufficientClaims,
    /// 403 `insufficient_scope`: who calls is known and may not.
    Forbidden,
    /// 503 with `Retry-After`: cannot be decided now.
    Unavailable,
}

reasons! {
    /// The token satisfies the rule.
    Allowed = "allowed", Pass;
    /// The rule lets anyone pass.
    AllowedAnyone = "allowed_anyone", Pass;
    /// The path has a form that two servers could read differently.
    PathAmbiguous = "path_ambiguous", BadRequest;
    /// The host is missing or not a host name with an optional port.
    HostMalformed = "host_malformed", BadRequest;
    /// No rule matches method, host and path.
    NoRule = "no_rule", Forbidden;
    /// No Authorization header.
    TokenMissing = "token_missing", TokenRequired;
    /// The Authorization header is not exactly one bearer token.
    AuthorizationMalformed = "authorization_malformed", TokenRequired;
    /// A token stands in the query, where logs and caches keep it.
    TokenInQuery = "token_in_query", TokenRequired;
    /// The token is longer than 16 KiB.
    TokenTooLarge = "token_too_large", InvalidToken;
    /// Not three base64url parts, or header or payload is not strict JSON.
    TokenMalformed = "token_malformed", InvalidToken;
    /// The header's algorithm is not RS256.
    AlgorithmRefused = "algorithm_refused", InvalidToken;
    /// The header has an extension that is not understood, or another type than JWT.
    HeaderRefused = "header_refused", InvalidToken;
    /// The header names no key.
    KeyIdMissing = "key_id_missing", InvalidToken;
    /// A claim is missing or has the wrong type.
    ClaimsMalformed = "claims_malformed", InvalidToken;
    /// The issuer is not the one of the token's tenant, version and cloud.
    IssuerMismatch = "issuer_mismatch", InvalidToken;
    /// The tenant is not in `tenants`.
    TenantRefused = "tenant_refused", InvalidToken;
    /// No key of the tenant's authority has the token's key id.
    KeyUnknown = "key_unknown", InvalidToken;
    /// The key may not sign for the token's tenant.
    KeyIssuerMismatch = "key_issuer_mismatch", InvalidToken;
    /// The signature is not the key's.
    SignatureInvalid = "signature_invalid", InvalidToken;
    /// The audience is not in `audiences`, or a v2 token's is not a client id.
    AudienceMismatch = "audience_mismatch", InvalidToken;
    /// The token has expired.
    TokenExpired = "token_expired", InvalidToken;
    /// The token is not valid yet, or issued in the future.
    TokenNotYetValid = "token_not_yet_valid", InvalidToken;
    /// The token's life is longer than any that Entra issues.
    LifetimeExcessive = "lifetime_excessive", InvalidToken;
    /// Neither a user's nor an application's access token.
    TokenKindUnknown = "token_kind_unknown", InvalidToken;
    /// The rule is for users, the token an application's.
    UserRequired = "user_required", Forbidden;
    /// The rule is for applications, the token a user's.
    ApplicationRequired = "application_required", Forbidden;
    /// None of the rule's scopes is in the token.
    ScopeMissing = "scope_missing", Forbidden;
    /// None of the rule's roles is in the token.
    RoleMissing = "role_missing", Forbidden;
    /// The client application is not among the rule's.
    ClientRefused = "client_refused", Forbidden;
    /// The client authenticated with less than the rule asks for.
    ClientCredentialWeak = "client_credential_weak", Forbidden;
    /// None of the rule's groups is in the token.
    GroupMissing = "group_missing", Forbidden;
    /// The user is in more groups than the token holds, so membership is unknown.
    GroupsOverage = "groups_overage", Forbidden;
    /// The calling workload is not among the rule's.
    CallerWorkloadRefused = "caller_workload_refused", Forbidden;
    /// Only the rule's authentication context is missing, and the client can go and get it.
    StepUpRequired = "step_up_required", InsufficientClaims;
    /// Only the rule's authentication context is missing, and the client cannot get it.
    AuthenticationContextMissing = "authentication_context_missing", Forbidden;
    /// There are no signing keys that are young enough.
    KeysUnavailable = "keys_unavailable", Unavailable;
    /// Too many requests wait for the broker.
    TooManyWaiting = "too_many_waiting", Unavailable;
    /// A token was injected.
    Injected = "injected", Pass;
    /// The cluster names no destination of a rule: no token.
    NoDestination = "no_destination", Pass;
    /// The filter stands on an inbound listener, or with rules for a cluster's chain in a listener's:
    /// no token.
    Misplaced = "misplaced", Pass;
    /// The application's own Authorization header was kept.
    AuthorizationKept = "authorization_kept", Pass;
    /// A connection to the destination had no TLS, or a call to it went to another cluster: no token
    /// until the VM is new.
    InjectionStopped = "injection_stopped", Pass;
    /// The application sent an Authorization header where the rule refuses it.
    AuthorizationRefused = "authorization_refused", Forbidden;
    /// The rule asks on behalf of a user, and the token is an application's own or one that this
    /// filter has injected.
    AssertionRefused = "assertion_refused", InvalidToken;
    /// Entra gives no token on this user's behalf before they have signed in again with more.
    ClaimsRequired = "claims_required", InsufficientClaims;
    /// Entra gives no token on this user's behalf before they have signed in again, or consented.
    SignInRequired = "sign_in_required", InvalidToken;
    /// The broker does not give this identity or scope.
    TokenDenied = "token_denied", Forbidden;
    /// There is no valid token and the broker has none to give now.
    TokenUnavailable = "token_unavailable", Unavailable;
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Why.
    pub reason: Reason,
    /// The rule that decided; none where none matched or the request was refused before.
    pub rule: Option<Rc<str>>,
    /// Whose token, once it is verified.
    pub identity: Option<Rc<Identity>>,
    /// Which workload called, as the record shows it; none where that is not asked for.
    pub workload: Option<Workload>,
    /// The refusal was only observed: the request went on.
    pub observed: bool,
}

impl Decision {
    /// A decision without rule or identity.
    pub fn new(reason: Reason) -> Self {
        Self { reason, rule: None, identity: None, workload: None, observed: false }
    }

    /// Writes the record as access logs show it, in place of what `record` holds: `key=value`
    /// pairs, values without spaces.
    pub fn write_record(&self, record: &mut String) {
        record.clear();
        record.push_str("reason=");
        record.push_str(self.reason.code());
        if self.observed {
            record.push_str(" mode=observe");
        }
        if let Some(rule) = &self.rule {
            record.push_str(" rule=");
            record.push_str(rule);
        }
        if let Some(identity) = &self.identity {
            record.push_str(&identity.record);
        }
        if let Some(workload) = &self.workload {
            record.push_str(" workload=");
            record.push_str(workload.as_str());
        }
    }

    #[cfg(test)]
    pub(crate) fn record(&self) -> String {
        let mut record = String::new();
        self.write_record(&mut record);
        record
    }
}

/// Ids out of a verified token that tie a decision to Entra's sign-in log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    record: String,
}

impl Identity {
    /// Longest value that goes into a record, in bytes.
    const MAX_VALUE_BYTES: usize = 128;

    /// Prepares the part of the record that is the same for every request with the token.
    pub fn new(tenant: &str, client: Option<&str>, token: Option<&str>) -> Self {
        let mut record = String::with_capacity(128);
        for (key, value) in [(" tenant=", Some(tenant)), (" client=", client), (" uti=", token)] {
            if let Some(value) = value {
                record.push_str(key);
                // Entra's ids are plain; anything else must not forge a second field or line.
                record.extend(value.chars().take(Self::MAX_VALUE_BYTES).map(|character| {
                    if character.is_ascii_alphanumeric() || "-_.:/".contains(character) {
                        character
                    } else {
                        '?'
                    }
                }));
            }
        }
        Self { record }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_plain() {
        let mut codes: Vec<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert!(reason.code().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        }
    }

    #[test]
    fn the_record_names_reason_rule_and_ids() {
        let mut decision = Decision::new(Reason::ScopeMissing);
        assert_eq!(decision.record(), "reason=scope_missing");
        decision.rule = Some("read".into());
        decision.identity = Some(Rc::new(Identity::new("t-1", Some("c-2"), Some("u_3"))));
        assert_eq!(
            decision.record(),
            "reason=scope_missing rule=read tenant=t-1 client=c-2 uti=u_3"
        );
        decision.observed = true;
        assert!(decision.record().starts_with("reason=scope_missing mode=observe rule=read "));
    }

    #[test]
    fn w13_values_cannot_forge_a_field_or_a_line() {
        let identity = Identity::new("t reason=allowed\n", None, Some(&"é".repeat(500)));
        assert_eq!(identity.record.matches('=').count(), 2);
        assert!(identity.record.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '));
        assert_eq!(identity.record, format!(" tenant=t?reason?allowed? uti={}", "?".repeat(128)));
    }
}
