//! `search_catalog`: which sellers this gateway knows. No index, no market place: what the operator wrote
//! down, and what this workspace has paid.

use std::collections::BTreeMap;

use countersign_core::ledger::PaymentFilter;
use countersign_core::payment::State;
use serde_json::{Value, json};

use crate::config::{Config, Module};
use crate::identity::Caller;
use crate::problem::Problem;
use crate::state::Gateway;

/// Paid purchases that are looked at, the newest first.
const MOST_PAYMENTS: u32 = 500;
/// Sellers in one answer.
const MOST_SELLERS: usize = 100;
/// The fact of `[vendor.NAME]` that agents are told.
const CATEGORY: &str = "category";

/// What is known of one host, or of a pattern of hosts.
#[derive(Default)]
struct Seller {
    listed: bool,
    category: Option<String>,
    last: Option<Value>,
}

/// The sellers in which every word of `query` occurs.
pub(super) async fn search(gateway: &Gateway, config: &Config, caller: &Caller, query: &str) -> Result<Value, Problem> {
    let mut sellers: BTreeMap<String, Seller> = BTreeMap::new();
    for vendor in &config.vendors {
        let category = vendor.facts.iter().find(|f| f.name == CATEGORY).map(|f| f.value.clone());
        for host in &vendor.hosts {
            let seller = sellers.entry(host.to_string()).or_default();
            (seller.listed, seller.category) = (true, category.clone());
        }
    }
    for host in allowed(config, caller) {
        sellers.entry(host).or_default().listed = true;
    }
    paid(gateway, config, caller, &mut sellers).await?;
    let words: Vec<String> = query.split_whitespace().map(str::to_lowercase).collect();
    let wanted = |host: &str, seller: &Seller| {
        let text = format!("{host} {}", seller.category.as_deref().unwrap_or_default()).to_lowercase();
        words.iter().all(|word| text.contains(word))
    };
    let found: Vec<_> = sellers.iter().filter(|(host, seller)| wanted(host, seller)).collect();
    let items: Vec<_> = found
        .iter()
        .take(MOST_SELLERS)
        .map(|(host, s)| json!({"host": host, "listed": s.listed, "category": s.category, "last_paid": s.last}))
        .collect();
    Ok(json!({"items": items, "more": found.len() > MOST_SELLERS}))
}

/// The hosts that the standard allowlists of the caller's mandate name.
fn allowed(config: &Config, caller: &Caller) -> Vec<String> {
    let mandate = config.mandates.iter().find(|m| m.when.matches(&caller.principal));
    let policies = mandate.into_iter().flat_map(|m| &m.policies).filter_map(|name| config.policies.get(name));
    let lists = policies.filter(|p| matches!(&p.module, Module::Builtin(name) if name == "vendor-allowlist"));
    let hosts = lists.filter_map(|p| serde_json::from_str::<Value>(&p.settings).ok()?.get("hosts").cloned());
    let each = hosts.flat_map(|hosts| hosts.as_array().cloned().unwrap_or_default());
    each.filter_map(|host| host.as_str().map(str::to_owned)).collect()
}

/// Who was paid by this workspace, when last and how much: the host, never what was asked of it or by whom.
async fn paid(
    gateway: &Gateway,
    config: &Config,
    caller: &Caller,
    sellers: &mut BTreeMap<String, Seller>,
) -> Result<(), Problem> {
    let states = vec![State::Seen, State::Settled, State::Refunded, State::Disputed];
    let filter = PaymentFilter { states, limit: MOST_PAYMENTS, ..PaymentFilter::default() };
    let workspace = caller.principal.workspace.as_deref().unwrap_or_default();
    for payment in gateway.ledger.payments(filter).await? {
        // Agents without a workspace share none.
        let ours = !workspace.is_empty() || payment.key.agent == caller.principal.agent;
        // A session sees what was bought in it, here as everywhere.
        let elsewhere =
            caller.session.is_some() && payment.session != caller.session || !caller.is_for(&payment.facts.principal);
        if payment.key.workspace != workspace || !ours || elsewhere {
            continue;
        }
        let last = || {
            json!({
                "at": payment.created_at.to_string(),
                "amount": payment.facts.value.to_string(),
                "currency": config.gateway.currency,
            })
        };
        sellers.entry(payment.facts.host.clone()).or_default().last.get_or_insert_with(last);
    }
    Ok(())
}
