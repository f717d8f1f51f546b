//! One inbound request: who is it, and may they?
//!
//! The order: path and rule, exactly one bearer token, what is true of it ([`CallerTokens`]); at
//! last the rule. Every way out that is not an explicit permit is a refusal.

use std::rc::Rc;

use crate::{
    access,
    caller_tokens::{CallerTokens, Unverified},
    config::{Allow, InboundConfig, Mode, Rule},
    decision::{Decision, Identity, Reason},
    decision_cache::Verified,
    effect::{Edits, Effect},
    host::host,
    identity_headers::Header,
    json::Object,
    path::{self, Path},
    reply::Reply,
    request::RequestHead,
    time::UnixTime,
    workload::Workload,
};

pub use crate::caller_tokens::Verify;

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
    callers: CallerTokens,
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

impl From<Unverified> for Stop {
    fn from(unverified: Unverified) -> Self {
        match unverified {
            Unverified::Refused { reason, identity } => {
                Self::Refuse(Refusal { reason, identity, token: None, challenge: None })
            }
            Unverified::Wait => Self::Wait,
        }
    }
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Unverified::from(reason).into()
    }
}

impl Inbound {
    /// Starts with nothing but the configuration.
    pub fn new(config: InboundConfig) -> Self {
        Self {
            authorization_uri: config.accepted.authorization_uri(),
            permit: Rc::new([(config.permit_marker.clone(), PERMIT.into())]),
            callers: CallerTokens::new(config.accepted.clone()),
            config: Rc::new(config),
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

    /// What is known of callers' tokens, and of the keys that sign them.
    pub fn callers(&mut self) -> &mut CallerTokens {
        &mut self.callers
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
        let (config, permit) = (&self.config, &self.permit);
        let headers = |payload: &Object<'_>, version| {
            let claimed = config.identity_headers.of(payload, version);
            let app_service = config.app_service_headers.iter().flat_map(|own| own.of(payload));
            claimed.chain(app_service).chain(permit.iter().cloned()).collect()
        };
        let token = self.callers.verified(head.credentials()?, now, verify, &headers)?;
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
