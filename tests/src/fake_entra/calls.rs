//! What the fake was asked, for tests to assert on.
//!
//! A call is written down when it arrives and completed when it is answered, so a test can wait for
//! one that a gate holds. Secrets and assertions stay in [`Secret`] and are never shown; what is
//! shown of an assertion is [`Presented`].

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use contract::Secret;
use serde::{Deserialize, Serialize};

/// Longest wait for calls, after which a test is told that they did not come.
const PATIENCE: Duration = Duration::from_secs(20);

/// An endpoint of Entra.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// `/common/discovery/instance`.
    InstanceDiscovery,
    /// `…/.well-known/openid-configuration`, both versions.
    Discovery,
    /// `…/discovery/keys`, both versions.
    Keys,
    /// `…/oauth2/v2.0/authorize`.
    Authorize,
    /// `…/oauth2/v2.0/token`.
    Token,
    /// Any other path.
    Unknown,
}

/// One request and how it was answered.
#[derive(Debug, Clone, Serialize)]
pub struct Call {
    /// What was asked.
    pub endpoint: Endpoint,
    /// HTTP method.
    pub method: String,
    /// Host name.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// Request headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Form members that are no secrets.
    pub form: Vec<(String, String)>,
    /// `client_secret` or `client_assertion`, whichever was sent.
    #[serde(skip)]
    pub credential: Option<Secret>,
    /// What the assertion said, if one was sent.
    pub presented: Option<Presented>,
    /// Status of the answer; `None` while it is held, and when there was none.
    pub status: Option<u16>,
    /// AADSTS number of a refusal.
    pub refused: Option<u32>,
    /// `uti` of the token that was issued.
    pub issued: Option<String>,
}

/// What a client assertion says, proven or not, without what could be used again: two calls have
/// the same hash exactly when they brought the same token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Presented {
    /// `iss`.
    pub issuer: Option<String>,
    /// `sub`.
    pub subject: Option<String>,
    /// `aud`, one or many.
    pub audiences: Vec<String>,
    /// `iat`.
    pub issued_at: Option<u64>,
    /// `exp`.
    pub expires_at: Option<u64>,
    /// SHA-256 of `jti`, in hexadecimal.
    pub id_hash: Option<String>,
    /// SHA-256 of the whole token, in hexadecimal.
    pub hash: String,
}

impl Call {
    /// The application that asked, as the form named it.
    pub fn client_id(&self) -> Option<&str> {
        self.form_member("client_id")
    }

    /// The subject of the assertion that came.
    pub fn subject(&self) -> Option<&str> {
        self.presented.as_ref()?.subject.as_deref()
    }

    /// A form member.
    pub fn form_member(&self, name: &str) -> Option<&str> {
        member(&self.form, name)
    }

    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        member(&self.headers, name)
    }
}

fn member<'a>(members: &'a [(String, String)], name: &str) -> Option<&'a str> {
    members.iter().find(|(member, _)| member == name).map(|(_, value)| value.as_str())
}

/// All calls since the start, or since they were forgotten.
#[derive(Default)]
pub(super) struct CallLog {
    log: Mutex<Log>,
    changed: Condvar,
}

#[derive(Default)]
struct Log {
    calls: Vec<Call>,
    /// Calls forgotten before, so that a late answer finds its place or none.
    forgotten: usize,
}

impl CallLog {
    /// Writes a call down; answers its number.
    pub(super) fn arrived(&self, call: Call) -> usize {
        let mut log = self.lock();
        log.calls.push(call);
        self.changed.notify_all();
        log.forgotten + log.calls.len() - 1
    }

    /// Completes a call.
    pub(super) fn answered(&self, number: usize, complete: impl FnOnce(&mut Call)) {
        let mut log = self.lock();
        let at = number.checked_sub(log.forgotten);
        if let Some(call) = at.and_then(|at| log.calls.get_mut(at)) {
            complete(call);
        }
        self.changed.notify_all();
    }

    pub(super) fn all(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    pub(super) fn forget(&self) {
        let mut log = self.lock();
        log.forgotten += log.calls.len();
        log.calls.clear();
    }

    /// Waits until as many calls match; false when they did not come in time.
    pub(super) fn wait_for(&self, times: usize, matches: impl Fn(&Call) -> bool) -> bool {
        self.wait_within(PATIENCE, times, matches)
    }

    /// As [`Self::wait_for`], for whoever has more patience.
    pub(super) fn wait_within(
        &self,
        patience: Duration,
        times: usize,
        matches: impl Fn(&Call) -> bool,
    ) -> bool {
        let few = |log: &mut Log| log.calls.iter().filter(|call| matches(call)).count() < times;
        let waited = self.changed.wait_timeout_while(self.lock(), patience, few);
        let (_log, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        !timeout.timed_out()
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
