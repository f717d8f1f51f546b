//! The tokens that were got on behalf of users: one for each rule and each token that a user brought.
//!
//! Nobody asks for one before it is needed, and it is renewed only while it is used. Who asks has
//! verified the user's token for this very request, so an entry is never older than that is good.
//! Only verified tokens become keys, so a flood of bad ones changes nothing here.

use std::collections::VecDeque;

use contract::{Secret, TokenRequest};
use lru::LruCache;

use super::{Slot, TokenAnswer, TokenCallResult, is_for, same_place};
use crate::{
    decision_cache::{End, EndHash, end},
    time::UnixTime,
};

/// What all entries may take, in bytes, by [`Entry::weight`].
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Most calls that wait or are under way: together their entries take less than all may.
const MAX_CALLS: usize = 128;

/// The users' tokens of all rules.
#[derive(Debug)]
pub(crate) struct UserTokens {
    /// By rule and by the end of the user's token. What is found is compared in full.
    entries: LruCache<End, Entry, EndHash>,
    bytes: usize,
    /// Calls to make.
    due: VecDeque<TokenRequest>,
    /// Calls that are to be made, or are not answered yet.
    calls: usize,
}

#[derive(Debug)]
struct Entry {
    /// With the user's token.
    request: TokenRequest,
    slot: Slot,
    bytes: usize,
}

impl Default for UserTokens {
    fn default() -> Self {
        let entries = LruCache::unbounded_with_hasher(EndHash);
        Self { entries, bytes: 0, due: VecDeque::new(), calls: 0 }
    }
}

impl UserTokens {
    /// The token of rule `rule`, whose request is `wanted`, for the user who brought `assertion`; or
    /// what to do without.
    pub(crate) fn ask(
        &mut self,
        rule: usize,
        wanted: &TokenRequest,
        assertion: &str,
        now: UnixTime,
    ) -> TokenAnswer {
        if !self.holds(rule, wanted, assertion.as_bytes()) {
            let assertion = Some(Secret::new(assertion));
            self.insert(rule, TokenRequest { assertion, ..wanted.clone() });
        }
        let Some(entry) = self.entries.get_mut(&key(rule, assertion.as_bytes())) else {
            return TokenAnswer::Wait;
        };
        // Beyond the limit whoever needs one waits, and asks again when any call is answered.
        if !entry.slot.in_flight && entry.slot.due(now) && self.calls < MAX_CALLS {
            entry.slot.in_flight = true;
            self.calls = self.calls.saturating_add(1);
            self.due.push_back(entry.request.clone());
        }
        entry.slot.answer(now)
    }

    /// Whether there is an entry for this user's token, compared in full.
    pub(crate) fn holds(&self, rule: usize, wanted: &TokenRequest, assertion: &[u8]) -> bool {
        self.entries.peek(&key(rule, assertion)).is_some_and(|entry| {
            let held = entry.request.assertion.as_ref();
            held.is_some_and(|held| held.expose().as_bytes() == assertion)
                && same_place(&entry.request, wanted)
        })
    }

    /// With which request an Authorization value was got that we set on an earlier attempt.
    pub(crate) fn request_behind(&self, authorization: &[u8]) -> Option<&TokenRequest> {
        let mut entries = self.entries.iter();
        entries
            .find(|(_, entry)| entry.slot.has_set(authorization))
            .map(|(_, entry)| &entry.request)
    }

    /// A call to make now, if any.
    pub(crate) fn next_call(&mut self) -> Option<TokenRequest> {
        self.due.pop_front()
    }

    /// A call of rule `rule` was answered.
    pub(crate) fn on_result(
        &mut self,
        rule: usize,
        request: &TokenRequest,
        result: TokenCallResult,
        now: UnixTime,
    ) {
        self.calls = self.calls.saturating_sub(1);
        let Some(assertion) = &request.assertion else { return };
        let entry = self.entries.get_mut(&key(rule, assertion.expose().as_bytes()));
        let Some(entry) = entry.filter(|entry| is_for(request, &entry.request)) else { return };
        entry.slot.take(request, result, now);
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        entry.bytes = entry.weight();
        self.bytes = self.bytes.saturating_add(entry.bytes);
        self.trim();
    }

    fn insert(&mut self, rule: usize, request: TokenRequest) {
        let Some(assertion) = &request.assertion else { return };
        let key = key(rule, assertion.expose().as_bytes());
        let mut entry = Entry { request, slot: Slot::default(), bytes: 0 };
        entry.bytes = entry.weight();
        self.bytes = self.bytes.saturating_add(entry.bytes);
        if let Some((_, other)) = self.entries.push(key, entry) {
            self.bytes = self.bytes.saturating_sub(other.bytes);
        }
        self.trim();
    }

    /// Forgets what was used longest ago, but nothing that is being asked for: whoever waits for it
    /// would ask once more.
    fn trim(&mut self) {
        for _ in 0..self.entries.len() {
            if self.bytes <= MAX_BYTES {
                return;
            }
            let Some((key, entry)) = self.entries.pop_lru() else { return };
            if entry.slot.in_flight {
                self.entries.push(key, entry);
            } else {
                self.bytes = self.bytes.saturating_sub(entry.bytes);
            }
        }
    }
}

impl Entry {
    /// What it takes, estimated from above: text, and a fixed sum for all else.
    fn weight(&self) -> usize {
        const PER_ENTRY: usize = 1024;
        let texts = self.request.assertion.iter().chain(self.slot.headers().map(|held| &**held));
        texts.fold(PER_ENTRY, |sum, text| sum.saturating_add(text.expose().len()))
    }
}

/// The place of an entry. Two that share one would only push each other out.
fn key(rule: usize, assertion: &[u8]) -> End {
    let mut key = end(assertion);
    for (byte, number) in key.iter_mut().zip(rule.to_le_bytes()) {
        *byte ^= number;
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: UnixTime = UnixTime(1_800_000_000);

    fn wanted(destination: &str) -> TokenRequest {
        TokenRequest { destination: destination.to_owned(), ..TokenRequest::default() }
    }

    #[test]
    fn o14_tokens_that_end_alike_are_told_apart_and_so_are_rules_of_one_place() {
        let (anna, bert) = ("anna0123456789abcdef", "bert0123456789abcdef");
        assert_eq!(key(0, anna.as_bytes()), key(0, bert.as_bytes()));
        let mut tokens = UserTokens::default();
        tokens.ask(0, &wanted("graph"), anna, T);
        assert!(tokens.holds(0, &wanted("graph"), anna.as_bytes()));
        assert!(!tokens.holds(0, &wanted("graph"), bert.as_bytes()));
        assert!(!tokens.holds(0, &wanted("vault"), anna.as_bytes()));
        // The one pushes the other out, and an answer to the one is none to the other.
        let for_anna = tokens.next_call().unwrap();
        tokens.ask(0, &wanted("graph"), bert, T);
        assert!(!tokens.holds(0, &wanted("graph"), anna.as_bytes()));
        tokens.on_result(0, &for_anna, TokenCallResult::Failed, T);
        assert_eq!(tokens.ask(0, &wanted("graph"), bert, T), TokenAnswer::Wait);
        assert_eq!(tokens.bytes, 1024 + bert.len());
    }
}
