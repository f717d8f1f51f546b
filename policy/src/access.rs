//! Whether a verified token satisfies a rule.

use std::rc::Rc;

use crate::{
    claims::{Groups, Kind},
    config::Alternative,
    decision::Reason,
    decision_cache::Verified,
};

/// Why no alternative allows a token.
pub(crate) struct Missing<'a> {
    pub(crate) reason: Reason,
    /// The claims challenge, with [`Reason::StepUpRequired`] only.
    pub(crate) challenge: Option<&'a Rc<str>>,
}

/// Allows what one alternative allows.
///
/// Otherwise the reason is that of the alternative which got furthest, the first of several: for
/// someone who debugs, "the role is missing" says more than "this way in is for users". The
/// authentication context comes last, so that nobody is sent to sign in again for what would be
/// refused all the same.
pub(crate) fn check<'a>(
    alternatives: &'a [Alternative],
    token: &Verified,
    workload: Option<&[u8]>,
) -> Result<(), Missing<'a>> {
    let mut nearest = None;
    for alternative in alternatives {
        match alternative.refusal(token, workload) {
            None => return Ok(()),
            Some((step, missing))
                if nearest.as_ref().is_none_or(|(furthest, _)| step > *furthest) =>
            {
                nearest = Some((step, missing));
            }
            Some(_) => {}
        }
    }
    let none = Missing { reason: Reason::NoRule, challenge: None };
    Err(nearest.map_or(none, |(_, missing)| missing))
}

impl Alternative {
    /// The first thing that is missing, and how far the token got.
    fn refusal(&self, token: &Verified, workload: Option<&[u8]>) -> Option<(usize, Missing<'_>)> {
        let requirements = self.requirements(token, workload);
        requirements.into_iter().enumerate().find_map(|(step, (_, missing))| {
            let reason = missing?;
            let step_up = self.step_up.as_ref().filter(|_| reason == Reason::StepUpRequired);
            let challenge = step_up.map(|step_up| &step_up.challenge);
            Some((step, Missing { reason, challenge }))
        })
    }

    /// What is asked for, by the name that it has in the configuration, and what a token lacks of
    /// it; in the order in which a refusal names them. `workload` is whose certificate the
    /// connection has.
    pub fn requirements(
        &self,
        token: &Verified,
        workload: Option<&[u8]>,
    ) -> [(&'static str, Option<Reason>); 8] {
        let any = |wanted: &[String], has: &[String]| {
            wanted.is_empty() || wanted.iter().any(|value| has.contains(value))
        };
        let for_users = !self.scopes.is_empty();
        let kind = match (for_users, token.kind) {
            (true, Kind::Application) => Some(Reason::UserRequired),
            (false, Kind::User) => Some(Reason::ApplicationRequired),
            (true, Kind::User) | (false, Kind::Application) => None,
        };
        let client = self.clients.is_empty()
            || token.client.as_ref().is_some_and(|client| self.clients.contains(client));
        let credential = self.client_credential.is_none_or(|least| {
            token.client_credential.is_some_and(|credential| credential >= least)
        });
        let groups = match &token.groups {
            _ if self.groups.is_empty() => None,
            Groups::Overage => Some(Reason::GroupsOverage),
            Groups::Listed(groups) => (!any(&self.groups, groups)).then_some(Reason::GroupMissing),
        };
        let called_by = self.caller_workload.is_empty()
            || workload.is_some_and(|id| self.caller_workload.iter().any(|w| w.as_bytes() == id));
        let missing = |present: bool, reason| (!present).then_some(reason);
        [
            ("kind", kind),
            ("scopes", missing(any(&self.scopes, &token.scopes), Reason::ScopeMissing)),
            ("roles", missing(any(&self.roles, &token.roles), Reason::RoleMissing)),
            ("clients", missing(client, Reason::ClientRefused)),
            ("client_credential", missing(credential, Reason::ClientCredentialWeak)),
            ("groups", groups),
            ("caller_workload", missing(called_by, Reason::CallerWorkloadRefused)),
            ("authentication_context", self.missing_context(token)),
        ]
    }

    /// What is to be said where everything but the authentication context is there.
    fn missing_context(&self, token: &Verified) -> Option<Reason> {
        let step_up = self.step_up.as_ref()?;
        if token.contexts.contains(&step_up.context) {
            None
        } else if token.answers_challenges {
            Some(Reason::StepUpRequired)
        } else {
            Some(Reason::AuthenticationContextMissing)
        }
    }
}
