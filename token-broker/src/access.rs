//! Which identities this pod may use: `identity_access` against what the pod is.
//!
//! Pure: the entries come from `config`, the evidence from `pod`, and nothing here knows where they
//! got it. An identity may be used when one entry names it and everything that the entry says of the
//! pod is so, exactly. `reload` has the broker hold the tokens of those and of no others.

use std::collections::BTreeMap;

use crate::pod::NotProven;

/// One entry of `identity_access`: pods, and the identities that they may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The pods' namespace; without it any.
    pub namespace: Option<String>,
    /// The pods' service account; without it any.
    pub service_account: Option<String>,
    /// Labels that the pods all have.
    pub labels: BTreeMap<String, String>,
    /// Names of identities.
    pub identities: Vec<String>,
}

/// What a pod is. What is not known matches no entry that asks for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its service account.
    pub service_account: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its name and unique id: for people, no entry asks for them.
    pub pod: Option<String>,
}

impl std::fmt::Display for Evidence {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".to_owned());
        let labels: Vec<String> =
            self.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        write!(
            formatter,
            "namespace {}, service account {}, labels {}",
            shown(&self.namespace),
            shown(&self.service_account),
            if labels.is_empty() { "none".to_owned() } else { labels.join(" ") },
        )?;
        self.pod.as_ref().map_or(Ok(()), |pod| write!(formatter, ", pod {pod}"))
    }
}

/// Why an entry does not give an identity to a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mismatch {
    /// It does not name the identity.
    NotNamed,
    /// It is for other pods.
    Member {
        /// Which member says so, as it stands in the configuration.
        member: String,
        /// What the entry asks for.
        wanted: String,
        /// What the pod has.
        found: Option<String>,
    },
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotNamed => formatter.write_str("does not name it"),
            Self::Member { member, wanted, found: Some(found) } => {
                write!(formatter, "{member} is `{found}`, not `{wanted}`")
            }
            Self::Member { member, wanted, found: None } => {
                write!(formatter, "{member} is not known, not `{wanted}`")
            }
        }
    }
}

impl Entry {
    /// Everything by which this entry does not give `identity` to the pod; nothing when it does.
    pub fn mismatches(&self, identity: &str, evidence: &Evidence) -> Vec<Mismatch> {
        let mut mismatches = Vec::new();
        if !self.identities.iter().any(|named| named == identity) {
            mismatches.push(Mismatch::NotNamed);
        }
        let mut compare = |member: &str, wanted: Option<&String>, found: Option<&String>| {
            if let Some(wanted) = wanted.filter(|wanted| found != Some(*wanted)) {
                let (member, wanted) = (member.to_owned(), wanted.clone());
                mismatches.push(Mismatch::Member { member, wanted, found: found.cloned() });
            }
        };
        compare("namespace", self.namespace.as_ref(), evidence.namespace.as_ref());
        let account = evidence.service_account.as_ref();
        compare("service_account", self.service_account.as_ref(), account);
        for (label, wanted) in &self.labels {
            compare(&format!("labels.{label}"), Some(wanted), evidence.labels.get(label));
        }
        mismatches
    }
}

/// The index of the first entry that gives `identity` to the pod. No entry: denied.
pub fn decide(entries: &[Entry], identity: &str, evidence: &Evidence) -> Option<usize> {
    entries.iter().position(|entry| entry.mismatches(identity, evidence).is_empty())
}

/// What is in force for the identities of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// There is no `identity_access`: every identity may be used.
    Open,
    /// It cannot be told what the pod is: nothing is handed out.
    Undecided(NotProven),
    /// The pod's token is not a token of this pod: every identity is denied.
    Refused(NotProven),
    /// Each identity has the index of the entry that allows it, or is denied.
    Decided {
        /// What the pod is.
        evidence: Evidence,
        /// By name of the identity.
        allowed_by: BTreeMap<String, Option<usize>>,
    },
}

