//! One request, put to the core: reads what it is judged by, asks, and has the effect applied.

use policy::{
    config::Position,
    effect::Effect,
    outbound::{Attempt, Injected},
    request::{Protocol, RequestHead},
};

use super::{
    Direction, INBOUND_RECORD, MAX_WAITING, MAX_WAITING_FOR_REPLAY, OUTBOUND_RECORD, Plugin,
    REPLAY_NOTE,
};
use crate::{
    apply::{self, Outcome},
    host,
    metrics::Event,
    properties::{self, now},
    signature,
};

impl Plugin {
    /// Judges a stream's request and acts on it.
    pub(super) fn decide(&mut self) -> (Outcome, Option<Injected>) {
        let waiting = self.waiting.len();
        let (effect, record, destination) = match &mut self.direction {
            Direction::Inbound { policy } => {
                let Some(headers) = host::request_headers() else {
                    // Nothing to judge by: nothing may pass.
                    self.metrics.event(Event::HostFailed, 1);
                    return (apply::refuse(), None);
                };
                let reads_workload = policy.config().reads_caller_workload();
                let workload = reads_workload.then(properties::caller_workload).flatten();
                let mut head = RequestHead::read(headers.lines(), &policy.config().own_headers);
                head.workload = workload.as_deref();
                (
                    policy.on_request(&head, waiting < MAX_WAITING, now(), &signature::verify),
                    INBOUND_RECORD,
                    None,
                )
            }
            Direction::Outbound { policy } => {
                let destination = match policy.position() {
                    Position::Upstream => properties::destination(),
                    Position::Downstream => properties::host_and_cluster(policy),
                };
                let Ok(authorization) = host::request_header("authorization") else {
                    self.metrics.event(Event::HostFailed, 1);
                    return (apply::refuse(), None);
                };
                let replayed = authorization.is_some() && host::property(REPLAY_NOTE).is_some();
                // Of calls on behalf of others a lost memory must not make a token look like theirs.
                let injected = authorization.is_some()
                    && policy.callers().is_some()
                    && properties::was_injected(OUTBOUND_RECORD);
                let most = if replayed { MAX_WAITING_FOR_REPLAY } else { MAX_WAITING };
                let attempt = Attempt {
                    destination: destination.as_deref(),
                    inbound_listener: destination.is_some()
                        && (properties::is_inbound_listener()
                            || self.place.is_wrong_for(policy.position())),
                    authorization,
                    replayed,
                    injected,
                };
                let protocol = || match host::request_header("content-type") {
                    Ok(Some(content_type)) => Protocol::of(&content_type),
                    Ok(None) | Err(_) => Protocol::Http,
                };
                let effect = policy.on_request(
                    &attempt,
                    waiting < most,
                    now(),
                    protocol,
                    &signature::verify,
                );
                match policy.replayed_with_newer(&attempt, &effect) {
                    Some(true) => self.metrics.event(Event::ChallengeAnswered, 1),
                    Some(false) => self.metrics.event(Event::ChallengeFailed, 1),
                    None => {}
                }
                (effect, OUTBOUND_RECORD, destination)
            }
        };
        if let Some(decision) = effect.decision() {
            self.metrics.decision(decision);
        }
        let Some(outcome) = apply::apply(&effect, record, &mut self.record) else {
            self.metrics.event(Event::HostFailed, 1);
            return (apply::refuse(), None);
        };
        let token = match &effect {
            Effect::Continue(edits, _) => edits.authorization.clone(),
            Effect::Reply(..) | Effect::Wait => None,
        };
        let injected = destination.zip(token);
        (outcome, injected.map(|(destination, token)| Injected { destination, token }))
    }
}
