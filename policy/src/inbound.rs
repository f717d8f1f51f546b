//! One inbound request: who is it, and may they?
//!
//! The order: path and rule, exactly one bearer token, the cache, then structure, tenant and
//! issuer, key, signature, claims; at last the rule. Every way out that is not an explicit permit
//! is a refusal.

use std::rc::Rc;

use contract::KeySets;

use crate::{
    access,
    claims::Claims,
    config::{Allow, InboundConfig, Mode, Rule},
    decision::{Decision, Identity, Reason},
    decision_cache::{DecisionCache, Verified},
    effect::{Edits, Effect},
    host::host,
    identity_headers::Header,
    json,
    jwt::UnverifiedToken,
    key_schedule::{Ask, KeyAnswer, KeyCall, KeySchedule},
    key_store::{KeyStore, Lookup},
    path::{self, Path},
    reply::Reply,
    request::{RequestHead, bearer_token},
    time::UnixTime,
    workload::Workload,
};

/// Checks an RS256 signature: DER SubjectPublicKeyInfo, signed text, signature.
pub type Verify<'a> = dyn Fn(&[u8], &[u8], &[u8]) -> bool + 'a;

/// The value of the permit marker. No secret: what keeps callers from bringing it is that Envoy
/// removes theirs before any filter.
const PERMIT: &str = "1";

/// Everything that decides about inbound requests, and what it has learnt so far.
#[derive(Debug)]
pub struct Inbound {
    config: Rc<InboundConfig>,
    authorization_uri: String,
    /// The permit marker alone: what a request without a verified token gets.
    permit: Rc<[Header]>,
    keys: KeyStore,
    schedule: KeySchedule,
    cache: DecisionCache,
    cache_hits: u64,
    cache_misses: u64,
}

/// A request that may not pass.
struct Refusal {
    reason: Reason,
    /// Whose token, where the signature was good.
    identity: Option<Rc<Identity>>,
    /// The token, where all of it was good and only the rule refused.
    token: Option<Rc<Verified>>,
    /// What the client is to ask Entra for, where that is all that is missing.
    challenge: Option<Rc<str>>,
}

/// Why there is no permit.
enum Stop {
    Refuse(Refusal),
    Wait,
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Self::Refuse(Refusal { reason, identity: None, token: None, challenge: None })
    }
}

impl Inbound {
    /// Starts with nothing but the configuration.
    pub fn new(config: InboundConfig) -> Self {
        Self {
            authorization_uri: config.cloud.authorization_uri(&config.challenge_tenant),
            permit: Rc::new([(config.permit_marker.clone(), PERMIT.into())]),
            config: Rc::new(config),
            keys: KeyStore::default(),
            schedule: KeySchedule::default(),
            cache: DecisionCache::default(),
            cache_hits: 0,
            cache_misses: 0,
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Rc<InboundConfig> {
        &self.config
    }

    /// Judges a request. After [`Effect::Wait`] and the broker's answer it is judged again.
    ///
    /// `may_wait` is false where too many wait already.
    pub fn on_request(
        &mut self,
        head: &RequestHead<'_>,
        may_wait: bool,
        now: UnixTime,
        verify: &Verify<'_>,
    ) -> Effect {
        let config = self.config.clone();
        let (rule, permit) = match rule_for(&config, head) {
            Ok(rule) => (Some(rule), self.permit(head, rule, now, verify)),
            Err(reason) => (None, Err(reason.into())),
        };
        let refusal = match permit {
            Ok(token) => return self.let_pass(head, rule, token),
            Err(Stop::Refuse(refusal)) => refusal,
            Err(Stop::Wait) if may_wait => return Effect::Wait,
            Err(Stop::Wait) => {
                let reason = Reason::TooManyWaiting;
                Refusal { reason, identity: None, token: None, challenge: None }
            }
        };
        self.refuse(head, rule, refusal)
    }

    /// The call for keys to make now, if any.
    pub fn next_call(&mut self, now: UnixTime) -> Option<KeyCall> {
        self.schedule.next_call(now)
    }

    /// New keys came: whatever rests on keys that are no longer there is forgotten.
    pub fn on_keys(&mut self, key_sets: &KeySets, now: UnixTime) {
        self.keys.replace(key_sets);
        let keys = &self.keys;
        self.cache.retain_keys(|grounds| keys.holds(grounds));
        self.on_unchanged_keys(now);
    }

    /// The broker's keys have not changed.
    pub fn on_unchanged_keys(&mut self, now: UnixTime) {
        self.schedule.on_answer(KeyAnswer::Keys { complete: self.keys.complete(now) }, now);
    }

    /// The broker limits refreshes for so many seconds.
    pub fn on_limit(&mut self, seconds: u64, now: UnixTime) {
        self.schedule.on_answer(KeyAnswer::Limited(seconds), now);
    }

    /// The broker did not answer, or not with keys.
    pub fn on_failure(&mut self, now: UnixTime) {
        self.schedule.on_answer(KeyAnswer::Failed, now);
    }

    /// What is true of a token that was verified for an earlier request, for who explains it.
    pub fn known(&mut self, credentials: &[u8], now: UnixTime) -> Option<Rc<Verified>> {
        self.cache.get(credentials, now)
    }

    /// How many authorities have no usable keys.
    pub fn keys_missing(&self, now: UnixTime) -> u64 {
        self.keys.missing(now)
    }

    /// Age of the oldest key set, in seconds.
    pub fn key_age(&self, now: UnixTime) -> Option<u64> {
        self.keys.age(now)
    }

    /// Hits and misses of the decision cache since the last call.
    pub fn take_cache_counts(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.cache_hits), std::mem::take(&mut self.cache_misses))
    }

