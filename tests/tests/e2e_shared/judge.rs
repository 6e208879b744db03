//! Who compares what gateways, ledger, sellers and chain say.

use super::*;

type Nonce = [u8; 32];

/// A payload that was signed, as the log has it.
#[derive(Debug, Clone)]
pub(crate) struct Signed {
    pub(crate) payment: String,
    agent: String,
    purchase: String,
    nonce: Nonce,
    amount: u128,
    /// In seconds.
    at: u64,
    valid_before: u64,
}

/// Every page of a gateway's payments, newest first.
pub(crate) fn payments(gateway: &Gateway) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = done(&gateway.operator().get(&format!("/v1/payments?limit=500{cursor}")));
        all.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

/// What a gateway says of the money: every budget with its figures, and every payment with its state.
fn told(gateway: &Gateway) -> (Vec<String>, Vec<String>) {
    let rows = items(&gateway.operator().get("/v1/budgets"));
    let figures = |row: &Value| ["budget", "window", "unit", "held", "spent", "limit"].map(|f| row[f].to_string());
    let mut budgets: Vec<String> = rows.iter().map(|row| figures(row).join(" ")).collect();
    budgets.sort();
    let state = |p: &Value| format!("{} {} {}", p["id"], p["state"], p["transaction"]);
    (budgets, payments(gateway).iter().map(state).collect())
}

/// Waits until every gateway says the same of every budget and payment.
#[track_caller]
pub(crate) fn agree(scene: &Scene) {
    let same = || {
        let all: Vec<_> = scene.gateways.iter().map(told).collect();
        all.windows(2).all(|pair| pair[0] == pair[1]).then_some(())
    };
    let all = || scene.gateways.iter().map(told).collect::<Vec<_>>();
    wait_for(PATIENCE, same).unwrap_or_else(|| panic!("the gateways do not agree: {:#?}", all()));
}

/// The payments that were signed, from exported records.
pub(crate) fn signed(lines: &[String]) -> Vec<Signed> {
    let field = |record: &Value, name: &str| record[name].as_str().unwrap_or_else(|| panic!("{record}")).to_owned();
    let records = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let wanted = records.filter(|record| record["kind"] == "payment-signed");
    let one = |record: Value| Signed {
        payment: field(&record, "payment"),
        agent: field(&record, "agent"),
        purchase: field(&record, "purchase"),
        nonce: hex::decode(field(&record, "nonce")).unwrap().try_into().unwrap(),
        amount: field(&record, "amount").parse().unwrap(),
        at: record["at"].as_u64().unwrap() / 1000,
        valid_before: record["valid_before"].as_u64().unwrap(),
    };
    wanted.map(one).collect()
}

/// Everything on which the world and the ledger disagree: `states` by payment, `acks` by purchase.
pub(crate) fn disagreements(
    signed: &[Signed],
    states: &BTreeMap<String, String>,
    acks: &[(String, String)],
    presented: &BTreeSet<Nonce>,
    redeemed: &BTreeMap<Nonce, Redemption>,
) -> Vec<String> {
    let mut found = Vec::new();
    let released =
        |payment: &str| states.get(payment).is_none_or(|state| ["failed", "denied"].contains(&state.as_str()));
    let by_id: BTreeMap<&str, &Signed> = signed.iter().map(|s| (s.payment.as_str(), s)).collect();
    let mut paid_for: BTreeMap<&str, &str> = BTreeMap::new();
    for (purchase, payment) in acks {
        match by_id.get(payment.as_str()) {
            None => found.push(format!("{purchase}: acknowledged as {payment}, which was never signed for")),
            Some(s) if s.purchase != *purchase => found.push(format!("{purchase}: acknowledged as {s:?}")),
            Some(_) if released(payment) => {
                found.push(format!("{purchase}: acknowledged, and {payment} holds nothing"))
            }
            Some(_) => {}
        }
        let first = paid_for.entry(purchase).or_insert(payment);
        if first != payment {
            found.push(format!("{purchase}: paid by {first} and by {payment}"));
        }
    }
    let mut by_nonce: BTreeMap<Nonce, &Signed> = BTreeMap::new();
    for one in signed {
        if let Some(other) = by_nonce.insert(one.nonce, one) {
            found.push(format!("one nonce twice: {one:?} and {other:?}"));
        }
    }
    for nonce in presented.iter().filter(|nonce| !by_nonce.contains_key(*nonce)) {
        found.push(format!("{} was presented to a seller and is not in the ledger", hex::encode(nonce)));
    }
    for (nonce, redemption) in redeemed {
        match by_nonce.get(nonce) {
            None => found.push(format!("{redemption:?} is not in the ledger")),
            Some(s) if s.amount != redemption.value || redemption.from != buyer() => {
                found.push(format!("{redemption:?} is not what was signed: {s:?}"));
            }
            Some(s) if released(&s.payment) => found.push(format!("{redemption:?} happened and holds nothing: {s:?}")),
            Some(_) => {}
        }
    }
    let mut attempts: BTreeMap<(&str, &str), Vec<&Signed>> = BTreeMap::new();
    for one in signed {
        attempts.entry((&one.agent, &one.purchase)).or_default().push(one);
    }
    for (purchase, attempts) in attempts {
        for (first, second) in attempts.iter().zip(attempts.iter().skip(1)) {
            if second.at < first.valid_before && !released(&first.payment) {
                found.push(format!("{purchase:?} was signed again while redeemable: {first:?}, {second:?}"));
            }
        }
        if attempts.iter().filter(|s| redeemed.contains_key(&s.nonce)).count() > 1 {
            found.push(format!("{purchase:?} was paid more than once: {attempts:?}"));
        }
    }
    found
}

