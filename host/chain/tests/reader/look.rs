//! Findings, one situation at a time.

use countersign_chain::fake::{Chain, FakeNode, Lie, Mood, Transaction};
use countersign_chain::{
    CONFIRM_SECONDS, Finality, Finding, LASTING_MS, Node, Pending, ReadError, Reader, Subject, Unused, Watch,
};
use countersign_core::evm::hex32;
use countersign_core::money::Atomic;
use countersign_core::time::Timestamp;
use countersign_core::x402::{Authorization, Network, Offer};
use std::sync::Arc;

use crate::support::{
    BEGIN, LAG, OTHER, PAYER, SELLER, authorization, cancel, chain, final_at, grow, look, network, now, reader,
    reader_with, redeem, redeem_as, transfer, tx,
};

fn two(chain: &Chain) -> (Arc<FakeNode>, Arc<FakeNode>, Reader) {
    let (a, b) = (FakeNode::new("a", chain), FakeNode::new("b", chain));
    let reader = reader(&[a.clone(), b.clone()]);
    (a, b, reader)
}

fn one(chain: &Chain) -> (Arc<FakeNode>, Reader) {
    let node = FakeNode::new("a", chain);
    let reader = reader(std::slice::from_ref(&node));
    (node, reader)
}

fn is_unclear(finding: &Finding) -> bool {
    matches!(finding, Finding::Pending(Pending::Unclear(_) | Pending::NoAnswer(_)))
}

#[test]
fn a_redemption_counts_when_its_block_is_final_and_not_before() {
    let chain = chain();
    let (_, reader) = one(&chain);
    let pay = authorization(1, 300);
    let mut watch = Watch::default();
    grow(&chain, 20);
    assert_eq!(look(&reader, &pay, None, &mut watch, 60), Finding::Pending(Pending::Redeemable));

    let redeemed = tx(1, &[redeem(&pay)]);
    let block = chain.mine(BEGIN + 60, vec![redeemed.clone()]);
    let not_final = Finding::Pending(Pending::NotFinal { transaction: redeemed.name(), block: block.number });
    for hint in [None, Some(redeemed.name()), Some("0x12".to_owned()), Some(hex32::print(&[9; 32]))] {
        assert_eq!(look(&reader, &pay, hint.as_deref(), &mut Watch::default(), 61), not_final);
    }
    grow(&chain, LAG - 1);
    assert_eq!(look(&reader, &pay, None, &mut watch, 70), not_final);
    grow(&chain, 1);
    for hint in [None, Some(redeemed.name()), Some(hex32::print(&[9; 32]))] {
        let Finding::Redeemed { evidence, amount } = look(&reader, &pay, hint.as_deref(), &mut watch, 75) else {
            panic!("it is final")
        };
        assert_eq!(amount, Atomic::new(1_000));
        assert_eq!(evidence.transaction, Some(redeemed.name()));
        assert_eq!(evidence.block, Some(block.number));
        assert_eq!(evidence.block_hash, Some(hex32::print(&block.hash)));
        assert_eq!(evidence.block_time, Some(block.time));
        assert_eq!((evidence.redeemed, evidence.nodes), (None, Some(1)));
    }
}

#[test]
fn one_transaction_may_redeem_several_of_the_same_payee_and_amount() {
    let chain = chain();
    let (_, _, reader) = two(&chain);
    let all: Vec<_> = (1..=3).map(|n| authorization(n, 300)).collect();
    let noise = transfer(PAYER, SELLER, 1_000);
    let calls = [noise, redeem(&all[0]), redeem(&all[1]), noise, redeem(&all[2]), noise];
    chain.mine(BEGIN + 10, vec![tx(1, &calls)]);
    grow(&chain, LAG);
    for pay in &all {
        assert!(matches!(look(&reader, pay, None, &mut Watch::default(), 30), Finding::Redeemed { .. }));
    }
    let unused = authorization(4, 300);
    let hint = tx(1, &calls).name();
    let finding = look(&reader, &unused, Some(&hint), &mut Watch::default(), 30);
    assert_eq!(finding, Finding::Pending(Pending::Redeemable));
}

