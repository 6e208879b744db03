//! What an edit may change while the gateway runs.

use std::collections::{BTreeMap, BTreeSet};

use super::reader::join;
use super::{AgentConfig, Approvals, Config, Gateway, OperatorConfig, WalletConfig, WalletKind};

impl Config {
    /// Keys that differ and cannot change while running: those of the gateway, the ledger and the
    /// wallets. An edit that touches one is refused whole.
    #[must_use]
    pub fn needs_restart(&self, new: &Self) -> Vec<String> {
        let Gateway { listen, admin, currency, tls, admin_hosts } = &self.gateway;
        let fixed = [
            ("gateway.listen", *listen != new.gateway.listen),
            ("gateway.admin", *admin != new.gateway.admin),
            ("gateway.currency", *currency != new.gateway.currency),
            ("gateway.tls", *tls != new.gateway.tls),
            ("gateway.admin-hosts", *admin_hosts != new.gateway.admin_hosts),
            ("ledger.url", self.ledger.store != new.ledger.store),
            ("ledger.log-key", self.ledger.log_key != new.ledger.log_key),
            ("ledger.anchor", self.ledger.anchor != new.ledger.anchor),
            ("engine", self.engine != new.engine),
            ("egress.roots", self.egress.roots != new.egress.roots),
            ("egress.answer-timeout", self.egress.answer_ms != new.egress.answer_ms),
            ("proxy.ca", self.proxy.ca != new.proxy.ca),
            ("telemetry", self.telemetry != new.telemetry),
            ("alerts", self.alerts != new.alerts),
            ("approvals.webhook", self.approvals.webhook != new.approvals.webhook),
        ];
        let changed = fixed.into_iter().filter(|(_, differs)| *differs);
        let mut keys: Vec<String> = changed.map(|(key, _)| key.to_owned()).collect();
        for (name, wallet) in &self.wallets {
            let table = join("wallet", name);
            match new.wallets.get(name) {
                None => keys.push(table),
                Some(other) => keys.extend(wallet_changes(wallet, other).into_iter().map(|key| join(&table, key))),
            }
        }
        let added = new.wallets.keys().filter(|name| !self.wallets.contains_key(*name));
        keys.extend(added.map(|name| join("wallet", name)));
        keys
    }

    /// This configuration with only the restrictions of `new`: what was removed or tightened there
    /// holds at once, whatever else is wrong with the edit. Nothing becomes possible that was not,
    /// except that a replaced token is the new one.
    ///
    /// Mandates, policies and budgets stay as they are: they change together or not at all. A wallet
    /// that was removed keeps its place and may sign for no network.
    #[must_use]
    pub fn restrict(&self, new: &Self) -> Self {
        let mut config = self.clone();
        config.egress = self.egress.intersect(&new.egress);
        config.limits = self.limits.min(&new.limits);
        config.approvals = Approvals {
            quorum: self.approvals.quorum.max(new.approvals.quorum),
            expires_in_seconds: self.approvals.expires_in_seconds.min(new.approvals.expires_in_seconds),
            webhook: self.approvals.webhook.clone(),
            policy_quorum: self.approvals.policy_quorum.max(new.approvals.policy_quorum),
        };
        config.networks.retain(|network, _| new.networks.contains_key(network));
        for (name, wallet) in &mut config.wallets {
            match new.wallets.get(name) {
                None => wallet.networks.clear(),
                Some(other) => {
                    wallet.networks.retain(|network| other.networks.contains(network));
                    wallet.daily_limit = wallet.daily_limit.min(other.daily_limit);
                }
            }
        }
        config.agents = both(&self.agents, &new.agents, |ours, theirs| AgentConfig {
            token_sha256: ours.token_sha256.as_ref().and(theirs.token_sha256.clone()),
            certificate_sha256: theirs.certificate_sha256.clone().or(ours.certificate_sha256.clone()),
            subject: ours.subject.clone().filter(|_| ours.subject == theirs.subject),
            roles: ours.roles.intersection(&theirs.roles).cloned().collect(),
            ..ours.clone()
        });
        let kept = self.issuers.iter().filter_map(|(name, ours)| {
            let theirs = new.issuers.get(name)?;
            Some((name.clone(), ours.restrict(theirs)?))
        });
        config.issuers = kept.collect();
        let kept = self.mcp_servers.iter().filter_map(|(name, ours)| {
            let theirs = new.mcp_servers.get(name)?;
            Some((name.clone(), ours.restrict(theirs)?))
        });
        config.mcp_servers = kept.collect();
        config.operators = both(&self.operators, &new.operators, |ours, theirs| {
            let (scope, roles) = match ours.scope.restrict(&theirs.scope) {
                Some(scope) => (scope, ours.roles.intersection(&theirs.roles).copied().collect()),
                // Nobody is left to decide about.
                None => (ours.scope.clone(), BTreeSet::new()),
            };
            let groups = ours.groups.intersection(&theirs.groups).cloned().collect();
            OperatorConfig {
                token_sha256: theirs.token_sha256.clone(),
                roles,
                groups,
                scope,
                // Whoever they are in either, they do not approve for.
                users: ours.users.union(&theirs.users).cloned().collect(),
                approval_key: ours.approval_key.as_ref().and(theirs.approval_key.clone()),
            }
        });
        config
    }
}

