//! One operator's word on a purchase that waits, by whatever way it comes: the admin API, a signed message, the command
//! line without a gateway. Everything else that makes it count is the ledger's, in the transaction that counts it.

use countersign_core::id::ApprovalId;
use countersign_core::ledger::{Approval, Cast, Channel, Ledger, LedgerError, PaymentView, Quoted};
use countersign_core::time::Timestamp;

use crate::config::{Config, OperatorConfig};
use crate::problem::{Code, Problem};

/// Longest note that is kept, in characters.
const MAX_NOTE: usize = 256;

/// Who speaks, and the configuration that knows them.
#[derive(Clone, Copy)]
pub struct Voter<'a> {
    /// The operator's name.
    pub name: &'a str,
    /// The operator, who has the role `approver`.
    pub operator: &'a OperatorConfig,
    /// The configuration.
    pub config: &'a Config,
}

/// What they say.
#[derive(Clone, Debug)]
pub struct Word {
    /// On which approval.
    pub approval: ApprovalId,
    /// Yes or no.
    pub approve: bool,
    /// Why.
    pub note: String,
    /// The way it came.
    pub channel: Channel,
    /// What the message quotes, if it is one.
    pub quoted: Option<Quoted>,
}

/// What became of a word.
#[derive(Clone, Debug)]
pub struct Spoken {
    /// The approval now.
    pub approval: Approval,
    /// Its payment.
    pub payment: PaymentView,
    /// The message was counted before; nothing was done.
    pub replayed: bool,
}

fn unknown() -> Problem {
    Problem::new(Code::NotFound, "there is no approval with this id here").with("retry", false)
}

/// An approval with its payment, if it is this operator's to decide.
///
/// # Errors
/// `not-found`, and `forbidden` with the reason.
pub async fn asked(
    ledger: &dyn Ledger,
    voter: Voter<'_>,
    approval: ApprovalId,
) -> Result<(Approval, PaymentView), Problem> {
    let approval = ledger.approval(approval).await?.ok_or_else(unknown)?;
    let payment = ledger.payment(approval.payment).await?.ok_or_else(unknown)?;
    let principal = &payment.facts.principal;
    let forbidden = |why: String| Problem::new(Code::Forbidden, format!("operator `{}` {why}", voter.name));
    if let Some(what) = voter.operator.scope.excludes_principal(principal) {
        return Err(forbidden(format!("does not decide about this {what}")));
    }
    // A session may say for whom it is; whose agent it is stays in the file.
    let owner = voter.config.agents.get(&principal.agent).and_then(|agent| agent.user.as_ref());
    if let Some(user) = owner.filter(|user| voter.operator.users.contains(*user)) {
        return Err(forbidden(format!("is user `{user}`, whose agent asks: somebody else decides")));
    }
    Ok((approval, payment))
}

/// Counts a word.
///
/// # Errors
/// As for [`asked`]; and `forbidden` for somebody who has no say or is in the purchase's own chain, `conflict` for what
/// was decided, said or quoted otherwise.
pub async fn speak(ledger: &dyn Ledger, voter: Voter<'_>, word: Word, at: Timestamp) -> Result<Spoken, Problem> {
    asked(ledger, voter, word.approval).await?;
    let Voter { name, operator, config } = voter;
    let same_person = |(other, settings): (&String, &OperatorConfig)| {
        let is_they = other != name && !settings.users.is_disjoint(&operator.users);
        is_they.then(|| other.clone())
    };
    let id = word.approval;
    let message = word.quoted.as_ref().map(|quoted| quoted.message.clone());
    let cast = Cast {
        approval: id,
        operator: name.to_owned(),
        selves: config.operators.iter().filter_map(same_person).collect(),
        users: operator.users.iter().cloned().collect(),
        groups: operator.groups.iter().cloned().collect(),
        approve: word.approve,
        note: word.note.chars().take(MAX_NOTE).collect(),
        channel: word.channel,
        quoted: word.quoted,
        at,
    };
    let counted = ledger.vote(cast).await;
    let (approval, payment) = asked(ledger, voter, id).await?;
    match counted {
        Ok(approval) => Ok(Spoken { approval, payment, replayed: false }),
        // Senders repeat a message whose answer they did not hear.
        Err(LedgerError::Conflict(why)) => {
            let same = |v: &&countersign_core::ledger::Vote| v.operator == name && v.message.is_some();
            match approval.votes.iter().find(same).filter(|v| v.message == message && v.approve == word.approve) {
                Some(_) => Ok(Spoken { approval, payment, replayed: true }),
                None => Err(Problem::new(Code::Conflict, why)),
            }
        }
        Err(error) => Err(error.into()),
    }
}