#[test]
fn other_terms_than_signed_are_a_contradiction() {
    let check = |to, value, expected: &str| {
        let chain = chain();
        let (_, _, reader) = two(&chain);
        let pay = authorization(1, 300);
        // What was signed moves too, but not by this authorization.
        let calls = [transfer(PAYER, SELLER, 1_000), redeem_as(&pay, to, value), transfer(PAYER, SELLER, 1_000)];
        chain.mine(BEGIN + 10, vec![tx(1, &calls)]);
        grow(&chain, LAG);
        match look(&reader, &pay, None, &mut Watch::default(), 30) {
            Finding::Contradiction(text) => assert!(text.contains(expected), "{text}"),
            other => panic!("{other:?}"),
        }
    };
    check(OTHER, 1_000, &OTHER.to_string());
    check(SELLER, 1_001, "for 1001, and 1000 was signed");
    check(SELLER, u128::MAX, "was signed");
}

#[test]
fn less_than_signed_frees_the_rest_as_carefully_as_all_of_it() {
    let chain = chain();
    let (_, single) = one(&chain);
    let (_, _, double) = two(&chain);
    let pay = authorization(1, 300);
    chain.mine(BEGIN + 10, vec![tx(1, &[redeem_as(&pay, SELLER, 400)])]);
    grow(&chain, LAG);
    let Finding::Redeemed { evidence, amount } = look(&double, &pay, None, &mut Watch::default(), 30) else { panic!() };
    assert_eq!((amount, evidence.redeemed), (Atomic::new(400), Some(Atomic::new(400))));
    let mut watch = Watch::default();
    assert!(matches!(look(&single, &pay, None, &mut watch, 30), Finding::Pending(Pending::Confirming { .. })));
    final_at(&chain, 700);
    assert!(matches!(look(&single, &pay, None, &mut watch, 700), Finding::Redeemed { .. }));
}

#[test]
fn unused_needs_a_final_block_after_the_end_of_the_validity() {
    let chain = chain();
    let (_, _, reader) = two(&chain);
    let pay = authorization(1, 300);
    let mut watch = Watch::default();
    chain.mine(BEGIN + 299, Vec::new());
    grow(&chain, LAG);
    // The newest block is past the end, the final one a second before it.
    assert_eq!(chain.finalized().time, BEGIN + 299);
    assert!(chain.head().time > pay.valid_before);
    assert_eq!(look(&reader, &pay, None, &mut watch, 10_000), Finding::Pending(Pending::Redeemable));
    let last = chain.finalized().number + 1;
    grow(&chain, 1);
    let Finding::Unused { evidence, how: Unused::Expired } = look(&reader, &pay, None, &mut watch, 310) else {
        panic!("nobody can redeem it")
    };
    assert_eq!((evidence.block, evidence.block_time), (Some(last), Some(BEGIN + 301)));
    assert_eq!((evidence.transaction, evidence.nodes), (None, Some(2)));
}

