//! The tokens that callers bring: verifies them once and remembers what is true of them.
//!
//! The order: the cache, then structure, then what [`judge`] has in its. Both directions
//! come through here, inbound for whoever calls, outbound for whom something is asked on behalf of.
//! Nothing here knows rules: what a verified token may do is the direction's to say.

use std::rc::Rc;

use contract::KeySets;

use crate::{
    claims::Version,
    config::Accepted,
    decision::{Identity, Reason},
    decision_cache::{DecisionCache, Verified},
    identity_headers::Header,
    json::Object,
    jwt::UnverifiedToken,
    key_schedule::{Ask, KeyAnswer, KeyCall, KeySchedule},
    key_store::KeyStore,
    request::bearer_token,
    time::UnixTime,
    verification::{Judged, Stop, judge},
};

pub use crate::verification::Verify;

/// Makes the headers that go with a verified token, of its payload and version.
pub(crate) type MakeHeaders<'a> = dyn Fn(&Object<'_>, Version) -> Rc<[Header]> + 'a;

/// Callers' tokens, and what is needed to verify them.
#[derive(Debug)]
pub struct CallerTokens {
    accepted: Rc<Accepted>,
    keys: KeyStore,
    schedule: KeySchedule,
    cache: DecisionCache,
    cache_hits: u64,
    cache_misses: u64,
}

/// Why nothing can be said of a token.
pub(crate) enum Unverified {
    /// It is refused.
    Refused {
        reason: Reason,
        /// Whose token, where the signature was good.
        identity: Option<Rc<Identity>>,
    },
    /// Keys are being asked for.
    Wait,
}

impl From<Reason> for Unverified {
    fn from(reason: Reason) -> Self {
        Self::Refused { reason, identity: None }
    }
}

impl CallerTokens {
    /// Starts with nothing known.
    pub(crate) fn new(accepted: Rc<Accepted>) -> Self {
        Self {
            accepted,
            keys: KeyStore::default(),
            schedule: KeySchedule::default(),
            cache: DecisionCache::default(),
            cache_hits: 0,
            cache_misses: 0,
        }
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

    /// What is true of the token: out of the cache, or by verifying it now.
    ///
    /// The cache compares in full, so what is found there needs no reading. `headers` makes what
    /// goes into [`Verified::headers`].
    pub(crate) fn verified(
        &mut self,
        credentials: &[u8],
        now: UnixTime,
        verify: &Verify<'_>,
        headers: &MakeHeaders<'_>,
    ) -> Result<Rc<Verified>, Unverified> {
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
        let verified = Rc::new(self.verify(&unverified, now, verify, headers)?);
        self.cache.insert(credentials, verified.clone());
        Ok(verified)
    }

    fn verify(
        &mut self,
        unverified: &UnverifiedToken<'_>,
        now: UnixTime,
        verify: &Verify<'_>,
        headers: &MakeHeaders<'_>,
    ) -> Result<Verified, Unverified> {
        let judged = judge(unverified, &self.accepted, &self.keys, now, verify);
        let Judged { payload, claims, kind, identity, grounds } = judged.map_err(|stop| {
            let schedule = &mut self.schedule;
            let ask = match stop {
                Stop::Refused { reason, identity } => {
                    return Unverified::Refused { reason, identity };
                }
                Stop::UnknownKey { authority } => {
                    schedule.ask_for_newer(&authority, &unverified.key_id, now)
                }
                // Where there are no keys none is unknown.
                Stop::NoKeys => match schedule.ask_for_any(now) {
                    Ask::Final => Ask::Unavailable,
                    ask => ask,
                },
            };
            match ask {
                Ask::Wait => Unverified::Wait,
                Ask::Final => Reason::KeyUnknown.into(),
                Ask::Unavailable => Reason::KeysUnavailable.into(),
            }
        })?;
        Ok(Verified {
            kind,
            headers: headers(&payload, claims.version),
            scopes: claims.scopes,
            roles: claims.roles,
            groups: claims.groups,
            client: claims.client,
            client_credential: claims.client_credential,
            contexts: claims.contexts,
            answers_challenges: claims.answers_challenges,
            expires: claims.expires.plus(self.accepted.clock_skew),
            identity,
            grounds,
            verified_at: now,
        })
    }
}