    /// The token that lets the request pass; none where anyone may.
    fn permit(
        &mut self,
        head: &RequestHead<'_>,
        rule: &Rule,
        now: UnixTime,
        verify: &Verify<'_>,
    ) -> Result<Option<Rc<Verified>>, Stop> {
        let alternatives = match &rule.allow {
            Allow::Anyone => return Ok(None),
            Allow::AnyOf(alternatives) => alternatives,
        };
        if head.path.is_some_and(path::token_in_query) {
            return Err(Reason::TokenInQuery.into());
        }
        let token = self.verified(head.credentials()?, now, verify)?;
        match access::check(alternatives, &token, head.workload) {
            Ok(()) => Ok(Some(token)),
            Err(missing) => Err(Stop::Refuse(Refusal {
                reason: missing.reason,
                identity: Some(token.identity.clone()),
                token: Some(token),
                challenge: missing.challenge.cloned(),
            })),
        }
    }

    /// What is true of the token: out of the cache, or by verifying it now.
    ///
    /// The cache compares in full, so what is found there needs no reading.
    fn verified(
        &mut self,
        credentials: &[u8],
        now: UnixTime,
        verify: &Verify<'_>,
    ) -> Result<Rc<Verified>, Stop> {
        if let Some(cached) = self.cache.get(credentials, now) {
            self.cache_hits = self.cache_hits.wrapping_add(1);
            return Ok(cached);
        }
        self.cache_misses = self.cache_misses.wrapping_add(1);
        let unverified = match UnverifiedToken::parse(credentials) {
            // Whatever is no single token is told from a token that is none.
            Err(Reason::TokenMalformed) => {
                bearer_token(credentials)?;
                return Err(Reason::TokenMalformed.into());
            }
            parsed => parsed?,
        };
        let verified = Rc::new(self.verify(&unverified, now, verify)?);
        self.cache.insert(credentials, verified.clone());
        Ok(verified)
    }

    fn verify(
        &mut self,
        unverified: &UnverifiedToken<'_>,
        now: UnixTime,
        verify: &Verify<'_>,
    ) -> Result<Verified, Stop> {
        let config = &self.config;
        let payload = json::object(&unverified.payload).ok_or(Reason::TokenMalformed)?;
        let claims = Claims::read(&payload)?;
        claims.check_issuer(config.cloud, &config.tenants)?;
        let grounds = match self.keys.find(config.cloud, &claims.tenant, &unverified.key_id, now) {
            Lookup::Trusted(grounds) => grounds,
            Lookup::SignsForOthers => return Err(Reason::KeyIssuerMismatch.into()),
            Lookup::UnknownKey { authority } => {
                return Err(
                    match self.schedule.ask_for_newer(&authority, &unverified.key_id, now) {
                        Ask::Wait => Stop::Wait,
                        Ask::Final => Reason::KeyUnknown.into(),
                        Ask::Unavailable => Reason::KeysUnavailable.into(),
                    },
                );
            }
            Lookup::NoKeys => {
                return Err(match self.schedule.ask_for_any(now) {
                    Ask::Wait => Stop::Wait,
                    Ask::Final | Ask::Unavailable => Reason::KeysUnavailable.into(),
                });
            }
        };
        if !verify(&grounds.key.spki, unverified.signed, &unverified.signature) {
            return Err(Reason::SignatureInvalid.into());
        }
        let identity = Rc::new(Identity::new(
            &claims.tenant,
            claims.client.as_deref(),
            claims.token_id.as_deref(),
        ));
        let refuse = |reason| {
            let identity = Some(identity.clone());
            Stop::Refuse(Refusal { reason, identity, token: None, challenge: None })
        };
        let kind = claims.check(&config.audiences, config.clock_skew, now).map_err(refuse)?;
        let claimed = config.identity_headers.of(&payload, claims.version);
        let app_service = config.app_service_headers.iter().flat_map(|own| own.of(&payload));
        Ok(Verified {
            kind,
            headers: claimed.chain(app_service).chain(self.permit.iter().cloned()).collect(),
            scopes: claims.scopes,
            roles: claims.roles,
            groups: claims.groups,
            client: claims.client,
            client_credential: claims.client_credential,
            contexts: claims.contexts,
            answers_challenges: claims.answers_challenges,
            expires: claims.expires.plus(config.clock_skew),
            identity,
            grounds,
            verified_at: now,
        })
    }