#[test]
fn one_node_must_say_it_twice_ten_minutes_apart_by_both_clocks() {
    let pay = authorization(1, 300);
    let begin = || {
        let chain = chain();
        let (node, reader) = one(&chain);
        let mut watch = Watch::default();
        final_at(&chain, 300);
        let confirming = look(&reader, &pay, None, &mut watch, 320);
        assert!(matches!(confirming, Finding::Pending(Pending::Confirming { .. })), "{confirming:?}");
        (chain, node, reader, watch)
    };
    let waits = |reader: &Reader, watch: &mut Watch, seconds| {
        matches!(look(reader, &pay, None, watch, seconds), Finding::Pending(Pending::Confirming { .. }))
    };
    let done = |reader: &Reader, watch: &mut Watch, seconds| {
        matches!(look(reader, &pay, None, watch, seconds), Finding::Unused { .. })
    };

    // The chain stands still.
    let (_, _, reader, mut watch) = begin();
    assert!(waits(&reader, &mut watch, 320 + 10 * CONFIRM_SECONDS));
    // Our clock stands still, or went back.
    let (chain, _, reader, mut watch) = begin();
    final_at(&chain, 300 + 10 * CONFIRM_SECONDS);
    assert!(waits(&reader, &mut watch, 320) && waits(&reader, &mut watch, 0));
    // A second too early, by either.
    let (chain, _, reader, mut watch) = begin();
    final_at(&chain, 300 + CONFIRM_SECONDS - 1);
    assert!(waits(&reader, &mut watch, 320 + 10 * CONFIRM_SECONDS));
    let (chain, _, reader, mut watch) = begin();
    final_at(&chain, 300 + CONFIRM_SECONDS);
    assert!(waits(&reader, &mut watch, 320 + CONFIRM_SECONDS - 1));
    assert!(done(&reader, &mut watch, 320 + CONFIRM_SECONDS));
    // Kept over a restart.
    let (chain, _, reader, watch) = begin();
    final_at(&chain, 300 + CONFIRM_SECONDS);
    let mut kept: Watch = serde_json::from_str(&serde_json::to_string(&watch).unwrap()).unwrap();
    assert!(done(&reader, &mut kept, 320 + CONFIRM_SECONDS));
    // Another payment's readings are nobody else's.
    let mut other = watch.clone();
    assert!(matches!(
        look(&reader, &authorization(2, 300), None, &mut other, 320 + CONFIRM_SECONDS),
        Finding::Pending(Pending::Confirming { .. })
    ));
    // Another word in between begins anew.
    let (chain, node, reader, mut watch) = begin();
    node.set(Mood::Lying(Lie::StateUsed));
    assert!(is_unclear(&look(&reader, &pay, None, &mut watch, 400)));
    node.set(Mood::Honest);
    final_at(&chain, 300 + CONFIRM_SECONDS);
    assert!(waits(&reader, &mut watch, 320 + CONFIRM_SECONDS));
    // So does another reason.
    let (chain, _, reader, mut watch) = begin();
    chain.mine(BEGIN + 400, vec![tx(1, &[cancel(&pay)])]);
    final_at(&chain, 300 + CONFIRM_SECONDS);
    assert!(waits(&reader, &mut watch, 320 + CONFIRM_SECONDS));
    // No word does not.
    let (chain, node, reader, mut watch) = begin();
    node.set(Mood::Down);
    assert!(is_unclear(&look(&reader, &pay, None, &mut watch, 400)));
    node.set(Mood::Honest);
    final_at(&chain, 300 + CONFIRM_SECONDS);
    assert!(done(&reader, &mut watch, 320 + CONFIRM_SECONDS));
}

#[test]
fn a_first_reading_of_a_block_that_was_undone_does_not_count() {
    let chain = chain();
    let node = FakeNode::new("a", &chain);
    let nodes = [node];
    let pay = authorization(1, 300);
    let mut watch = Watch::default();
    final_at(&chain, 300);
    let first = reader_with(&nodes, Finality::Depth(0), None);
    assert!(matches!(look(&first, &pay, None, &mut watch, 320), Finding::Pending(Pending::Confirming { .. })));
    chain.undo(2);
    final_at(&chain, 300 + 2 * CONFIRM_SECONDS);
    // The reader that remembers says more: what was final is not.
    let finding = look(&first, &pay, None, &mut watch.clone(), 320 + CONFIRM_SECONDS);
    assert!(is_unclear(&finding), "{finding:?}");
    let anew = reader_with(&nodes, Finality::Depth(0), None);
    let finding = look(&anew, &pay, None, &mut watch, 320 + CONFIRM_SECONDS);
    assert!(matches!(finding, Finding::Pending(Pending::Confirming { .. })), "{finding:?}");
}

#[test]
fn a_final_cancellation_ends_it_early() {
    let chain = chain();
    let (_, _, reader) = two(&chain);
    let pay = authorization(1, 3_000);
    let mut watch = Watch::default();
    let cancelled = tx(1, &[cancel(&pay)]);
    let block = chain.mine(BEGIN + 10, vec![cancelled.clone()]);
    grow(&chain, LAG - 1);
    let finding = look(&reader, &pay, None, &mut watch, 20);
    let transaction = cancelled.name();
    assert_eq!(finding, Finding::Pending(Pending::Cancelling { transaction, block: block.number }));
    grow(&chain, 1);
    let Finding::Unused { evidence, how: Unused::Cancelled } = look(&reader, &pay, None, &mut watch, 20) else {
        panic!("it is final")
    };
    assert_eq!((evidence.transaction, evidence.block), (Some(cancelled.name()), Some(block.number)));
    // One node alone must say so twice.
    let (_, single) = one(&chain);
    let mut watch = Watch::default();
    assert!(matches!(look(&single, &pay, None, &mut watch, 20), Finding::Pending(Pending::Confirming { .. })));
    final_at(&chain, 20 + CONFIRM_SECONDS);
    assert!(matches!(look(&single, &pay, None, &mut watch, 20 + CONFIRM_SECONDS), Finding::Unused { .. }));
}

