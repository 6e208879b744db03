//! The harness itself: real peers come up, can be paid, and misbehave on demand.

use countersign_tests::{
    http,
    peers::{BUYER, Peers, SELLER, USDC},
};
use serde_json::{Value, json};

#[test]
fn the_official_client_pays_the_official_sellers() {
    let peers = Peers::start();
    let before = (peers.buyer_balance(), peers.seller_balance());
    assert_eq!(before.0, 1_000_000_000_000);

    let unpaid = http::get(&format!("{}/cheap", peers.v2)).send();
    assert_eq!(unpaid.status, 402);
    assert!(unpaid.header("PAYMENT-REQUIRED").is_some());

    let paid = peers.official_client(&format!("{}/cheap", peers.v2), 1, 1);
    assert_eq!(paid["errors"], 0, "{paid}");
    assert_eq!(peers.seller_balance(), before.1 + 1000);
    assert_eq!(peers.buyer_balance(), before.0 - 1000);

    let paid = peers.official_client(&format!("{}/atomic", peers.v1), 1, 1);
    assert_eq!(paid["errors"], 0, "{paid}");
    assert_eq!(peers.seller_balance(), before.1 + 4000);

    let settled = peers.facilitator().calls("settle");
    assert_eq!(settled.len(), 2);
    let nonce = settled[0].pointer("/paymentPayload/payload/authorization/nonce").and_then(Value::as_str).unwrap();
    assert!(peers.chain().authorization_state(USDC, BUYER.address, nonce));
    assert!(!peers.chain().authorization_state(USDC, SELLER.address, nonce));

    let transfers = peers.chain().transfers(USDC);
    let payments: Vec<u128> =
        transfers.iter().filter(|t| t.to == SELLER.address.to_lowercase()).map(|t| t.value).collect();
    assert_eq!(payments, [1000, 3000]);
}

#[test]
fn the_facilitator_misbehaves_on_demand() {
    let peers = Peers::start();
    let before = peers.seller_balance();
    let cheap = format!("{}/cheap", peers.v2);

    let facilitator = peers.facilitator();
    // A lost reply makes the seller say "not paid" although the money moved.
    let fault = facilitator.fault(&json!({"dropSettleReply": true}));
    let refused = peers.official_client(&cheap, 1, 1);
    drop(fault);
    assert_eq!(refused["errors"], 1, "{refused}");
    assert!(refused["first_error"].as_str().unwrap().starts_with("status 402"), "{refused}");
    assert_eq!(peers.seller_balance(), before + 1000);

    // A lie makes it deliver although nothing moved.
    let fault = facilitator.fault(&json!({"skipSettle": true}));
    let given = peers.official_client(&cheap, 1, 1);
    drop(fault);
    assert_eq!(given["errors"], 0, "{given}");
    assert_eq!(peers.seller_balance(), before + 1000);

    // And a guard that was dropped leaves nothing behind.
    let paid = peers.official_client(&cheap, 1, 1);
    assert_eq!(paid["errors"], 0, "{paid}");
    assert_eq!(peers.seller_balance(), before + 2000);
}

#[test]
fn the_chain_can_be_minted_mined_and_aged() {
    let peers = Peers::start();
    let chain = peers.chain();
    let before = (chain.block_number(), chain.timestamp());
    chain.mine(3);
    assert_eq!(chain.block_number(), before.0 + 3);
    chain.increase_time(3600);
    assert!(chain.timestamp() >= before.1 + 3600);
    chain.mint(USDC, SELLER.address, 7);
    assert_eq!(peers.seller_balance(), 7);
}
