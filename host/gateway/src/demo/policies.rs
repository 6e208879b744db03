//! Policies that change while agents buy.

use std::collections::BTreeSet;

use serde_json::Value;

use super::agent::{Trouble, items, number, text};
use super::scenarios::Tale;
use super::stage::{Patient, Stage, builtin_module};

/// The module that the policy `guard` is replaced by.
const SECOND_GUARD: &str = "guard-2.wasm";
/// Settings under which a quote is too dear.
const TIGHT: &str = "per-payment = \"0.0005\"";

/// 12: other code and other settings, with purchases going on.
pub(super) async fn replaced(stage: &Stage, tale: &mut Tale) -> Result<(), Trouble> {
    let (analyst, url) = (stage.agent("analyst"), stage.seller("honest")?.url("/quote"));
    let before = analyst.fetch(&url, None).await?;
    tale.call(stage, &analyst, &before);
    let first = tale.explain(stage, &before).await?;
    tale.expect(before.is_bought(), "the first module allows it");
    let old = number(&first, "/decision/generation").unwrap_or_default();

    stage.put_module(SECOND_GUARD, builtin_module("spend-caps")?)?;
    stage.put_guard(SECOND_GUARD, TIGHT)?;
    tale.note("operator", format!("edits the file: module {SECOND_GUARD}, {TIGHT}"));
    let mut patience = Patient::for_seconds(10)?;
    let mut seen = BTreeSet::new();
    let mut meanwhile = 0_u32;
    loop {
        let answer = analyst.fetch(&url, None).await?;
        meanwhile = meanwhile.saturating_add(1);
        let payment = stage.operator.payment(answer.payment.as_deref().unwrap_or_default()).await?;
        seen.insert((number(&payment, "/decision/generation").unwrap_or_default(), answer.is_bought()));
        if !answer.is_bought() || !patience.wait().await? {
            break;
        }
    }
    let after = analyst.fetch(&url, None).await?;
    tale.call(stage, &analyst, &after);
    let second = tale.explain(stage, &after).await?;
    let new = number(&second, "/decision/generation").unwrap_or_default();
    let refused = after.is_refused(403, "policy-denied") && after.reasons == ["above-per-payment"];
    tale.expect(refused && new > old, format!("generation {new} refuses what generation {old} allowed"));
    tale.expect(guard_digest(&first) != guard_digest(&second), "other code judged: the module's digest differs");
    let clean = seen.iter().all(|seen| *seen == (old, true) || *seen == (new, false));
    tale.expect(clean, format!("{meanwhile} calls while it changed: each is wholly of one generation, none failed"));
    let status = stage.operator.get("/v1/policies").await?;
    tale.expect(number(&status, "/generation") == Some(new), format!("GET /v1/policies: generation {new}"));
    tale.prove(format!("generation {old} allowed, {new} refuses; no restart, no failed call"));
    Ok(())
}

/// 13: a module that is not one, settings that the policy does not know, then the file put right.
pub(super) async fn broken(stage: &Stage, tale: &mut Tale) -> Result<(), Trouble> {
    let good = stage.operator.get("/v1/policies").await?;
    stage.put_module(SECOND_GUARD, b"\0asm: this is not a component")?;
    tale.note("operator", format!("{SECOND_GUARD} is overwritten with garbage"));
    refused(stage, tale, &good, "").await?;
    stage.put_module(SECOND_GUARD, builtin_module("spend-caps")?)?;
    stage.put_guard(SECOND_GUARD, "per-paymnt = \"9.00\"")?;
    tale.note("operator", "the module is put right, but the settings say per-paymnt");
    refused(stage, tale, &good, "per-paymnt").await?;

    stage.put_guard(SECOND_GUARD, "per-payment = \"0.0006\"")?;
    tale.note("operator", "the settings are put right");
    let right =
        stage.policies_until(|p| p.pointer("/last_error").is_none_or(Value::is_null)).await?.unwrap_or_default();
    let next = number(&right, "/generation") > number(&good, "/generation");
    tale.expect(
        next,
        format!("generation {} serves, without an error", number(&right, "/generation").unwrap_or_default()),
    );
    tale.prove("garbage and a typo refused with the reason; the last good generation served");
    Ok(())
}

/// Waits for the edit to be refused; what served before must still serve.
async fn refused(stage: &Stage, tale: &mut Tale, good: &Value, mentions: &str) -> Result<(), Trouble> {
    let said =
        |p: &Value| !text(p, "/last_error/message").is_empty() && text(p, "/last_error/message").contains(mentions);
    let status = stage.policies_until(said).await?.unwrap_or_default();
    let (stage_name, message) = (text(&status, "/last_error/stage"), text(&status, "/last_error/message"));
    let message: String = super::report::foreign(message).chars().take(240).collect();
    tale.note(
        "status",
        format!("last_error: stage {stage_name}, policy {}: {message}", text(&status, "/last_error/policy")),
    );
    tale.expect(text(&status, "/last_error/policy") == "guard", "GET /v1/policies says which policy it is, and why");
    let same = number(&status, "/generation") == number(good, "/generation") && digests(&status) == digests(good);
    tale.expect(same, format!("generation {} goes on serving", number(good, "/generation").unwrap_or_default()));
    let url = stage.seller("honest")?.url("/quote");
    let still = stage.agent("analyst").fetch(&url, None).await?;
    tale.expect(still.reasons == ["above-per-payment"], "the last good guard judges on: the quote is still refused");
    let other = stage.agent("scout").fetch(&url, None).await?;
    tale.expect(other.is_bought(), "everybody else goes on buying");
    Ok(())
}

fn guard_digest(payment: &Value) -> String {
    let guard = items(payment, "/decision/policies").find(|p| text(p, "/name") == "guard");
    guard.map(|p| text(p, "/module_sha256").to_owned()).unwrap_or_default()
}

fn digests(status: &Value) -> Vec<(String, String)> {
    let pair = |p: &Value| (text(p, "/name").to_owned(), text(p, "/module_sha256").to_owned());
    items(status, "/policies").map(pair).collect()
}