#[test]
fn a_redemption_in_a_block_that_was_undone_is_gone_and_may_come_back() {
    let chain = chain();
    let (_, _, reader) = two(&chain);
    let pay = authorization(1, 300);
    let mut watch = Watch::default();
    grow(&chain, 10);
    let redeemed = tx(1, &[redeem(&pay)]);
    chain.mine(BEGIN + 60, vec![redeemed.clone()]);
    let seen = |finding: Finding| matches!(finding, Finding::Pending(Pending::NotFinal { .. }));
    assert!(seen(look(&reader, &pay, Some(&redeemed.name()), &mut watch, 60)));
    // Lower than before, and nothing else there: not known to be gone.
    let back = chain.undo(1);
    grow(&chain, 2);
    let hint = redeemed.name();
    let gone = Finding::Gone { transaction: redeemed.name() };
    assert_eq!(look(&reader, &pay, Some(&hint), &mut watch, 62), gone);
    assert_eq!(look(&reader, &pay, Some(&hint), &mut watch, 62), Finding::Pending(Pending::Redeemable));
    chain.mine(BEGIN + 66, back);
    assert!(seen(look(&reader, &pay, Some(&hint), &mut watch, 66)));
    // Moved to another block at once: only moved.
    let back = chain.undo(1);
    grow(&chain, 1);
    chain.mine(BEGIN + 70, back);
    assert!(seen(look(&reader, &pay, None, &mut watch, 70)));
    grow(&chain, LAG);
    assert!(matches!(look(&reader, &pay, None, &mut watch, 90), Finding::Redeemed { .. }));
}

#[test]
fn a_node_that_is_behind_does_not_make_a_transaction_gone() {
    let chain = chain();
    let (node, reader) = one(&chain);
    let pay = authorization(1, 300);
    let mut watch = Watch::default();
    grow(&chain, 10);
    let redeemed = tx(1, &[redeem(&pay)]);
    chain.mine(BEGIN + 60, vec![redeemed.clone()]);
    assert!(matches!(look(&reader, &pay, None, &mut watch, 60), Finding::Pending(Pending::NotFinal { .. })));
    node.set(Mood::Lagging(1));
    grow(&chain, 1);
    node.set(Mood::Lagging(2));
    // What is final fell: no word at all.
    let behind = look(&reader, &pay, Some(&redeemed.name()), &mut watch, 62);
    assert!(matches!(&behind, Finding::Pending(Pending::NoAnswer(ReadError::Behind { .. }))), "{behind:?}");
    let anew = reader_with(&[node], Finality::Tag, None);
    assert_eq!(look(&anew, &pay, Some(&redeemed.name()), &mut watch, 62), Finding::Pending(Pending::Redeemable));
}

#[test]
fn receipts_of_undone_blocks_prove_nothing() {
    let chain = chain();
    let (node, reader) = one(&chain);
    let pay = authorization(1, 300);
    grow(&chain, 10);
    let redeemed = tx(1, &[redeem(&pay)]);
    chain.mine(BEGIN + 60, vec![redeemed.clone()]);
    chain.undo(1);
    // It was cancelled instead: the nonce is used up, and an old receipt says that it was redeemed.
    chain.mine(BEGIN + 60, vec![tx(2, &[cancel(&pay)])]);
    grow(&chain, LAG);
    node.set(Mood::Lying(Lie::StaleReceipts));
    let mut watch = Watch::default();
    let finding = look(&reader, &pay, Some(&redeemed.name()), &mut watch, 80);
    assert!(matches!(finding, Finding::Pending(Pending::Confirming { .. })), "{finding:?}");
    final_at(&chain, 1_000);
    let finding = look(&reader, &pay, Some(&redeemed.name()), &mut watch, 1_000);
    assert!(matches!(finding, Finding::Unused { how: Unused::Cancelled, .. }), "{finding:?}");
}

