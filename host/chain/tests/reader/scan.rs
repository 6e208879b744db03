//! Ranges of blocks, refunds and cancellations.

use std::collections::BTreeSet;

use countersign_chain::fake::{FakeNode, Lie, Mood};
use countersign_chain::{
    Act, CancelError, MAX_SPAN, Paid, ReadError, RefundMatch, Scan, Transfer, cancel_calldata, cancellation, refund_of,
};
use countersign_core::evm::{Address, Signature65, address_of, hex32};
use countersign_core::id::PaymentId;
use countersign_core::money::Atomic;
use countersign_core::time::Timestamp;
use countersign_core::x402::{Authorization, Network, Offer};
use k256::ecdsa::SigningKey;

use crate::support::{
    BEGIN, LAG, OTHER, PAYER, SELLER, asset, authorization, cancel, chain, grow, network, now, reader, redeem,
    transfer, tx,
};

fn ours() -> BTreeSet<Address> {
    BTreeSet::from([PAYER, OTHER])
}

#[test]
fn a_scan_tells_everything_of_our_payers_with_the_transfer_that_belongs_to_it() {
    let chain = chain();
    let (a, b) = (FakeNode::new("a", &chain), FakeNode::new("b", &chain));
    let reader = reader(&[a, b]);
    let (first, second, third) = (authorization(1, 300), authorization(2, 300), authorization(3, 300));
    // Another wallet of ours pays this one by an authorization: a payment, not money that came back.
    let sale = Authorization { from: OTHER, nonce: [9; 32], ..authorization(4, 300) };
    let sale = Authorization { offer: Offer { pay_to: PAYER, ..sale.offer }, ..sale };
    let block = chain.mine(
        BEGIN + 10,
        vec![
            tx(1, &[redeem(&first), transfer(PAYER, SELLER, 7), redeem(&second)]),
            tx(2, &[cancel(&third), redeem(&sale)]),
            tx(3, &[transfer(SELLER, PAYER, 300), transfer(SELLER, Address::new([1; 20]), 5)]),
        ],
    );
    grow(&chain, LAG);
    let anchor = now(reader.anchor()).unwrap();
    let scan = now(reader.scan(&anchor, asset().address, &ours(), (0, anchor.block().number))).unwrap();
    assert_eq!(scan.through, anchor.block().number);
    assert_eq!(scan.times.get(&block.number), Some(&block.time));
    let told: Vec<_> = scan
        .acts
        .iter()
        .map(|act| match act {
            Act::Redeemed(r) => {
                let transfer = r.transfer.as_ref().unwrap();
                assert_eq!((transfer.place.transaction, transfer.from), (r.place.transaction, r.payer));
                (act.place().log, "redeemed", r.nonce[0], transfer.value.unwrap().get())
            }
            Act::Cancelled { nonce, .. } => (act.place().log, "cancelled", nonce[0], 0),
            Act::Other(transfer) => (act.place().log, "other", 0, transfer.value.unwrap().get()),
        })
        .collect();
    assert_eq!(
        told,
        [
            (0, "redeemed", 1, 1_000),
            (2, "other", 0, 7),
            (3, "redeemed", 2, 1_000),
            (5, "cancelled", 3, 0),
            (6, "redeemed", 9, 1_000)
        ]
    );
    let [back] = scan.incoming.as_slice() else { panic!("{:?}", scan.incoming) };
    assert_eq!((back.from, back.to, back.value), (SELLER, PAYER, Some(Atomic::new(300))));
    assert_eq!((back.place.block, back.place.block_hash), (block.number, block.hash));

    let nobody = now(reader.scan(&anchor, asset().address, &BTreeSet::new(), (0, 1))).unwrap();
    assert_eq!(nobody, Scan { through: 1, ..Scan::default() });
}

#[test]
fn a_scan_reads_only_what_is_final_and_says_how_far_it_got() {
    let chain = chain();
    let node = FakeNode::new("a", &chain);
    let reader = reader(std::slice::from_ref(&node));
    grow(&chain, 600);
    let anchor = now(reader.anchor()).unwrap();
    let last = anchor.block().number;
    let scan = |range| now(reader.scan(&anchor, asset().address, &ours(), range));
    for range in [(0, last + 1), (5, 4)] {
        assert!(matches!(scan(range), Err(ReadError::Range { .. })));
    }
    node.set(Mood::Narrow(20));
    let (mut from, mut pages) = (0, 0);
    while from <= last {
        let through = scan((from, last)).unwrap().through;
        assert!(through >= from && through <= last);
        (from, pages) = (through + 1, pages + 1);
    }
    assert!(pages > 1 && pages < 10 && MAX_SPAN > 600);
    node.set(Mood::Narrow(0));
    assert!(scan((0, last)).is_err());
}

#[test]
fn nodes_that_tell_different_events_tell_none() {
    for lie in [Lie::NoLogs, Lie::PaidTo(SELLER), Lie::Paid(Atomic::new(3)), Lie::OtherHashes, Lie::NoCode] {
        let chain = chain();
        let (a, b) = (FakeNode::new("a", &chain), FakeNode::new("b", &chain));
        let reader = reader(&[a, b.clone()]);
        let pay = authorization(1, 300);
        let pay = Authorization { offer: Offer { pay_to: OTHER, ..pay.offer }, ..pay };
        chain.mine(BEGIN + 10, vec![tx(1, &[redeem(&pay)])]);
        grow(&chain, LAG);
        let anchor = now(reader.anchor()).unwrap();
        b.set(Mood::Lying(lie.clone()));
        assert!(now(reader.scan(&anchor, asset().address, &ours(), (0, 1))).is_err(), "{lie:?}");
    }
}

