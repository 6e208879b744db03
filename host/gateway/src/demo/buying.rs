//! Ordinary buying: who may, from whom, and how much.

use countersign_core::seams::Clock as _;
use serde_json::{Value, json};

use super::agent::{Agent, Answer, Trouble, items, text};
use super::scenarios::{Tale, short};
use super::stage::{Stage, UNKNOWN_SELLER};
use crate::clock::SystemClock;

/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;
/// A scenario about a day does not begin this close to its end.
const BEFORE_MIDNIGHT_MS: u64 = 5_000;

/// 1: an agent buys from a seller that the operator listed.
pub(super) async fn approved(stage: &Stage, tale: &mut Tale) -> Result<(), Trouble> {
    let (scout, honest) = (stage.agent("scout"), stage.seller("honest")?);
    let answer = scout.fetch(&honest.url("/quote"), None).await?;
    tale.call(stage, &scout, &answer);
    let payment = tale.explain(stage, &answer).await?;
    tale.expect(
        answer.is_bought() && answer.body.contains("ACME"),
        "the agent has the goods, and a receipt came with them",
    );
    tale.expect(stage.world.balance(honest.pay_to()) == 1_000, "0.001 USDC is in the seller's account on the chain");
    tale.prove(format!("0.001 USD, transaction {}", short(text(&payment, "/transaction"))));
    Ok(())
}

/// 2: the same goods from a seller that nobody listed.
pub(super) async fn unapproved(stage: &Stage, tale: &mut Tale) -> Result<(), Trouble> {
    let (scout, seller) = (stage.agent("scout"), stage.seller(UNKNOWN_SELLER)?);
    let answer = scout.fetch(&seller.url("/quote"), None).await?;
    tale.call(stage, &scout, &answer);
    tale.explain(stage, &answer).await?;
    let refused = answer.is_refused(403, "policy-denied");
    tale.expect(refused && answer.reasons == ["vendor-not-listed"], "refused with vendor-not-listed");
    tale.expect(seller.stats().presented == 0, "nothing was signed: the seller saw no payment");
    tale.prove("403 policy-denied: vendor-not-listed");
    Ok(())
}

/// 3: a listed seller, but too dear.
pub(super) async fn per_payment(stage: &Stage, tale: &mut Tale) -> Result<(), Trouble> {
    let (scout, honest) = (stage.agent("scout"), stage.seller("honest")?);
    let before = honest.stats().presented;
    let answer = scout.fetch(&honest.url("/report"), None).await?;
    tale.call(stage, &scout, &answer);
    tale.explain(stage, &answer).await?;
    let refused = answer.is_refused(403, "policy-denied");
    tale.expect(refused && answer.reasons == ["above-per-payment"], "refused with above-per-payment");
    tale.expect(honest.stats().presented == before, "nothing was signed");
    tale.prove("403 policy-denied: above-per-payment");
    Ok(())
}

/// 4: a policy's cap per session, 0.003: three purchases fit, whoever tries.
pub(super) async fn per_session(stage: &Stage, tale: &mut Tale) -> Result<(), Trouble> {
    let intern = stage.agent("intern");
    let outside = intern.fetch(&stage.seller("honest")?.url("/quote"), None).await?;
    tale.call(stage, &intern, &outside);
    tale.explain(stage, &outside).await?;
    tale.expect(outside.reasons == ["no-session"], "without a session there is nothing to cap, so it is refused");
    let inside = session(stage, tale, &intern, "1.00").await?;
    let refusal = exhaust(stage, tale, &inside, 3).await?;
    let budget = refusal.budget.clone().unwrap_or_default();
    tale.expect(budget.starts_with("session-caps/session/"), "the policy's own budget for this session had no room");
    tale.prove("3 purchases of 0.001 fit into 0.003, the 4th: budget-exceeded");
    Ok(())
}

/// 5: a policy's cap per agent and calendar day, 0.002.
pub(super) async fn per_day(stage: &Stage, tale: &mut Tale) -> Result<(), Trouble> {
    let now = SystemClock.now().map_err(Trouble::with("the day"))?.as_millis();
    let left = DAY_MS.saturating_sub(now.checked_rem(DAY_MS).unwrap_or_default());
    if left < BEFORE_MIDNIGHT_MS {
        tale.note("waited", format!("{left} ms for the next day to begin"));
        SystemClock.sleep(left).await;
    }
    let refusal = exhaust(stage, tale, &stage.agent("courier"), 2).await?;
    tale.expect(
        refusal.budget.as_deref() == Some("day-cap/agent/courier"),
        "the agent's budget of this day had no room",
    );
    tale.prove("2 purchases of 0.001 fit into 0.002, the 3rd: budget-exceeded");
    Ok(())
}