#[test]
fn what_was_final_stays_final() {
    let chain = chain();
    let node = FakeNode::new("a", &chain);
    let nodes = [node];
    grow(&chain, 20);
    let reader = reader_with(&nodes, Finality::Depth(3), None);
    let anchor = now(reader.anchor()).unwrap();
    assert_eq!(anchor.block().number, chain.head().number - 3);
    assert_eq!(anchor.finalized().block, anchor.block().number);
    // Deeper than the rule allows.
    chain.undo(4);
    grow(&chain, 2);
    assert!(matches!(now(reader.anchor()), Err(ReadError::Behind { .. })));
    grow(&chain, 2);
    assert!(matches!(now(reader.anchor()), Err(ReadError::Disagree(_))));
    grow(&chain, 10);
    assert!(matches!(now(reader.anchor()), Err(ReadError::Disagree(_))));
    // Also if only the caller remembers it.
    let told = reader_with(&nodes, Finality::Depth(3), Some(anchor.block()));
    assert!(matches!(now(told.anchor()), Err(ReadError::Disagree(_))));
    let pay = authorization(1, 300);
    let mut watch = Watch::default();
    assert!(is_unclear(&look(&told, &pay, None, &mut watch, 0)));
    assert!(is_unclear(&look(&told, &pay, None, &mut watch, LASTING_MS / 1_000 - 1)));
    let lasted = look(&told, &pay, None, &mut watch, LASTING_MS / 1_000);
    assert!(matches!(lasted, Finding::Contradiction(_)), "{lasted:?}");
}

#[test]
fn nodes_that_cannot_be_believed_are_named_with_what_to_do() {
    let check = |mood: Mood, words: [&str; 2]| {
        let chain = chain();
        let (_, b, reader) = two(&chain);
        let pay = authorization(1, 300);
        final_at(&chain, 400);
        b.set(mood);
        match look(&reader, &pay, None, &mut Watch::default(), 500) {
            Finding::Pending(Pending::NoAnswer(error)) => {
                let text = error.to_string();
                assert!(words.iter().all(|word| text.contains(word)), "{text}");
            }
            other => panic!("{other:?}"),
        }
    };
    check(Mood::Down, ["chain node b", "no answer"]);
    check(Mood::Lying(Lie::OtherChain(1)), ["chain node b", "it is of chain 1, not 84532"]);
    check(Mood::Lying(Lie::NoCode), ["chain node b", "no code at the token's address"]);
    check(Mood::Lying(Lie::NoAuthorizations), ["chain node b", "execution reverted"]);
    check(Mood::Lying(Lie::NoHashReads), ["chain node b", "EIP-1898"]);
    check(Mood::Lying(Lie::RefusesHashes), ["chain node b", "EIP-1898"]);
}