impl Standing {
    /// What follows from what is known of the pod.
    pub fn of<'a>(
        entries: &[Entry],
        identities: impl IntoIterator<Item = &'a String>,
        evidence: Result<Evidence, NotProven>,
    ) -> Self {
        match evidence {
            Err(failed) if failed.is_refusal() => Self::Refused(failed),
            Err(failed) => Self::Undecided(failed),
            Ok(evidence) => {
                let decided = |name: &String| (name.clone(), decide(entries, name, &evidence));
                let allowed_by = identities.into_iter().map(decided).collect();
                Self::Decided { evidence, allowed_by }
            }
        }
    }

    /// Whether the broker may hold and hand out this identity's tokens.
    pub fn allows(&self, identity: &str) -> bool {
        match self {
            Self::Open => true,
            Self::Undecided(_) | Self::Refused(_) => false,
            Self::Decided { allowed_by, .. } => {
                allowed_by.get(identity).copied().flatten().is_some()
            }
        }
    }

    /// What keeps the pod from being known, where something does.
    pub fn not_proven(&self) -> Option<&NotProven> {
        match self {
            Self::Undecided(failed) | Self::Refused(failed) => Some(failed),
            Self::Open | Self::Decided { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn entry(namespace: &str, account: &str, of: &[(&str, &str)], identities: &[&str]) -> Entry {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Entry {
            namespace: given(namespace),
            service_account: given(account),
            labels: labels(of),
            identities: identities.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn pod(namespace: &str, account: &str, of: &[(&str, &str)]) -> Evidence {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Evidence {
            namespace: given(namespace),
            service_account: given(account),
            labels: labels(of),
            pod: None,
        }
    }

    #[test]
    fn b05_everything_that_an_entry_says_must_be_so_exactly() {
        let full = entry("tenant-a", "orders", &[("tier", "gold"), ("app", "o")], &["a", "b"]);
        let gold = [("tier", "gold"), ("app", "o")];
        let more = [("tier", "gold"), ("app", "o"), ("extra", "x")];
        let cases: &[(&str, Evidence, bool)] = &[
            ("a", pod("tenant-a", "orders", &gold), true),
            ("b", pod("tenant-a", "orders", &more), true),
            ("c", pod("tenant-a", "orders", &gold), false),
            ("A", pod("tenant-a", "orders", &gold), false),
            ("", pod("tenant-a", "orders", &gold), false),
            ("a", pod("tenant-b", "orders", &gold), false),
            ("a", pod("tenant-a", "billing", &gold), false),
            ("a", pod("tenant-a", "orders", &[("tier", "silver"), ("app", "o")]), false),
            ("a", pod("tenant-a", "orders", &[("app", "o")]), false),
            ("a", pod("tenant-a", "orders", &[]), false),
            // No prefix, no other case, no pattern.
            ("a", pod("tenant-a2", "orders", &gold), false),
            ("a", pod("tenant-", "orders", &gold), false),
            ("a", pod("Tenant-a", "orders", &gold), false),
            ("a", pod("*", "*", &[("tier", "*"), ("app", "*")]), false),
            ("a", pod("tenant-a", "orders", &[("tier", "golden"), ("app", "o")]), false),
            ("a", pod("tenant-a", "orders", &[("Tier", "gold"), ("app", "o")]), false),
            // What is not known is not so.
            ("a", pod("", "orders", &gold), false),
            ("a", pod("tenant-a", "", &gold), false),
            ("a", Evidence::default(), false),
        ];
        for (identity, evidence, allowed) in cases {
            let found = decide(std::slice::from_ref(&full), identity, evidence);
            assert_eq!(found.is_some(), *allowed, "{identity} {evidence:?}");
        }
    }

    #[test]
    fn each_member_alone_selects_and_entries_are_alternatives() {
        let entries = [
            entry("tenant-a", "", &[], &["a"]),
            entry("", "batch", &[], &["b"]),
            entry("", "", &[("tier", "gold")], &["a", "c"]),
        ];
        let gold = [("tier", "gold")];
        let cases = [
            (pod("tenant-a", "x", &[]), [Some(0), None, None]),
            (pod("x", "batch", &[]), [None, Some(1), None]),
            (pod("x", "x", &gold), [Some(2), None, Some(2)]),
            (pod("tenant-a", "batch", &gold), [Some(0), Some(1), Some(2)]),
        ];
        for (evidence, expected) in cases {
            let found = ["a", "b", "c"].map(|identity| decide(&entries, identity, &evidence));
            assert_eq!(found, expected, "{evidence:?}");
        }
    }

    #[test]
    fn b05_without_an_entry_everything_is_denied() {
        let names = ["a".to_owned()];
        let evidence = pod("tenant-a", "orders", &[]);
        let standing = Standing::of(&[], &names, Ok(evidence));
        assert!(!standing.allows("a"));
        assert_eq!(standing.not_proven(), None);
        assert!(Standing::Open.allows("a"));
    }

    #[test]
    fn b05_what_is_not_proven_allows_nothing() {
        let entries = [entry("tenant-a", "", &[], &["a"])];
        let names = ["a".to_owned()];
        let standing = Standing::of(&entries, &names, Err(NotProven::Expired));
        assert_eq!(standing, Standing::Undecided(NotProven::Expired));
        assert!(!standing.allows("a"));
        let standing = Standing::of(&entries, &names, Err(NotProven::Signature));
        assert_eq!(standing, Standing::Refused(NotProven::Signature));
        assert!(!standing.allows("a"));
        let standing = Standing::of(&entries, &names, Ok(pod("tenant-a", "x", &[])));
        assert!(standing.allows("a"));
        // An identity that was not there when it was decided.
        assert!(!standing.allows("b"));
    }

    #[test]
    fn an_explanation_names_every_member_that_does_not_fit() {
        let asked = entry("tenant-a", "orders", &[("tier", "gold")], &["a"]);
        let found = asked.mismatches("b", &pod("tenant-b", "", &[("tier", "silver")]));
        let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "does not name it",
                "namespace is `tenant-b`, not `tenant-a`",
                "service_account is not known, not `orders`",
                "labels.tier is `silver`, not `gold`",
            ]
        );
        assert!(asked.mismatches("a", &pod("tenant-a", "orders", &[("tier", "gold")])).is_empty());
    }
}
