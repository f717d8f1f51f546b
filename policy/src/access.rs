//! Whether a verified token satisfies a rule.

use crate::{
    claims::{Groups, Kind},
    config::Alternative,
    decision::Reason,
    decision_cache::Verified,
};

/// Allows what one alternative allows.
///
/// Otherwise the reason is that of the alternative which got furthest: for someone who debugs,
/// "the role is missing" says more than "this way in is for users".
pub(crate) fn check(alternatives: &[Alternative], token: &Verified) -> Result<(), Reason> {
    let mut nearest = None;
    for alternative in alternatives {
        match alternative.refusal(token) {
            None => return Ok(()),
            Some(refusal) if nearest.is_none_or(|(step, _)| refusal.0 > step) => {
                nearest = Some(refusal);
            }
            Some(_) => {}
        }
    }
    Err(nearest.map_or(Reason::NoRule, |(_, reason)| reason))
}

impl Alternative {
    /// The first thing that is missing, and how far the token got.
    fn refusal(&self, token: &Verified) -> Option<(usize, Reason)> {
        let any = |wanted: &[String], has: &[String]| {
            wanted.is_empty() || wanted.iter().any(|value| has.contains(value))
        };
        let for_users = !self.scopes.is_empty();
        let kind = match (for_users, token.kind) {
            (true, Kind::Application) => Err(Reason::UserRequired),
            (false, Kind::User) => Err(Reason::ApplicationRequired),
            (true, Kind::User) | (false, Kind::Application) => Ok(()),
        };
        let client = self.clients.is_empty()
            || token.client.as_ref().is_some_and(|client| self.clients.contains(client));
        let credential = self.client_credential.is_none_or(|least| {
            token.client_credential.is_some_and(|credential| credential >= least)
        });
        let groups = match &token.groups {
            _ if self.groups.is_empty() => Ok(()),
            Groups::Overage => Err(Reason::GroupsOverage),
            Groups::Listed(groups) if any(&self.groups, groups) => Ok(()),
            Groups::Listed(_) => Err(Reason::GroupMissing),
        };
        let checks = [
            kind,
            any(&self.scopes, &token.scopes).then_some(()).ok_or(Reason::ScopeMissing),
            any(&self.roles, &token.roles).then_some(()).ok_or(Reason::RoleMissing),
            client.then_some(()).ok_or(Reason::ClientRefused),
            credential.then_some(()).ok_or(Reason::ClientCredentialWeak),
            groups,
        ];
        checks.into_iter().enumerate().find_map(|(step, check)| check.err().map(|r| (step, r)))
    }
}
