//! "Approve and propose a rule": the change of the configuration that would have made people unnecessary, as a diff for
//! people to review. Nothing here writes a file.

mod diff;
mod edit;
mod rules;

use countersign_core::ledger::{Approval, Ledger, PaymentView};
use countersign_core::notice::Proposal;
use countersign_core::time::Timestamp;
use countersign_core::verdict::{Mode, Verdict};
use serde_json::{Value, json};

use crate::config::Config;
use crate::problem::Problem;
use crate::voting::Voter;
use edit::Edit;
use rules::{Answer, Rule};

const APPLIES: &str = "nothing is applied by itself: review the diff, then change the file";

/// Works out a proposal and keeps it.
///
/// # Errors
/// The ledger's.
pub async fn propose(
    ledger: &dyn Ledger,
    voter: Voter<'_>,
    approval: &Approval,
    payment: &PaymentView,
    at: Timestamp,
) -> Result<Proposal, Problem> {
    let document = document(voter.config, approval, payment).to_string();
    let proposal = Proposal { approval: approval.id, by: voter.name.to_owned(), document, at };
    ledger.propose(proposal.clone()).await?;
    Ok(proposal)
}

/// A kept proposal as people read it.
#[must_use]
pub fn view(proposal: &Proposal) -> Value {
    let mut view: Value = serde_json::from_str(&proposal.document).unwrap_or_default();
    if let Some(map) = view.as_object_mut() {
        map.insert("approval".into(), json!(proposal.approval));
        map.insert("by".into(), proposal.by.clone().into());
        map.insert("at".into(), proposal.at.to_string().into());
    }
    view
}

fn document(config: &Config, approval: &Approval, payment: &PaymentView) -> Value {
    let answers: Vec<Answer> =
        approval.shown.iter().map(|(policy, code)| rules::answer(config, (policy, code), payment)).collect();
    let edits: Vec<Edit> = answers.iter().flat_map(|a| a.rule.edits()).cloned().collect();
    let made = if edits.is_empty() { Ok(None) } else { change(config, &edits).map(Some) };
    let (diff, mut problem) = match made {
        Ok(diff) => (diff, None),
        Err(why) => (None, Some(why)),
    };
    let allowed = payment.decision.judgement.opinions.iter().any(|o| {
        o.mode == Mode::Enforce && o.outcome.as_ref().is_ok_and(|decision| decision.verdict == Verdict::Allow)
    });
    if !allowed && problem.is_none() {
        problem =
            Some("no policy of the mandate allows this purchase: without the question it would be denied".to_owned());
    }
    let complete = problem.is_none() && answers.iter().all(|a| !matches!(a.rule, Rule::None));
    let said =
        answers.iter().map(|a| json!({"policy": a.policy, "code": a.code, "answer": a.rule.word(), "says": a.says}));
    json!({
        "complete": complete,
        "file": config.path.display().to_string(),
        "config_sha256": config.sha256,
        "answers": said.collect::<Vec<_>>(),
        "problem": problem,
        "applies": diff.as_ref().map(|_| APPLIES),
        "diff": diff,
    })
}

/// The diff that these edits make, of the file that serves.
fn change(config: &Config, edits: &[Edit]) -> Result<String, String> {
    let text = config.text().map_err(|e| e.to_string())?;
    let file = config.with_text(&text).map_err(|e| format!("the file as it is now is not valid: {e}"))?;
    let same = |policy: &String| config.policies.get(policy) == file.policies.get(policy);
    if file.sha256 != config.sha256 || !edits.iter().all(|edit| same(&edit.policy)) {
        return Err("what serves is not what the file says: bring them together first, then propose again".to_owned());
    }
    let proposed = edit::apply(&text, edits)?;
    config.with_text(&proposed).map_err(|e| format!("the file would not be valid: {e}"))?;
    let name = config.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(diff::unified(&name, &text, &proposed))
}
