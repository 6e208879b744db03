//! Trouble on the way: lost answers, changed prices, storms. Money is never paid twice and never lost.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio::task::JoinSet;

use super::agent::{Agent, Answer, Trouble, number, text};
use super::report::foreign;
use super::scenarios::Tale;
use super::stage::{Stage, UNKNOWN_SELLER};
use super::world::{Seller, Stats};

/// Repeats of one purchase, all at once.
const REPEATS: usize = 50;
/// Identical calls that are all refused.
const REFUSED: usize = 200;

/// 8: the seller settles and closes the connection.
pub(super) async fn hangs_up(stage: &Stage, tale: &mut Tale) -> Result<(), Trouble> {
    let (scout, seller) = (stage.agent("scout"), stage.seller("takes-and-hangs-up")?);
    let url = seller.url("/quote");
    let lost = scout.fetch(&url, Some("hung-up")).await?;
    tale.call(stage, &scout, &lost);
    tale.explain(stage, &lost).await?;
    tale.expect(
        lost.is_refused(504, "outcome-unknown"),
        "the agent is told that nobody knows, and its budget stays held",
    );
    let again = scout.fetch(&url, Some("hung-up")).await?;
    tale.note("agent", "scout repeats the call with the same purchase_id");
    tale.answer(&again);
    tale.expect(again.status == 200 && again.body.contains("ACME"), "the repeat gets the goods");
    tale.expect(again.payment == lost.payment, "it is the same payment");
    let stats = seller.stats();
    let shown = presentations(&stats);
    tale.expect(stats.authorizations == 1, format!("one authorization, presented again: {shown}"));
    expect_paid(stage, tale, seller, 1_000);
    tale.prove(format!("504, then the goods for the same payment; {shown}"));
    Ok(())
}

/// 9: a second 402, ten times dearer, after the payment was presented.
pub(super) async fn raises_price(stage: &Stage, tale: &mut Tale) -> Result<(), Trouble> {
    let scout = stage.agent("scout");
    let mut proofs = Vec::new();
    for (name, paid) in [("takes-and-raises-price", 1_000), ("raises-price", 0)] {
        let seller = stage.seller(name)?;
        let url = seller.url("/quote");
        let first = scout.fetch(&url, Some(name)).await?;
        tale.call(stage, &scout, &first);
        tale.explain(stage, &first).await?;
        tale.expect(first.is_refused(502, "payment-refused"), "the second 402 is not paid and not passed on");
        let again = scout.fetch(&url, Some(name)).await?;
        tale.note("agent", "scout repeats the call with the same purchase_id");
        tale.answer(&again);
        tale.expect(!again.is_bought() && again.payment == first.payment, "no other payment comes of it");
        let shown = presentations(&seller.stats());
        tale.expect(seller.stats().authorizations == 1, format!("one authorization, over the first price: {shown}"));
        expect_paid(stage, tale, seller, paid);
        proofs.push(paid.to_string());
    }
    // The second seller has redeemed nothing yet, so what was signed for it is still out there.
    let other = scout.fetch(&stage.seller("raises-price")?.url("/quote"), Some("another-id")).await?;
    tale.note("agent", "scout tries the last one under another purchase_id");
    tale.answer(&other);
    tale.expect(other.is_refused(409, "payment-unknown"), "refused while the first payment is in doubt");
    tale.prove(format!("502 payment-refused; atomic units that moved: {}", proofs.join(" and ")));
    Ok(())
}