impl Config {
    /// As [`Config::restrict`], where `file` may be older than this one, which is what a shared ledger says: a token, a
    /// certificate or a key that the two do not agree on is nobody's, and an MCP server on whose credentials they differ is
    /// none.
    #[must_use]
    pub fn restrict_to_both(&self, file: &Self) -> Self {
        let mut config = self.restrict(file);
        for (name, agent) in &mut config.agents {
            let (Some(ours), Some(theirs)) = (self.agents.get(name), file.agents.get(name)) else { continue };
            if ours.token_sha256 != theirs.token_sha256 || ours.certificate_sha256 != theirs.certificate_sha256 {
                (agent.token_sha256, agent.subject) = (None, None);
            }
        }
        config.operators.retain(|name, _| {
            let token = |config: &Self| config.operators.get(name).map(|operator| operator.token_sha256.clone());
            token(self) == token(file)
        });
        config.mcp_servers.retain(|name, _| self.mcp_servers.get(name) == file.mcp_servers.get(name));
        for (name, operator) in &mut config.operators {
            let key = |config: &Self| config.operators.get(name).and_then(|operator| operator.approval_key.clone());
            operator.approval_key = key(self).filter(|ours| key(file).as_ref() == Some(ours));
        }
        config
    }
}

fn wallet_changes(old: &WalletConfig, new: &WalletConfig) -> Vec<&'static str> {
    let kind: &[(&str, bool)] = match (&old.kind, &new.kind) {
        (
            WalletKind::Keystore { path, passphrase },
            WalletKind::Keystore { path: new_path, passphrase: new_passphrase },
        ) => &[("path", path != new_path), ("passphrase", passphrase != new_passphrase)],
        (WalletKind::Key { key }, WalletKind::Key { key: new_key }) => &[("key", key != new_key)],
        _ => &[("kind", true)],
    };
    let rest = [("networks", old.networks != new.networks), ("daily-limit", old.daily_limit != new.daily_limit)];
    kind.iter().chain(&rest).filter(|(_, differs)| *differs).map(|(key, _)| *key).collect()
}

