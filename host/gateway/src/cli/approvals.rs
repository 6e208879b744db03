//! `countersign approvals`: through the running gateway, or under the ledger's own lock without one.

use clap::{Args, Subcommand};
use countersign_core::id::ApprovalId;
use countersign_core::ledger::{Cast, Ledger};
use countersign_core::seams::Clock;
use http::Method;
use serde_json::{Value, json};

use super::admin::{Client, NotRunning};
use super::listing::{column, print};
use super::{Failure, Listing, Outcome, Remote, inspect, operator_token, say};
use crate::clock::SystemClock;
use crate::config::{Config, Environment, OperatorConfig, OperatorRole};
use crate::identity;
use crate::store;
use crate::views::{self, Viewer};

/// Purchases that wait for people.
#[derive(Subcommand)]
pub(super) enum Approvals {
    /// Those that wait; with --all, those that did.
    List {
        #[command(flatten)]
        listing: Listing,
        /// Also those that are over.
        #[arg(long)]
        all: bool,
    },
    /// Say yes.
    Approve(Word),
    /// Say no.
    Deny(Word),
}

/// One operator's word.
#[derive(Args)]
pub(super) struct Word {
    #[command(flatten)]
    remote: Remote,
    /// The approval's id, `apr_…`.
    id: String,
    /// Why.
    #[arg(long, default_value = "")]
    note: String,
}

pub(super) async fn run(command: Approvals, environment: &Environment) -> Outcome {
    match command {
        Approvals::List { listing, all } => list(&listing, all).await,
        Approvals::Approve(word) => vote(&word, true, environment).await,
        Approvals::Deny(word) => vote(&word, false, environment).await,
    }
}

async fn list(listing: &Listing, all: bool) -> Outcome {
    let config = inspect(&listing.common)?;
    let ledger = store::open_read_only(&config)?;
    let mut items = Vec::new();
    for approval in ledger.approvals(!all).await? {
        let payment = ledger.payment(approval.payment).await?;
        items.push(views::approval(&approval, payment.as_ref(), Viewer::Operator, &config));
    }
    let columns = [
        column("ID", "/id"),
        column("STATE", "/state"),
        column("AMOUNT", "/purchase/amount/value"),
        column("AGENT", "/purchase/agent"),
        column("SELLER", "/purchase/seller/host"),
        column("URL", "/purchase/resource/url"),
        column("EXPIRES", "/expires_at"),
    ];
    print(listing.json, &json!({"items": items, "next": null}), &columns);
    Ok(())
}

async fn vote(word: &Word, approve: bool, environment: &Environment) -> Outcome {
    let id: ApprovalId = word.id.parse().map_err(|e| Failure::new(format!("{}: {e}", word.id)))?;
    let client = Client::new(&word.remote, environment)?;
    let verb = if approve { "approve" } else { "deny" };
    let path = format!("/v1/approvals/{id}/{verb}");
    let answer = match client.call(Method::POST, &path, Some(json!({"note": word.note}))).await? {
        Ok(answer) => answer,
        Err(NotRunning(why)) if word.remote.admin.is_some() => return Err(Failure::new(why)),
        Err(NotRunning(_)) => vote_offline(word, id, approve, environment).await?,
    };
    if word.remote.listing.json {
        say(format_args!("{answer:#}"));
    } else {
        say(format_args!("{id} is {}", answer.get("state").and_then(Value::as_str).unwrap_or("unknown")));
    }
    Ok(())
}

/// Who speaks while no gateway is running: an approver of the configuration, by their token.
pub(super) fn speaker<'a>(
    config: &'a Config,
    environment: &Environment,
) -> Result<(String, &'a OperatorConfig), Failure> {
    let token = operator_token(environment)?;
    let (name, operator) = identity::operator(Some(&token), config)
        .map_err(|_| Failure::new("COUNTERSIGN_OPERATOR_TOKEN is no operator's token of this configuration"))?;
    if !operator.roles.contains(&OperatorRole::Approver) {
        return Err(Failure::new(format!("operator `{name}` does not have the role `approver`")));
    }
    Ok((name.to_owned(), operator))
}

/// Without a gateway the ledger's lock is ours; who is speaking is still checked against the
/// configuration.
async fn vote_offline(word: &Word, id: ApprovalId, approve: bool, environment: &Environment) -> Result<Value, Failure> {
    let config = inspect(&word.remote.listing.common)?;
    let (name, operator) = speaker(&config, environment)?;
    let now = SystemClock.now()?;
    let ledger = store::open(&config, now)?;
    let asked = ledger.approval(id).await?.ok_or_else(|| Failure::new("there is no such approval"))?;
    if let Some(payment) = ledger.payment(asked.payment).await?
        && let Some(what) = operator.scope.excludes_principal(&payment.facts.principal)
    {
        return Err(Failure::new(format!("operator `{name}` does not decide about this {what}")));
    }
    let groups = operator.groups.iter().cloned().collect();
    let cast = Cast { approval: id, operator: name, groups, approve, note: word.note.clone(), at: now };
    let approval = ledger.vote(cast).await?;
    let payment = ledger.payment(approval.payment).await?;
    Ok(views::approval(&approval, payment.as_ref(), Viewer::Operator, &config))
}