/// 10: an agent that repeats itself, many times at once.
pub(super) async fn storm(stage: &Stage, tale: &mut Tale) -> Result<(), Trouble> {
    let (looper, honest) = (stage.agent("looper"), stage.seller("honest")?);
    let (stats, balance) = (honest.stats(), stage.world.balance(honest.pay_to()));
    let answers = all_at_once(&looper, &honest.url("/quote"), Some("storm"), REPEATS).await?;
    let replayed = answers.iter().filter(|a| a.replayed).count();
    let bought = answers.iter().filter(|a| a.is_bought()).count();
    let same =
        answers.iter().all(|a| a.payment.is_some() && a.payment == answers.first().and_then(|f| f.payment.clone()));
    tale.note(
        "agent",
        format!("looper asks {REPEATS} times at once for {}, one purchase_id", stage.place(&honest.url("/quote"))),
    );
    tale.note("answers", format!("{bought} of {REPEATS} have the goods, {replayed} of them the kept answer"));
    if let Some(first) = answers.first() {
        tale.explain(stage, first).await?;
    }
    tale.expect(bought == REPEATS && same, "everybody gets the goods, for one and the same payment");
    tale.expect(replayed == REPEATS.saturating_sub(1), "one answer came from the seller, the others were kept");
    let new = honest.stats().authorizations.saturating_sub(stats.authorizations);
    tale.expect(new == 1, format!("authorizations the seller saw: {new}"));
    let moved = stage.world.balance(honest.pay_to()).saturating_sub(balance);
    tale.expect(moved == 1_000, format!("atomic units that moved: {moved}"));

    let refusals = all_at_once(&looper, &stage.seller(UNKNOWN_SELLER)?.url("/quote"), None, REFUSED).await?;
    let denied = refusals.iter().filter(|a| a.is_refused(403, "policy-denied")).count();
    tale.note("agent", format!("looper asks {REFUSED} times at once where it may not buy"));
    tale.note("answers", kinds(&refusals));
    let records = denied_records(stage).await?;
    let counted: u64 = records.iter().filter_map(|r| number(r, "/repeats")).sum();
    let one = records.len() == 1 && counted == u64::try_from(REFUSED).unwrap_or(u64::MAX);
    tale.expect(denied == REFUSED, "all of them are refused");
    tale.expect(one, format!("they are {} record in the ledger, with a count of {counted}", records.len()));
    tale.prove(format!("{REPEATS} calls: 1 payment, {replayed} replays; {REFUSED} refusals: {} record", records.len()));
    Ok(())
}

/// The same call so many times at once; all the answers.
async fn all_at_once(agent: &Agent, url: &str, purchase: Option<&str>, count: usize) -> Result<Vec<Answer>, Trouble> {
    let mut calls = JoinSet::new();
    for _ in 0..count {
        let (agent, url, purchase) = (agent.clone(), url.to_owned(), purchase.map(str::to_owned));
        calls.spawn(async move { agent.fetch(&url, purchase.as_deref()).await });
    }
    let mut answers = Vec::new();
    while let Some(call) = calls.join_next().await {
        answers.push(call.map_err(Trouble::with("a call of the storm"))??);
    }
    Ok(answers)
}

/// How many answers of each kind there are.
fn kinds(answers: &[Answer]) -> String {
    let mut kinds: BTreeMap<String, (usize, &str)> = BTreeMap::new();
    for answer in answers {
        let kind = kinds.entry(format!("{} {}", answer.status, answer.code)).or_insert((0, &answer.detail));
        kind.0 = kind.0.saturating_add(1);
    }
    let told = kinds.into_iter().map(|(kind, (count, detail))| format!("{count} times {kind}: {detail}"));
    foreign(&told.collect::<Vec<_>>().join("; "))
}

/// What the ledger has about the storm's refusals.
async fn denied_records(stage: &Stage) -> Result<Vec<Value>, Trouble> {
    let all = stage.operator.payments().await?;
    Ok(all.into_iter().filter(|p| text(p, "/agent") == "looper" && text(p, "/state") == "denied").collect())
}

/// A seller has got so much, by the chain, and no more.
fn expect_paid(stage: &Stage, tale: &mut Tale, seller: &Seller, sum: u128) {
    let moved = stage.world.balance(seller.pay_to());
    tale.expect(moved == sum, format!("atomic units in the account of {}: {moved}", seller.name()));
}

fn presentations(stats: &Stats) -> String {
    let Stats { presented, authorizations, redeemed, .. } = stats;
    format!("{presented} presentations, {authorizations} authorization(s), {redeemed} redeemed")
}