/// 6: the first purchase at a seller waits for a person, the next ones do not.
pub(super) async fn first_time(stage: &Stage, tale: &mut Tale) -> Result<(), Trouble> {
    let (buyer, seller) = (stage.agent("buyer"), stage.seller("honest-v1")?);
    let url = seller.url("/quote");
    let asked = buyer.fetch(&url, Some("first-order")).await?;
    tale.call(stage, &buyer, &asked);
    tale.explain(stage, &asked).await?;
    tale.expect(asked.is_refused(202, "approval-required"), "the purchase is frozen and its budget reserved");
    tale.expect(seller.stats().presented == 0, "nothing was signed yet");

    let waiting = stage.operator.get("/v1/approvals").await?;
    let listed = items(&waiting, "/items").any(|a| Some(text(a, "/id")) == asked.approval.as_deref());
    tale.expect(listed, "the operator finds it in GET /v1/approvals");
    let id = asked.approval.clone().unwrap_or_default();
    let path = format!("/v1/approvals/{id}/approve");
    let approved = stage.operator.post(&path, &json!({"note": "a vendor we know"})).await?;
    tale.note("operator", format!("alice approves {id}: {}", text(&approved, "/state")));

    let resumed = buyer.fetch(&url, Some("first-order")).await?;
    tale.note("agent", "buyer repeats the call with the same purchase_id");
    tale.answer(&resumed);
    tale.expect(resumed.is_bought() && resumed.payment == asked.payment, "the approved payment, and no other, is made");
    tale.expect(seller.stats().authorizations == 1, "one authorization was ever presented");
    let settled = stage.settled(resumed.payment.as_deref().unwrap_or_default()).await?;
    tale.expect(settled, "the chain reader has proven it: settled");
    let next = buyer.fetch(&url, Some("second-order")).await?;
    tale.note("agent", "buyer orders there again");
    tale.answer(&next);
    tale.expect(next.is_bought(), "a vendor that was paid before is not new: nobody is asked");
    tale.prove("202, approved by alice, resumed and paid; the next order needs nobody");
    Ok(())
}

/// 7: a wallet that holds 0.0005 is asked for 0.001.
pub(super) async fn insufficient(stage: &Stage, tale: &mut Tale) -> Result<(), Trouble> {
    let (pauper, honest) = (stage.agent("pauper"), stage.seller("honest")?);
    let before = honest.stats().presented;
    let answer = pauper.fetch(&honest.url("/quote"), None).await?;
    tale.call(stage, &pauper, &answer);
    tale.explain(stage, &answer).await?;
    tale.expect(
        answer.is_refused(422, "insufficient-funds"),
        "refused: before it signs, the host looks at the balance on the chain",
    );
    tale.expect(honest.stats().presented == before, "nothing was signed that could bounce");
    tale.prove("422 insufficient-funds: 0.0005 held, 0.001 asked");
    Ok(())
}

/// 11: an operator opens a session with 0.002 in it; the host holds that, whatever policies say.
pub(super) async fn session_budget(stage: &Stage, tale: &mut Tale) -> Result<(), Trouble> {
    let scout = session(stage, tale, &stage.agent("scout"), "0.002").await?;
    let refusal = exhaust(stage, tale, &scout, 2).await?;
    let budget = refusal.budget.clone().unwrap_or_default();
    tale.expect(budget.starts_with("session/"), "the host's own budget of this session had no room");
    let outside = stage.agent("scout").fetch(&stage.seller("honest")?.url("/quote"), None).await?;
    tale.expect(outside.is_bought(), "the same agent outside of the session is not affected");
    tale.prove("2 purchases of 0.001 fit into 0.002, the 3rd: budget-exceeded");
    Ok(())
}

/// Opens a session for an agent.
async fn session(stage: &Stage, tale: &mut Tale, agent: &Agent, limit: &str) -> Result<Agent, Trouble> {
    let wanted = json!({"agent": agent.name, "limit": limit, "client": "acme", "task": "t-42", "expires_in": 600});
    let opened: Value = stage.operator.post("/v1/sessions", &wanted).await?;
    let id = text(&opened, "/id");
    tale.note("operator", format!("alice opens {id} for {}: {limit} USD, client acme, task t-42", agent.name));
    Ok(agent.in_session(text(&opened, "/token")))
}

/// Buys quotes until one is refused; exactly so many must fit. Answers the refusal.
async fn exhaust(stage: &Stage, tale: &mut Tale, agent: &Agent, fits: usize) -> Result<Answer, Trouble> {
    let url = stage.seller("honest")?.url("/quote");
    let mut bought = 0_usize;
    for _ in 0..=fits {
        let answer = agent.fetch(&url, None).await?;
        if answer.is_bought() {
            tale.fail_if(
                answer.replayed,
                "a call without a purchase_id is a purchase of its own, not the last one again",
            );
            bought = bought.saturating_add(1);
            continue;
        }
        tale.note("agent", format!("{} asks for {}: {bought} times bought, then", agent.name, stage.place(&url)));
        tale.answer(&answer);
        tale.explain(stage, &answer).await?;
        tale.expect(bought == fits, format!("{fits} purchases fit, and no more"));
        tale.expect(answer.is_refused(403, "budget-exceeded"), "refused with budget-exceeded");
        return Ok(answer);
    }
    Err(Trouble(format!("{bought} purchases were made where {fits} fit")))
}
