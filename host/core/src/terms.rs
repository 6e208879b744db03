//! Who must approve a purchase: what every policy that asks demands, all of it at once.
//!
//! An approval is given when as many different people have said yes as the highest quorum asks for, *and* each group
//! that a policy named has said yes as often as that policy asked, by different people of that group. One person
//! counts in every group they are in. Where a group is named, only people of a named group have a say.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::verdict::ReviewTerms;

/// Combined terms. Rows of before there were several groups read as what they meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct ApprovalTerms {
    /// How many people must approve; at least 1.
    pub quorum: u8,
    /// How many of them from each group that must approve.
    pub groups: BTreeMap<String, u8>,
    /// How long the review stays open.
    pub expires_in_seconds: u32,
}

#[derive(Deserialize)]
struct Stored {
    quorum: u8,
    #[serde(default)]
    groups: BTreeMap<String, u8>,
    #[serde(default)]
    group: Option<String>,
    expires_in_seconds: u32,
}

impl From<Stored> for ApprovalTerms {
    fn from(stored: Stored) -> Self {
        let quorum = stored.quorum.max(1);
        let mut groups = stored.groups;
        if let Some(group) = stored.group {
            groups.entry(group).or_insert(quorum);
        }
        Self { quorum, groups, expires_in_seconds: stored.expires_in_seconds }
    }
}

/// What an approval still lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// So many more people.
    pub people: u8,
    /// So many more of these groups.
    pub groups: BTreeMap<String, u8>,
}

impl Missing {
    /// Whether nothing is missing.
    #[must_use]
    pub fn nothing(&self) -> bool {
        self.people == 0 && self.groups.is_empty()
    }
}

impl ApprovalTerms {
    /// What `quorum` people may approve within `seconds`.
    #[must_use]
    pub const fn of(quorum: u8, seconds: u32) -> Self {
        let quorum = if quorum == 0 { 1 } else { quorum };
        Self { quorum, groups: BTreeMap::new(), expires_in_seconds: seconds }
    }

    /// The strictest of all that was asked. What a policy leaves open is as `configured`, whose quorum is also the
    /// least there is.
    #[must_use]
    pub fn strictest(asked: &[ReviewTerms], configured: &Self) -> Self {
        let quorum_of = |t: &ReviewTerms| if t.quorum == 0 { configured.quorum } else { t.quorum };
        let seconds_of = |t: &ReviewTerms| match t.expires_in_seconds {
            0 => configured.expires_in_seconds,
            stated => stated,
        };
        let quorum = asked.iter().map(quorum_of).fold(configured.quorum.max(1), u8::max);
        let mut groups: BTreeMap<String, u8> = BTreeMap::new();
        for terms in asked {
            if let Some(group) = &terms.group {
                let most = groups.entry(group.clone()).or_default();
                *most = quorum_of(terms).max(1).max(*most);
            }
        }
        let expires_in_seconds = asked.iter().map(seconds_of).min().unwrap_or(configured.expires_in_seconds);
        Self { quorum, groups, expires_in_seconds }
    }

    /// Whether somebody who is in these groups has a say.
    #[must_use]
    pub fn hears(&self, groups: &[String]) -> bool {
        self.groups.is_empty() || groups.iter().any(|group| self.groups.contains_key(group))
    }