fn paid(n: u8, settled: u128, refunded: u128, block: u64) -> Paid {
    Paid {
        payment: id(n),
        network: network(),
        asset: asset().address,
        payer: PAYER,
        payee: SELLER,
        settled: Atomic::new(settled),
        refunded: Atomic::new(refunded),
        block,
    }
}

fn id(n: u8) -> PaymentId {
    PaymentId::new(Timestamp::from_secs(BEGIN), [n; 10])
}

fn back(value: u128) -> Transfer {
    let chain = chain();
    let node = FakeNode::new("a", &chain);
    let reader = reader(&[node]);
    grow(&chain, 9);
    chain.mine(BEGIN + 30, vec![tx(1, &[transfer(SELLER, PAYER, value)])]);
    grow(&chain, LAG);
    let anchor = now(reader.anchor()).unwrap();
    let scan = now(reader.scan(&anchor, asset().address, &ours(), (0, anchor.block().number))).unwrap();
    assert_eq!(scan.incoming[0].place.block, 10);
    scan.incoming[0].clone()
}

#[test]
fn a_refund_is_booked_only_where_no_other_payment_could_be_meant() {
    let check = |value, payments: &[Paid], expected: RefundMatch| {
        assert_eq!(refund_of(&back(value), network(), asset().address, payments), expected, "{value} {payments:?}");
    };
    let several = |n: &[u8]| RefundMatch::Several(n.iter().copied().map(id).collect());
    check(10, &[], RefundMatch::None);
    // The only payment there: a part of it, all of it, not more than is left.
    check(10, &[paid(1, 100, 0, 3)], RefundMatch::One(id(1)));
    check(100, &[paid(1, 100, 0, 3)], RefundMatch::One(id(1)));
    check(101, &[paid(1, 100, 0, 3)], several(&[1]));
    check(51, &[paid(1, 100, 50, 3)], several(&[1]));
    // Came back already; not paid yet; nothing came.
    check(10, &[paid(1, 100, 100, 3)], RefundMatch::None);
    check(10, &[paid(1, 100, 0, 11)], RefundMatch::None);
    check(10, &[paid(1, 100, 0, 10)], RefundMatch::One(id(1)));
    check(0, &[paid(1, 100, 0, 3)], RefundMatch::None);
    // Two of one price.
    check(100, &[paid(1, 100, 0, 3), paid(2, 100, 0, 4)], several(&[1, 2]));
    // All of the only one that is large enough; a part of it could also be all of two others.
    check(250, &[paid(1, 100, 0, 3), paid(2, 250, 0, 4)], RefundMatch::One(id(2)));
    check(200, &[paid(1, 100, 0, 3), paid(3, 100, 0, 3), paid(2, 250, 0, 4)], several(&[1, 3, 2]));
    // Another chain, token, payer or payee.
    let other = [
        Paid { network: Network::new(1).unwrap(), ..paid(1, 100, 0, 3) },
        Paid { asset: OTHER, ..paid(1, 100, 0, 3) },
        Paid { payer: OTHER, ..paid(1, 100, 0, 3) },
        Paid { payee: OTHER, ..paid(1, 100, 0, 3) },
    ];
    check(10, &other, RefundMatch::None);
}

/// The published vector for `cancelAuthorization`.
#[test]
fn a_cancellation_is_what_the_token_takes() {
    let file: serde_json::Value = serde_json::from_str(include_str!("../../../core/fixtures/vectors.json")).unwrap();
    let vector =
        file["vectors"].as_array().unwrap().iter().find(|v| v["primaryType"] == "CancelAuthorization").unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let key = SigningKey::from_slice(&hex32::parse(&text(&file["privateKey"])).unwrap()).unwrap();
    let nonce = hex32::parse(&text(&vector["message"]["nonce"])).unwrap();
    let pay = Authorization { from: address_of(key.verifying_key()), nonce, ..authorization(1, 300) };
    let (message, digest) = cancellation(&pay);
    assert_eq!(message.authorizer.to_string(), text(&vector["message"]["authorizer"]));
    assert_eq!(hex32::print(&digest), text(&vector["digest"]));
    let signature: Signature65 = text(&vector["signature"]).parse().unwrap();
    let data = hex::encode(cancel_calldata(&pay, &signature).unwrap());
    let (r, s) = signature.as_bytes().split_at(32);
    let (r, s) = (hex::encode(r), hex::encode(s.split_at(32).0));
    let expected =
        format!("5a049a70{:0>64}{}{:0>64}{r}{s}", hex::encode(message.authorizer.as_bytes()), hex::encode(nonce), "1c");
    assert_eq!(data, expected);
    let foreign = Authorization { nonce: [3; 32], ..pay };
    assert_eq!(cancel_calldata(&foreign, &signature), Err(CancelError::Signature));
}
