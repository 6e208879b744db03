//! `countersign approvals`: through the running gateway, or under the ledger's own lock without one.

use clap::{Args, Subcommand};
use countersign_core::id::ApprovalId;
use countersign_core::ledger::{Channel, Ledger};
use countersign_core::seams::Clock;
use countersign_core::x402::text::clean;
use http::Method;
use serde_json::{Value, json};

use super::admin::{Client, NotRunning};
use super::listing::{column, print};
use super::{Failure, Listing, Outcome, Remote, inspect, operator_token, say};
use crate::clock::SystemClock;
use crate::config::{Config, Environment, OperatorConfig, OperatorRole};
use crate::problem::Problem;
use crate::views::{self, Viewer};
use crate::voting::{self, Voter};
use crate::{identity, proposal, store};

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
    /// One of them, and the rule that was proposed with it.
    Show {
        #[command(flatten)]
        listing: Listing,
        /// The approval's id, `apr_…`.
        id: String,
    },
    /// Say yes.
    Approve {
        #[command(flatten)]
        word: Word,
        /// Also propose the rule that would make the question unnecessary: a diff of the configuration to review, which
        /// is never applied by itself.
        #[arg(long)]
        propose: bool,
    },
    /// Say no.
    Deny(Word),
    /// What the webhook of `[approvals]` was told, and what came of it.
    Deliveries(Listing),
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
        Approvals::Show { listing, id } => show(&listing, &id).await,
        Approvals::Approve { word, propose } => vote(&word, true, propose, environment).await,
        Approvals::Deny(word) => vote(&word, false, false, environment).await,
        Approvals::Deliveries(listing) => deliveries(&listing).await,
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

fn approval_id(text: &str) -> Result<ApprovalId, Failure> {
    text.parse().map_err(|e| Failure::new(format!("{text}: {e}")).hint("`countersign approvals list` prints them"))
}

async fn show(listing: &Listing, id: &str) -> Outcome {
    let id = approval_id(id)?;
    let config = inspect(&listing.common)?;
    let ledger = store::open_read_only(&config)?;
    let approval = ledger.approval(id).await?.ok_or_else(|| Failure::new(format!("there is no approval {id}")))?;
    let payment = ledger.payment(approval.payment).await?;
    let mut view = views::approval(&approval, payment.as_ref(), Viewer::Operator, &config);
    if let (Some(map), Some(kept)) = (view.as_object_mut(), ledger.proposal(id).await?) {
        map.insert("proposal".into(), proposal::view(&kept));
    }
    if listing.json {
        say(format_args!("{view:#}"));
        return Ok(());
    }
    let text = |pointer: &str| match view.pointer(pointer) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => clean(text, 256),
        Some(other) => clean(&other.to_string(), 256),
    };
    for (head, pointer) in [
        ("approval", "/id"),
        ("state", "/state"),
        ("expires", "/expires_at"),
        ("amount", "/purchase/amount/value"),
        ("currency", "/purchase/amount/currency"),
        ("seller", "/purchase/seller/host"),
        ("pay to", "/purchase/seller/pay_to"),
        ("resource", "/purchase/resource/url"),
        ("agent", "/purchase/agent"),
        ("user", "/purchase/user"),
        ("task", "/purchase/task"),
        ("quorum", "/quorum"),
        ("groups", "/groups"),
        ("missing", "/missing"),
        ("digest", "/frozen"),
    ] {
        say(format_args!("{head:<9} {}", text(pointer)));
    }
    for reason in &approval.shown {
        say(format_args!("{:<9} {} {}", "asks", clean(&reason.0, 64), clean(&reason.1, 64)));
    }
    for vote in &approval.votes {
        let word = if vote.approve { "yes" } else { "no" };
        say(format_args!("{:<9} {} {word} at {}: {}", "said", vote.operator, vote.at, clean(&vote.note, 256)));
    }
    view.get("proposal").map(say_proposal);
    Ok(())
}

/// A proposal for people: what each reason comes to, then the diff.
fn say_proposal(proposal: &Value) {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    for answer in proposal.get("answers").and_then(Value::as_array).into_iter().flatten() {
        let (policy, code, says) = (text(answer, "policy"), text(answer, "code"), text(answer, "says"));
        say(format_args!("rule      {} {}: {}", clean(&policy, 64), clean(&code, 64), clean(&says, 512)));
    }
    for key in ["problem", "applies"] {
        let said = text(proposal, key);
        if !said.is_empty() {
            say(format_args!("rule      {}", clean(&said, 512)));
        }
    }
    let diff = text(proposal, "diff");
    for line in diff.lines() {
        say(line);
    }
}

async fn deliveries(listing: &Listing) -> Outcome {
    const MOST: u32 = 500;
    let config = inspect(&listing.common)?;
    let ledger = store::open_read_only(&config)?;
    let items: Vec<Value> = ledger.notices(None, MOST).await?.iter().map(views::notice).collect();
    let columns = [
        column("ID", "/id"),
        column("AT", "/at"),
        column("TYPE", "/type"),
        column("APPROVAL", "/approval"),
        column("DELIVERY", "/delivery/state"),
        column("ATTEMPTS", "/delivery/attempts"),
        column("LAST", "/delivery/last/outcome"),
    ];
    print(listing.json, &json!({"items": items, "next": null}), &columns);
    Ok(())
}

async fn vote(word: &Word, approve: bool, propose: bool, environment: &Environment) -> Outcome {
    let id = approval_id(&word.id)?;
    let client = Client::new(&word.remote, environment)?;
    let verb = if approve { "approve" } else { "deny" };
    let path = format!("/v1/approvals/{id}/{verb}");
    let body = json!({"note": word.note, "propose": propose});
    let answer = match client.call(Method::POST, &path, Some(body)).await? {
        Ok(answer) => answer,
        Err(NotRunning(why)) if word.remote.admin.is_some() => return Err(Failure::new(why)),
        Err(NotRunning(_)) => vote_offline(word, id, approve, propose, environment).await?,
    };
    if word.remote.listing.json {
        say(format_args!("{answer:#}"));
        return Ok(());
    }
    say(format_args!("{id} is {}", answer.get("state").and_then(Value::as_str).unwrap_or("unknown")));
    answer.get("proposal").map(say_proposal);
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
async fn vote_offline(
    word: &Word,
    id: ApprovalId,
    approve: bool,
    propose: bool,
    environment: &Environment,
) -> Result<Value, Failure> {
    let config = inspect(&word.remote.listing.common)?;
    let (name, operator) = speaker(&config, environment)?;
    let now = SystemClock.now()?;
    let ledger = store::open(&config, now)?;
    let voter = Voter { name: &name, operator, config: &config };
    let said = voting::Word { approval: id, approve, note: word.note.clone(), channel: Channel::Cli, quoted: None };
    let told = |problem: Problem| Failure::new(problem.detail);
    let spoken = voting::speak(&ledger, voter, said, now).await.map_err(told)?;
    let mut view = views::approval(&spoken.approval, Some(&spoken.payment), Viewer::Operator, &config);
    if propose {
        let proposed = proposal::propose(&ledger, voter, &spoken.approval, &spoken.payment, now).await.map_err(told)?;
        if let Some(map) = view.as_object_mut() {
            map.insert("proposal".into(), proposal::view(&proposed));
        }
    }
    Ok(view)
}