#[test]
fn one_lying_node_of_two_decides_nothing() {
    let lies = [
        Lie::NeverUsed,
        Lie::StateUnused,
        Lie::StateUsed,
        Lie::NoLogs,
        Lie::FinalAtHead,
        Lie::TimeAhead(100_000),
        Lie::PaidTo(OTHER),
        Lie::Paid(Atomic::new(1)),
        Lie::OtherHashes,
    ];
    for lie in lies {
        for (i, redeemed) in [true, false, true, false].into_iter().enumerate() {
            let chain = chain();
            let (a, b, reader) = two(&chain);
            let liar = if i < 2 { a } else { b };
            let pay = authorization(1, 3_000);
            let all: Vec<Transaction> = if redeemed { vec![tx(1, &[redeem(&pay)])] } else { Vec::new() };
            chain.mine(BEGIN + 10, all);
            grow(&chain, 100);
            liar.set(Mood::Lying(lie.clone()));
            let mut watch = Watch::default();
            for seconds in [300, 1_000, 5_000, 50_000] {
                match look(&reader, &pay, None, &mut watch, seconds) {
                    Finding::Unused { .. } => panic!("{lie:?} {i}"),
                    Finding::Redeemed { amount, .. } => {
                        // A lie that does not touch what is asked.
                        assert!(redeemed && amount == Atomic::new(1_000), "{lie:?} {i}");
                    }
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn a_contradiction_that_may_be_a_delay_must_last() {
    let chain = chain();
    let (node, reader) = one(&chain);
    let pay = authorization(1, 300);
    chain.mine(BEGIN + 10, vec![tx(1, &[redeem(&pay)])]);
    grow(&chain, LAG);
    node.set(Mood::Lying(Lie::NoLogs));
    let mut watch = Watch::default();
    assert!(is_unclear(&look(&reader, &pay, None, &mut watch, 0)));
    node.set(Mood::Down);
    assert!(is_unclear(&look(&reader, &pay, None, &mut watch, 2 * LASTING_MS / 1_000)), "silence is no contradiction");
    node.set(Mood::Lying(Lie::NoLogs));
    match look(&reader, &pay, None, &mut watch, LASTING_MS / 1_000) {
        Finding::Contradiction(text) => assert!(text.contains("no event tells where"), "{text}"),
        other => panic!("{other:?}"),
    }
    node.set(Mood::Honest);
    assert!(matches!(look(&reader, &pay, None, &mut watch, 4_000), Finding::Redeemed { .. }));
    node.set(Mood::Lying(Lie::NoLogs));
    assert!(is_unclear(&look(&reader, &pay, None, &mut watch, 5_000)), "counted anew");
}

#[test]
fn a_long_search_goes_on_where_it_was_even_in_small_steps() {
    let chain = chain();
    let (node, reader) = one(&chain);
    let pay = authorization(1, 300);
    // Older blocks than the payment, so that the search does not begin at the first.
    grow(&chain, 300);
    chain.mine(BEGIN + 200_000, Vec::new());
    let pay = Authorization { valid_before: BEGIN + 300_000, ..pay };
    chain.mine(BEGIN + 200_010, vec![tx(1, &[redeem(&pay)])]);
    grow(&chain, 1_200);
    node.set(Mood::Narrow(10));
    let mut watch = Watch::default();
    let mut looks = 0;
    loop {
        looks += 1;
        match look(&reader, &pay, None, &mut watch, 200_100) {
            Finding::Pending(Pending::Searching { through }) => {
                assert!(through < chain.finalized().number && looks < 100);
                watch = serde_json::from_str(&serde_json::to_string(&watch).unwrap()).unwrap();
            }
            Finding::Redeemed { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(looks > 1, "it is not all read at once");
}

#[test]
fn a_payment_of_another_network_is_not_looked_for_here() {
    let chain = chain();
    let (_, _, reader) = two(&chain);
    final_at(&chain, 400);
    let elsewhere = Network::new(8_453).unwrap();
    let pay = authorization(1, 300);
    let pay = Authorization { offer: Offer { network: elsewhere, ..pay.offer }, ..pay };
    let finding = look(&reader, &pay, None, &mut Watch::default(), 500);
    let error = ReadError::Network { reads: network(), asked: elsewhere };
    assert_eq!(finding, Finding::Pending(Pending::NoAnswer(error)));

    // Nor with what is final elsewhere.
    let other = Chain::new(elsewhere, OTHER, BEGIN + 1_000, 0);
    let node: Arc<dyn Node> = FakeNode::new("c", &other);
    let there = Reader::new(elsewhere, Finality::Tag, vec![node], None).unwrap();
    let anchor = now(there.anchor()).unwrap();
    let pay = authorization(1, 300);
    let at = Timestamp::from_secs(BEGIN + 2_000);
    let subject = Subject { authorization: &pay, created: at, transaction: None };
    let finding = now(reader.look_at(&anchor, subject, &mut Watch::default(), at));
    assert!(matches!(finding, Finding::Pending(Pending::NoAnswer(ReadError::Network { .. }))), "{finding:?}");
    assert!(now(reader.scan(&anchor, OTHER, &[PAYER].into(), (0, 0))).is_err());
}

#[test]
fn a_reader_needs_nodes_of_different_providers() {
    let chain = chain();
    let node = |name: &str| -> Arc<dyn Node> { FakeNode::new(name, &chain) };
    let new = |nodes| Reader::new(network(), Finality::Tag, nodes, None).map(|_| ());
    assert!(matches!(new(Vec::new()), Err(ReadError::Nodes(_))));
    assert!(matches!(new(vec![node("a"), node("a")]), Err(ReadError::Nodes(_))));
    let nine = (0..9).map(|i| node(&i.to_string())).collect();
    assert!(matches!(new(nine), Err(ReadError::Nodes(_))));
    assert!(new(vec![node("a"), node("b")]).is_ok());
    let short = reader_with(&[FakeNode::new("a", &chain)], Finality::Depth(3), None);
    assert!(matches!(now(short.anchor()), Err(ReadError::NotFinal { .. })));
}