/// What the sellers of these names were shown, and what the chain executed. Once per scene: the chain is read on.
pub(crate) fn seen(scene: &Scene, sellers: &[&str]) -> (BTreeSet<Nonce>, BTreeMap<Nonce, Redemption>) {
    let visits = sellers.iter().flat_map(|name| scene.seller(name).visits());
    let presented: BTreeSet<Nonce> = visits.filter_map(|visit| visit.nonce).collect();
    (presented, scene.world.new_redemptions())
}

/// After everything: one log that verifies at every gateway, gateways that agree, nothing paid that the ledger does not
/// hold, nothing acknowledged (purchase and payment) that it does not know. At most once per scene. Returns the payments
/// that were signed and not released.
#[track_caller]
pub(crate) fn sound(scene: &Scene, sellers: &[&str], acks: &[(String, String)]) -> Vec<Signed> {
    // What the chain took becomes proven, by the gateways alone.
    let (presented, redeemed) = seen(scene, sellers);
    let proven = || {
        let all = payments(&scene.gateways[0]);
        let settled = all.iter().filter(|p| p["state"] == "settled").count();
        (settled == redeemed.len()).then_some(())
    };
    wait_for(PATIENCE, proven).unwrap_or_else(|| {
        panic!("{} redemptions, and not all are proven: {:#?}", redeemed.len(), told(&scene.gateways[0]))
    });
    agree(scene);

    let logs: Vec<Vec<String>> = (0..scene.gateways.len()).map(|n| scene.export(n)).collect();
    let longest = logs.iter().max_by_key(|log| log.len()).unwrap();
    for log in &logs {
        let records = &log[..log.len() - 1];
        assert!(longest.starts_with(records), "two gateways tell two histories");
    }
    let signed = signed(longest);
    let state = |p: &Value| (text(p, "/id").to_owned(), text(p, "/state").to_owned());
    let states: BTreeMap<String, String> = payments(&scene.gateways[0]).iter().map(state).collect();
    let found = disagreements(&signed, &states, acks, &presented, &redeemed);
    assert!(found.is_empty(), "{} of them: {found:#?}", found.len());
    signed.into_iter().filter(|s| states[&s.payment] != "failed").collect()
}

/// A judge is believed only after it found what is wrong.
#[test]
fn the_judge_finds_what_is_wrong() {
    let one = |n: u8, purchase: &str| Signed {
        payment: format!("pay_{n}"),
        agent: "scout".to_owned(),
        purchase: purchase.to_owned(),
        nonce: [n; 32],
        amount: 1000,
        at: 100,
        valid_before: 200,
    };
    let redemption = |value| Redemption { from: buyer(), to: buyer(), value, transaction: "0x0".to_owned() };
    let good = vec![one(1, "a"), one(2, "b")];
    let states = |first: &str| {
        BTreeMap::from([("pay_1".to_owned(), first.to_owned()), ("pay_2".to_owned(), "settled".to_owned())])
    };
    let ack = |purchase: &str, payment: &str| (purchase.to_owned(), payment.to_owned());
    let acks = [ack("a", "pay_1"), ack("b", "pay_2")];
    let shown = BTreeSet::from([[1; 32], [2; 32]]);
    let taken = BTreeMap::from([([1; 32], redemption(1000)), ([2; 32], redemption(1000))]);
    assert_eq!(disagreements(&good, &states("settled"), &acks, &shown, &taken), [""; 0]);

    let finds =
        |found: Vec<String>, words: &str| assert!(found.iter().any(|f| f.contains(words)), "{words}: {found:?}");
    finds(disagreements(&good[1..], &states("settled"), &acks, &shown, &taken), "never signed for");
    finds(disagreements(&good[1..], &states("settled"), &acks[1..], &shown, &taken), "was presented");
    finds(disagreements(&good[1..], &states("settled"), &[], &BTreeSet::new(), &taken), "is not in the ledger");
    finds(disagreements(&good, &states("failed"), &acks, &shown, &taken), "holds nothing");
    let twice = [ack("a", "pay_1"), ack("a", "pay_2")];
    finds(disagreements(&good, &states("settled"), &twice, &shown, &taken), "paid by");
    let again = [one(1, "a"), one(2, "a")];
    finds(disagreements(&again, &states("settled"), &[], &shown, &taken), "signed again while redeemable");
    finds(disagreements(&again, &states("settled"), &[], &shown, &taken), "paid more than once");
    let same = [one(1, "a"), Signed { nonce: [1; 32], ..one(2, "b") }];
    finds(disagreements(&same, &states("settled"), &[], &BTreeSet::new(), &BTreeMap::new()), "one nonce twice");
    let more = BTreeMap::from([([1; 32], redemption(1001))]);
    finds(disagreements(&good, &states("settled"), &[], &shown, &more), "not what was signed");
}
