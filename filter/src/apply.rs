//! Applies an effect to the request of the effective context. No decision is made here.

use policy::{
    decision::{Decision, Reason},
    effect::Effect,
    reply::Reply,
    request::Protocol,
};

use crate::host;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It goes on.
    GoesOn,
    /// It waits.
    Held,
    /// It was answered, and goes nowhere.
    Answered,
}

/// Applies an effect, and leaves its record, written into `buffer`, in the filter state `record`.
///
/// `None` where the host did not do what it was told: then the request is neither edited nor
/// marked as it should be, and must be refused.
pub(crate) fn apply(effect: &Effect, record: &str, buffer: &mut String) -> Option<Outcome> {
    let mut note = |decision: &Decision| {
        decision.write_record(buffer);
        host::set_property(record, buffer)
    };
    match effect {
        Effect::Wait => Some(Outcome::Held),
        Effect::Continue(edits, decision) => {
            for name in &edits.remove {
                host::remove_request_header(name)?;
            }
            if edits.remove_authorization {
                host::remove_request_header(b"authorization")?;
            }
            for (name, value) in edits.add.iter().flat_map(|headers| headers.iter()) {
                host::add_request_header(name, value)?;
            }
            if let Some(authorization) = &edits.authorization {
                host::set_request_header("authorization", authorization.expose())?;
            }
            note(decision)?;
            Some(Outcome::GoesOn)
        }
        Effect::Reply(reply, decision) => {
            // Before the reply, which ends the stream.
            note(decision)?;
            send(reply)?;
            Some(Outcome::Answered)
        }
    }
}

/// Answers 503 where nothing else can be done. Should the host refuse even this, the request is
/// held for good, and the stream idle timeout ends it.
pub(crate) fn refuse() -> Outcome {
    let reply = Reply::new(Reason::KeysUnavailable, Protocol::Http, None, None);
    let _held = send(&Reply { details: "host_failed", ..reply });
    Outcome::Answered
}

fn send(reply: &Reply) -> Option<()> {
    let headers: Vec<(&str, &str)> =
        reply.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    host::send_reply(reply.status, reply.details, &headers, &reply.body, reply.grpc_status)
}
