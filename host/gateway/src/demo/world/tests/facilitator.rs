use super::super::facilitator::{Facilitator, LostReply};
use super::*;

fn offer() -> Value {
    json!({
        "scheme": "exact", "network": "eip155:84532", "amount": "1000", "asset": USDC,
        "payTo": Address::new([9; 20]), "maxTimeoutSeconds": 300, "extra": {"name": "USDC", "version": "2"},
    })
}

#[test]
fn every_reason_has_its_code() {
    let (chain, watch, buyer) = chain();
    let facilitator = Facilitator::new(chain);
    let verify = |payment: &Value, offer: &Value| match facilitator.verify(payment, offer).outcome {
        Ok(()) => "valid".to_owned(),
        Err(refusal) => refusal.code,
    };
    let good = buyer.pay(2, &offer(), 1);
    assert_eq!(verify(&good, &offer()), "valid");

    let asked = |pointer: &str, value: Value, want: &str| {
        let mut offer = offer();
        *offer.pointer_mut(pointer).unwrap() = value.clone();
        assert_eq!(verify(&good, &offer), want, "offer {pointer} = {value}");
    };
    asked("/scheme", json!("upto"), "invalid_exact_evm_scheme");
    asked("/extra", json!({}), "invalid_exact_evm_missing_eip712_domain");
    asked("/network", json!("eip155:8453"), "invalid_exact_evm_network_mismatch");
    asked("/extra/name", json!("USD Coin"), "invalid_exact_evm_signature");
    asked("/payTo", json!(Address::new([8; 20])), "invalid_exact_evm_recipient_mismatch");
    asked("/amount", json!("999"), "invalid_exact_evm_payload_authorization_value_mismatch");

    let said = |pointer: &str, value: Value, want: &str| {
        let mut payment = good.clone();
        *payment.pointer_mut(pointer).unwrap() = value.clone();
        assert_eq!(verify(&payment, &offer()), want, "payment {pointer} = {value}");
    };
    said("/x402Version", json!(3), "invalid_x402_version");
    said("/payload/authorization/value", json!(1000), "invalid_payload");
    said("/payload/authorization/value", json!("1001"), "invalid_exact_evm_signature");
    said("/payload/signature", json!("0x00"), "invalid_exact_evm_failed_to_parse_signature");

    let poor = Buyer::new(2).pay(2, &offer(), 1);
    let verdict = facilitator.verify(&poor, &offer());
    let refusal = verdict.outcome.unwrap_err();
    assert_eq!(refusal.code, "invalid_exact_evm_insufficient_balance");
    assert_eq!(refusal.message.unwrap(), "execution reverted: ERC20: transfer amount exceeds balance");

    watch.advance(295); // five seconds are left: too few to be mined
    assert_eq!(verify(&good, &offer()), "invalid_exact_evm_payload_authorization_valid_before");
}

#[tokio::test]
async fn faults_are_what_they_say() {
    let (chain, _, buyer) = chain();
    let facilitator = Facilitator::new(chain.clone());
    let payee = Address::new([9; 20]);

    facilitator.delay_settle(std::time::Duration::from_millis(1));
    facilitator.fail_settle(Some("invalid_transaction_state"));
    let failed = facilitator.settle(&buyer.pay(2, &offer(), 1), &offer()).await.unwrap();
    assert_eq!(failed.outcome, Err("invalid_transaction_state".to_owned()));
    assert_eq!(failed.to_json()["transaction"], "");
    facilitator.clear_faults();

    facilitator.skip_settle(true);
    let lie = facilitator.settle(&buyer.pay(2, &offer(), 1), &offer()).await.unwrap();
    assert_eq!(lie.to_json()["success"], true);
    assert_eq!(chain.balance(payee), 0, "claimed, not done");
    facilitator.clear_faults();

    facilitator.drop_settle_reply(true);
    let lost = facilitator.settle(&buyer.pay(2, &offer(), 1), &offer()).await;
    assert_eq!(lost, Err(LostReply));
    assert_eq!(chain.balance(payee), 1_000, "done, not said");
    facilitator.clear_faults();

    let again = facilitator.settle(&buyer.pay(2, &offer(), 1), &offer()).await.unwrap();
    assert_eq!(again.outcome, Err("invalid_exact_evm_nonce_already_used".to_owned()));
}

#[tokio::test]
async fn over_http() {
    let (world, _, buyer) = world().await;
    let url = |path: &str| format!("{}{path}", world.facilitator_url());
    let supported = get(&url("/supported")).await.json();
    assert_eq!(supported["kinds"][0]["network"], "eip155:84532");
    assert_eq!(supported["kinds"][1], json!({"x402Version": 1, "scheme": "exact", "network": "base-sepolia"}));

    let payment = buyer.pay(2, &offer(), 1);
    let body = json!({"x402Version": 2, "paymentPayload": payment, "paymentRequirements": offer()});
    let verdict = post(&url("/verify"), &body).await.json();
    assert_eq!(verdict, json!({"isValid": true, "payer": buyer.address()}));
    let settled = post(&url("/settle"), &body).await.json();
    assert_eq!((&settled["success"], &settled["network"]), (&json!(true), &json!("eip155:84532")));
    let verdict = post(&url("/verify"), &body).await.json();
    assert_eq!(verdict["invalidReason"], "invalid_exact_evm_nonce_already_used");
    assert_eq!(post(&url("/settle"), &json!({})).await.status, 400);

    world.facilitator().drop_settle_reply(true);
    let body = json!({"paymentPayload": buyer.pay(2, &offer(), 2), "paymentRequirements": offer()});
    assert!(fetch("POST", &url("/settle"), &[], body.to_string()).await.is_err(), "hung up");
    assert_eq!(world.balance(Address::new([9; 20])), 2_000);
}