/// What is in both maps, combined.
fn both<T>(ours: &BTreeMap<String, T>, theirs: &BTreeMap<String, T>, and: impl Fn(&T, &T) -> T) -> BTreeMap<String, T> {
    let common = ours.iter().filter_map(|(name, one)| Some((name.clone(), and(one, theirs.get(name)?))));
    common.collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Environment;

    fn config(agent: char, operator: char) -> Config {
        let token = |c: char| c.to_string().repeat(64);
        let text = format!(
            "[agent.scout]\ntoken-sha256 = \"{}\"\nworkspace = \"lab\"\n[operator.alice]\ntoken-sha256 = \"{}\"\n\
             roles = [\"viewer\"]\n",
            token(agent),
            token(operator)
        );
        Config::parse(&text, Path::new("/srv"), &Environment::default()).unwrap()
    }

    #[test]
    fn a_token_that_an_older_file_still_has_is_nobodys() {
        let (new, old) = (config('a', 'b'), config('c', 'd'));
        let both = new.restrict_to_both(&old);
        assert_eq!(both.agents["scout"].token_sha256, None);
        assert!(both.operators.is_empty());
        let same = new.restrict_to_both(&new);
        assert_eq!((same.agents, same.operators), (new.agents.clone(), new.operators.clone()));
        // An edit of one's own replaces a token at once.
        assert_eq!(old.restrict(&new).agents["scout"].token_sha256, new.agents["scout"].token_sha256);
    }

    /// An operator with this approval key and these users.
    fn keyed(key: Option<char>, users: &str) -> Config {
        let secret = |c: char| format!("whsec_{}", c.to_string().repeat(40));
        let env: Environment = [("A", secret('a')), ("B", secret('b'))].into_iter().collect();
        let key = key.map(|name| format!("approval-key = {{ env = \"{name}\" }}\n")).unwrap_or_default();
        let token = "e".repeat(64);
        let text = format!("[operator.alice]\ntoken-sha256 = \"{token}\"\nroles = []\nusers = {users}\n{key}");
        Config::parse(&text, Path::new("/srv"), &env).unwrap()
    }

    #[test]
    fn a_key_that_is_taken_away_or_not_agreed_on_is_nobodys() {
        let (a, b, none) = (keyed(Some('A'), "[]"), keyed(Some('B'), "[]"), keyed(None, "[]"));
        let key = |config: &Config| config.operators["alice"].approval_key.clone();
        assert!(key(&a).is_some() && key(&none).is_none());
        assert_eq!(key(&a.restrict(&none)), None);
        assert_eq!(key(&none.restrict(&a)), None, "a restriction gives nobody a key");
        assert_eq!(key(&a.restrict(&b)), key(&b), "one that is replaced is the new one");
        assert_eq!(key(&a.restrict_to_both(&b)), None);
        assert_eq!(key(&a.restrict_to_both(&a)), key(&a));
    }

    #[test]
    fn whoever_an_operator_is_in_either_file_counts() {
        let both = keyed(None, "[\"ann\"]").restrict(&keyed(None, "[\"bea\"]"));
        assert_eq!(both.operators["alice"].users, ["ann", "bea"].map(str::to_owned).into());
    }

    #[test]
    fn who_is_told_of_approvals_changes_with_a_restart() {
        let env: Environment = [("A", format!("whsec_{}", "a".repeat(40)))].into_iter().collect();
        let text =
            |url: &str| format!("[approvals]\nquorum = 2\nwebhook = \"{url}\"\nwebhook-secret = {{ env = \"A\" }}\n");
        let parse = |text: &str| Config::parse(text, Path::new("/srv"), &env);
        let (one, other) = (parse(&text("https://a.example")).unwrap(), parse(&text("https://b.example")).unwrap());
        assert_eq!(one.needs_restart(&other), ["approvals.webhook"]);
        assert_eq!(parse("").unwrap().restrict(&one).approvals.webhook, None);
        assert!(!format!("{one:?}").contains("a.example"));
        for (text, key) in [
            (text("http://a.example"), "approvals.webhook"),
            ("[approvals]\nwebhook-secret = { env = \"A\" }\n".to_owned(), "approvals.webhook-secret"),
            ("[approvals]\nwebhook = \"https://a.example\"\n".to_owned(), "approvals.webhook-secret"),
        ] {
            assert_eq!(parse(&text).unwrap_err().key, key, "{text}");
        }
        let near = parse("[approvals]\nwebhook-secrets = 1\n").unwrap_err();
        assert!(near.to_string().contains("webhook-secret`?"), "{near}");
    }
}