    fn let_pass(
        &self,
        head: &RequestHead<'_>,
        rule: Option<&Rule>,
        token: Option<Rc<Verified>>,
    ) -> Effect {
        let decision = Decision {
            reason: if token.is_some() { Reason::Allowed } else { Reason::AllowedAnyone },
            rule: rule.map(|rule| rule.name.clone()),
            identity: token.as_ref().map(|token| token.identity.clone()),
            workload: self.workload(head),
            observed: false,
        };
        Effect::Continue(self.edits(head, rule, token.as_deref()), decision)
    }

    fn refuse(&self, head: &RequestHead<'_>, rule: Option<&Rule>, refusal: Refusal) -> Effect {
        let observed = self.mode(rule) == Mode::Observe;
        let decision = Decision {
            reason: refusal.reason,
            rule: rule.map(|rule| rule.name.clone()),
            identity: refusal.identity,
            workload: self.workload(head),
            observed,
        };
        if observed {
            return Effect::Continue(self.edits(head, rule, refusal.token.as_deref()), decision);
        }
        let uri = Some(self.authorization_uri.as_str());
        let reply = Reply::new(refusal.reason, head.protocol, uri, None);
        let reply = match refusal.challenge {
            Some(challenge) => reply.challenging(&challenge),
            None => reply,
        };
        Effect::Reply(reply, decision)
    }

    /// Which workload called, where records are to say it.
    fn workload(&self, head: &RequestHead<'_>) -> Option<Workload> {
        head.workload.filter(|_| self.config.log_caller_workload).map(Workload::new)
    }

    fn mode(&self, rule: Option<&Rule>) -> Mode {
        rule.map_or(self.config.mode, |rule| rule.mode)
    }

    /// What the application gets: none of the caller's identity headers, ours from a verified
    /// token, and the marker.
    fn edits(
        &self,
        head: &RequestHead<'_>,
        rule: Option<&Rule>,
        token: Option<&Verified>,
    ) -> Edits {
        let by_rule = rule.and_then(|rule| rule.forward_token);
        let forward = match (self.mode(rule), token) {
            (Mode::Observe, _) => true,
            (Mode::Enforce, Some(_)) => by_rule.unwrap_or(self.config.forward_token),
            // Nobody verified it: only the rule itself can want that.
            (Mode::Enforce, None) => by_rule == Some(true),
        };
        let add = token.map_or(&self.permit, |token| &token.headers).clone();
        Edits {
            remove: head.foreign.iter().map(|name| name.to_vec()).collect(),
            remove_authorization: head.has_authorization && !forward,
            add: Some(add),
            authorization: None,
        }
    }
}

/// The first rule that fits method, host and path.
fn rule_for<'a>(config: &'a InboundConfig, head: &RequestHead<'_>) -> Result<&'a Rule, Reason> {
    let path = match head.path {
        // These name no resource by path (RFC 9110 §9.3.6, RFC 9112 §3.2.4).
        None => None,
        Some(b"*") if head.method == b"OPTIONS" => None,
        Some(target) => Some(Path::read(target).ok_or(Reason::PathAmbiguous)?),
    };
    let host = head.authority.and_then(host).ok_or(Reason::HostMalformed)?;
    let fits =
        |index: usize| config.rules.get(index).is_some_and(|rule| rule.matches.fits(head, &host));
    let index = config.routes.find(path.as_ref(), fits).ok_or(Reason::NoRule)?;
    config.rules.get(index).ok_or(Reason::NoRule)
}

#[cfg(test)]
mod tests;