    /// What is missing after these have said yes, each a different person, given as the groups they are in.
    #[must_use]
    pub fn missing<'a>(&self, yes: impl Iterator<Item = &'a [String]> + Clone) -> Missing {
        let short = |wanted: u8, have: usize| wanted.saturating_sub(u8::try_from(have).unwrap_or(u8::MAX));
        let people = short(self.quorum, yes.clone().count());
        let of = |group: &String| yes.clone().filter(|groups| groups.contains(group)).count();
        let groups = self.groups.iter().map(|(group, wanted)| (group.clone(), short(*wanted, of(group))));
        Missing { people, groups: groups.filter(|(_, short)| *short > 0).collect() }
    }

    /// The groups that have a say, for people; empty: everybody.
    #[must_use]
    pub fn named(&self) -> String {
        let names: BTreeSet<String> = self.groups.keys().map(|group| format!("`{group}`")).collect();
        names.into_iter().collect::<Vec<_>>().join(" or ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(group: Option<&str>, quorum: u8, expires_in_seconds: u32) -> ReviewTerms {
        ReviewTerms { group: group.map(str::to_owned), quorum, expires_in_seconds }
    }

    fn people(of: &[&[&str]]) -> Vec<Vec<String>> {
        of.iter().map(|groups| groups.iter().map(|g| (*g).to_owned()).collect()).collect()
    }

    fn missing(terms: &ApprovalTerms, yes: &[&[&str]]) -> (u8, Vec<(String, u8)>) {
        let yes = people(yes);
        let missing = terms.missing(yes.iter().map(Vec::as_slice));
        assert_eq!(missing.nothing(), missing.people == 0 && missing.groups.is_empty());
        (missing.people, missing.groups.into_iter().collect())
    }

    #[test]
    fn terms_combine_strictest() {
        let configured = ApprovalTerms::of(1, 3_600);
        let of = |asked: &[ReviewTerms]| ApprovalTerms::strictest(asked, &configured);
        let both = of(&[asks(Some("finance"), 2, 7_200), asks(Some("legal"), 1, 0), asks(None, 3, 600)]);
        assert_eq!((both.quorum, both.expires_in_seconds), (3, 600));
        assert_eq!(both.groups, BTreeMap::from([("finance".to_owned(), 2), ("legal".to_owned(), 1)]));
        assert_eq!(of(&[]), configured);
        assert_eq!(of(&[asks(None, 1, 7_200)]).expires_in_seconds, 7_200, "a policy may say more than is configured");
        assert_eq!(of(&[asks(None, 1, 7_200), asks(None, 0, 0)]).expires_in_seconds, 3_600);
        let twice = of(&[asks(Some("finance"), 1, 0), asks(Some("finance"), 2, 0)]);
        assert_eq!((twice.quorum, twice.groups["finance"]), (2, 2));
        let two = ApprovalTerms::of(2, 60);
        let open = ApprovalTerms::strictest(&[asks(Some("finance"), 1, 0), asks(Some("legal"), 0, 0)], &two);
        assert_eq!((open.quorum, open.groups["finance"], open.groups["legal"]), (2, 1, 2));
        assert_eq!(ApprovalTerms::strictest(&[], &ApprovalTerms { quorum: 0, ..two }).quorum, 1);
    }

    #[test]
    fn every_group_and_the_highest_quorum_must_be_there() {
        let asked = [asks(Some("finance"), 2, 60), asks(Some("legal"), 1, 60)];
        let terms = ApprovalTerms::strictest(&asked, &ApprovalTerms::of(1, 60));
        let group = |name: &str, n| (name.to_owned(), n);
        assert_eq!(missing(&terms, &[]), (2, vec![group("finance", 2), group("legal", 1)]));
        assert_eq!(missing(&terms, &[&["finance"], &["finance"]]), (0, vec![group("legal", 1)]));
        assert_eq!(missing(&terms, &[&["finance"], &["legal"]]), (0, vec![group("finance", 1)]));
        assert_eq!(missing(&terms, &[&["finance", "legal"]]), (1, vec![group("finance", 1)]));
        assert_eq!(missing(&terms, &[&["finance", "legal"], &["finance"]]), (0, vec![]), "one counts in both");
        let one = [asks(Some("finance"), 1, 60), asks(Some("legal"), 1, 60)];
        let one = ApprovalTerms::strictest(&one, &ApprovalTerms::of(1, 60));
        assert_eq!(missing(&one, &[&["legal", "finance"]]), (0, vec![]), "one person may stand for both");
        let three = [asks(Some("finance"), 1, 60), asks(None, 3, 60)];
        let three = ApprovalTerms::strictest(&three, &ApprovalTerms::of(1, 60));
        assert_eq!(missing(&three, &[&["finance"], &["finance"]]), (1, vec![]));
        assert!(three.hears(&["x".to_owned(), "finance".to_owned()]) && !three.hears(&["legal".to_owned()]));
        assert!(ApprovalTerms::of(1, 60).hears(&[]));
    }

    #[test]
    fn rows_of_before_several_groups_are_read() {
        let read = |text: &str| serde_json::from_str::<ApprovalTerms>(text).unwrap();
        let old = read(r#"{"group":"finance","quorum":2,"expires_in_seconds":60}"#);
        assert_eq!((old.quorum, old.groups["finance"], old.expires_in_seconds), (2, 2, 60));
        assert_eq!(read(r#"{"group":null,"quorum":1,"expires_in_seconds":60}"#), ApprovalTerms::of(1, 60));
        let new = ApprovalTerms { groups: BTreeMap::from([("legal".to_owned(), 1)]), ..ApprovalTerms::of(3, 5) };
        assert_eq!(read(&serde_json::to_string(&new).unwrap()), new);
    }
}
