//! Who may buy and what pays: agents and wallets as operators list them. No secret is here to be told.

use countersign_core::budget::HOST;
use countersign_core::ledger::{LedgerError, SuspensionScope};
use countersign_core::time::Timestamp;
use countersign_core::verdict::Unit;
use serde_json::{Value, json};

use crate::config::{Config, WalletKind};
use crate::state::Gateway;
use crate::views;

/// `GET /v1/agents`: the configured ones. Agents that an issuer vouches for are known when they come.
pub(super) fn agents(gateway: &Gateway, config: &Config) -> Value {
    let items: Vec<_> = config
        .agents
        .iter()
        .map(|(name, agent)| {
            json!({
                "agent": name,
                "workspace": agent.workspace,
                "roles": agent.roles,
                "token": agent.token_sha256.is_some(),
                "certificate": agent.certificate_sha256.is_some(),
                "suspended": suspended(gateway, |scope| *scope == SuspensionScope::Agent(name.clone())),
            })
        })
        .collect();
    json!({"items": items, "next": null})
}

/// `GET /v1/wallets`: each with what is left of its day.
pub(super) async fn wallets(gateway: &Gateway, config: &Config, now: Timestamp) -> Result<Value, LedgerError> {
    let used = gateway.ledger.budgets(now).await?;
    let items: Vec<_> = config
        .wallets
        .iter()
        .map(|(name, wallet)| {
            let budget = used.iter().find(|b| b.owner == HOST && b.name == format!("wallet/{name}"));
            let (held, spent) = budget.map_or((0, 0), |b| (b.held, b.spent));
            let left = wallet.daily_limit.get().saturating_sub(held.saturating_add(spent));
            let money = |micros| views::amount(micros, Unit::Micros);
            let mandates: Vec<_> = config.mandates.iter().filter(|m| m.wallet == *name).map(|m| &m.name).collect();
            json!({
                "wallet": name,
                "kind": match wallet.kind {
                    WalletKind::Keystore { .. } => "keystore",
                    WalletKind::Key { .. } => "key",
                },
                // None: it was added after the start, and its key is not loaded.
                "address": gateway.signers.get(name).map(|signer| signer.address().to_string()),
                "networks": wallet.networks.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "mandates": mandates,
                "currency": config.gateway.currency,
                "daily_limit": money(wallet.daily_limit.get()),
                "held": money(held),
                "spent": money(spent),
                "available": money(left),
                "suspended": suspended(gateway, |scope| *scope == SuspensionScope::Wallet(name.clone())),
            })
        })
        .collect();
    Ok(json!({"items": items, "next": null}))
}

/// Whether a stop is for this, or for everything.
fn suspended(gateway: &Gateway, this: impl Fn(&SuspensionScope) -> bool) -> bool {
    gateway.stops.list().iter().any(|stop| stop.scope == SuspensionScope::All || this(&stop.scope))
}
